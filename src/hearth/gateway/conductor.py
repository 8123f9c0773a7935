# SPDX-License-Identifier: Apache-2.0
"""Between the scheduler, which only decides, and the world: tells it what happens, and carries out what it wants."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from hearth.errors import BusyError, HearthError, SystemdError
from hearth.gateway.replies import Refusal
from hearth.gateway.scheduler.effects import Begin, CancelLoad, Cut, Drained, Effect, Grant, Refuse, Stop
from hearth.gateway.scheduler.events import (
    AdminLoad,
    Arrived,
    Closing,
    Event,
    HoldBegan,
    HoldEnded,
    Left,
    Loaded,
    LoadFailed,
    Stopped,
    Tick,
    UnitChanged,
)
from hearth.gateway.scheduler.scheduler import Scheduler
from hearth.gateway.scheduler.spec import Phase
from hearth.gateway.scheduler.view import EngineView

# Done when a request may go to its engine.
Turn = asyncio.Future[None]

_log = logging.getLogger(__name__)

# Of these there may be thousands a second.
_OF_REQUESTS = frozenset({Arrived, Left})
# How long until systemd is asked again where it did not answer; twice as long each time.
_FIRST_S, _LONGEST_S = 0.1, 5.0
# How long a signal may be on its way.
_SIGNAL_S = 0.1

# What a request is told when its time at the engine is over.
CUT = Refusal(
    503,
    "drained",
    "The model had to make room, and this answer was not finished within the time for that: ask again.",
    retry_after_s=1,
)


class Hands(Protocol):
    """What carries out transactions on the box."""

    async def begin(self, engine: str, evict: tuple[str, ...]) -> Loaded | LoadFailed:
        """Stop ``evict``, wait for their memory, start ``engine``, wait until it answers."""

    async def cancel(self, engine: str) -> None:
        """Have the ``begin`` of this engine under way end soon, as cancelled."""

    async def stop(self, engine: str) -> None:
        """Stop an engine. Raises HearthError."""

    async def phases(self, engines: Iterable[str]) -> Mapping[str, Phase]:
        """What systemd says of these engines now. Raises HearthError."""


class Conductor:
    """One scheduler and its effects.

    ``heard`` is called with what happens to engines: each event but the coming and going of requests, and each Begin.
    """

    def __init__(self, scheduler: Scheduler, hands: Hands, heard: Callable[[Event | Effect], None]) -> None:
        self.scheduler = scheduler
        self._hands = hands
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._telling = False
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._turns: dict[str, Turn] = {}
        self._cuts: dict[str, Callable[[], None]] = {}
        self._holds: dict[str, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Set by each state that is told.
        self._told = asyncio.Event()

    # Of requests

    def ask(self, request: str, engine: str, on_cut: Callable[[], None], patience_s: float = math.inf) -> Turn:
        """Ask for a turn at the engine: done already where it is ready. Whatever comes of it, ``release`` ends it.

        ``on_cut`` is called where the request has to end before its time. The turn raises Refusal.
        """
        turn = self._turns[request] = self._loop.create_future()
        self._cuts[request] = on_cut
        self.tell(Arrived(request, engine, patience_s))
        return turn

    def enter(self, request: str, engine: str, on_cut: Callable[[], None]) -> bool:
        """A turn at once, as ``ask`` gives it, where the engine is ready; False: nothing has come of it."""
        if not self.scheduler.enter(request, engine, self._loop.time()):
            return False
        self._cuts[request] = on_cut
        return True

    async def load(self, request: str, engine: str) -> None:
        """Wait until an administrator's wish is fulfilled; who leaves does not take it back. Raises Refusal."""
        turn = self._turns[request] = self._loop.create_future()
        self._cuts[request] = _nothing
        try:
            self.tell(AdminLoad(request, engine))
            await turn
        finally:
            self.release(request)

    def wish(self, request: str, engine: str) -> None:
        """An administrator's wish that nobody waits for: events say what becomes of it."""
        self.tell(AdminLoad(request, engine))
        self.tell(Left(request))

    def release(self, request: str) -> None:
        """The request is over, or waits no longer. Once more does no harm."""
        self._turns.pop(request, None)
        if self._cuts.pop(request, None) is None or self.scheduler.leave(request, self._loop.time()):
            return
        self.tell(Left(request))

    # Of other processes that change engines

    async def hold(self, hold: str, engines: tuple[str, ...], deadline_s: float) -> int:
        """Let nobody new to these engines until ``let_go``; returns once nothing is in flight there any more.

        The number is of those that were cut at the deadline.
        """
        drained: asyncio.Future[int] = self._loop.create_future()
        self._holds[hold] = drained
        self.tell(HoldBegan(hold, engines, deadline_s))
        return await drained

    def let_go(self, hold: str) -> None:
        """The other process is done, or gone."""
        self._holds.pop(hold, None)
        self.tell(HoldEnded(hold))

    # Of all

    def tell(self, event: Event) -> None:
        """Something happened. What is told while effects are carried out comes after them."""
        if self._telling:
            self._events.append(event)
            return
        self._telling = True
        try:
            self._take(event)
            while self._events:
                self._take(self._events.popleft())
        finally:
            self._telling = False
        if self.scheduler.due() != self._due:
            self._arm()

    def _take(self, event: Event) -> None:
        if type(event) not in _OF_REQUESTS:
            self._heard(event)
            if type(event) is UnitChanged:
                self._told.set()
        for effect in self.scheduler.handle(event, self._loop.time()):
            self._do(effect)

    def close(self) -> None:
        """Let nobody in any more: who waits is refused, what is in flight goes on."""
        self.tell(Closing())

    def view(self) -> tuple[EngineView, ...]:
        """How things stand with every engine now."""
        return self.scheduler.view(self._loop.time())

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = self.scheduler.due()
        if self._due is not None:
            self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._timer = self._due = None
        self.tell(Tick())

    def _do(self, effect: Effect) -> None:
        match effect:
            case Grant(request=request):
                turn = self._turns.get(request)
                if turn is not None and not turn.done():
                    turn.set_result(None)
            case Refuse(request=request):
                self._cuts.pop(request, None)
                turn = self._turns.get(request)
                if turn is not None and not turn.done():
                    turn.set_exception(_refusal(effect))
            case Cut(request=request):
                call = self._cuts.get(request)
                if call is not None:
                    call()
            case Drained(hold=hold, left=left):
                drained = self._holds.get(hold)
                if drained is not None and not drained.done():
                    drained.set_result(left)
            case Begin(engine=engine, evict=evict):
                self._heard(effect)
                self._spawn(self._begin(engine, evict))
            case Stop(engine=engine):
                self._spawn(self._stop(engine))
            case CancelLoad(engine=engine):
                self._spawn(self._hands.cancel(engine))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, engine: str, evict: tuple[str, ...]) -> None:
        result: Loaded | LoadFailed
        try:
            result = await self._hands.begin(engine, evict)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
            reason = f"the start of {engine} ended by an error of Hearth's own ({error!r})"
            _log.error(reason, exc_info=error)
            result = LoadFailed(engine, "failed", reason)
        if not (isinstance(result, Loaded) and await self._told_of((engine,), evict)):
            await self._look_again((engine, *evict))
        self.tell(result)

    async def _stop(self, engine: str) -> None:
        stopped = busy = False
        try:
            await self._hands.stop(engine)
            stopped = True
        except BusyError:
            busy = True
        except HearthError as error:
            _log.warning("%s", error)
        except Exception:  # noqa: BLE001 - the scheduler waits for the end of it, whatever it was
            _log.exception("the stop of %s ended by an error of Hearth's own", engine)
        if not (stopped and await self._told_of((), (engine,))):
            await self._look_again((engine,))
        self.tell(Stopped(engine, busy))

    async def _told_of(self, up: tuple[str, ...], down: tuple[str, ...]) -> bool:
        """Whether signals tell, within a moment, that these are ready and those are not up any more.

        They are on their way when a transaction ends: to wait for them takes a fraction of what asking systemd does.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_SIGNAL_S):
                while True:
                    phases = {view.name: view.phase for view in self.view()}
                    if all(phases.get(name) == "ready" for name in up) and all(
                        phases.get(name) in {"stopped", "failed"} for name in down
                    ):
                        return True
                    self._told.clear()
                    await self._told.wait()
        return False

    async def _look_again(self, engines: tuple[str, ...]) -> None:
        """The result of a transaction comes after the states it led to, whether their signals came yet or not.

        Without them a good load would be taken for one that ended at once; so systemd is asked until it answers.
        """
        wait_s = _FIRST_S
        while True:
            try:
                phases = await self._hands.phases(engines)
            except SystemdError as error:
                _log.warning("%s; asking again in %.1f s", error, wait_s)
            except HearthError as error:
                _log.warning("%s", error)
                return
            else:
                for name, phase in phases.items():
                    self.tell(UnitChanged(name, phase))
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_S)


def _nothing() -> None:
    """An administrator's wish has nothing in flight that could be cut."""


def _refusal(effect: Refuse) -> Refusal:
    log = tuple(effect.log.splitlines())
    return Refusal(effect.status, effect.code, effect.reason, retry_after_s=effect.retry_after_s, log=log)
