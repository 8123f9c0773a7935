# SPDX-License-Identifier: Apache-2.0
"""hearth.plan: whatever the states, a plan keeps its promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.contract import Contract, Engine
from hearth.plan import Plan, keeps_its_choice, plan_switch
from hearth.units import UnitState

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

MakeContract = Callable[..., Contract]
ACTIVE = ("active", "activating", "reloading", "deactivating", "inactive", "failed", "maintenance")
LANES = st.sampled_from(["main", "utility"])


class Box:
    """A drawn situation: engines in two lanes, each in some state, and a plan for a drawn target."""

    def __init__(self, draw: Callable[..., Any], make_engine: MakeEngine, make_state: MakeState) -> None:
        count = draw(st.integers(1, 5))
        self.engines = [make_engine(f"m{number}", lane=draw(LANES)) for number in range(count)]
        self.states = {
            engine.unit: make_state(engine, draw(st.sampled_from(ACTIVE)), enabled=draw(st.booleans()))
            for engine in self.engines
        }
        self.target: Engine | None = draw(st.sampled_from([None, *self.engines]))
        self.lane: str = self.target.lane if self.target else draw(LANES)
        self.contract = Contract(schema=1, key_file="", floor_gib=0.0, engines=tuple(self.engines))
        self.sick: bool = draw(st.booleans()) and self.target is not None and self.state(self.target).is_alive
        self.boot: bool = draw(st.booleans())
        self.plan = self.planned(self.states, self.sick)

    def planned(self, states: Mapping[str, UnitState], sick: bool) -> Plan:
        return plan_switch(self.contract, states, self.target, sick, self.boot, self.lane)

    def state(self, engine: Engine) -> UnitState:
        return self.states[engine.unit]

    def alive_after(self) -> set[str]:
        alive = {engine.name for engine in self.engines if self.state(engine).is_alive} - set(self.plan.stop)
        return alive | ({self.plan.target} if self.plan.start and self.plan.target else set())

    def boots_after(self) -> set[str]:
        enabled = {engine.name for engine in self.engines if self.state(engine).enabled} - set(self.plan.disable)
        return enabled | ({self.plan.target} if self.plan.enable and self.plan.target else set())

    def names(self, lane: str) -> set[str]:
        return {engine.name for engine in self.engines if engine.lane == lane}


@pytest.fixture(scope="session")
def boxes(make_engine: MakeEngine, make_state: MakeState) -> Callable[[st.DataObject], Box]:
    @st.composite
    def box(draw: Callable[..., Any]) -> Box:
        return Box(draw, make_engine, make_state)

    return lambda data: data.draw(box())


Boxes = Callable[[st.DataObject], Box]


@given(data=st.data())
def test_after_a_plan_for_the_main_lane_exactly_the_target_is_up_in_it(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)
    if box.lane == "main":
        assert box.alive_after() & box.names("main") == ({box.target.name} if box.target else set())


@given(data=st.data())
def test_after_a_plan_with_boot_exactly_the_target_of_the_main_lane_starts_at_boot(
    boxes: Boxes, data: st.DataObject
) -> None:
    box = boxes(data)
    if box.lane == "main" and box.boot:
        assert box.boots_after() & box.names("main") == ({box.target.name} if box.target else set())


@given(data=st.data())
def test_nothing_outside_the_lane_is_touched(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)

    assert {*box.plan.stop, *box.plan.disable, *box.plan.before} <= box.names(box.lane)


@given(data=st.data())
def test_the_target_is_never_stopped_nor_taken_from_boot(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)

    assert box.plan.target not in {*box.plan.stop, *box.plan.disable}


@given(data=st.data())
def test_only_what_is_alive_is_stopped_and_only_what_is_enabled_is_disabled(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)
    by_name = {engine.name: box.state(engine) for engine in box.engines}

    assert all(by_name[name].is_alive for name in box.plan.stop)
    assert all(by_name[name].enabled for name in box.plan.disable)


@given(data=st.data())
def test_in_the_utility_lane_others_go_only_for_none(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)
    if box.lane == "utility":
        alive = box.names("utility") & {engine.name for engine in box.engines if box.state(engine).is_alive}

        assert set(box.plan.stop) == (set() if box.target else alive)
        assert box.target is None or not box.plan.disable


@given(data=st.data())
def test_without_boot_the_boot_default_stays(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)
    if not box.boot:
        assert not box.plan.disable
        assert not box.plan.enable


@given(data=st.data())
def test_the_target_is_started_restarted_or_waited_for_but_never_two_of_these(
    boxes: Boxes, data: st.DataObject
) -> None:
    box = boxes(data)

    assert box.plan.start + box.plan.restart + box.plan.wait <= 1


@given(data=st.data())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)
    alive, boots = box.alive_after(), box.boots_after()
    after = {
        engine.unit: UnitState(
            unit=engine.unit,
            load="loaded",
            active="active" if engine.name in alive else "inactive",
            sub="",
            enabled=engine.name in boots,
            result="success",
            main_pid=0,
            started_us=0,
            fragment="",
            outdated=False,
        )
        for engine in box.engines
    }

    again = box.planned(after, False)

    assert not again.changes
    assert not again.wait


@given(data=st.data())
def test_there_are_words_exactly_where_there_are_changes(boxes: Boxes, data: st.DataObject) -> None:
    box = boxes(data)

    assert bool(box.plan.sentences()) == box.plan.changes


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
    make_engine: MakeEngine, make_state: MakeState, make_contract: MakeContract, active: str, sick: bool, step: str
) -> None:
    scout = make_engine("scout")
    states = {scout.unit: make_state(scout, active, enabled=True)}

    plan = plan_switch(make_contract(scout), states, scout, sick, True, "main")

    assert [name for name in ("start", "restart", "wait") if getattr(plan, name)] == ([step] if step else [])


def test_a_switch_in_words(make_engine: MakeEngine, make_state: MakeState, make_contract: MakeContract) -> None:
    old, new = make_engine("old"), make_engine("new")
    states = {old.unit: make_state(old, "active", enabled=True), new.unit: make_state(new)}

    plan = plan_switch(make_contract(old, new), states, new, False, True, "main")

    assert plan.sentences() == ["stop old", "start new", "start new at boot"]
    assert plan.before == ("old",)


def test_none_in_words(make_engine: MakeEngine, make_state: MakeState, make_contract: MakeContract) -> None:
    old = make_engine("old")
    states = {old.unit: make_state(old, "active", enabled=True)}

    plan = plan_switch(make_contract(old), states, None, False, True, "main")

    assert plan.sentences() == ["stop old", "no longer start old at boot"]


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
    make_engine: MakeEngine,
    make_state: MakeState,
    make_contract: MakeContract,
    a: tuple[str, bool],
    b: tuple[str, bool],
    choice: str | None,
) -> None:
    engines = make_engine("a"), make_engine("b")
    states = {
        engine.unit: make_state(engine, active, enabled=enabled)
        for engine, (active, enabled) in zip(engines, (a, b), strict=True)
    }

    kept = keeps_its_choice(make_contract(*engines), states, "main")

    assert (kept.name if kept else None) == choice


def test_the_utility_lane_has_no_choice_to_keep(
    make_engine: MakeEngine, make_state: MakeState, make_contract: MakeContract
) -> None:
    embed = make_engine("embed", lane="utility")

    assert keeps_its_choice(make_contract(embed), {embed.unit: make_state(embed, "active")}, "utility") is None
