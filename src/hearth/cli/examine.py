# SPDX-License-Identifier: Apache-2.0
"""Reads a box for ``hearth doctor``: what cannot be read is a verdict too, never an end of all checks."""

from __future__ import annotations

import http.client
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hearth import __version__, contract, state
from hearth.admission import admit
from hearth.cli import doctor, standing
from hearth.cli.doctor import Check
from hearth.contract import Contract, Engine
from hearth.engines import fetching, images
from hearth.errors import ContractError, HearthError, KeysError, SettingsError
from hearth.gateway import keys, settings
from hearth.guard import record
from hearth.local import LocalConnection
from hearth.switching import transition
from hearth.updates import step

if TYPE_CHECKING:
    from hearth.engines.units import UnitState

_CDI_FOLDERS = (Path("/etc/cdi"), Path("/run/cdi"))
_VENV = Path("/opt/hearth/venv")
_GUARD = "hearth-guard.service"
_KIB_PER_GIB = 2**20


# A gateway that works answers within milliseconds.
_GATEWAY_S = 2.0


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where a box is read. Tests have their own."""

    host: admit.Host
    cdi: tuple[Path, ...] = _CDI_FOLDERS
    venv: Path = _VENV
    gateway: Path = settings.PATH


def box(path: Path, places: Places) -> list[Check]:
    """All checks, in an order in which the first that failed is the one to mend first. ``path`` is the contract's."""
    return list(_all(path, places))


def _all(path: Path, places: Places) -> Iterator[Check]:
    host = places.host
    known: Contract | None = None
    try:
        known = contract.load(path)
    except ContractError as error:
        yield doctor.failed("contract", str(error))
    else:
        models = ", ".join(engine.name for engine in known.engines)
        yield doctor.ok("contract", f"{path}, schema {known.schema}, {models or 'no engines'}")
    yield doctor.package(__version__, contract.SCHEMA, str(Path(sys.prefix).resolve()), _resolved(places.venv))
    engines = known.engines if known else ()
    states: Mapping[str, UnitState] | None = None
    try:
        states = host.read_states([engine.unit for engine in engines])
    except HearthError as error:
        yield doctor.failed("systemd", str(error))
    else:
        yield doctor.ok("systemd", "answers")
    yield from _docker(engines, host.docker_socket)
    if known is not None:
        yield _key(known.key_file)
    if known is not None and states is not None:
        yield from _engines(known, states, places)
    yield from _gateway(places.gateway)
    yield from _host(known, states, places)
    yield doctor.change(standing.pending(host.run))
    yield _updates(host.measured.with_name(step.FOLDER.name))


def _updates(folder: Path) -> Check:
    try:
        return doctor.updates(step.books(folder), state.holder(folder / step.LOCK))
    except HearthError as error:
        return doctor.failed("updates", str(error))


def _resolved(venv: Path) -> str:
    return str(venv.resolve()) if venv.exists() else ""


def _docker(engines: Sequence[Engine], socket_path: Path) -> Iterator[Check]:
    try:
        version = _docker_version(socket_path)
    except (OSError, http.client.HTTPException, msgspec.DecodeError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or str(error)
        remedy = "run this as root" if isinstance(error, PermissionError) else "systemctl status docker"
        yield doctor.failed("docker", f"does not answer at {socket_path} ({why})", remedy)
        return
    yield doctor.ok("docker", f"answers, version {version}")
    # Many engines share an image: one word for it is enough.
    users = {engine.image: engine for engine in engines}
    complaints = {image: _complaint(images.require, engine, socket_path) for image, engine in users.items()}
    yield from doctor.preconditions("images", complaints, f"all {len(users)} present")


class _Version(msgspec.Struct):
    Version: str


def _docker_version(socket_path: Path) -> str:
    """``GET /version`` (Docker Engine API, SystemVersion)."""
    connection = LocalConnection(socket_path, images.TIMEOUT_S)
    try:
        connection.request("GET", "/version")
        return msgspec.json.decode(connection.getresponse().read(), type=_Version).Version
    finally:
        connection.close()


def _key(path: str) -> Check:
    try:
        seen = Path(path).stat()
    except FileNotFoundError:
        return doctor.key_file(path, None, 0)
    except OSError as error:
        return doctor.key_file(path, None, 0, error.strerror or str(error))
    return doctor.key_file(path, seen.st_mode, seen.st_uid)


def _engines(known: Contract, states: Mapping[str, UnitState], places: Places) -> Iterator[Check]:
    engines = known.engines
    # The box fetches the others' files itself, once they are needed.
    models = {
        engine.name: _complaint(admit.preconditions, engine, port=False, model=engine.fetch is None)
        for engine in engines
    }
    ports = {
        # Where the model is missing, admission does not come to the port.
        engine.name: ""
        if models[engine.name] or states[engine.unit].is_alive
        else _complaint(admit.preconditions, engine, model=engine.fetch is None)
        for engine in engines
    }
    late = [engine.name for engine in engines if engine.fetch and not fetching.is_there(engine)]
    but = f" but {', '.join(late)}, fetched at the first start" if late else ""
    yield from doctor.preconditions("models", models, f"all {len(engines)} on disk{but}")
    yield from doctor.preconditions("ports", ports, "free, or of a model that runs")
    yield from doctor.units(
        engines, states, [engine.name for engine in engines if transition.unit_is_newer(states[engine.unit])]
    )
    yield doctor.boot(engines, states)
    asked = {engine.name: doctor.cdi_kinds(_text(Path(states[engine.unit].fragment))) for engine in engines}
    specs = [_text(spec) for folder in places.cdi for ending in ("json", "yaml") for spec in folder.glob(f"*.{ending}")]
    yield from doctor.gpu(asked, specs)
    yield from doctor.disks(_disks(engines))


def _gateway(path: Path) -> Iterator[Check]:
    if not path.exists():
        yield doctor.ok("gateway", "this box has none")
        return
    try:
        wanted = settings.load(path)
    except SettingsError as error:
        yield doctor.failed("gateway", str(error))
        return
    yield doctor.gateway(wanted.listen, _gateway_trouble(Path(wanted.admin_socket)))
    try:
        names = () if wanted.open else sorted(keys.read(Path(wanted.keys)))
    except KeysError as error:
        yield doctor.failed("keys", str(error))
    else:
        yield doctor.keys(names, open_to_all=wanted.open)


def _gateway_trouble(socket_path: Path) -> str:
    """Why the gateway does not answer by its own socket; empty where it does."""
    connection = LocalConnection(socket_path, _GATEWAY_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", "") or str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if status == http.HTTPStatus.OK else f"status {status}"


def _complaint(require: Callable[..., None], *what: object, **how: object) -> str:
    """What a change would say where it could not begin; empty where it could."""
    try:
        require(*what, **how)
    except HearthError as error:
        return str(error)
    return ""


def _host(known: Contract | None, states: Mapping[str, UnitState] | None, places: Places) -> Iterator[Check]:
    host = places.host
    try:
        memory = host.read_memory()
    except HearthError as error:
        yield doctor.failed("memory", str(error))
    else:
        if known is not None:
            yield doctor.memory(memory, known.floor_gib)
        if known is not None and states is not None:
            ledger = host.ledger
            starting = [engine for engine in known.engines if states[engine.unit].enabled]
            needs = {engine.name: ledger.need(engine).gib for engine in starting}
            yield doctor.boot_memory(memory.total_gib, known.floor_gib, needs)
    yield doctor.guard(
        installed=(host.units / _GUARD).exists(),
        watches=bool(state.holder(host.run.with_name(record.FOLDER) / record.LOCK)),
        last=record.recent(host.measured.with_name(record.NAME), time.time()),
    )
    yield doctor.swap(_swap_gib(_text(host.proc / "swaps")), _text(host.proc / "sys/vm/swappiness").strip())
    release = _text(host.proc / "sys/kernel/osrelease").strip() or platform.release()
    yield doctor.kernel(release, _text(host.proc / "cmdline"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _swap_gib(swaps: str) -> float:
    """The size of all that is swapped on, from /proc/swaps: KiB in the third column (proc_swaps(5))."""
    sizes = [words[2] for words in (line.split() for line in swaps.splitlines()[1:]) if len(words) > 2]
    return sum(int(size) for size in sizes if size.isdecimal()) / _KIB_PER_GIB


def _disks(engines: Sequence[Engine]) -> dict[str, tuple[int, int]]:
    """By folder, free and all bytes of each file system that models are on; free is what a user may have."""
    found: dict[int, str] = {}
    for engine in engines:
        for folder in Path(engine.model_path).parents:
            try:
                found.setdefault(folder.stat().st_dev, str(folder))
            except OSError:
                # Not there yet: its parent says where it will be.
                continue
            break
    sizes = {folder: os.statvfs(folder) for folder in found.values()}
    return {folder: (one.f_bavail * one.f_frsize, one.f_blocks * one.f_frsize) for folder, one in sizes.items()}
