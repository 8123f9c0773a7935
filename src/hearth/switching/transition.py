# SPDX-License-Identifier: Apache-2.0
"""The procedure of a transition: drain, stop, memory back, start, verify. Callers hold the box's lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hearth.admission import admit
from hearth.contract import Contract, Engine
from hearth.engines import probe
from hearth.engines.units import Systemd, UnitState, log_tail
from hearth.errors import EngineFailedError, HearthError, SystemdError
from hearth.switching.progress import Phase, Progress, Tell

# Beyond the engine's own time: docker's container removal and systemd's bookkeeping.
_MARGIN_S = 30.0
# The first start of an Ollama model fetches it, and ends by itself where nothing moves any more (engines.ollama).
_PULL_S = 86_400.0
# What has no signal is asked for this often while it is waited for.
_INTERVAL_S = 0.1
_REPORT_INTERVAL_S = 1.0
# The first answer compiles what loading did not: about 25 s on GB10 (GB10 platform survey, 2.2).
CANARY_TIMEOUT_S = 120.0

_CALM_S = 0.5

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Hand:
    """What a transition works with."""

    systemd: Systemd
    contract: Contract
    key: str
    host: admit.Host
    tell: Tell

    def report(self, progress: Progress) -> None:
        """That whoever watches has closed his pipe is no reason to leave engines half changed."""
        with suppress(OSError, ValueError):
            self.tell(progress)

    async def states(self) -> Mapping[str, UnitState]:
        """Of all engines' units. Raises SystemdError."""
        return await self.systemd.states([engine.unit for engine in self.contract.engines])


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


async def _told(hand: Hand, phase: Phase, engine: Engine, work: asyncio.Future[_T], expected_s: float = 0.0) -> _T:
    """What ``work`` gives; until then a line a second."""
    begun = time.monotonic()
    try:
        while True:
            elapsed_s = time.monotonic() - begun
            hand.report(Progress(phase=phase, engine=engine.name, elapsed_s=elapsed_s, expected_s=expected_s))
            done, _ = await asyncio.wait({work}, timeout=_REPORT_INTERVAL_S)
            if done:
                return work.result()
    finally:
        work.cancel()


async def settle(hand: Hand, engine: Engine) -> None:
    """Wait while the engine is on its way down, as long as that may take. Raises SystemdError."""
    limit_s = engine.stop_timeout_s + _MARGIN_S
    if (await hand.systemd.state(engine.unit)).active == "deactivating":
        await _told(hand, "waiting", engine, asyncio.ensure_future(_until_stopped(hand, engine, limit_s)))


async def _until_stopped(hand: Hand, engine: Engine, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        state = await hand.systemd.state(engine.unit)
        if state.active != "deactivating" or time.monotonic() >= deadline:
            return
        await asyncio.sleep(_INTERVAL_S)


async def drain(hand: Hand, engine: Engine, limit_s: float) -> int:
    """Wait until the engine works on nothing, at most ``limit_s`` seconds; returns how many requests ended.

    One that is not up works on nothing. Raises SystemdError.
    """
    if not limit_s or not (await hand.systemd.state(engine.unit)).is_up:
        return 0
    first = await asyncio.to_thread(probe.in_flight, engine, hand.key)
    if not first:
        return 0
    left = await _told(hand, "draining", engine, asyncio.ensure_future(_until_idle(hand, engine, limit_s)))
    return max(0, first - left)


async def _until_idle(hand: Hand, engine: Engine, limit_s: float) -> int:
    deadline = time.monotonic() + limit_s
    idle_since = 0.0
    while True:
        left = await asyncio.to_thread(probe.in_flight, engine, hand.key)
        now = time.monotonic()
        if left:
            idle_since = 0.0
        else:
            idle_since = idle_since or now
            # The engine has made its last token; the bytes of it may still be on their way to the client.
            if now - idle_since >= _CALM_S:
                return 0
        if now >= deadline:
            return left
        await asyncio.sleep(_INTERVAL_S)


async def stop(hand: Hand, engine: Engine) -> float:
    """Stop an engine; returns the seconds that took. Raises SystemdError, and EngineFailedError where it stays up."""
    begun = time.monotonic()
    job = asyncio.ensure_future(hand.systemd.stop(engine.unit, engine.stop_timeout_s + _MARGIN_S))
    refused = ""
    try:
        await _told(hand, "stopping", engine, job)
    except SystemdError as error:
        refused = f" ({error})"
    state = await hand.systemd.state(engine.unit)
    if state.is_alive:
        raise EngineFailedError(
            f"engine {engine.name} did not stop{refused}: it is {state.active}; see systemctl status {engine.unit}",
            await asyncio.to_thread(log_tail, engine.unit),
        )
    if state.active == "failed":
        # It was stopped while it loaded, and systemd takes that for a failure; who asked for it does not.
        await hand.systemd.forgive(engine.unit)
    return time.monotonic() - begun


async def memory_back(hand: Hand, engine: Engine) -> float:
    """Wait until there is enough for ``engine``; returns the seconds that took.

    Raises EngineFailedError, with who holds what, where it does not come back.
    """
    begun = time.monotonic()
    work = asyncio.ensure_future(asyncio.to_thread(admit.wait_for_memory, hand.contract, engine, host=hand.host))
    await _told(hand, "memory", engine, work)
    return time.monotonic() - begun


async def start(hand: Hand, engine: Engine, timeout_s: float = 0.0) -> tuple[float, float]:
    """Start an engine, wait until its unit is up, and verify what it serves and that it answers.

    ``timeout_s`` bounds the start where it is not 0; else the engine's own limits do. Returns the seconds until it was
    ready, and those of the first answer. What fails is stopped again: it would hold memory, or answer for somebody
    else. Raises EngineFailedError with the tail of the engine's log.
    """
    begun = time.monotonic()
    limit_s = engine.start_timeout_s + admit.longest_wait_s(hand.contract, engine) + _MARGIN_S
    if engine.engine == "ollama":
        limit_s += engine.start_timeout_s + _PULL_S
    expected_s = hand.host.ledger.need(engine).load_s
    job = asyncio.ensure_future(hand.systemd.start(engine.unit, timeout_s or limit_s))
    try:
        result = await _told(hand, "loading", engine, job, expected_s)
        if result != "done":
            late = (await hand.systemd.state(engine.unit)).result == "timeout"
            why = f"was not ready within {engine.start_timeout_s} s" if late else "failed to start"
            raise EngineFailedError(f"engine {engine.name} {why}")
        ready = time.monotonic()
        await _told(hand, "verifying", engine, asyncio.ensure_future(asyncio.to_thread(verify, engine, hand.key)))
    except SystemdError as error:
        late = bool(timeout_s) and time.monotonic() - begun >= timeout_s
        why = f"was not ready within {timeout_s:g} s" if late else f"failed to start: {error}"
        raise await _given_up(hand, engine, f"engine {engine.name} {why}") from None
    except HearthError as error:
        raise await _given_up(hand, engine, str(error)) from None
    return ready - begun, time.monotonic() - ready


async def _given_up(hand: Hand, engine: Engine, sentence: str) -> EngineFailedError:
    """Stop what failed; returns the error, with the tail of its log as it was before.

    An automatic restart may be pending, too: the caller decides what comes next, not a timer.
    """
    log = await asyncio.to_thread(log_tail, engine.unit)
    # Admission's own words, where it was that which refused the start: they say what is missing and what to do.
    refused = [line for line in log if line.startswith(f"hearth: engine {engine.name} needs ")]
    sentence = refused[-1].removeprefix("hearth: ") if refused else sentence
    try:
        await stop(hand, engine)
    except HearthError as error:
        sentence += f"; {error}"
    return EngineFailedError(sentence, log)


def verify(engine: Engine, key: str) -> None:
    """That the engine serves its name and answers. Raises EngineFailedError with what it does instead."""
    probe.assert_serves(engine, key)
    probe.canary(engine, key, CANARY_TIMEOUT_S)
