# SPDX-License-Identifier: Apache-2.0
"""The procedure of a transition: stop, start, ready, verify. Callers hold the box's lock."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from hearth import probe
from hearth.contract import Engine
from hearth.errors import EngineFailedError, HearthError
from hearth.units import Systemd, UnitState, log_tail

# Beyond the engine's own time: docker's container removal and systemd's bookkeeping.
_MARGIN_S = 30.0
# Ollama may have to pull first. `hearth ready` ends a pull that stands still; this only keeps us from waiting for ever.
_PULL_S = 86_400.0


def unit_is_newer(state: UnitState) -> bool:
    """The unit file was written after the engine was started, so what runs is not what is asked for."""
    try:
        written_us = Path(state.fragment).stat().st_mtime_ns // 1000
    except OSError:
        return False
    return state.is_alive and 0 < state.started_us < written_us


def is_sick(engine: Engine, state: UnitState, key: str) -> bool:
    """Up, but not what it should be: not healthy, another served name, or started from an older unit file."""
    if not state.is_alive:
        return False
    if unit_is_newer(state):
        return True
    if not state.is_up:
        # Still loading: systemd's own readiness check decides, not we.
        return False
    try:
        with probe.session() as client:
            if not probe.is_healthy(engine, client):
                return True
        probe.assert_serves(engine, key)
    except (HearthError, TimeoutError):
        return True
    return False


async def stop(systemd: Systemd, engine: Engine) -> float:
    """Stop an engine; returns the seconds that took. Raises EngineFailedError where it stays up."""
    begun = time.monotonic()
    await systemd.stop(engine.unit, engine.stop_timeout_s + _MARGIN_S)
    state = await systemd.state(engine.unit)
    if state.is_alive:
        raise EngineFailedError(
            f"engine {engine.name} did not stop: it is {state.active}; see systemctl status {engine.unit}",
            log_tail(engine.unit),
        )
    return time.monotonic() - begun


async def start(systemd: Systemd, engine: Engine, key: str) -> float:
    """Start an engine, wait until its unit is up, and verify what it serves; returns the seconds that took.

    Raises EngineFailedError with the tail of the engine's log.
    """
    begun = time.monotonic()
    limit_s = engine.start_timeout_s + _MARGIN_S
    if engine.engine == "ollama":
        limit_s += engine.start_timeout_s + _PULL_S
    result = await systemd.start(engine.unit, limit_s)
    if result != "done":
        state = await systemd.state(engine.unit)
        log = log_tail(engine.unit)
        # An automatic restart may be pending; the caller decides what comes next, not a timer.
        await systemd.stop(engine.unit, engine.stop_timeout_s + _MARGIN_S)
        why = {"timeout": f"was not ready within {engine.start_timeout_s} s"}.get(state.result, "failed to start")
        raise EngineFailedError(f"engine {engine.name} {why}", log)
    try:
        await asyncio.to_thread(probe.assert_serves, engine, key)
    except HearthError:
        # It would hold memory and answer for somebody else.
        await systemd.stop(engine.unit, engine.stop_timeout_s + _MARGIN_S)
        raise
    return time.monotonic() - begun


def admit(engine: Engine) -> None:
    """What must hold before an engine is started; raises EngineFailedError with what does not.

    The memory ledger takes its place here: the need of the engine in GiB against what is free.
    """
    if not Path(engine.model_path).exists():
        if engine.engine == "ollama":
            raise EngineFailedError(
                f"engine {engine.name}: Ollama's store {engine.model_path} is missing; run site.yml again"
            )
        raise EngineFailedError(
            f"engine {engine.name}: its model {engine.model_path} is missing; put it there, or correct the model's file"
        )
    with socket.socket() as probe_socket:
        # As docker's proxy does: without it, connections of the last run in TIME_WAIT would look like a stranger.
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", engine.port))
        except OSError:
            raise EngineFailedError(
                f"engine {engine.name}: its port {engine.port} is taken by another program "
                f"(ss -ltnp 'sport = :{engine.port}' names it); stop that, or give the model another port"
            ) from None
