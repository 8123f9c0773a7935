# SPDX-License-Identifier: Apache-2.0
"""What a model and an image are made of: the one table of fields, for checks, defaults and the JSON Schemas.

PRIVATE to the collection. Pure, standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What systemd and docker allow in unit and container names, and what a URL path needs no escaping for.
NAME = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
_DIGEST = r"sha256:[0-9a-f]{64}"
# One line of printable text: it may become part of a unit.
_LINE = r"[^\x00-\x1f\x7f]*"
# Docker reads --mount as a line of CSV: no spaces, commas and quotes. Relative, and without going up.
_PATH = r"(?!.*(?:^|/)\.{1,2}(?:/|$))[!#-+\-.0-~][!#-+\--~]*"
_BOX_PATH = r"/?" + _PATH

ENGINES = ("sglang", "vllm", "llama.cpp", "ollama")
LANES = ("main", "utility")
STARTS = ("boot", "demand", "manual")
DOWNLOADS = ("site", "first_start", "never")
CAPABILITIES = ("chat", "tools", "reasoning", "vision", "embeddings", "rerank")
STATUSES = ("validated", "experimental", "broken")


class FieldError(ValueError):
    """A value that is not what its field wants. ``path`` leads to it from the top of the document."""

    def __init__(self, path: tuple[str, ...], sentence: str) -> None:
        super().__init__(f"{'.'.join(path)}: {sentence}" if path else sentence)
        self.path = path


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field. ``kind`` is text, int, number, bool, texts, map (of texts), flags, table or tables."""

    kind: str
    about: str
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    low: float = -math.inf
    high: float = math.inf
    table: Mapping[str, Field] | None = None


def _text(about: str, pattern: str = _LINE, **more: Any) -> Field:
    return Field(kind="text", about=about, pattern=pattern, **more)


def _gib(about: str) -> Field:
    return Field(kind="number", about=about, low=0, high=4096, default=0.0)


EXTRA_FILE = {
    "url": _text("Where it is fetched from.", r"https://\S+", required=True),
    "path": _text("Its name below the model's folder.", _PATH, required=True),
    "sha256": _text("Its checksum.", r"[0-9a-f]{64}"),
}
MEMORY = {
    "weights": _gib("The model's weights, in GiB."),
    "kv_cache": _gib("The cache for the practical context, in GiB."),
    "overhead": _gib("What the engine takes beside its share, in GiB: about 7 for vLLM and SGLang on GB10."),
}
CONTEXT = {
    "theoretical": Field(kind="int", about="What the model's configuration allows, in tokens.", low=1, high=2**31),
    "practical": Field(kind="int", about="What it is run with, in tokens.", low=1, high=2**31, default=4096),
}
STATUS = {
    "is": _text("How far it can be trusted.", choices=STATUSES, default="experimental"),
    "since": _text("When that was seen: year and month.", r"\d{4}-\d{2}"),
    "reason": _text("Why, in one sentence."),
    "evidence": _text("Who saw what, and where."),
}
MOUNT = {
    "source": _text("Path on the box, absolute or below the tree.", _BOX_PATH, required=True),
    "target": _text("Absolute path in the container.", r"/" + _PATH, required=True),
    "write": Field(kind="bool", about="The engine may write there.", default=False),
}
LIMITS = {
    "cpus": Field(kind="number", about="Processors it may use at most; 0: all.", low=0, high=1024, default=0),
    "memory_gib": Field(
        kind="number",
        about="Memory of its processes at most, in GiB; 0: no limit. What a GPU allocates is not seen by it.",
        low=0,
        high=4096,
        default=0,
    ),
}
CLIENTS = {
    "max_input_tokens": Field(kind="int", about="What a client should send at most.", low=1, high=2**31),
    "note": _text("What a client has to know."),
}

MODEL: dict[str, Field] = {
    "title": _text("What a person calls it."),
    "family": _text("Folder of its relatives below the models folder.", NAME, required=True),
    "folder": _text("Folder below its family's, where it is not the model's name: entries may share files.", NAME),
    "aliases": Field(kind="texts", about="Other names for it.", pattern=NAME, default=()),
    "repo": _text("Repository on the hub, owner/name.", r"[A-Za-z0-9][\w.-]*/[\w.-]+"),
    "revision": _text("Commit, tag or branch of the repository.", r"[\w./-]+", default="main"),
    "include": Field(kind="texts", about="Patterns of files to fetch; all where left out.", pattern=_LINE, default=()),
    "exclude": Field(kind="texts", about="Patterns of files to leave out.", pattern=_LINE, default=()),
    "gated": Field(kind="bool", about="Its licence has to be accepted on the hub."),
    "licence": _text("The hub's name of its licence."),
    "disk_gb": Field(kind="number", about="Size of its files in decimal GB.", low=0, high=10000),
    "disk_estimated": Field(kind="bool", about="That size is an estimate.", default=False),
    "engine": _text("The engine that serves it.", choices=ENGINES, required=True),
    "image": _text("A name of the catalog's images, or an image reference.", r"[A-Za-z0-9][\w./:@-]*", required=True),
    "file": _text("llama.cpp: its file, or first part, below the model's folder.", _PATH),
    "ollama": _text("Ollama: its tag.", r"[a-z0-9][\w./:-]*"),
    "argv": Field(
        kind="flags", about="Flags of the engine, in long form; true is a flag without a value.", default=None
    ),
    "fork_flags": Field(
        kind="texts", about="Flags that only a fork of the engine knows.", pattern=r"--[a-z0-9-]+", default=()
    ),
    "env": Field(kind="map", about="Environment of the engine; values are text.", pattern=_LINE, default=None),
    "extra_files": Field(kind="tables", about="Files it needs beside its own.", table=EXTRA_FILE, default=()),
    "download": _text(
        "When its files are fetched: by site.yml, before its first start, or never: then somebody puts them there.",
        choices=DOWNLOADS,
        default="site",
    ),
    "mounts": Field(kind="tables", about="Further folders or files of the box for it.", table=MOUNT, default=()),
    "limits": Field(kind="table", about="Limits of its container.", table=LIMITS, default=None),
    "context": Field(kind="table", about="Longest conversation.", table=CONTEXT, default=None),
    "memory_gib": Field(kind="table", about="What the loaded engine needs.", table=MEMORY, required=True),
    "memory_estimated": Field(kind="bool", about="Nobody measured that need.", default=False),
    "start_timeout": Field(
        kind="int", about="Seconds until a loading engine has failed.", low=1, high=86400, default=900
    ),
    "stop_timeout": Field(kind="int", about="Seconds until a stopping engine is killed.", low=1, high=3600, default=30),
    "load_s": Field(kind="number", about="Expected time to load, in seconds.", low=0, high=86400),
    "capabilities": Field(kind="texts", about="What it can do.", choices=CAPABILITIES, default=("chat",)),
    "lane": _text("main: one at a time; utility: beside it.", choices=LANES, default="main"),
    "start": _text("When it is started.", choices=STARTS, default="demand"),
    "pinned": Field(kind="bool", about="Never stopped to make room for another model.", default=False),
    "nodes": Field(kind="int", about="Sparks it needs.", low=1, high=8, default=1),
    "port": Field(kind="int", about="Port on the box's loopback; 0: the next free one.", low=0, high=65535, default=0),
    "status": Field(kind="table", about="How far it can be trusted, and why.", table=STATUS, default=None),
    "force": Field(kind="bool", about="Run it though it is broken.", default=False),
    "good_for": Field(kind="texts", about="What to choose it for.", pattern=_LINE, default=()),
    "decode_tps": _text("Tokens per second of one stream on GB10, where measured."),
    "clients": Field(kind="table", about="Limits for client configurations.", table=CLIENTS, default=None),
    "caveats": Field(kind="texts", about="What to look out for.", pattern=_LINE, default=()),
    "sources": Field(kind="texts", about="Where all this is from.", pattern=_LINE, default=()),
}

IMAGE: dict[str, Field] = {
    "engine": _text("The engine in it.", choices=ENGINES, required=True),
    "ref": _text("Registry reference; one of it and build.", r"[A-Za-z0-9][\w./:-]*"),
    "digest": _text("Digest of the image.", _DIGEST),
    "architectures": Field(
        kind="texts", about="Architectures it exists for.", choices=("arm64", "amd64"), required=True
    ),
    "engine_version": _text("Version of the engine."),
    "cuda": _text("Version of CUDA."),
    "min_driver": _text("Oldest driver branch it runs with."),
    "keep_entrypoint": Field(
        kind="bool", about="Its own entrypoint prepares the engine and has to run first.", default=False
    ),
    "build": _text(
        "Recipe that makes it on the box: a name in catalog/recipes, or the path of a folder on the controller.",
        r"[^\x00-\x1f\x7f]+",
    ),
    "fork": _text("Fork whose own flags it knows.", NAME),
    "known_failures": Field(kind="texts", about="What fails with it.", pattern=_LINE, default=()),
    "sources": Field(kind="texts", about="Where all this is from.", pattern=_LINE, default=()),
}


def check(table: Mapping[str, Field], data: Any, path: tuple[str, ...] = (), partial: bool = False) -> dict[str, Any]:
    """The values of ``data`` with the defaults of ``table``; with ``partial`` only what is there, for overrides.

    Raises FieldError for an unknown or missing field and for a value of the wrong kind.
    """
    if not isinstance(data, Mapping):
        raise FieldError(path, f"must be a mapping of fields, is {data!r}")
    for name in data:
        if name not in table:
            raise FieldError((*path, str(name)), f"unknown field; known: {', '.join(sorted(table))}")
    values: dict[str, Any] = {}
    for name, field in table.items():
        if data.get(name) is None:
            if partial:
                continue
            if field.required:
                raise FieldError((*path, name), "is required")
            if field.table is not None and field.kind == "table":
                values[name] = check(field.table, {}, (*path, name))
            else:
                values[name] = field.default
        else:
            values[name] = _value(field, data[name], (*path, name), partial)
    return values


def _value(field: Field, value: Any, path: tuple[str, ...], partial: bool) -> Any:
    if field.kind == "table" and field.table is not None:
        return check(field.table, _short(field.table, value), path, partial)
    if field.kind == "tables" and field.table is not None:
        return tuple(check(field.table, one, (*path, str(index))) for index, one in enumerate(_list(value, path)))
    if field.kind == "texts":
        return tuple(_scalar(field, "text", one, (*path, str(index))) for index, one in enumerate(_list(value, path)))
    if field.kind == "map":
        return {str(name): _scalar(field, "text", one, (*path, str(name))) for name, one in _map(value, path).items()}
    if field.kind == "flags":
        return {_flag(name, path): _flag_value(one, (*path, str(name))) for name, one in _map(value, path).items()}
    return _scalar(field, field.kind, value, path)


def _short(table: Mapping[str, Field], value: Any) -> Any:
    """A bare number for a table of numbers: a context is the practical one, a memory need is the need of all parts."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if table is CONTEXT:
            return {"practical": value}
        if table is MEMORY:
            return {**dict.fromkeys(table, 0), "weights": value}
    return value


def merge(table: Mapping[str, Field], base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the fields of ``over``, both checked: tables, maps and flags by key, all else as a whole."""
    merged = dict(base)
    for name, value in over.items():
        by_key = table[name].kind in ("table", "map", "flags")
        merged[name] = {**(base[name] or {}), **value} if by_key else value
    return merged


def _list(value: Any, path: tuple[str, ...]) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise FieldError(path, f"must be a list, is {value!r}")
    return list(value)


def _map(value: Any, path: tuple[str, ...]) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise FieldError(path, f"must be a mapping, is {value!r}")
    return value


def _flag(name: Any, path: tuple[str, ...]) -> str:
    # vLLM and SGLang have flags with underscores too.
    if not isinstance(name, str) or not re.fullmatch(r"--[a-z][a-z0-9_.-]*", name):
        raise FieldError(path, f"a flag is written in full, like --threads, is {name!r}")
    return name


def _flag_value(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_flag_value(one, path) for one in value)
    if not isinstance(value, (str, int, float, bool)):
        raise FieldError(path, "must be text, a number, a list, or true for a flag without a value")
    if not str(value).isprintable():
        raise FieldError(path, f"must be printable text on one line, is {value!r}")
    return value


_KINDS: dict[str, tuple[Any, str]] = {
    "text": (str, "text"),
    "int": (int, "a whole number"),
    "number": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}


def _scalar(field: Field, kind: str, value: Any, path: tuple[str, ...]) -> Any:
    types, words = _KINDS[kind]
    if not isinstance(value, types) or (kind != "bool" and isinstance(value, bool)):
        raise FieldError(path, f"must be {words}, is {value!r}")
    if field.choices and value not in field.choices:
        raise FieldError(path, f"must be one of {', '.join(field.choices)}, is {value!r}")
    if kind == "text" and not field.choices and not re.fullmatch(field.pattern, value):
        raise FieldError(path, f"is not well formed: {value!r} (wanted: {field.about[0].lower()}{field.about[1:]})")
    if kind in ("int", "number") and not field.low <= value <= field.high:
        raise FieldError(path, f"must be {field.low:g} to {field.high:g}, is {value}")
    return value


def json_schema(table: Mapping[str, Field], title: str) -> dict[str, Any]:
    """The table as a JSON Schema, draft 2020-12: for editors, and for whoever checks files without Ansible."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_object(table)}


def _object(table: Mapping[str, Field]) -> dict[str, Any]:
    required = [name for name, field in table.items() if field.required]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": field.about, **_property(field)} for name, field in table.items()},
        **({"required": required} if required else {}),
    }


def _property(field: Field) -> dict[str, Any]:
    if field.kind == "table" and field.table is not None:
        return _object(field.table)
    if field.kind == "tables" and field.table is not None:
        return {"type": "array", "items": _object(field.table)}
    if field.kind == "texts":
        return {"type": "array", "items": _scalar_schema(field, "text")}
    if field.kind == "map":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if field.kind == "flags":
        value = {"type": ["string", "number", "boolean"]}
        return {
            "type": "object",
            "propertyNames": {"pattern": "^--[a-z][a-z0-9_.-]*$"},
            "additionalProperties": {"anyOf": [value, {"type": "array", "items": value}]},
        }
    return _scalar_schema(field, field.kind)


def _scalar_schema(field: Field, kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": {"text": "string", "int": "integer", "number": "number", "bool": "boolean"}[kind]}
    if field.choices:
        schema["enum"] = list(field.choices)
    elif kind == "text" and field.pattern != _LINE:
        schema["pattern"] = f"^(?:{field.pattern})$"
    if field.low > -math.inf:
        schema["minimum"] = field.low
    if field.high < math.inf:
        schema["maximum"] = field.high
    if field.default not in (None, ()) and kind == field.kind:
        schema["default"] = field.default
    return schema
