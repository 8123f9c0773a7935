# SPDX-License-Identifier: Apache-2.0
"""Worlds for the tests of hearth.switching.plan: boxes that know more than the planner, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from hearth.contract import Contract, Engine
from hearth.engines.units import UnitState
from hearth.switching.plan import Plan, Situation, plan_start, plan_stop, plan_switch

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

How = Literal["switch", "start", "stop"]
TOTAL_GIB = 128.0
# Sums of tenths are not exact.
TINY_GIB = 1e-6
# Boxes with several engines up are those where a plan has a choice, so "active" comes more often.
_STATES = (
    ("active", "running"),
    ("inactive", "dead"),
    ("active", "running"),
    ("activating", "start-post"),
    ("active", "running"),
    ("activating", "auto-restart"),
    ("active", "running"),
    ("inactive", "dead"),
    ("deactivating", "stop-sigterm"),
    ("failed", "failed"),
    ("reloading", "reload"),
    ("maintenance", "dead"),
)
_LANES = st.sampled_from(["main", "main", "main", "utility"])
_PINNED = st.sampled_from([False, False, False, True])
# A choice among several engines for want of memory is rare among all worlds.
many = settings(max_examples=200)


def _tenths(least: int, most: int) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(lambda tenths: tenths / 10)


@dataclass(frozen=True)
class World:
    """A box: what each engine needs and holds, and what the rest of the host holds, in GiB.

    One that is up holds what it needs. One that is on its way up or down holds some part of that, which the planner
    cannot see.
    """

    contract: Contract
    states: Mapping[str, UnitState]
    needs: Mapping[str, float]
    holds: Mapping[str, float]
    host_gib: float
    used: Mapping[str, float]

    @property
    def available_gib(self) -> float:
        return TOTAL_GIB - self.host_gib - sum(self.holds.values())

    @property
    def has_its_floor(self) -> bool:
        return self.available_gib >= self.contract.floor_gib - TINY_GIB

    @property
    def situation(self) -> Situation:
        return Situation(
            contract=self.contract,
            states=self.states,
            needs=self.needs,
            available_gib=self.available_gib,
            used=self.used,
        )

    def state(self, engine: Engine) -> UnitState:
        return self.states[engine.unit]

    def names(self, which: Callable[[Engine], bool]) -> set[str]:
        return {engine.name for engine in self.contract.engines if which(engine)}

    @property
    def alive(self) -> set[str]:
        return self.names(lambda engine: self.state(engine).is_alive)

    @property
    def at_boot(self) -> set[str]:
        return self.names(lambda engine: self.state(engine).enabled)

    def lane(self, lane: str) -> set[str]:
        return self.names(lambda engine: engine.lane == lane)

    @property
    def pinned(self) -> set[str]:
        return self.names(lambda engine: engine.pinned)

    def last_used(self, engine: Engine) -> float:
        """When it was last used; its start counts as that too."""
        return max(self.used.get(engine.name, 0.0), self.state(engine).started_us)

    def given(self, gib: float) -> World:
        """The same, where the rest of the host holds so much less."""
        return replace(self, host_gib=self.host_gib - gib)

    def at_its_worst(self) -> World:
        """The worst world that looks the same from outside: what is not up holds nothing that it could give back."""
        holds = {
            engine.name: self.holds[engine.name] if self.state(engine).is_up else 0.0
            for engine in self.contract.engines
        }
        return replace(self, holds=holds, host_gib=TOTAL_GIB - sum(holds.values()) - self.available_gib)

    def after(self, plan: Plan) -> World:
        """The plan carried out; whatever else was loading has taken all it needs meanwhile."""
        states, holds = dict(self.states), dict(self.holds)
        for engine in self.contract.engines:
            name, state = engine.name, states[engine.unit]
            active = state.active
            if name in plan.stop:
                active, holds[name] = "inactive", 0.0
            elif state.is_coming or (plan.start and name == plan.target):
                active, holds[name] = "active", self.needs[name]
            enabled = (state.enabled and name not in plan.disable) or (plan.enable and name == plan.target)
            states[engine.unit] = msgspec.structs.replace(state, active=active, enabled=enabled)
        return replace(self, states=states, holds=holds)

    def fits(self, target: Engine, stopped: Collection[str]) -> bool:
        """Whether ``target`` can be started anew once ``stopped`` are gone, whatever those that load have taken."""
        plan = Plan(target=target.name, lane=target.lane, before=(), stop=tuple(stopped), start=True)
        return self.at_its_worst().after(plan).has_its_floor

    def candidates(self, target: Engine) -> list[Engine]:
        """Who may go for ``target``, the least recently used first."""
        found = [
            engine
            for engine in self.contract.engines
            if self.state(engine).is_up and engine.lane == "main" and not engine.pinned and engine != target
        ]
        return sorted(found, key=self.last_used)


@dataclass(frozen=True)
class Asked:
    """A world, what is asked of it, and the plan for that."""

    world: World
    how: How
    target: Engine | None
    lane: str
    sick: bool
    boot: bool

    @cached_property
    def plan(self) -> Plan:
        return self.planned(self.world, sick=self.sick)

    @property
    def after(self) -> World:
        return self.world.after(self.plan)

    @property
    def arrives(self) -> bool:
        """Something takes memory in the end."""
        return self.plan.start or self.plan.restart

    def planned(self, world: World, *, sick: bool = False) -> Plan:
        """The plan for the same in another world."""
        if self.target is None or self.how == "switch":
            return plan_switch(world.situation, self.target, sick=sick, boot=self.boot, lane=self.lane)
        if self.how == "start":
            return plan_start(world.situation, self.target, sick=sick, boot=self.boot)
        return plan_stop(world.situation, self.target, boot=self.boot)


Ask = Callable[..., Asked]


@st.composite
def worlds(draw: Callable[..., Any], make_engine: MakeEngine, make_state: MakeState) -> World:
    count = draw(st.integers(2, 5))
    engines = [make_engine(f"m{number}", lane=draw(_LANES), pinned=draw(_PINNED)) for number in range(count)]
    states, needs, holds, used = {}, {}, {}, {}
    for engine, moment in zip(engines, draw(st.permutations(range(1, count + 1))), strict=True):
        active, sub = draw(st.sampled_from(_STATES))
        # Either it was used since it started, or it was last used before, or never.
        started, use = draw(st.sampled_from([(moment, None), (0, moment), (moment, 0)]))
        state = make_state(engine, active, sub=sub, enabled=draw(st.booleans()), started_us=started)
        need = draw(_tenths(0, 80))
        states[engine.unit], needs[engine.name] = state, need
        holds[engine.name] = 0.0
        if active in ("active", "reloading"):
            holds[engine.name] = need
        elif state.holds_memory:
            holds[engine.name] = need * draw(st.sampled_from([0.0, 0.5, 1.0]))
        if use is not None:
            used[engine.name] = float(use)
    contract = Contract(schema=1, key_file="", floor_gib=draw(_tenths(0, 40)), engines=tuple(engines))
    # What is left is little, so that most plans are about memory.
    host_gib = TOTAL_GIB - sum(holds.values()) - draw(_tenths(0, 160))
    return World(contract=contract, states=states, needs=needs, holds=holds, host_gib=host_gib, used=used)


@st.composite
def asked(
    draw: Callable[..., Any], make_engine: MakeEngine, make_state: MakeState, hows: tuple[How, ...], lane: str = ""
) -> Asked:
    """Something that is asked in one of these ways; with ``lane``, of that lane only."""
    world: World = draw(worlds(make_engine, make_state))
    how: How = draw(st.sampled_from(hows))
    targets: list[Engine | None] = [engine for engine in world.contract.engines if lane in ("", engine.lane)]
    if how == "switch" or not targets:
        targets.append(None)
    target: Engine | None = draw(st.sampled_from(targets))
    return Asked(
        world=world,
        how=how if target else "switch",
        target=target,
        lane=target.lane if target else lane or draw(_LANES),
        sick=target is not None and world.state(target).is_alive and draw(st.booleans()),
        boot=draw(st.booleans()),
    )
