# SPDX-License-Identifier: Apache-2.0
"""The procedure of a transition: drain, stop, memory back, start, verify. Callers hold the box's lock."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hearth.admission import admit
from hearth.contract import Contract, Engine
from hearth.engines import exhausted, fetching, probe
from hearth.engines.units import Systemd, UnitState, log_tail
from hearth.errors import (
    EngineFailedError,
    HearthError,
    OutOfMemoryError,
    RefusedError,
    SystemdError,
    SystemdGoneError,
    UnwantedError,
)
from hearth.loopback import session
from hearth.switching import hold
from hearth.switching.progress import Phase, Progress, Tell

# Beyond the engine's own time: docker's container removal and systemd's bookkeeping.
_MARGIN_S = 30.0
# A download ends by itself where nothing comes any more (hearth.download); a large model on a slow line takes days.
FETCH_S = 30 * 86_400.0
# What has no signal is asked for this often while it is waited for.
_INTERVAL_S = 0.1
_REPORT_INTERVAL_S = 1.0
# The first answer compiles what loading did not: about 25 s on GB10 (GB10 platform survey, 2.2).
CANARY_TIMEOUT_S = 120.0

_CALM_S = 0.5
# How often an engine that is stopped while it loads is told so again, and how far back its log says why it ended.
_AGAIN_S = 0.5
_LOG_LINES, _LOG_TOLD = 400, 20
# The phases that end at once where nobody wants the engine any more. What stops, stops.
_GIVEN_UP: tuple[Phase, ...] = ("fetching", "memory", "loading", "verifying")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Hand:
    """What a transition works with. ``unwanted`` is done as soon as nobody wants the engine any more that starts."""

    systemd: Systemd
    contract: Contract
    key: str
    host: admit.Host
    tell: Tell
    unwanted: asyncio.Future[None] | None = None

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
        with session() as client:
            if not probe.is_healthy(engine, client):
                return True
        probe.assert_serves(engine, key)
    except (HearthError, TimeoutError):
        return True
    return False


async def _told(
    hand: Hand,
    phase: Phase,
    engine: Engine,
    work: asyncio.Future[_T],
    expected_s: float = 0.0,
    note: Callable[[], str] = str,
) -> _T:
    """What ``work`` gives; until then a line a second, with what ``note`` says.

    Raises UnwantedError where a start is not wanted any more.
    """
    begun = time.monotonic()
    waited: set[asyncio.Future[Any]] = {work}
    if hand.unwanted is not None and phase in _GIVEN_UP:
        waited.add(hand.unwanted)
    try:
        while True:
            elapsed_s = time.monotonic() - begun
            hand.report(
                Progress(phase=phase, engine=engine.name, elapsed_s=elapsed_s, expected_s=expected_s, note=note())
            )
            done, _ = await asyncio.wait(waited, timeout=_REPORT_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                return work.result()
            if done:
                raise UnwantedError(f"the start of {engine.name} was given up: nobody waits for it any more")
    finally:
        work.cancel()


async def fetch(hand: Hand, engine: Engine, limit_s: float = FETCH_S) -> float:
    """Have the engine's model brought, by the unit that its own requires; returns the seconds that took.

    The unit goes on when whoever waits for it goes away. Raises EngineFailedError with what went wrong, or how far it
    is after ``limit_s`` seconds.
    """
    begun = time.monotonic()
    unit = fetching.unit_of(engine)
    work = asyncio.ensure_future(hand.systemd.start(unit, limit_s))
    try:
        result = await _told(hand, "fetching", engine, work, note=lambda: fetching.told(engine, hand.host.run))
    except SystemdError:
        if not (await hand.systemd.state(unit)).is_starting:
            raise
        far = fetching.told(engine, hand.host.run) or unit
        raise EngineFailedError(f"the files of {engine.name} are on their way ({far}): try again later") from None
    if result != "done":
        log = await asyncio.to_thread(log_tail, unit)
        said = [line.removeprefix("hearth: ") for line in log if line.startswith("hearth: ")]
        raise EngineFailedError(
            f"the files of {engine.name} could not be brought: {said[-1] if said else unit + ' failed'}"
        )
    return time.monotonic() - begun


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


@asynccontextmanager
async def emptied(hand: Hand, engines: Sequence[Engine], limit_s: float) -> AsyncIterator[int]:
    """Wait until engines work on nothing, at most ``limit_s`` seconds; gives how many requests ended.

    The gateway sends them nothing new until the end of the block. Who asks engines past it is seen in what they tell of
    themselves. Raises SystemdError.
    """
    begun = time.monotonic()

    def tell(left: int) -> None:
        for engine in engines[:1]:
            elapsed_s = time.monotonic() - begun
            hand.report(Progress(phase="draining", engine=engine.name, elapsed_s=elapsed_s, note=f"{left} left"))

    names = [engine.name for engine in engines]
    async with hold.held(names, limit_s, hand.host.run / hold.SOCKET.name, tell) as ended:
        left_s = max(0.0, limit_s - (time.monotonic() - begun))
        yield ended + sum(await asyncio.gather(*(drain(hand, engine, left_s) for engine in engines)))


async def drain(hand: Hand, engine: Engine, limit_s: float) -> int:
    """Wait until the engine works on nothing, at most ``limit_s`` seconds; returns how many requests ended.

    One that is not up works on nothing. Raises SystemdError.
    """
    if not limit_s or not (await hand.systemd.state(engine.unit)).is_up:
        return 0
    begun = time.monotonic()
    first = await asyncio.to_thread(probe.in_flight, engine, hand.key, min(probe.PROBE_TIMEOUT_S, limit_s))
    if not first:
        return 0
    left = await _told(hand, "draining", engine, asyncio.ensure_future(_until_idle(hand, engine, begun + limit_s)))
    return max(0, first - left)


async def _until_idle(hand: Hand, engine: Engine, deadline: float) -> int:
    idle_since = 0.0
    while True:
        # One that does not answer is busy, but not for longer than it may be.
        patience_s = min(probe.PROBE_TIMEOUT_S, max(_INTERVAL_S, deadline - time.monotonic()))
        left = await asyncio.to_thread(probe.in_flight, engine, hand.key, patience_s)
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
    loads = (await hand.systemd.state(engine.unit)).is_starting
    job = asyncio.ensure_future(hand.systemd.stop(engine.unit, engine.stop_timeout_s + _MARGIN_S))
    again = asyncio.ensure_future(_end_again(hand, engine)) if loads else None
    refused = ""
    try:
        await _told(hand, "stopping", engine, job)
    except SystemdError as error:
        refused = f" ({error})"
    finally:
        if again is not None:
            again.cancel()
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


async def _end_again(hand: Hand, engine: Engine) -> None:
    """Tell an engine again and again that it is to end.

    systemd says so once while it loads, to `docker run`: what comes before the container's process listens is lost, and
    the stop would last as long as it may.
    """
    while True:
        await asyncio.sleep(_AGAIN_S)
        # Where nothing is left to be told, systemd says that.
        with suppress(SystemdError):
            await hand.systemd.end_again(engine.unit)


async def memory_back(hand: Hand, engine: Engine) -> float:
    """Wait until there is enough for ``engine``; returns the seconds that took.

    Raises RefusedError, with who holds what, where it does not come back.
    """
    begun = time.monotonic()
    # A thread cannot be cancelled: it is told that nobody waits for it any more.
    left = threading.Event()
    waiting = asyncio.to_thread(
        admit.wait_for_memory, hand.contract, engine, wanted=lambda: not left.is_set(), host=hand.host
    )
    try:
        await _told(hand, "memory", engine, asyncio.ensure_future(waiting))
    finally:
        left.set()
    return time.monotonic() - begun


async def start(hand: Hand, engine: Engine, timeout_s: float = 0.0, *, ask: bool = True) -> tuple[float, float]:
    """Start an engine, wait until its unit is up, and verify what it serves and, with ``ask``, that it answers.

    ``timeout_s`` bounds the start where it is not 0; else the engine's own limits do. Returns the seconds until it was
    ready, and those of the first answer. What fails is stopped again: it would hold memory, or answer for somebody
    else. Raises EngineFailedError with the tail of the engine's log, and SystemdGoneError, with the start going on.
    """
    begun = time.monotonic()
    limit_s = engine.start_timeout_s + admit.longest_wait_s(hand.contract, engine) + _MARGIN_S
    if engine.engine == "ollama":
        # As long to listen as to load.
        limit_s += engine.start_timeout_s
    expected_s = hand.host.ledger.need(engine).load_s
    job = asyncio.ensure_future(hand.systemd.start(engine.unit, timeout_s or limit_s))
    try:
        result = await _told(hand, "loading", engine, job, expected_s)
        if result != "done":
            late = (await hand.systemd.state(engine.unit)).result == "timeout"
            why = f"was not ready within {engine.start_timeout_s} s" if late else "failed to start"
            raise EngineFailedError(f"engine {engine.name} {why}")
        ready = time.monotonic()
        verified = asyncio.to_thread(verify if ask else probe.assert_serves, engine, hand.key)
        await _told(hand, "verifying", engine, asyncio.ensure_future(verified))
    except SystemdGoneError:
        raise
    except SystemdError as error:
        late = bool(timeout_s) and time.monotonic() - begun >= timeout_s
        why = f"was not ready within {timeout_s:g} s" if late else f"failed to start: {error}"
        raise await _given_up(hand, engine, EngineFailedError(f"engine {engine.name} {why}")) from None
    except HearthError as error:
        raise await _given_up(hand, engine, error) from None
    return ready - begun, time.monotonic() - ready


async def _given_up(hand: Hand, engine: Engine, error: HearthError) -> EngineFailedError:
    """Stop what failed; returns the error, with the tail of its log as it was before.

    An automatic restart may be pending, too: the caller decides what comes next, not a timer.
    """
    log = await asyncio.to_thread(log_tail, engine.unit, _LOG_LINES)
    sentence, kind = str(error), type(error) if isinstance(error, UnwantedError) else EngineFailedError
    # The words of what refused the start, or saw it fail, where they are there: they say what is missing, what to do.
    said = [line.removeprefix("hearth: ") for line in log if line.startswith(f"hearth: engine {engine.name}")]
    if kind is EngineFailedError:
        sentence = said[-1] if said else sentence
        if sentence.startswith(f"engine {engine.name} needs "):
            kind = RefusedError
        elif exhausted.ran_out(await hand.systemd.state(engine.unit), log):
            kind = OutOfMemoryError
    try:
        await stop(hand, engine)
    except HearthError as failure:
        sentence += f"; {failure}"
    return kind(sentence, log[-_LOG_TOLD:])


def verify(engine: Engine, key: str) -> None:
    """That the engine serves its name and answers. Raises EngineFailedError with what it does instead."""
    probe.assert_serves(engine, key)
    probe.canary(engine, key, CANARY_TIMEOUT_S)
