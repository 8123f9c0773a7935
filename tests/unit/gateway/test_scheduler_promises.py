# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: what it promises, whatever happens on a simulated box (design of the gateway)."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from simbox import LAG_S, POLICY, STOP_S, changed
from simusers import SimBox

from hearth.contract import Start
from hearth.gateway.scheduler.events import Ended, FailureKind, Tick
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
TURN_S = POLICY.min_residency_s + POLICY.max_wait_s / 2 + POLICY.drain_s + LOAD_S + STOP_S + LAG_S + POLICY.settle_s + 4
# Not how long who is in flight may go on: that was promised to them.
POLICIES = (
    POLICY,
    changed(POLICY, idle_stop_s=0.0, cancel_unwanted_loads=False),
    changed(POLICY, idle_stop_s=30.0, queue_max=2),
    changed(POLICY, max_wait_s=10.0, min_residency_s=3.0),
)
some_engine = st.sampled_from(NAMES)


class Promises(RuleBasedStateMachine):
    """Users, administrators, other processes and faults, in any order; the box judges what is done and what is not."""

    @initialize(
        taken=st.sampled_from([0.0, 0.5, 1.0]),
        late_s=st.sampled_from([0.0, 0.0, 0.4]),
        pinned=st.sets(st.sampled_from(["c", "d"])),
        manual=st.booleans(),
    )
    def begin(self, taken: float, late_s: float, pinned: set[str], *, manual: bool) -> None:
        self.specs = {spec.name: changed(spec, pinned=spec.name in pinned) for spec in ENGINES}
        if manual:
            self.specs["b"] = changed(self.specs["b"], start="manual")
        self.box = SimBox(list(self.specs.values()), taken, late_s=late_s)

    # Requests

    @rule(name=some_engine, patience_s=st.sampled_from([math.inf, math.inf, math.inf, 0.0, 7.0]))
    def arrive(self, name: str, patience_s: float) -> None:
        self.box.arrive(name, patience_s)

    @precondition(lambda self: self.box.waiting())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.box.leave(data.draw(st.sampled_from(self.box.waiting())))

    @precondition(lambda self: self.box.leased())
    @rule(data=st.data(), hangs_up=st.booleans())
    def end(self, data: st.DataObject, *, hangs_up: bool) -> None:
        request = data.draw(st.sampled_from(self.box.leased()))
        (self.box.leave if hangs_up else self.box.end)(request)

    @rule(name=st.sampled_from("abc"), other=st.sampled_from("abe"))
    def another_is_asked_for_while_one_is_in_use(self, name: str, other: str) -> None:
        """Until the door is shut: few other steps lead there."""
        self.box.arrive(name)
        self.box.pass_(LOAD_S + POLICY.min_residency_s)
        self.box.arrive(other)
        self.box.pass_(POLICY.max_wait_s / 2)
        self.box.arrive(name)

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 11.0, 31.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.box.pass_(seconds)

    # Faults

    @rule(fail=st.sampled_from([None, None, *get_args(FailureKind)]), stuck=st.booleans())
    def changes_fail(self, fail: FailureKind | None, *, stuck: bool) -> None:
        self.box.fail = None if fail == "cancelled" else fail
        self.box.stuck = stuck

    @rule(name=some_engine)
    def an_engine_fails_again_and_again(self, name: str) -> None:
        before, self.box.fail = self.box.fail, "failed"
        for _ in range(POLICY.breaker_failures + 1):
            self.box.arrive(name)
            self.box.pass_(LOAD_S + 1)
        self.box.fail = before

    def _draw_one(self, data: st.DataObject) -> str:
        """An engine: of every two one that somebody uses, or waits for."""
        busy = [name for name, machine in self.box.machines.items() if machine.leases or machine.waiting]
        return data.draw(st.sampled_from(busy) | some_engine if busy else some_engine)

    @rule(data=st.data(), restarted=st.booleans())
    def crash(self, data: st.DataObject, *, restarted: bool) -> None:
        self.box.crashes(self._draw_one(data), restarted=restarted)

    # Others on the box

    @rule(name=some_engine)
    def somebody_starts_an_engine(self, name: str) -> None:
        self.box.stranger_starts(name)

    @rule(data=st.data(), restarts=st.booleans())
    def somebody_stops_an_engine(self, data: st.DataObject, *, restarts: bool) -> None:
        self.box.stranger_stops(self._draw_one(data), restarts=restarts)

    @rule(name=some_engine)
    def what_is_known_is_told_again(self, name: str) -> None:
        self.box.told_again(name)
        for request in [one for one, outcome in self.box.outcome.items() if outcome in {"ended", "left", "done"}]:
            self.box.tell(Ended(request))

    @rule(gib=st.sampled_from([-10.0, 5.0, 30.0]))
    def another_program_takes_memory(self, gib: float) -> None:
        self.box.host_takes(gib)

    @rule(data=st.data(), deadline_s=st.sampled_from([0.0, 5.0, 50.0]), alone=st.booleans())
    def another_process_holds(self, data: st.DataObject, deadline_s: float, *, alone: bool) -> None:
        engines = frozenset() if alone else data.draw(st.frozensets(some_engine))
        self.box.hold(engines | {self._draw_one(data)}, deadline_s)

    @precondition(lambda self: self.box.holds)
    @rule(data=st.data())
    def it_lets_go(self, data: st.DataObject) -> None:
        self.box.let_go(data.draw(st.sampled_from(sorted(self.box.holds))))

    # Administrators

    @rule(name=some_engine)
    def an_administrator_loads(self, name: str) -> None:
        self.box.admin_load(name)

    @rule(data=st.data(), drain_s=st.sampled_from([0.0, 5.0, 50.0]))
    def an_administrator_unloads(self, data: st.DataObject, drain_s: float) -> None:
        self.box.admin_unload(self._draw_one(data), drain_s)

    def _configure(self) -> None:
        """Nothing but what changed is touched: no effect, and all others are seen as before."""
        # Memory may have come back since the last event.
        self.box.tell(Tick())
        self.box.configure(list(self.specs.values()))

    @rule()
    def the_same_configuration_is_read_again(self) -> None:
        self._configure()
        before, counts = self.box.scheduler.view(self.box.now), self.box.counts.copy()
        self._configure()
        assert self.box.counts == counts
        assert self.box.scheduler.view(self.box.now) == before

    @rule(name=some_engine, version=st.sampled_from(["1", "2"]))
    def one_engine_is_configured_anew(self, name: str, version: str) -> None:
        self._configure()
        others = [view for view in self.box.scheduler.view(self.box.now) if view.name != name]
        if name in self.specs:
            self.specs[name] = changed(self.specs[name], version=version)
        self._configure()
        assert [view for view in self.box.scheduler.view(self.box.now) if view.name != name] == others

    @rule(name=some_engine, pinned=st.booleans(), start=st.sampled_from(["demand", "boot", "manual"]))
    def it_is_configured_what_may_be_done_with_an_engine(self, name: str, start: Start, *, pinned: bool) -> None:
        if name in self.specs:
            self.specs[name] = changed(self.specs[name], start=start, pinned=pinned and name in {"c", "d"})
        self._configure()

    @rule(name=some_engine)
    def an_engine_is_removed_or_comes_back(self, name: str) -> None:
        if self.specs.pop(name, None) is None:
            self.specs[name] = next(spec for spec in ENGINES if spec.name == name)
        self._configure()

    @rule(policy=st.sampled_from(POLICIES))
    def the_policy_is_another(self, policy: Policy) -> None:
        self.box.configure(list(self.specs.values()), policy)

    # At the end

    def teardown(self) -> None:
        """When nothing goes wrong any more, everybody is answered, though nothing that is in flight ends by itself."""
        if not hasattr(self, "box") or self.box.failed:
            return
        box = self.box
        box.fail, box.stuck = None, False
        for hold in list(box.holds):
            box.let_go(hold)
        box.longest_wait_s, box.counted_from = 0.0, box.now
        box.pass_(2 * len(NAMES) * TURN_S)
        note(f"longest wait {box.longest_wait_s}")
        assert not box.waiting()
        assert box.longest_wait_s <= len(NAMES) * TURN_S
        self._nobody_comes_any_more()

    def _nobody_comes_any_more(self) -> None:
        """Then what starts on demand stops, and nothing begins; once the gateway ends, nothing stops either."""
        box = self.box
        for request in box.leased():
            box.end(request)
        box.pass_(2 * POLICY.idle_stop_s + len(NAMES) * (STOP_S + LAG_S + POLICY.settle_s))
        for machine in box.machines.values():
            stays = not machine.configured or machine.spec.start != "demand" or machine.spec.pinned
            assert machine.phase in {"stopped", "failed"} or stays or not box.policy.idle_stop_s, "it does not stop"
        box.arrive("d")
        box.pass_(LOAD_S)
        box.close()
        box.arrive("d")
        box.arrive("a")
        box.admin_load("c")
        box.pass_(2 * POLICY.idle_stop_s)


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=150, stateful_step_count=40, report_multiple_bugs=False)


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
