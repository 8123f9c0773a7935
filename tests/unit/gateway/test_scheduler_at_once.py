# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: the short way in and out of a request is the same as the long one, or nothing."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st
from scheduling import Bench, spec

from hearth.gateway.scheduler.effects import Begin, Effect, Grant, Stop
from hearth.gateway.scheduler.events import (
    AdminLoad,
    AdminUnload,
    Arrived,
    Closing,
    Event,
    HoldBegan,
    HoldEnded,
    Left,
    Loaded,
    Stopped,
    Tick,
    UnitChanged,
)
from hearth.gateway.scheduler.spec import Phase

NAMES = ("scout", "mini")


def test_a_request_enters_at_once_where_the_door_is_open() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    assert bench.scheduler.enter("r1", "scout", bench.now)
    assert bench.scheduler.view(bench.now)[0].in_flight == 1


def test_nobody_enters_what_does_not_run_and_nothing_comes_of_it() -> None:
    bench = Bench(spec("scout"))
    assert not bench.scheduler.enter("r1", "scout", bench.now)
    assert not bench.scheduler.enter("r1", "nobody", bench.now)
    assert bench.scheduler.view(bench.now)[0].in_flight == bench.scheduler.view(bench.now)[0].waiting == 0


def test_nobody_enters_once_the_gateway_ends() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.tell(Closing())
    assert not bench.scheduler.enter("r1", "scout", bench.now)


def test_a_request_leaves_at_once_where_nobody_waits_for_its_end() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.now += 5
    assert bench.scheduler.leave("r1", bench.now)
    view = bench.scheduler.view(bench.now)[0]
    assert (view.in_flight, view.idle_s) == (0, 0.0)
    assert not bench.scheduler.leave("r1", bench.now)


def test_where_an_end_is_waited_for_it_has_to_be_told() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.tell(AdminUnload("scout", 60.0))
    assert not bench.scheduler.leave("r1", bench.now)
    assert bench.leave("r1") == [Stop("scout")]


some_name = st.sampled_from(NAMES)
STEPS = st.one_of(
    st.builds(lambda name: ("arrive", name), some_name),
    st.builds(lambda name: ("arrive", name), some_name),
    st.builds(lambda number: ("leave", number), st.integers(0, 9)),
    st.builds(lambda number: ("leave", number), st.integers(0, 9)),
    st.builds(UnitChanged, some_name, st.sampled_from(get_args(Phase))),
    st.builds(AdminLoad, st.just("admin"), some_name),
    st.builds(AdminUnload, some_name, st.just(5.0)),
    st.builds(HoldBegan, st.just("hold"), st.just(("scout",)), st.just(5.0)),
    st.builds(HoldEnded, st.just("hold")),
    st.builds(Tick),
    st.builds(Closing),
    st.just("what was begun is done"),
)


class Twins:
    """Two schedulers that see the same; the requests of one take the short way where there is one."""

    def __init__(self) -> None:
        self.long, self.short = (
            Bench(spec("scout", 60), spec("mini", 60), idle_stop_s=30.0, calm_s=0.0, min_residency_s=2.0)
            for _ in range(2)
        )
        self.requests: list[str] = []
        self.begun: list[Effect] = []

    def tell(self, event: Event) -> None:
        effects = self.long.tell(event)
        assert self.short.tell(event) == effects
        self.begun += [effect for effect in effects if isinstance(effect, Begin | Stop)]

    def arrive(self, request: str, engine: str) -> None:
        if not self.short.scheduler.enter(request, engine, self.short.now):
            self.tell(Arrived(request, engine))
            return
        assert self.long.tell(Arrived(request, engine)) == [Grant(request, engine)]

    def leave(self, request: str) -> None:
        if not self.short.scheduler.leave(request, self.short.now):
            self.tell(Left(request))
            return
        assert self.long.tell(Left(request)) == []

    def finish(self) -> None:
        for effect in [self.begun.pop(0)] if self.begun else []:
            assert isinstance(effect, Begin | Stop)
            for phase in ("starting", "ready") if isinstance(effect, Begin) else ("stopping", "stopped"):
                self.tell(UnitChanged(effect.engine, phase))
            self.tell(Loaded(effect.engine, 1.0) if isinstance(effect, Begin) else Stopped(effect.engine))

    def agree(self) -> None:
        assert self.short.scheduler.view(self.short.now) == self.long.scheduler.view(self.long.now)
        assert self.short.scheduler.due() == self.long.scheduler.due()


@given(steps=st.lists(st.tuples(st.sampled_from([0.0, 0.0, 1.0, 10.0]), STEPS), max_size=40))
def test_whatever_happens_the_short_way_leads_to_the_same(steps: list[tuple[float, object]]) -> None:
    twins = Twins()
    for number, (seconds, step) in enumerate(steps):
        twins.long.now = twins.short.now = twins.long.now + seconds
        match step:
            case ("arrive", str(name)):
                twins.requests.append(f"r{number}")
                twins.arrive(twins.requests[-1], name)
            case ("leave", int(which)):
                if twins.requests:
                    twins.leave(twins.requests[which % len(twins.requests)])
            case str():
                twins.finish()
            case _:
                twins.tell(step)  # type: ignore[arg-type]
        twins.agree()
