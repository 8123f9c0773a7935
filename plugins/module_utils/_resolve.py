# SPDX-License-Identifier: Apache-2.0
"""Resolution on the controller: models of the inventory become complete engines. Pure functions, no I/O.

PRIVATE to the collection: used by its filter plugins only.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _engines
from ansible_collections.hearth.spark.plugins.module_utils._fields import CAPABILITIES, LANES, NAME, STARTS

SCHEMA = 1
KEY_FILE = "/etc/hearth/secrets/engine.env"

# First port of each kind of engine; the next free one is taken for each further model (docs/box.md).
FIRST_PORT = {"llama.cpp": 8080}
# Of the gateway and of Open WebUI (docs/box.md).
RESERVED_PORTS = (8009, 12000)
# Said once, elsewhere: the unit's port, the served name, the mounted file, and the key, which no argv may hold.
OWN_FLAGS = ("--model", "--alias", "--host", "--port", "--api-key", "--api-key-file")


class ResolveError(ValueError):
    """One sentence that names the variable, the model and the field."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What resolution needs to know of the box (from the module spark_facts)."""

    models_dir: str
    cache_dir: str
    uid: int
    gid: int
    gpu: str


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A complete engine: what engines.json holds of it, and how its container is run."""

    contract: dict[str, Any]
    docker: tuple[str, ...]
    cache_dir: str
    restart_window_s: int


@dataclass(frozen=True)
class _Field:
    kind: type | tuple[type, ...]
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()


# The fields of one model in `engines_models`; roles/engines/meta/argument_specs.yml documents the same ones.
FIELDS: dict[str, _Field] = {
    "engine": _Field(str, required=True, choices=tuple(FIRST_PORT)),
    "image": _Field(str, required=True),
    "file": _Field(str, required=True),
    "aliases": _Field(list, default=()),
    "port": _Field(int, default=0),
    "context": _Field(int, default=4096),
    "memory_gib": _Field((int, float), required=True),
    "lane": _Field(str, default="main", choices=LANES),
    "start": _Field(str, default="demand", choices=STARTS),
    "capabilities": _Field(list, default=("chat",)),
    "argv": _Field(dict, default=None),
    "start_timeout": _Field(int, default=900),
    "stop_timeout": _Field(int, default=30),
}


def resolve(models: Mapping[str, Any], host: Host, source: str = "engines_models") -> list[Resolved]:
    """Complete engines of ``models``, in their order, by which ports are given: a model added last moves nobody's.

    ``source`` is the variable's name, for messages. Raises ResolveError for anything that could not run.
    """
    checked = {name: _check(source, name, model) for name, model in models.items()}
    _check_names(source, checked)
    ports = _assign_ports(source, checked)
    return [_resolve_one(name, model, ports[name], host) for name, model in checked.items()]


def _check(source: str, name: Any, model: Any) -> dict[str, Any]:
    where = f"{source}.{name}"
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ResolveError(
            f"{where}: a model's name is made of a-z, 0-9, '.', '_' and '-', starts and ends with a letter or digit, "
            "and is at most 63 long"
        )
    if not isinstance(model, Mapping):
        raise ResolveError(f"{where}: must be a mapping of fields, is {type(model).__name__}")
    for field in model:
        if field not in FIELDS:
            raise ResolveError(f"{where}.{field}: unknown field; known: {', '.join(sorted(FIELDS))}")
    values: dict[str, Any] = {}
    for field, rule in FIELDS.items():
        if field not in model or model[field] is None:
            if rule.required:
                raise ResolveError(f"{where}.{field}: is required")
            values[field] = rule.default
            continue
        value = model[field]
        if isinstance(value, bool) or not isinstance(value, rule.kind):
            kinds = rule.kind if isinstance(rule.kind, tuple) else (rule.kind,)
            raise ResolveError(f"{where}.{field}: must be {' or '.join(kind.__name__ for kind in kinds)}, is {value!r}")
        if rule.choices and value not in rule.choices:
            raise ResolveError(f"{where}.{field}: must be one of {', '.join(rule.choices)}, is {value!r}")
        values[field] = value
    _check_values(where, values)
    return values


def _check_values(where: str, values: Mapping[str, Any]) -> None:
    for field, low, high in (
        ("port", 0, 65535),
        ("context", 1, 2**31),
        ("start_timeout", 1, 86400),
        ("stop_timeout", 1, 3600),
    ):
        if not low <= values[field] <= high:
            raise ResolveError(f"{where}.{field}: must be {low} to {high}, is {values[field]}")
    if values["port"] in RESERVED_PORTS or 0 < values["port"] < 1024:
        raise ResolveError(
            f"{where}.port: {values['port']} is not for engines; choose one from 1024 on, not "
            f"{' or '.join(map(str, RESERVED_PORTS))}"
        )
    if not 0 < values["memory_gib"] < math.inf:
        raise ResolveError(f"{where}.memory_gib: must be more than 0, is {values['memory_gib']}")
    for capability in values["capabilities"]:
        if capability not in CAPABILITIES:
            raise ResolveError(f"{where}.capabilities: must be some of {', '.join(CAPABILITIES)}, has {capability!r}")
    _check_file(where, values["file"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", values["image"]):
        raise ResolveError(f"{where}.image: is not an image reference: {values['image']!r}")
    _check_argv(where, values["argv"] or {})


def _check_file(where: str, path: str) -> None:
    if path.startswith(("/", "..")) or posixpath.normpath(path) != path or "/" not in path:
        raise ResolveError(
            f"{where}.file: must be a path below the models folder, <family>/<model>/<file>.gguf, is {path!r}"
        )
    # Docker reads --mount as a line of CSV.
    if not re.fullmatch(r"[!#-+\--~]+", path):
        raise ResolveError(f"{where}.file: must be printable ASCII without spaces and commas, nor quotes, is {path!r}")


def _check_argv(where: str, argv: Mapping[Any, Any]) -> None:
    for flag, value in argv.items():
        if not re.fullmatch(r"--[a-z][a-z0-9-]*", str(flag)):
            raise ResolveError(f"{where}.argv: a flag is written in full, like --threads, is {flag!r}")
        if flag in OWN_FLAGS:
            raise ResolveError(f"{where}.argv.{flag}: is set by Hearth and cannot be changed here")
        if not isinstance(value, (str, int, float, bool)):
            raise ResolveError(f"{where}.argv.{flag}: must be text, a number, or true for a flag without a value")
        if not str(value).isprintable():
            raise ResolveError(f"{where}.argv.{flag}: must be printable text on one line, is {value!r}")


def _check_names(source: str, models: Mapping[str, Mapping[str, Any]]) -> None:
    taken: dict[str, str] = {name: name for name in models}
    for name, model in models.items():
        for alias in model["aliases"]:
            if not isinstance(alias, str) or not re.fullmatch(NAME, alias):
                raise ResolveError(f"{source}.{name}.aliases: {alias!r} is not a name (a-z, 0-9, '.', '_', '-')")
            if alias in taken:
                raise ResolveError(f"{source}.{name}.aliases: {alias!r} is already a name of {taken[alias]}")
            taken[alias] = name
    if "none" in taken:
        raise ResolveError(f"{source}.{taken['none']}: the name 'none' means no model; choose another")
    for lane in LANES:
        boot = [name for name, model in models.items() if model["lane"] == lane and model["start"] == "boot"]
        if lane == "main" and len(boot) > 1:
            raise ResolveError(
                f"{source}: {' and '.join(boot)} both have start: boot, and one model of the main lane runs at a time; "
                "leave it with one of them"
            )


def _assign_ports(source: str, models: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    ports: dict[str, int] = {}
    owners: dict[int, str] = {}
    for name, model in models.items():
        if model["port"]:
            if model["port"] in owners:
                raise ResolveError(
                    f"{source}.{name}.port: {model['port']} is already the port of {owners[model['port']]}"
                )
            owners[model["port"]] = name
            ports[name] = model["port"]
    for name, model in models.items():
        if not model["port"]:
            port = FIRST_PORT[model["engine"]]
            while port in owners:
                port += 1
            owners[port] = name
            ports[name] = port
    return ports


def _resolve_one(name: str, model: Mapping[str, Any], port: int, host: Host) -> Resolved:
    cache_dir = posixpath.join(host.cache_dir, "llama.cpp")
    contract = {
        "name": name,
        "engine": model["engine"],
        "unit": f"hearth-engine-{name}.service",
        "container": f"hearth-{name}",
        "image": model["image"],
        "model_path": posixpath.join(host.models_dir, model["file"]),
        "port": port,
        "served_name": name,
        "lane": model["lane"],
        "start": model["start"],
        "memory_gib": float(model["memory_gib"]),
        "capabilities": list(model["capabilities"]),
        "aliases": list(model["aliases"]),
        "start_timeout_s": model["start_timeout"],
        "stop_timeout_s": model["stop_timeout"],
    }
    return Resolved(
        contract=contract,
        docker=_docker_run(contract, _llama_argv(contract, model, host), cache_dir, host),
        cache_dir=cache_dir,
        # Three failed starts, each up to its timeout, must fall into one window, or a crash loop never ends.
        restart_window_s=3 * model["start_timeout"] + 300,
    )


def _llama_argv(contract: Mapping[str, Any], model: Mapping[str, Any], host: Host) -> list[str]:
    """llama-server's command line, as for a model of the catalog whose folder holds this file."""
    entry = {
        **model,
        "file": posixpath.basename(contract["model_path"]),
        "context": {"practical": model["context"]},
    }
    # llama.cpp takes no share of the host's memory, so its size has no part in it.
    run = _engines.Run(
        name=contract["served_name"], model=entry, port=contract["port"], total_gib=0, gpu=host.gpu != "none"
    )
    return _engines.argv(run)


def _docker_run(contract: Mapping[str, Any], argv: Sequence[str], cache_dir: str, host: Host) -> tuple[str, ...]:
    """The whole ``docker run``: models read-only, only the cache writable, no way to more rights, loopback only."""
    models_dir = posixpath.dirname(contract["model_path"])
    command = ["/usr/bin/docker", "run", "--rm", "--name", contract["container"]]
    # Pulling is the role's work: a start never waits for a registry.
    command += ["--pull", "never"]
    # The unit's journal is the one place of the log; attached output does not need a log driver.
    command += ["--log-driver", "none", "--label", f"hearth.engine={contract['name']}"]
    command += ["--user", f"{host.uid}:{host.gid}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    command += ["--read-only", "--tmpfs", "/tmp:rw,nosuid,nodev"]  # noqa: S108 - the container's own
    if host.gpu != "none":
        # Pinned memory, thousands of shards: NVIDIA's playbooks raise both limits (GB10 platform survey, 2.2, 2.3).
        command += ["--device", host.gpu, "--ulimit", "memlock=-1", "--ulimit", "nofile=1048576"]
    command += ["--publish", f"127.0.0.1:{contract['port']}:{contract['port']}"]
    command += ["--mount", f"type=bind,source={models_dir},target={_engines.MODEL_DIR},readonly"]
    command += ["--mount", f"type=bind,source={cache_dir},target=/cache", "--env", "XDG_CACHE_HOME=/cache"]
    command += ["--env", "HOME=/cache", "--env-file", KEY_FILE]
    return (*command, contract["image"], *argv)


def contract_json(resolved: Sequence[Resolved]) -> str:
    """The text of engines.json, stable from run to run."""
    document = {
        "schema": SCHEMA,
        "key_file": KEY_FILE,
        "engines": [engine.contract for engine in resolved],
    }
    return json.dumps(document, indent=2) + "\n"


def as_dicts(resolved: Sequence[Resolved]) -> list[dict[str, Any]]:
    """The engines as plain data, for templates and tasks: the contract's fields and what the unit needs beside them."""
    return [
        {
            **engine.contract,
            "docker": list(engine.docker),
            "exec_start": systemd_command(engine.docker),
            "cache_dir": engine.cache_dir,
            "restart_window_s": engine.restart_window_s,
        }
        for engine in resolved
    ]


def systemd_command(argv: Sequence[str]) -> str:
    """An ExecStart= value, an option a line; quoted as systemd.service(5), "COMMAND LINES", wants it."""
    words = [_systemd_word(word) for word in argv]
    lines: list[str] = []
    for word in words:
        if lines and not word.startswith("-") and lines[-1].startswith("--") and " " not in lines[-1]:
            lines[-1] += f" {word}"
        elif not lines or word.startswith("-") or lines[-1].startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n    ".join(lines)


def _systemd_word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    if escaped and re.fullmatch(r"[A-Za-z0-9_@%+=:,./$-]+", escaped):
        return escaped
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t") + '"'
