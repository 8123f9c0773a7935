# SPDX-License-Identifier: Apache-2.0
"""Resolution on the controller: models of catalog and inventory become complete engines. Pure functions, no I/O.

PRIVATE to the collection: used by its filter plugins only.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _docker, _downloads, _engines, _images
from ansible_collections.hearth.spark.plugins.module_utils._complete import Machine, Model, ResolveError, complete

SCHEMA = 1

# First port of each kind of engine; the next free one is taken for each further model (docs/box.md).
FIRST_PORT = {"sglang": 30000, "vllm": 8000, "llama.cpp": 8080, "ollama": 11434}
# Of the gateway and of Open WebUI (docs/box.md).
RESERVED_PORTS = (8009, 12000)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A complete engine: what engines.json holds of it, how its container is run, and the download of its files.

    ``model`` has its image by its name on the box, ``flags`` are those of its command line.
    """

    contract: dict[str, Any]
    model: Model
    flags: tuple[str, ...]
    download: _downloads.Download | None
    docker: tuple[str, ...]
    cache_dir: str
    restart_window_s: int


def resolve(
    models: Mapping[Any, Any],
    images: Mapping[Any, Any],
    catalog: _catalog.Catalog,
    machine: Machine,
    place: _docker.Place,
    source: str = "engines_models",
    hub: _downloads.Hub = _downloads.Hub(),  # noqa: B008 - frozen
    recipes: Mapping[str, str] | None = None,
    known: _images.Known = _images.Known.of(None),  # noqa: B008 - frozen
) -> list[Resolved]:
    """Complete engines of ``models``, in their order, by which ports are given: a model added last moves nobody's.

    ``source`` is the variable's name, for messages; ``recipes``: see _complete.complete. Raises ResolveError for
    anything that could not run.
    """
    done = _images.placed(complete(models, images, catalog, machine, source, recipes=recipes), known)
    try:
        planned = _downloads.plan(
            {name: model.fields for name, model in done.items()},
            place.root,
            {name: model.image["ref"] for name, model in done.items()},
        )
    except _downloads.DownloadError as error:
        raise ResolveError(f"{source}.{error}") from None
    downloads = {name: download for download in planned.values() for name in download.models}
    ports = _assign_ports(source, {name: model.fields for name, model in done.items()})
    longest_s = max((model.fields["start_timeout"] for model in done.values()), default=0)
    return [
        _resolve_one(name, model, ports[name], machine, place, longest_s, downloads.get(name), hub)
        for name, model in done.items()
    ]


def _assign_ports(source: str, models: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    ports: dict[str, int] = {}
    owners: dict[int, str] = dict.fromkeys(RESERVED_PORTS, "")
    for name, model in models.items():
        port = model["port"]
        if not port:
            continue
        if port in RESERVED_PORTS or port < 1024:
            raise ResolveError(
                f"{source}.{name}.port: {port} is not for engines; choose one from 1024 on, not "
                f"{' or '.join(map(str, RESERVED_PORTS))}"
            )
        if port in owners:
            raise ResolveError(f"{source}.{name}.port: {port} is already the port of {owners[port]}")
        owners[port] = name
        ports[name] = port
    for name, model in models.items():
        if not model["port"]:
            port = FIRST_PORT[model["engine"]]
            while port in owners:
                port += 1
            owners[port] = name
            ports[name] = port
    return ports


def _resolve_one(
    name: str,
    model: Model,
    port: int,
    machine: Machine,
    place: _docker.Place,
    longest_s: int,
    download: _downloads.Download | None,
    hub: _downloads.Hub,
) -> Resolved:
    fields = model.fields
    store = _docker.store_dir(place, name, fields)
    contract = {
        "name": name,
        "engine": fields["engine"],
        "unit": f"hearth-engine-{name}.service",
        "container": f"hearth-{name}",
        "image": model.image["ref"],
        "model_path": posixpath.join(store, fields["file"]) if fields["engine"] == "llama.cpp" else store,
        "tag": fields["ollama"] or "",
        "port": port,
        "served_name": name,
        "lane": fields["lane"],
        "start": fields["start"],
        "pinned": fields["pinned"],
        "memory_gib": round(_catalog.need_gib(fields), 3),
        "capabilities": list(fields["capabilities"]),
        "aliases": list(fields["aliases"]),
        "start_timeout_s": fields["start_timeout"],
        "stop_timeout_s": fields["stop_timeout"],
        "load_s": float(fields["load_s"] or 0),
        "fetch": hub.fetch(download, place.uid, place.gid) if download and download.when == "first_start" else None,
        "mounts": [posixpath.join(place.root, mount["source"]) for mount in fields["mounts"]],
    }
    run = _engines.Run(name=name, model=fields, port=port, total_gib=machine.total_gib, gpu=machine.gpu)
    return Resolved(
        contract=contract,
        model=model,
        flags=tuple(_engines.flags(run)),
        download=download,
        docker=_docker.docker_run(contract, model, _engines.argv(run), place),
        cache_dir=_docker.cache_dir(place, fields),
        # Three failed starts must fall into one window, or a crash loop never ends: each may wait for another engine's
        # start and for memory (two minutes in all, admission.longest_wait_s), and then last up to its own timeout.
        restart_window_s=3 * (fields["start_timeout"] + longest_s + 120) + 300,
    )


def contract_json(resolved: Sequence[Resolved], floor_gib: float) -> str:
    """The text of engines.json, stable from run to run."""
    document = {
        "schema": SCHEMA,
        "key_file": _docker.KEY_FILE,
        "floor_gib": round(floor_gib, 3),
        "engines": [engine.contract for engine in resolved],
    }
    return json.dumps(document, indent=2) + "\n"


def downloads(resolved: Sequence[Resolved]) -> list[dict[str, Any]]:
    """What site.yml is to download, as hearth.spark.model takes it: each folder once, and each tag of Ollama."""
    now = [engine.download for engine in resolved if engine.download and engine.download.when == "site"]
    return [download.request() for index, download in enumerate(now) if download not in now[:index]]


def images(resolved: Sequence[Resolved], place: _docker.Place) -> list[dict[str, Any]]:
    """What is to be on the box before the engines' units are, as hearth.spark.images takes it."""
    models = {engine.contract["name"]: engine.model for engine in resolved}
    return _images.wanted(models, {engine.contract["name"]: engine.flags for engine in resolved}, place)


def held(resolved: Sequence[Resolved]) -> list[str]:
    """For a person: who was taken back to an earlier image, and what would be otherwise."""
    return [
        f"{engine.contract['name']} runs from {engine.contract['image']}, which it was taken back to, in place of "
        f"{engine.model.image['held']}; images.yml -e do=update takes it forward again"
        for engine in resolved
        if engine.model.image.get("held")
    ]


def as_dicts(resolved: Sequence[Resolved]) -> list[dict[str, Any]]:
    """The engines as plain data, for templates and tasks: the contract's fields and what the unit needs beside them."""
    return [
        {
            **engine.contract,
            "fetched": engine.download is not None,
            "docker": list(engine.docker),
            "exec_start": _docker.systemd_command(engine.docker),
            "cache_dir": engine.cache_dir,
            "restart_window_s": engine.restart_window_s,
        }
        for engine in resolved
    ]
