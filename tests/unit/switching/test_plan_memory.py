# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.plan: no plan that is carried out takes the host's floor, and nobody goes without need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from planning import TINY_GIB, Ask, asked, many

from hearth.contract import Contract
from hearth.switching.plan import Situation, plan_start, plan_stop, plan_switch

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState


@pytest.fixture(scope="session")
def ask(make_engine: MakeEngine, make_state: MakeState) -> Ask:
    return lambda data, *hows, lane="": data.draw(asked(make_engine, make_state, hows, lane))


@many
@given(data=st.data())
def test_a_plan_that_fits_leaves_the_floor_even_when_all_that_load_take_their_whole_need(
    ask: Ask, data: st.DataObject
) -> None:
    case = ask(data, "switch", "start")
    if case.arrives and not case.plan.missing_gib:
        assert case.after.has_its_floor


@many
@given(data=st.data())
def test_a_plan_never_says_that_memory_is_missing_where_what_it_starts_fits(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start")
    if case.arrives and case.world.fits(case.target, case.plan.stop):
        assert not case.plan.missing_gib


@many
@given(data=st.data())
def test_a_plan_that_starts_nothing_needs_no_memory(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")
    if not case.arrives:
        assert not case.plan.missing_gib


@many
@given(data=st.data())
def test_a_plan_says_what_is_available_after_where_every_engine_is_up_or_down(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")
    if all(state.is_up or not state.is_alive for state in case.world.states.values()):
        assert case.plan.free_after_gib == pytest.approx(case.after.available_gib, abs=TINY_GIB)


@many
@given(data=st.data())
def test_nobody_who_is_pinned_or_of_the_utility_lane_goes_for_another(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start")
    if case.target is not None:
        assert not {*case.plan.stop, *case.plan.disable} & (case.world.pinned | case.world.lane("utility"))


@many
@given(data=st.data())
def test_a_start_stops_nobody_without_whom_it_would_fit_as_well(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start")
    for name in case.plan.stop:
        assert not case.world.fits(case.target, {*case.plan.stop} - {name})


@many
@given(data=st.data())
def test_a_start_stops_one_only_where_all_used_less_recently_and_the_others_that_go_are_too_little(
    ask: Ask, data: st.DataObject
) -> None:
    # For each engine from the most recently used on: it stays if it can, whatever that costs those after it.
    case = ask(data, "start", lane="main")
    if case.target is None or not case.arrives or case.plan.missing_gib:
        return
    candidates = [engine.name for engine in case.world.candidates(case.target)]
    for place, name in enumerate(candidates):
        earlier, later = candidates[:place], candidates[place + 1 :]
        without = {*earlier, *(other for other in later if other in case.plan.stop)}

        assert (name in case.plan.stop) == (not case.world.fits(case.target, without))


@many
@given(data=st.data())
def test_a_start_finds_room_exactly_where_there_is_some(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start", lane="main")
    if case.target is not None and case.arrives:
        everyone = [engine.name for engine in case.world.candidates(case.target)]

        assert (case.plan.missing_gib == 0) == case.world.fits(case.target, everyone)


@many
@given(data=st.data())
def test_a_start_that_cannot_fit_stops_nobody(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start")
    if case.plan.missing_gib:
        assert not case.plan.stop


@many
@given(data=st.data())
def test_with_what_is_missing_the_same_fits_and_with_less_it_does_not(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start")
    missing = case.plan.missing_gib
    if missing:
        assert not case.planned(case.world.given(missing), sick=case.sick).missing_gib
        assert not case.world.given(missing - 0.11).fits(case.target, case.plan.stop)


@many
@given(data=st.data())
def test_the_least_recently_used_stops_first(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start", lane="main")
    if case.target is not None:
        order = [engine.name for engine in case.world.candidates(case.target)]

        assert [*case.plan.stop] == [name for name in order if name in case.plan.stop]


@many
@given(data=st.data())
def test_a_start_in_the_utility_lane_stops_nobody(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start", lane="utility")
    if case.target is not None:
        assert not case.plan.stop


class Small:
    """A box of 64 GiB with 4 GiB of floor: old (20 GiB) was used before new (8 GiB); big (30 GiB) is to come."""

    def __init__(self, make_engine: MakeEngine, make_state: MakeState) -> None:
        self.old, self.new, self.big = (make_engine(name) for name in ("old", "new", "big"))
        self._engines = (self.old, self.new, self.big)
        self._make_state = make_state

    def now(
        self,
        available_gib: float,
        *,
        old: str = "active",
        new: str = "active",
        big: str = "inactive",
        used: dict[str, float] | None = None,
    ) -> Situation:
        states = (
            self._make_state(self.old, old, started_us=100),
            self._make_state(self.new, new, started_us=200),
            self._make_state(self.big, big),
        )
        return Situation(
            contract=Contract(schema=1, key_file="", floor_gib=4.0, engines=self._engines),
            states={state.unit: state for state in states},
            needs={"old": 20.0, "new": 8.0, "big": 30.0},
            available_gib=available_gib,
            used=used or {},
        )


@pytest.fixture
def three(make_engine: MakeEngine, make_state: MakeState) -> Callable[[float], Situation]:
    """Three engines of 5, 5 and 10 GiB, used in this order, and a fourth of 20 GiB that is down; no floor."""
    engines = [make_engine(name) for name in ("first", "second", "third", "fourth")]
    states = [make_state(engine, "active", started_us=place) for place, engine in enumerate(engines[:3])]

    def make(available_gib: float) -> Situation:
        return Situation(
            contract=Contract(schema=1, key_file="", floor_gib=0.0, engines=tuple(engines)),
            states={state.unit: state for state in (*states, make_state(engines[3]))},
            needs={"first": 5.0, "second": 5.0, "third": 10.0, "fourth": 20.0},
            available_gib=available_gib,
        )

    return make


@pytest.fixture
def box(make_engine: MakeEngine, make_state: MakeState) -> Small:
    return Small(make_engine, make_state)


@pytest.mark.parametrize(
    ("available_gib", "stop", "free_after_gib"),
    [
        pytest.param(34.0, (), 4.0, id="it fits to the last GiB"),
        pytest.param(33.9, ("old",), 23.9, id="the least recently used is enough"),
        pytest.param(14.0, ("old",), 4.0, id="the least recently used is just enough"),
        pytest.param(13.9, ("old", "new"), 11.9, id="both have to go"),
        pytest.param(6.0, ("old", "new"), 4.0, id="both are just enough"),
    ],
)
def test_a_start_stops_as_many_as_its_memory_needs(
    box: Small, available_gib: float, stop: tuple[str, ...], free_after_gib: float
) -> None:
    plan = plan_start(box.now(available_gib), box.big)

    assert plan.stop == stop
    assert plan.free_after_gib == pytest.approx(free_after_gib)
    assert plan.missing_gib == 0


def test_the_less_recently_used_stays_where_the_later_one_has_to_go_and_is_enough(box: Small) -> None:
    plan = plan_start(box.now(14.0, used={"old": 300.0, "new": 250.0}), box.big)

    assert plan.stop == ("old",)


@pytest.mark.parametrize(
    ("missing_gib", "stop"),
    [
        (10.0, ("first", "second")),
        # Without the third it is too little; of the others one can stay, and the second was used later.
        (15.0, ("first", "third")),
        (20.0, ("first", "second", "third")),
    ],
)
def test_of_those_that_need_not_go_the_most_recently_used_stays(
    three: Callable[[float], Situation], missing_gib: float, stop: tuple[str, ...]
) -> None:
    now = three(20.0 - missing_gib)

    assert plan_start(now, now.contract.find("fourth")).stop == stop


def test_a_use_counts_more_than_an_earlier_start(box: Small) -> None:
    # 8 GiB are missing: either would do.
    assert plan_start(box.now(26.0, used={"old": 300.0}), box.big).stop == ("new",)


def test_a_start_counts_more_than_an_earlier_use(box: Small) -> None:
    assert plan_start(box.now(26.0, used={"new": 50.0}), box.big).stop == ("old",)


def test_a_start_that_cannot_fit_says_what_is_missing_with_nobody_stopped(box: Small) -> None:
    plan = plan_start(box.now(5.9), box.big)

    assert plan.stop == ()
    assert plan.missing_gib == pytest.approx(28.1)


def test_what_is_missing_is_never_said_to_be_nothing(box: Small) -> None:
    plan = plan_switch(box.now(33.99, old="inactive", new="inactive"), box.big)

    assert f"{plan.missing_gib:.1f}" == "0.1"


def test_a_restart_for_which_the_floor_is_too_low_makes_room_as_a_start_does(box: Small) -> None:
    plan = plan_start(box.now(3.0, big="active"), box.big, sick=True)

    assert plan.restart
    assert plan.stop == ("old",)
    assert plan.missing_gib == 0


def test_a_switch_that_cannot_fit_says_what_is_missing_once_the_others_stopped(box: Small) -> None:
    plan = plan_switch(box.now(5.0), box.big)

    assert plan.stop == ("old", "new")
    assert plan.missing_gib == pytest.approx(1.0)


def test_what_an_engine_that_loads_may_yet_take_is_left_to_it(box: Small) -> None:
    plan = plan_start(box.now(50.0, old="activating", new="inactive"), box.big)

    assert plan.missing_gib == pytest.approx(4.0)


def test_an_engine_that_waits_for_its_automatic_restart_will_take_its_need(box: Small, make_state: MakeState) -> None:
    now = box.now(50.0, new="inactive")
    again = make_state(box.old, "activating", sub="auto-restart")

    plan = plan_start(replace(now, states={**now.states, box.old.unit: again}), box.big)

    assert plan.missing_gib == pytest.approx(4.0)


def test_a_restart_leaves_nothing_to_the_run_of_the_engine_that_ends(box: Small) -> None:
    plan = plan_start(box.now(34.0, big="activating"), box.big, sick=True)

    assert plan.restart
    assert plan.stop == ()
    assert plan.missing_gib == 0


@pytest.mark.parametrize("fields", [{"lane": "utility"}, {"pinned": True}])
def test_neither_an_engine_of_the_utility_lane_nor_a_pinned_one_goes_for_a_start(
    make_engine: MakeEngine, box: Small, fields: dict[str, object]
) -> None:
    now = box.now(33.0, new="inactive")
    stays = make_engine("old", **fields)

    plan = plan_start(replace(now, contract=replace(now.contract, engines=(stays, box.new, box.big))), box.big)

    assert plan.stop == ()
    assert plan.missing_gib == pytest.approx(1.0)


def test_an_engine_of_the_utility_lane_takes_no_room_from_the_main_lane(make_engine: MakeEngine, box: Small) -> None:
    now = box.now(33.0)
    embed = make_engine("big", lane="utility")

    plan = plan_start(replace(now, contract=replace(now.contract, engines=(box.old, box.new, embed))), embed)

    assert plan.stop == ()
    assert plan.missing_gib == pytest.approx(1.0)


def test_sums_of_tenths_that_are_not_exact_are_no_reason_to_refuse(box: Small) -> None:
    now = replace(box.now(3.6, new="inactive"), needs={"old": 0.5, "new": 8.0, "big": 0.1})

    plan = plan_start(now, box.big)

    assert plan.missing_gib == 0


def test_what_an_engine_that_loads_may_have_taken_is_not_counted_on(box: Small) -> None:
    plan = plan_switch(box.now(33.0, old="activating", new="inactive"), box.big)

    assert plan.stop == ("old",)
    assert plan.missing_gib == pytest.approx(1.0)


def test_a_restart_counts_on_what_the_engine_itself_gives_back(box: Small) -> None:
    plan = plan_switch(box.now(4.0, old="inactive", new="inactive", big="active"), box.big, sick=True)

    assert plan.missing_gib == 0
    assert plan.free_after_gib == pytest.approx(4.0)


def test_an_engine_whose_unit_was_changed_gives_back_what_it_holds(box: Small) -> None:
    now = replace(box.now(4.0, old="inactive", new="inactive", big="active"), held={"big": 12.0})

    plan = plan_switch(now, box.big, sick=True)

    assert plan.missing_gib == pytest.approx(18.0)


def test_a_start_that_stops_somebody_in_words(box: Small) -> None:
    assert plan_start(box.now(14.0), box.big, boot=True).sentences() == [
        "stop old (20.0 GiB)",
        "start big (30.0 GiB)",
        "start big at boot",
        "4.0 GiB available after",
    ]


def test_a_stop_says_what_is_available_after(box: Small) -> None:
    assert plan_stop(box.now(14.0), box.new).sentences() == ["stop new (8.0 GiB)", "22.0 GiB available after"]
