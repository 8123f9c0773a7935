# SPDX-License-Identifier: Apache-2.0
"""The contract between the two halves: /etc/hearth/engines.json, written by the role ``engines``.

The box half knows nothing of the catalog. What it knows of an engine is here, complete and resolved.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from hearth.errors import ContractError, UnknownModelError

PATH = Path("/etc/hearth/engines.json")
SCHEMA = 1

EngineKind = Literal["llama.cpp", "vllm", "sglang", "ollama"]
Lane = Literal["main", "utility"]
Start = Literal["boot", "demand", "manual"]
Capability = Literal["chat", "tools", "reasoning", "vision", "embeddings", "rerank"]


class Fetch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model's files, to be downloaded before its engine's first start: hearth.download.Request as data.

    ``token_file`` is a file of the box, or empty; the token itself is never here. ``ollama`` is the tag of a model of
    Ollama's registry, ``image`` what Ollama is run from.
    """

    folder: str
    repo: str
    revision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    extra_files: tuple[dict[str, Any], ...]
    endpoint: str
    token_file: str
    offline: bool
    uid: int
    gid: int
    reserve_bytes: int
    ollama: str = ""
    image: str = ""


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One engine as the box runs it: one model, one unit, one port on loopback.

    ``model_path`` is what has to be there before a start: the model's file or folder, Ollama's store. ``tag`` is what
    Ollama calls the model, empty for other engines. A ``pinned`` engine is never stopped to make room for another.
    ``fetch`` is there where the box downloads the model itself, before the first start. ``mounts`` are further files
    and folders of the box that the engine has.
    ``memory_gib`` is in GiB (2**30 bytes); both timeouts and ``load_s``, the expected time to load (0: unknown), are in
    seconds.
    """

    name: str
    engine: EngineKind
    unit: str
    container: str
    image: str
    model_path: str
    tag: str
    port: int
    served_name: str
    lane: Lane
    start: Start
    pinned: bool
    memory_gib: float
    capabilities: tuple[Capability, ...]
    aliases: tuple[str, ...]
    start_timeout_s: int
    stop_timeout_s: int
    load_s: float
    fetch: Fetch | None = None
    mounts: tuple[str, ...] = ()

    @property
    def base_url(self) -> str:
        """The engine's own address, on the box's loopback."""
        return f"http://127.0.0.1:{self.port}"


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All engines of this box.

    ``key_file`` is an env file with the key that engines ask for; ``floor_gib`` is what no start may take from the
    host itself, in GiB.
    """

    schema: int
    key_file: str
    floor_gib: float
    engines: tuple[Engine, ...]

    def find(self, name: str) -> Engine:
        """The engine called ``name``, by its name or one of its aliases.

        Raises UnknownModelError, with the closest known name where one is close.
        """
        known: dict[str, Engine] = {}
        for engine in self.engines:
            for key in (engine.name, *engine.aliases):
                known[key] = engine
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f": did you mean {close[0]!r}? known: " if close else "; known: "
        raise UnknownModelError(f"unknown model {name!r}{hint}{', '.join(sorted(known)) or 'none'}")


class _Version(msgspec.Struct):
    """Only the field that says how to read the rest."""

    schema: int


def load(path: Path = PATH) -> Contract:
    """Read the contract.

    Raises ContractError where the file is missing, is not what the schema says, or is of another schema version.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ContractError(f"{path} is missing: run site.yml against this box first") from None
    except OSError as error:
        raise ContractError(f"{path} cannot be read ({error.strerror}): run this as root") from None
    try:
        schema = msgspec.json.decode(raw, type=_Version).schema
        if schema != SCHEMA:
            raise ContractError(
                f"{path} has schema {schema}, this version of hearth reads schema {SCHEMA}: run site.yml again"
            )
        return msgspec.json.decode(raw, type=Contract)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{path} is not valid ({error}): run site.yml again") from None


def read_key(contract: Contract) -> str:
    """The key that engines of this box ask for; empty where there is none.

    A service that is not root's has the file as a credential (systemd.exec(5), LoadCredential=).
    Raises ContractError where the file exists but may not be read.
    """
    path = Path(contract.key_file)
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), path.name)
    try:
        path = credential if credential.is_file() else path
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ContractError(f"{path} cannot be read ({error.strerror}): run this as root") from None
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name == "LLAMA_API_KEY":
            return value.strip()
    return ""
