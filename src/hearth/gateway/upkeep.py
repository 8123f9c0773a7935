# SPDX-License-Identifier: Apache-2.0
"""Has the gateway's unit run, from what is on disk now, whoever wrote that and was cut off half way."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hearth.engines.units import Systemd, UnitState, log_tail
from hearth.errors import HearthError, SystemdError
from hearth.local import LocalConnection

UNIT = "hearth-gateway.service"
SOCKETS = ("hearth-gateway.socket", "hearth-gateway-admin.socket")
UNITS = Path("/etc/systemd/system")
# The link to the current environment: it is replaced when that is.
VENV = Path("/opt/hearth/venv")
# As TimeoutStartSec= of the unit, and as systemd's own bookkeeping may take beside TimeoutStopSec=.
_START_S = 60.0
_MARGIN_S = 30.0
# It answers within milliseconds, or is in trouble.
_ANSWER_S = 10.0
_LOOK = f"see journalctl -u {UNIT}"


class _Reloaded(msgspec.Struct):
    changed: tuple[str, ...]


def reload(path: Path) -> tuple[str, ...]:
    """Have the gateway that listens at ``path`` read the contract again; returns the engines of which that changed any.

    Raises HearthError.
    """
    connection = LocalConnection(path, _ANSWER_S)
    try:
        connection.request("POST", "/api/reload")
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise HearthError(f"the gateway did not read the engines again ({text.decode(errors='replace')}): {_LOOK}")
        return msgspec.json.decode(text, type=_Reloaded).changed
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise HearthError(f"the gateway does not answer at {path} ({error}): {_LOOK}") from None
    finally:
        connection.close()


async def run(
    systemd: Systemd, files: Sequence[Path], *, stop_s: float, check: bool = False, units: Path = UNITS
) -> tuple[str, ...]:
    """Have the gateway start at boot and run now; restart it where one of ``files`` is newer than its start.

    ``stop_s``: how long it may take to stop, in seconds. Returns what was done, or with ``check`` would be.
    Raises SystemdError, with the end of its log where it does not start.
    """
    state = await systemd.state(UNIT)
    actions = [] if state.enabled else ["start at boot"]
    newer = _newer(state, files)
    if newer:
        actions.append(f"restart, for {newer[0]} is newer than its start")
    elif not state.is_coming:
        actions.append("start")
    if check or not (actions or state.outdated):
        return tuple(actions)
    await systemd.reload()
    if not state.enabled:
        await systemd.enable(UNIT)
    sockets = [name for name in SOCKETS if units / name in newer]
    if newer:
        # What listens goes last and comes first, and only where it has changed: until then it takes who comes.
        for name in (UNIT, *sockets):
            await systemd.stop(name, stop_s + _MARGIN_S)
    if newer or not state.is_coming:
        result = await systemd.start(UNIT, _START_S + _MARGIN_S)
        if result != "done":
            raise SystemdError(f"{UNIT} did not start ({result}): see journalctl -u {UNIT}", log_tail(UNIT))
    return tuple(actions)


def _newer(state: UnitState, files: Sequence[Path]) -> list[Path]:
    if not (state.is_alive and state.started_us):
        return []
    return [path for path in files if _changed_us(path) > state.started_us]


def _changed_us(path: Path) -> int:
    try:
        # Of a link itself, not of what it leads to.
        return path.lstat().st_mtime_ns // 1000
    except OSError:
        return 0
