# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: what it promises, whatever happens on a simulated box (design of the gateway)."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simbox import LAG_S, POLICY, STOP_S, changed
from simusers import SimBox

from hearth.gateway.scheduler.events import FailureKind, Tick
from hearth.gateway.scheduler.spec import EngineSpec, Policy

LOAD_S = 8.0
NAMES = ("a", "b", "c", "d", "e")
ENGINES = (
    EngineSpec(name="a", need_gib=60, held_gib=60, load_s=LOAD_S),
    EngineSpec(name="b", need_gib=60, held_gib=60, load_s=4.0),
    EngineSpec(name="c", need_gib=35, held_gib=35, load_s=2.0, start="boot"),
    EngineSpec(name="d", need_gib=20, held_gib=20, load_s=2.0, lane="utility"),
    EngineSpec(name="e", need_gib=100, held_gib=100, load_s=LOAD_S),
)
# What one engine of the queue may take before the next one's turn comes: a residency, half of the longest wait, a drain
# to its end, and its load, with all that memory takes to come back.
TURN_S = POLICY.min_residency_s + POLICY.max_wait_s / 2 + POLICY.drain_s + LOAD_S + STOP_S + LAG_S + POLICY.settle_s + 2
some_engine = st.sampled_from(NAMES)


class Promises(RuleBasedStateMachine):
    """Users, administrators, other processes and faults, in any order; the box checks every effect."""

    @initialize(
        taken=st.sampled_from([0.0, 0.5, 1.0]),
        pinned=st.sets(st.sampled_from(["c", "d"])),
        manual=st.booleans(),
    )
    def begin(self, taken: float, pinned: set[str], *, manual: bool) -> None:
        specs = [changed(spec, pinned=spec.name in pinned) for spec in ENGINES]
        if manual:
            specs[1] = changed(specs[1], start="manual")
        self.specs = specs
        self.box = SimBox(specs, taken)

    @rule(name=some_engine, patience_s=st.sampled_from([math.inf, math.inf, math.inf, 0.0, 7.0]))
    def arrive(self, name: str, patience_s: float) -> None:
        self.box.arrive(name, patience_s)

    @precondition(lambda self: self.box.waiting())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.box.leave(data.draw(st.sampled_from(self.box.waiting())))

    @precondition(lambda self: self.box.leased())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.box.end(data.draw(st.sampled_from(self.box.leased())))

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 11.0, 31.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.box.pass_(seconds)

    @rule(fail=st.sampled_from([None, None, *get_args(FailureKind)]))
    def loads_fail(self, fail: FailureKind | None) -> None:
        self.box.fail = None if fail == "cancelled" else fail

    @rule(name=some_engine)
    def an_engine_fails_again_and_again(self, name: str) -> None:
        before, self.box.fail = self.box.fail, "failed"
        for _ in range(POLICY.breaker_failures + 1):
            self.box.arrive(name)
            self.box.pass_(LOAD_S + 1)
        self.box.fail = before

    @rule(name=some_engine, restarted=st.booleans())
    def crash(self, name: str, *, restarted: bool) -> None:
        self.box.crashes(name, restarted=restarted)

    @rule(name=some_engine)
    def somebody_starts_an_engine(self, name: str) -> None:
        self.box.stranger_starts(name)

    @rule(gib=st.sampled_from([-10.0, 5.0, 30.0]))
    def another_program_takes_memory(self, gib: float) -> None:
        self.box.host_takes(gib)

    @rule(name=some_engine)
    def an_administrator_loads(self, name: str) -> None:
        self.box.admin_load(name)

    @rule(name=some_engine, drain_s=st.sampled_from([0.0, 5.0, 50.0]))
    def an_administrator_unloads(self, name: str, drain_s: float) -> None:
        self.box.admin_unload(name, drain_s)

    @rule(engines=st.frozensets(some_engine), deadline_s=st.sampled_from([0.0, 5.0, 50.0]))
    def another_process_holds(self, engines: frozenset[str], deadline_s: float) -> None:
        self.box.hold(engines, deadline_s)

    @precondition(lambda self: self.box.holds)
    @rule(data=st.data())
    def it_lets_go(self, data: st.DataObject) -> None:
        self.box.let_go(data.draw(st.sampled_from(sorted(self.box.holds))))

    @rule()
    def the_same_configuration_is_read_again(self) -> None:
        # Memory may have come back since the last event.
        self.box.tell(Tick())
        before = self.box.scheduler.view(self.box.now)
        counts = self.box.counts.copy()
        self.box.configure(self.specs)
        assert self.box.counts == counts
        assert self.box.scheduler.view(self.box.now) == before

    @rule(name=some_engine, version=st.sampled_from(["1", "2"]))
    def one_engine_is_configured_anew(self, name: str, version: str) -> None:
        self.box.tell(Tick())
        others = [view for view in self.box.scheduler.view(self.box.now) if view.name != name]
        self.specs = [changed(spec, version=version) if spec.name == name else spec for spec in self.specs]
        self.box.configure(self.specs)
        assert [view for view in self.box.scheduler.view(self.box.now) if view.name != name] == others

    @invariant()
    def it_sees_what_is(self) -> None:
        if not hasattr(self, "box"):
            return
        for view in self.box.scheduler.view(self.box.now):
            machine = self.box.machines[view.name]
            assert (view.phase, view.in_flight, view.waiting) == (
                machine.phase,
                len(machine.leases),
                len(machine.waiting),
            )

    def teardown(self) -> None:
        """When nothing goes wrong any more, everybody is answered, though nothing that is in flight ends by itself."""
        if not hasattr(self, "box"):
            return
        box = self.box
        box.fail = None
        for hold in list(box.holds):
            box.let_go(hold)
        box.longest_wait_s, box.counted_from = 0.0, box.now
        box.pass_(2 * len(NAMES) * TURN_S)
        note(f"longest wait {box.longest_wait_s}")
        assert not box.waiting()
        assert box.longest_wait_s <= len(NAMES) * TURN_S


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=150, stateful_step_count=40)


# Under load: every client asks again as soon as it is answered.


def two(load_s: float, **policy: float) -> SimBox:
    """Two engines that do not fit together."""
    engines = [EngineSpec(name=name, need_gib=90, held_gib=90, load_s=load_s) for name in NAMES[:2]]
    return SimBox(engines, policy=Policy(**policy))  # type: ignore[arg-type]


def keep_asking(box: SimBox, engine: str, answer_s: float, pause_s: float) -> None:
    """One client of an engine, for as long as the box runs."""
    mine: set[str] = set()

    def ask() -> None:
        mine.add(request := box.arrive(engine))
        if box.outcome[request] == "leased":
            answer(request)

    def answer(request: str) -> None:
        if request in mine:
            mine.discard(request)
            box.at(answer_s, lambda: done(request))

    def done(request: str) -> None:
        if box.outcome[request] == "leased":
            box.end(request)
        box.at(pause_s, ask)

    previous = box.on_grant

    def granted(request: str, name: str) -> None:
        previous(request, name)
        answer(request)

    box.on_grant = granted
    box.at(0.0, ask)


@settings(max_examples=30)
@given(
    load_s=st.sampled_from([1.0, 5.0, 60.0]),
    answer_s=st.floats(0.2, 40.0),
    overlap=st.integers(1, 6),
    pause_s=st.sampled_from([0.01, 0.5]),
)
def test_nobody_starves_however_busy_the_other_engine_is_and_no_stream_is_cut(
    load_s: float, answer_s: float, overlap: int, pause_s: float
) -> None:
    box = two(load_s)
    for _ in range(overlap):
        keep_asking(box, "a", answer_s, pause_s)
    box.pass_(load_s + 100)
    keep_asking(box, "b", answer_s, pause_s)
    box.longest_wait_s = 0.0
    box.pass_(400)
    policy = box.policy
    # Half of the longest wait until the door is shut, what is in flight to its end, the residency where it has just
    # come, and the load.
    bound_s = policy.max_wait_s / 2 + answer_s + load_s + STOP_S + LAG_S + policy.settle_s + policy.min_residency_s
    assert box.counts["begin b"] >= 1
    assert not box.cuts
    assert box.longest_wait_s <= bound_s


@settings(max_examples=20)
@given(
    load_s=st.sampled_from([1.0, 5.0, 20.0]),
    answers=st.tuples(st.floats(0.2, 4.0), st.floats(0.2, 4.0)),
)
def test_two_clients_of_two_engines_make_at_most_a_third_as_many_switches_as_requests(
    load_s: float, answers: tuple[float, float]
) -> None:
    box = two(load_s)
    for name, answer_s in zip(("a", "b"), answers, strict=True):
        keep_asking(box, name, answer_s, 0.05)
    box.pass_(600)
    assert box.counts["Grant"] > 50
    assert box.counts["switch"] <= box.counts["Grant"] / 3
    assert not box.cuts


def test_a_stream_without_an_end_is_cut_after_its_drain_for_who_waits() -> None:
    box = two(5.0)
    box.arrive("a")
    box.pass_(100)
    box.arrive("b")
    box.pass_(box.policy.max_wait_s / 2 + box.policy.drain_s - 0.1)
    assert not box.cuts
    box.pass_(20)
    assert len(box.cuts) == 1
    assert box.machines["b"].leases


def test_an_engine_that_never_starts_is_tried_ever_more_rarely() -> None:
    box = two(1.0)
    box.fail = "failed"
    for second in range(2 * 3600):
        box.at(float(second), lambda: box.arrive("a"))
    box.pass_(2 * 3600)
    # Three, then after 30, 60, 120, 240, 480, and every 600 seconds, each a little later for the load itself.
    assert box.counts["begin a"] == pytest.approx(3 + 5 + (7200 - 930) / 602, abs=2)
    assert not box.waiting()


def test_fifty_who_ask_for_a_cold_engine_are_all_answered_after_one_start() -> None:
    box = two(60.0)
    for _ in range(50):
        box.arrive("a")
    box.pass_(70)
    assert box.counts["begin a"] == 1
    assert len(box.leased()) == 50
