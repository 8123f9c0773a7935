# SPDX-License-Identifier: Apache-2.0
"""What the scheduler decides is done, and what comes of it is told, whatever the hands do and in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import pytest
from house import until

from hearth.errors import BusyError, SystemdError
from hearth.gateway.conductor import Conductor
from hearth.gateway.replies import Refusal
from hearth.gateway.scheduler.effects import Effect
from hearth.gateway.scheduler.events import AdminUnload, Event, Loaded, LoadFailed, Stopped, UnitChanged
from hearth.gateway.scheduler.scheduler import Scheduler
from hearth.gateway.scheduler.spec import EngineSpec, MemoryView, Phase, Policy

SPECS = (EngineSpec(name="scout", need_gib=10, held_gib=10), EngineSpec(name="mini", need_gib=1, held_gib=1))


class Hands:
    """Carries nothing out before it is told to; no signal of systemd comes, only ``phases`` says what is."""

    def __init__(self) -> None:
        self.now: dict[str, Phase] = {"scout": "stopped", "mini": "stopped"}
        self.calls: list[str] = []
        self.go = asyncio.Event()
        self.result: Callable[[], Loaded | LoadFailed] = lambda: Loaded("scout", 1.5)
        self.error: Exception | None = None
        self.blind = False

    async def begin(self, engine: str, evict: tuple[str, ...]) -> Loaded | LoadFailed:
        self.calls.append(f"begin {engine}")
        await self.go.wait()
        if self.error:
            raise self.error
        result = self.result()
        self.now[engine] = "ready" if isinstance(result, Loaded) else "failed"
        return result

    async def cancel(self, engine: str) -> None:
        self.calls.append(f"cancel {engine}")
        self.result = lambda: LoadFailed(engine, "cancelled")
        self.go.set()

    async def stop(self, engine: str) -> None:
        self.calls.append(f"stop {engine}")
        if self.error:
            raise self.error
        self.now[engine] = "stopped"

    async def phases(self, engines: Iterable[str]) -> Mapping[str, Phase]:
        if self.blind:
            raise SystemdError("systemd does not answer")
        return {name: self.now[name] for name in engines}


class Stage:
    """A conductor with these hands, and all that it heard."""

    def __init__(self, **policy: float) -> None:
        self.hands = Hands()
        self.heard: list[Event | Effect] = []
        scheduler = Scheduler(SPECS, Policy(**policy), lambda: MemoryView(16.0, 4.0))
        self.conductor = Conductor(scheduler, self.hands, self.heard.append)
        self.cuts: list[str] = []

    def ask(self, request: str, engine: str = "scout", patience_s: float = float("inf")) -> asyncio.Future[None]:
        return self.conductor.ask(request, engine, lambda: self.cuts.append(request), patience_s)

    def comes_up(self, *engines: str) -> None:
        for name in engines:
            self.hands.now[name] = "ready"
            self.conductor.tell(UnitChanged(name, "ready"))


async def refusal(turn: asyncio.Future[None]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        async with asyncio.timeout(5):
            await turn
    return caught.value


async def test_a_turn_at_a_ready_engine_is_there_at_once() -> None:
    stage = Stage()
    stage.comes_up("scout")
    assert stage.ask("one").done()


async def test_a_load_counts_as_done_whether_the_signal_of_it_came_or_not() -> None:
    stage = Stage()
    turns = [stage.ask("one"), stage.ask("two")]
    stage.hands.go.set()
    await asyncio.gather(*turns)
    assert stage.hands.calls == ["begin scout"]


async def test_a_load_that_succeeded_while_systemd_cannot_be_asked_is_no_failure() -> None:
    stage = Stage()
    turn = stage.ask("one")
    stage.hands.blind = True
    stage.hands.go.set()
    await until(lambda: stage.hands.now["scout"] == "ready")
    await asyncio.sleep(0.02)
    assert not turn.done()
    stage.hands.blind = False
    await turn
    assert stage.hands.calls == ["begin scout"]


async def test_systemd_is_not_asked_for_what_its_signals_have_told_already() -> None:
    stage = Stage()
    turn = stage.ask("one")
    stage.hands.blind = True
    stage.hands.go.set()
    await until(lambda: stage.hands.now["scout"] == "ready")
    assert not turn.done()
    stage.comes_up("scout")
    async with asyncio.timeout(5):
        await turn


async def test_hands_that_break_down_are_told_as_a_failed_load() -> None:
    stage = Stage()
    turn = stage.ask("one")
    stage.hands.error = RuntimeError("the roof")
    stage.hands.go.set()
    told = await refusal(turn)
    assert (told.status, told.code) == (503, "load_failed")
    assert "the roof" in str(told)
    # And the next one is tried.
    stage.hands.error = None
    await stage.ask("two")


@pytest.mark.parametrize("error", [SystemdError("systemd does not answer"), RuntimeError("the roof")])
async def test_a_stop_that_fails_does_not_keep_others_from_starting(error: Exception) -> None:
    stage = Stage(idle_stop_s=0.02)
    stage.comes_up("mini")
    stage.hands.error = error
    await until(lambda: any(isinstance(one, Stopped) for one in stage.heard))
    stage.hands.error = None
    turn = stage.ask("one")
    stage.hands.go.set()
    await turn


async def test_an_unload_that_another_change_kept_from_beginning_is_tried_again() -> None:
    stage = Stage(busy_retry_s=0.02)
    stage.comes_up("mini")
    stage.hands.error = BusyError("another change has the box")
    stage.conductor.tell(AdminUnload("mini", 5.0))
    await until(lambda: len(stage.hands.calls) > 1)
    stage.hands.error = None
    await until(lambda: stage.conductor.view()[1].phase == "stopped")


async def test_who_waits_no_longer_costs_nothing() -> None:
    stage = Stage()
    stage.ask("one")
    await until(lambda: stage.hands.calls == ["begin scout"])
    stage.conductor.release("one")
    await until(lambda: stage.hands.calls == ["begin scout", "cancel scout"])


async def test_a_request_is_released_once_and_once_more() -> None:
    stage = Stage()
    stage.comes_up("scout")
    stage.ask("one")
    for _ in range(2):
        stage.conductor.release("one")
    assert stage.conductor.view()[0].in_flight == 0


async def test_a_refused_request_can_be_released() -> None:
    stage = Stage()
    turn = stage.ask("one", "nobody")
    assert (await refusal(turn)).code == "removed"
    stage.conductor.release("one")


async def test_patience_ends_without_anything_else_happening() -> None:
    stage = Stage()
    told = await refusal(stage.ask("one", patience_s=0.02))
    assert told.code == "waited_too_long"
    assert told.retry_after_s is not None


async def test_what_is_told_while_effects_are_carried_out_comes_after_them() -> None:
    stage = Stage()
    # Somebody else's start: joined, not begun again.
    stage.conductor.tell(UnitChanged("scout", "starting"))
    turn = stage.ask("one")
    heard: list[Event | Effect] = []

    def hear(told: Event | Effect) -> None:
        heard.append(told)
        if told == UnitChanged("scout", "ready"):
            # Whoever listens may have something to say as well.
            stage.conductor.tell(UnitChanged("scout", "failed"))

    stage.conductor._heard = hear
    stage.conductor.tell(UnitChanged("scout", "ready"))
    assert heard[:2] == [UnitChanged("scout", "ready"), UnitChanged("scout", "failed")]
    assert turn.done()
    turn.result()


async def test_a_hold_returns_when_the_last_one_has_ended() -> None:
    stage = Stage()
    stage.comes_up("scout")
    stage.ask("one")
    held = asyncio.ensure_future(stage.conductor.hold("h", ("scout",), 5.0))
    await asyncio.sleep(0)
    kept_out = stage.ask("two")
    assert not kept_out.done()
    stage.conductor.release("one")
    assert await held == 0
    assert not kept_out.done()
    stage.conductor.let_go("h")
    assert kept_out.done()


async def test_a_hold_cuts_at_its_deadline() -> None:
    stage = Stage()
    stage.comes_up("scout")
    stage.ask("one")
    assert await stage.conductor.hold("h", ("scout",), 0.02) == 1
    assert stage.cuts == ["one"]


async def test_a_hold_that_is_given_up_leaves_nothing_behind() -> None:
    stage = Stage()
    stage.comes_up("scout")
    stage.ask("one")
    held = asyncio.ensure_future(stage.conductor.hold("h", ("scout",), 5.0))
    await asyncio.sleep(0)
    held.cancel()
    stage.conductor.let_go("h")
    assert stage.ask("two").done()


async def test_a_wish_of_an_administrator_outlives_him() -> None:
    stage = Stage()
    wish = asyncio.ensure_future(stage.conductor.load("one", "scout"))
    await until(lambda: stage.hands.calls == ["begin scout"])
    wish.cancel()
    await asyncio.sleep(0.01)
    stage.hands.go.set()
    await until(lambda: stage.conductor.view()[0].phase == "ready")
    assert stage.hands.calls == ["begin scout"]


async def test_at_the_end_who_waits_is_refused_and_who_is_in_flight_goes_on() -> None:
    stage = Stage()
    stage.comes_up("mini")
    stage.ask("one", "mini")
    waiting = stage.ask("two", "scout")
    stage.conductor.close()
    assert (await refusal(waiting)).code == "gateway_stopping"
    assert (await refusal(stage.ask("three", "mini"))).code == "gateway_stopping"
    assert stage.cuts == []
    assert stage.conductor.view()[1].in_flight == 1
