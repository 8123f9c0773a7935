# SPDX-License-Identifier: Apache-2.0
"""switching.plan: whatever the states, a plan keeps its promises; what it says of memory is in test_plan_memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from planning import Ask, asked, many

from hearth.contract import Contract, Engine
from hearth.switching.plan import Situation, keeps_its_choice, plan_start, plan_stop, plan_switch, states_after

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

MakeContract = Callable[..., Contract]
Now = Callable[..., Situation]


@pytest.fixture(scope="session")
def ask(make_engine: MakeEngine, make_state: MakeState) -> Ask:
    return lambda data, *hows, lane="": data.draw(asked(make_engine, make_state, hows, lane))


@pytest.fixture
def now(make_contract: MakeContract, make_state: MakeState) -> Now:
    """A situation without want of memory, from engines with their states: ("active", enabled)."""

    def make(*engines: tuple[Engine, str, bool]) -> Situation:
        return Situation(
            contract=make_contract(*(engine for engine, _, _ in engines)),
            states={engine.unit: make_state(engine, active, enabled=enabled) for engine, active, enabled in engines},
            needs={engine.name: engine.memory_gib for engine, _, _ in engines},
            available_gib=100.0,
        )

    return make


@given(data=st.data())
def test_after_a_switch_of_the_main_lane_exactly_the_target_and_pinned_ones_are_up_in_it(
    ask: Ask, data: st.DataObject
) -> None:
    case = ask(data, "switch", lane="main")
    if case.target is not None:
        stay = case.world.alive & case.world.pinned

        assert case.after.alive & case.world.lane("main") == {case.target.name} | (stay & case.world.lane("main"))


@given(data=st.data())
def test_after_a_switch_of_the_main_lane_exactly_the_target_and_pinned_ones_start_at_boot(
    ask: Ask, data: st.DataObject
) -> None:
    case = ask(data, "switch", lane="main")
    if case.target is not None and case.boot:
        stay = case.world.at_boot & case.world.pinned

        assert case.after.at_boot & case.world.lane("main") == {case.target.name} | (stay & case.world.lane("main"))


@given(data=st.data())
def test_after_a_switch_to_none_nothing_is_up_in_the_lane_not_even_what_is_pinned(
    ask: Ask, data: st.DataObject
) -> None:
    case = ask(data, "switch")
    if case.target is None:
        assert not case.after.alive & case.world.lane(case.lane)
        assert not (case.boot and case.after.at_boot & case.world.lane(case.lane))


@given(data=st.data())
def test_in_the_utility_lane_a_switch_to_an_engine_stops_nobody(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", lane="utility")
    if case.target is not None:
        assert not case.plan.stop
        assert not case.plan.disable


@given(data=st.data())
def test_after_a_start_the_target_is_up_and_nobody_else_has_come(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start")

    assert case.target is not None
    assert case.target.name in case.after.alive
    assert case.after.alive <= {case.target.name} | case.world.alive


@given(data=st.data())
def test_a_start_of_what_is_up_and_well_stops_nobody(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start")
    if case.target is not None and case.world.state(case.target).is_coming and not case.sick:
        assert not case.plan.stop


@given(data=st.data())
def test_a_start_takes_nobody_from_boot(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start")

    assert not case.plan.disable
    assert case.after.at_boot >= case.world.at_boot


@given(data=st.data())
def test_after_a_stop_exactly_the_one_is_down_that_was_up(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "stop")

    assert case.target is not None
    assert case.after.alive == case.world.alive - {case.target.name}
    assert case.after.at_boot == case.world.at_boot - ({case.target.name} if case.boot else set())


@given(data=st.data())
def test_nothing_outside_the_lane_is_touched(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")

    assert case.plan.lane == case.lane
    assert {*case.plan.stop, *case.plan.disable, *case.plan.before} <= case.world.lane(case.lane)


@given(data=st.data())
def test_the_target_is_never_stopped_nor_taken_from_boot(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start")

    assert case.plan.target not in {*case.plan.stop, *case.plan.disable}


@given(data=st.data())
def test_only_what_is_alive_is_stopped_and_only_what_is_enabled_is_disabled(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")

    assert {*case.plan.stop} <= case.world.alive
    assert {*case.plan.disable} <= case.world.at_boot


@given(data=st.data())
def test_without_boot_the_start_at_boot_stays(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")
    if not case.boot:
        assert not case.plan.disable
        assert not case.plan.enable


@given(data=st.data())
def test_with_boot_what_is_switched_to_or_started_starts_at_boot(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start")
    if case.boot and case.target is not None:
        assert case.target.name in case.after.at_boot


@given(data=st.data())
def test_the_target_is_started_restarted_or_waited_for_but_never_two_of_these(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")

    assert case.plan.start + case.plan.restart + case.plan.wait <= 1


@given(data=st.data())
def test_what_was_up_before_is_what_was_alive_in_the_lane(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start")

    assert {*case.plan.before} == case.world.alive & case.world.lane(case.lane)


@given(data=st.data())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")

    again = case.planned(case.after)

    assert not again.changes
    assert not again.wait


@given(data=st.data())
def test_what_is_foreseen_of_the_states_is_what_they_are_once_the_plan_was_carried_out(
    ask: Ask, data: st.DataObject
) -> None:
    case = ask(data, "switch", "start", "stop")

    foreseen = states_after(case.plan, case.world.contract, case.world.states)

    for engine in case.world.contract.engines:
        assert foreseen[engine.unit].is_coming == case.after.state(engine).is_coming
        assert foreseen[engine.unit].is_alive == case.after.state(engine).is_alive
        assert foreseen[engine.unit].enabled == case.after.state(engine).enabled


def test_of_what_is_started_while_it_still_stops_is_foreseen_that_it_is_up(make_engine: MakeEngine, now: Now) -> None:
    scout = make_engine("scout")
    here = now((scout, "deactivating", False))

    assert states_after(plan_start(here, scout), here.contract, here.states)[scout.unit].is_up


def test_what_is_foreseen_to_be_started_is_not_the_first_to_go_for_what_comes_after(
    make_engine: MakeEngine, make_state: MakeState, now: Now
) -> None:
    old, new, third = make_engine("old"), make_engine("new"), make_engine("third")
    here = now((old, "active", False), (new, "inactive", False), (third, "inactive", False))
    here = replace(here, states={**here.states, old.unit: make_state(old, "active", started_us=7)})

    then = replace(here, states=states_after(plan_start(here, new), here.contract, here.states), available_gib=4.0)

    assert plan_start(then, third).stop == ("old",)


@given(data=st.data())
def test_there_are_words_exactly_where_there_are_changes(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")

    assert bool(case.plan.sentences()) == case.plan.changes


@given(data=st.data())
def test_a_plan_has_the_size_of_everything_that_stops_or_starts(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "switch", "start", "stop")
    moved = {*case.plan.stop, *([case.plan.target] if case.plan.start or case.plan.restart else [])}

    assert case.plan.gib == {name: case.world.needs[name] for name in moved}


@pytest.mark.parametrize("plan", [plan_switch, plan_start])
@pytest.mark.parametrize(
    ("active", "sick", "step"),
    [
        ("inactive", False, "start"),
        ("failed", False, "start"),
        ("deactivating", False, "start"),
        ("activating", False, "wait"),
        ("activating", True, "restart"),
        ("active", True, "restart"),
        ("active", False, ""),
    ],
)
def test_the_step_for_the_target_by_its_state(
    make_engine: MakeEngine, now: Now, plan: Callable[..., object], active: str, sick: bool, step: str
) -> None:
    scout = make_engine("scout")

    made = plan(now((scout, active, True)), scout, sick=sick)

    assert [name for name in ("start", "restart", "wait") if getattr(made, name)] == ([step] if step else [])


def test_a_switch_in_words(make_engine: MakeEngine, now: Now) -> None:
    old, new = make_engine("old", memory_gib=32.0), make_engine("new", memory_gib=65.5)

    plan = plan_switch(now((old, "active", True), (new, "inactive", False)), new)

    assert plan.sentences() == [
        "stop old (32.0 GiB)",
        "start new (65.5 GiB)",
        "start new at boot",
        "66.5 GiB available after",
    ]
    assert plan.before == ("old",)


def test_a_switch_to_what_is_up_alone_in_words(make_engine: MakeEngine, now: Now) -> None:
    old, new = make_engine("old"), make_engine("new")

    plan = plan_switch(now((old, "inactive", True), (new, "active", False)), new)

    assert plan.sentences() == ["start new at boot"]
    assert plan.disable == ("old",)


def test_a_restart_in_words(make_engine: MakeEngine, now: Now) -> None:
    scout = make_engine("scout", memory_gib=65.0)

    plan = plan_switch(now((scout, "active", True)), scout, sick=True)

    assert plan.sentences() == ["restart scout (65.0 GiB)", "100.0 GiB available after"]


def test_none_in_words(make_engine: MakeEngine, now: Now) -> None:
    old = make_engine("old", memory_gib=32.0)

    plan = plan_switch(now((old, "active", True)), None)

    assert plan.sentences() == ["stop old (32.0 GiB)", "no longer start old at boot", "132.0 GiB available after"]


def test_a_start_beside_others_in_words(make_engine: MakeEngine, now: Now) -> None:
    first, second = make_engine("first", memory_gib=32.0), make_engine("second", memory_gib=65.0)

    plan = plan_start(now((first, "active", True), (second, "inactive", False)), second)

    assert plan.sentences() == ["start second (65.0 GiB)", "35.0 GiB available after"]
    assert plan.before == ("first",)


def test_a_stop_in_words(make_engine: MakeEngine, now: Now) -> None:
    first, second = make_engine("first", memory_gib=32.0), make_engine("second")

    plan = plan_stop(now((first, "active", True), (second, "active", False)), first)

    assert plan.sentences() == ["stop first (32.0 GiB)", "no longer start first at boot", "132.0 GiB available after"]
    assert plan.before == ("first",)


def test_what_is_down_and_starts_not_at_boot_needs_no_words_to_stop(make_engine: MakeEngine, now: Now) -> None:
    scout = make_engine("scout")

    plan = plan_stop(now((scout, "inactive", False)), scout)

    assert plan.sentences() == []
    assert plan.before == ()


@pytest.mark.parametrize(
    ("a", "b", "choice"),
    [
        pytest.param(("inactive", False), ("inactive", False), None, id="nobody chose"),
        pytest.param(("active", False), ("inactive", False), "a", id="the one that is up"),
        pytest.param(("inactive", False), ("failed", True), "b", id="the one that starts at boot, though down"),
        pytest.param(("inactive", True), ("active", False), "b", id="up before boot"),
        pytest.param(("inactive", True), ("activating", False), "b", id="on its way up counts as up"),
        pytest.param(("active", False), ("active", True), "b", id="of two that are up, the one that starts at boot"),
    ],
)
def test_the_choice_that_is_kept(
    make_engine: MakeEngine, now: Now, a: tuple[str, bool], b: tuple[str, bool], choice: str | None
) -> None:
    here = now((make_engine("a"), *a), (make_engine("b"), *b))

    kept = keeps_its_choice(here.contract, here.states, "main")

    assert (kept.name if kept else None) == choice


def test_a_pinned_engine_that_is_up_is_no_choice_somebody_made(make_engine: MakeEngine, now: Now) -> None:
    here = now((make_engine("a", pinned=True), "active", True), (make_engine("b"), "inactive", True))

    kept = keeps_its_choice(here.contract, here.states, "main")

    assert kept is not None
    assert kept.name == "b"


def test_the_utility_lane_has_no_choice_to_keep(make_engine: MakeEngine, now: Now) -> None:
    here = now((make_engine("embed", lane="utility"), "active", False))

    assert keeps_its_choice(here.contract, here.states, "utility") is None


@many
@given(data=st.data())
def test_where_it_is_known_who_goes_those_go_and_nobody_else(ask: Ask, data: st.DataObject) -> None:
    case = ask(data, "start")
    world = case.world
    named = data.draw(st.sets(st.sampled_from([engine.name for engine in world.contract.engines])))

    assert case.target is not None
    plan = plan_start(world.situation, case.target, evict=named)

    arrives = not world.state(case.target).is_coming
    assert set(plan.stop) == (named & world.alive - world.pinned - {case.target.name} if arrives else set())
    assert (plan.start, plan.enable, plan.disable) == (arrives, False, ())
