# SPDX-License-Identifier: Apache-2.0
"""What has to stop and start, and whether it fits: pure, from what is to a plan.

Two ways to have an engine run. A *switch* makes it the one of its lane: in the main lane all others go, but pinned
ones. A *start* has it run beside the others, and only as many of the main lane go as its memory needs, least recently
used first. Neither touches the utility lane, nor a pinned engine, for the sake of another one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from hearth.contract import Contract, Engine
from hearth.engines.units import UnitState

# Sums of tenths are not exact; a kilobyte decides nothing.
_TINY_GIB = 1e-6


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is made from.

    ``states`` is by unit, ``needs`` (GiB) by engine, as the ledger has them; ``available_gib`` is MemAvailable.
    ``held`` (GiB) is what one that is up gives back, where that is another figure: its unit may have changed since.
    ``used`` says by engine when it was last used, in microseconds since the epoch; its start is a use too.
    """

    contract: Contract
    states: Mapping[str, UnitState]
    needs: Mapping[str, float]
    available_gib: float
    used: Mapping[str, float] = {}
    held: Mapping[str, float] = {}

    def state(self, engine: Engine) -> UnitState:
        return self.states[engine.unit]

    def last_used(self, engine: Engine) -> float:
        return max(self.used.get(engine.name, 0.0), float(self.state(engine).started_us))

    def freed_gib(self, engine: Engine) -> float:
        """What certainly comes back when the engine stops: one that still loads may not have taken it yet."""
        return self.held.get(engine.name, self.needs[engine.name]) if self.state(engine).is_up else 0.0

    def reserved_gib(self, apart: Sequence[str]) -> float:
        """What engines that still load may yet take, but those ``apart``."""
        loading = [
            engine
            for engine in self.contract.engines
            if engine.name not in apart and self.state(engine).is_coming and not self.state(engine).is_up
        ]
        return sum(self.needs[engine.name] for engine in loading)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one change, in the order in which they are carried out.

    ``before`` names the engines of the lane that were up; ``disable`` and ``enable`` move the start at boot.
    ``wait`` says that the target is loading already: to be waited for, but nobody's change.
    ``free_after_gib`` is what is expected to be available in the end; ``missing_gib`` is more than 0 where the plan
    cannot be carried out for want of memory. ``gib`` has the needs of those that stop or start.
    """

    target: str | None
    lane: str
    before: tuple[str, ...]
    stop: tuple[str, ...] = ()
    start: bool = False
    restart: bool = False
    wait: bool = False
    disable: tuple[str, ...] = ()
    enable: bool = False
    free_after_gib: float = 0.0
    missing_gib: float = 0.0
    gib: dict[str, float] = {}

    @property
    def changes(self) -> bool:
        return bool(self.stop or self.start or self.restart or self.disable or self.enable)

    def sentences(self) -> list[str]:
        """The plan in words, one a step."""
        steps = [f"stop {self._sized(name)}" for name in self.stop]
        if self.start and self.target:
            steps.append(f"start {self._sized(self.target)}")
        if self.restart and self.target:
            steps.append(f"restart {self._sized(self.target)}")
        if self.enable:
            steps.append(f"start {self.target} at boot")
        steps += [f"no longer start {name} at boot" for name in self.disable if not (self.enable or self.start)]
        if self.stop or self.start or self.restart:
            steps.append(f"{self.free_after_gib:.1f} GiB available after")
        return steps

    def _sized(self, name: str) -> str:
        return f"{name} ({self.gib[name]:.1f} GiB)" if name in self.gib else name


def plan_switch(
    now: Situation,
    target: Engine | None,
    *,
    sick: bool = False,
    boot: bool = True,
    lane: str = "main",
    spare: Collection[str] = (),
) -> Plan:
    """Plan to have ``target`` as the one engine of its lane; without one, to have nothing run in ``lane``.

    ``sick`` says that the target is up but not what it should be (unhealthy, another name, an older unit file): it is
    then restarted. ``boot`` moves the start at boot along. The engines named in ``spare`` are left alone.
    """
    lane = target.lane if target else lane
    members = [engine for engine in now.contract.engines if engine.lane == lane and engine.name not in spare]
    if target is None:
        others = members
    elif lane == "main":
        others = [engine for engine in members if engine.name != target.name and not engine.pinned]
    else:
        # In the utility lane small ones run side by side.
        others = []
    return _plan(
        now,
        target,
        lane=lane,
        stop=[engine for engine in others if now.state(engine).is_alive],
        sick=sick,
        disable=[engine for engine in others if boot and now.state(engine).enabled],
        enable=boot,
    )


def plan_start(
    now: Situation,
    target: Engine,
    *,
    sick: bool = False,
    boot: bool = False,
    evict: Collection[str] | None = None,
) -> Plan:
    """Plan to have ``target`` run beside what runs; ``boot``: and start at boot, beside what does.

    With ``evict`` it is known who goes for it: those and nobody else, and of those none that is pinned.
    """
    arrives = sick or not now.state(target).is_coming
    stop: Sequence[Engine] = []
    if arrives and evict is not None:
        stop = [
            engine
            for engine in now.contract.engines
            if engine.name in evict and engine.name != target.name and not engine.pinned and now.state(engine).is_alive
        ]
    elif arrives and target.lane == "main":
        stop = _evicted(now, target)
    return _plan(now, target, lane=target.lane, stop=stop, sick=sick, disable=[], enable=boot)


def plan_stop(now: Situation, target: Engine, *, boot: bool = True) -> Plan:
    """Plan to have one engine stopped; ``boot``: and no longer started at boot."""
    state = now.state(target)
    plan = _plan(
        now,
        None,
        lane=target.lane,
        stop=[target] if state.is_alive else [],
        sick=False,
        disable=[target] if boot and state.enabled else [],
        enable=False,
    )
    return msgspec.structs.replace(plan, before=(target.name,) if state.is_alive else ())


def _plan(
    now: Situation,
    target: Engine | None,
    *,
    lane: str,
    stop: Sequence[Engine],
    sick: bool,
    disable: Sequence[Engine],
    enable: bool,
) -> Plan:
    up = target is not None and now.state(target).is_coming
    start, restart = target is not None and not up, up and sick
    leaving = [*stop, *([target] if target and restart else [])]
    arriving = [target] if target and (start or restart) else []
    after = now.available_gib + sum(map(now.freed_gib, leaving)) - sum(now.needs[engine.name] for engine in arriving)
    apart = [engine.name for engine in (*leaving, *([target] if target else []))]
    room = after - now.reserved_gib(apart) - now.contract.floor_gib
    return Plan(
        target=target.name if target else None,
        lane=lane,
        before=tuple(e.name for e in now.contract.engines if e.lane == lane and now.state(e).is_alive),
        stop=tuple(engine.name for engine in stop),
        start=start,
        restart=restart,
        wait=up and not sick and target is not None and not now.state(target).is_up,
        disable=tuple(engine.name for engine in disable),
        enable=target is not None and enable and not now.state(target).enabled,
        free_after_gib=after,
        # Rounded up, or a refusal could say that nothing is missing.
        missing_gib=math.ceil(round(-room * 10, 5)) / 10 if arriving and room < -_TINY_GIB else 0.0,
        gib={engine.name: now.needs[engine.name] for engine in (*leaving, *arriving)},
    )


def _evicted(now: Situation, target: Engine) -> list[Engine]:
    """Who goes so that ``target`` fits: least recently used first, and nobody without whom it fits as well.

    Nobody where it does not fit even so.
    """
    candidates = [
        engine
        for engine in now.contract.engines
        if engine.lane == "main" and engine.name != target.name and not engine.pinned and now.state(engine).is_up
    ]
    room = now.available_gib + now.freed_gib(target) - now.needs[target.name]
    room += _TINY_GIB - now.reserved_gib([target.name]) - now.contract.floor_gib
    chosen: list[Engine] = []
    for engine in sorted(candidates, key=now.last_used):
        if room >= 0:
            break
        chosen.append(engine)
        room += now.freed_gib(engine)
    if room < 0:
        return []
    for engine in sorted(chosen, key=now.last_used, reverse=True):
        if room - now.freed_gib(engine) >= 0:
            chosen.remove(engine)
            room -= now.freed_gib(engine)
    return chosen


def states_after(plan: Plan, contract: Contract, states: Mapping[str, UnitState]) -> dict[str, UnitState]:
    """What systemd would say once ``plan`` was carried out; for planning what comes after it."""
    after = dict(states)
    # Later than every other: what was just started is not the first to go for what comes after.
    newest_us = max((state.started_us for state in states.values()), default=0) + 1
    for engine in contract.engines:
        now = after[engine.unit]
        is_target = engine.name == plan.target
        arrives = is_target and (plan.start or plan.restart)
        active = "active" if arrives else "inactive" if engine.name in plan.stop else now.active
        enabled = (is_target and plan.enable) or (now.enabled and engine.name not in plan.disable)
        started_us = newest_us if arrives else now.started_us
        after[engine.unit] = msgspec.structs.replace(now, active=active, enabled=enabled, started_us=started_us)
    return after


def keeps_its_choice(contract: Contract, states: Mapping[str, UnitState], lane: str) -> Engine | None:
    """The engine somebody chose for the main lane earlier: the one that is up, else the one that starts at boot."""
    if lane != "main":
        return None
    members = [engine for engine in contract.engines if engine.lane == lane and not engine.pinned]
    alive = [engine for engine in members if states[engine.unit].is_alive]
    enabled = [engine for engine in members if states[engine.unit].enabled]
    both = [engine for engine in alive if engine in enabled]
    return next(iter(both + alive + enabled), None)
