# SPDX-License-Identifier: Apache-2.0
"""What a switch has to do: pure, from states to a plan."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hearth.contract import Contract, Engine
from hearth.units import UnitState


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one switch, in the order in which they are carried out.

    ``before`` names the engines of the lane that were up; ``disable`` and ``enable`` move the boot default.
    ``wait`` says that the target is loading already: to be waited for, but nobody's change.
    """

    target: str | None
    before: tuple[str, ...]
    stop: tuple[str, ...]
    start: bool
    restart: bool
    wait: bool
    disable: tuple[str, ...]
    enable: bool

    @property
    def changes(self) -> bool:
        return bool(self.stop or self.start or self.restart or self.disable or self.enable)

    def sentences(self) -> list[str]:
        """The plan in words, one a step."""
        steps = [f"stop {name}" for name in self.stop]
        if self.start:
            steps.append(f"start {self.target}")
        if self.restart:
            steps.append(f"restart {self.target}")
        if self.enable:
            steps.append(f"start {self.target} at boot")
        steps += [f"no longer start {name} at boot" for name in self.disable if not (self.enable or self.start)]
        return steps


def plan_switch(
    contract: Contract, states: Mapping[str, UnitState], target: Engine | None, sick: bool, boot: bool, lane: str
) -> Plan:
    """Plan to have ``target`` (none: nothing) as the one engine of its lane.

    ``states`` is by unit name. ``sick`` says that the target is up but not what it should be (unhealthy, another
    name, an older unit file): it is then restarted. ``boot`` moves the boot default along.
    """
    lane = target.lane if target else lane
    members = [engine for engine in contract.engines if engine.lane == lane]
    # The main lane holds one engine at a time; in the utility lane small ones run side by side.
    others = [engine for engine in members if target is None or (lane == "main" and engine.name != target.name)]
    up = target is not None and states[target.unit].is_coming
    return Plan(
        target=target.name if target else None,
        before=tuple(engine.name for engine in members if states[engine.unit].is_alive),
        stop=tuple(engine.name for engine in others if states[engine.unit].is_alive),
        start=target is not None and not up,
        restart=up and sick,
        wait=up and not sick and target is not None and not states[target.unit].is_up,
        disable=tuple(engine.name for engine in others if boot and states[engine.unit].enabled),
        enable=target is not None and boot and not states[target.unit].enabled,
    )


def keeps_its_choice(contract: Contract, states: Mapping[str, UnitState], lane: str) -> Engine | None:
    """The engine somebody chose for the main lane earlier: the one that is up, else the one that starts at boot."""
    if lane != "main":
        return None
    members = [engine for engine in contract.engines if engine.lane == lane]
    alive = [engine for engine in members if states[engine.unit].is_alive]
    enabled = [engine for engine in members if states[engine.unit].enabled]
    both = [engine for engine in alive if engine in enabled]
    return next(iter(both + alive + enabled), None)
