# SPDX-License-Identifier: Apache-2.0
"""A simulated box for the promises of hearth.gateway.scheduler: it knows what the scheduler can only guess.

Engines take their memory while they load, give it back some time after they stopped, and do not always start.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from hearth.gateway.scheduler.effects import Begin, Stop
from hearth.gateway.scheduler.events import Event, FailureKind, Loaded, LoadFailed, Stopped, Tick, UnitChanged
from hearth.gateway.scheduler.scheduler import Scheduler
from hearth.gateway.scheduler.spec import EngineSpec, MemoryView, Phase, Policy

Fields = TypeVar("Fields", bound=msgspec.Struct)

TOTAL_GIB, FLOOR_GIB, HOST_GIB, TINY_GIB = 128.0, 8.0, 10.0, 1e-3
STOP_S, LAG_S = 2.0, 3.0
# Short times, so that few steps of a test meet all of them.
POLICY = Policy(
    queue_max=6,
    max_wait_s=20.0,
    min_residency_s=10.0,
    calm_s=2.0,
    drain_s=30.0,
    idle_stop_s=120.0,
    settle_s=5.0,
    promise_s=20.0,
    breaker_failures=2,
    breaker_window_s=100.0,
    breaker_open_s=10.0,
    breaker_max_s=40.0,
)


@dataclass(eq=False)
class Machine:
    """What is the case with one engine, and who wants it.

    ``taken`` is the part of its need that it takes as soon as it starts. Who waits, since when. ``asked``: by an
    administrator, ``promised_until``: to somebody who was sent away; ``wished_since`` is when the first of these began.
    ``unload_until``: an administrator lets it go. ``shut_since``: requests do not get through though it is ready.
    ``failures``: when it failed, but for memory; ``oom``: its last load did for that; ``failed_once``: any of both.
    ``configured``: whether it is at all.
    """

    spec: EngineSpec
    taken: float
    phase: Phase = "stopped"
    held_gib: float = 0.0
    ready_since: float = -math.inf
    last_used: float = -math.inf
    waiting: dict[str, float] = field(default_factory=dict)
    leases: set[str] = field(default_factory=set)
    asked: bool = False
    promised_until: float = -math.inf
    wished_since: float = math.inf
    unload_until: float | None = None
    shut_since: float | None = None
    failures: list[float] = field(default_factory=list)
    failed_once: bool = False
    oom: bool = False
    configured: bool = True
    run: int = 0

    def wanted_since(self, now: float) -> float | None:
        """Since when somebody wants it; None: nobody does."""
        times = list(self.waiting.values())
        if self.asked or self.promised_until >= now:
            times.append(self.wished_since)
        return min(times, default=None)

    def wish(self, since: float, now: float) -> None:
        """Somebody wants it without waiting for it, and counts as one who waits."""
        if not self.asked and self.promised_until < now:
            self.wished_since = since
        self.wished_since = min(self.wished_since, since)

    def forget_wishes(self) -> None:
        """It is to be started for nobody who does not ask anew."""
        self.asked, self.promised_until, self.wished_since, self.oom = False, -math.inf, math.inf, False

    def failed(self, now: float) -> None:
        self.failures.append(now)
        self.failed_once = True

    @property
    def is_up(self) -> bool:
        return self.phase in {"starting", "ready", "stopping"}

    @property
    def may_go(self) -> bool:
        return self.spec.lane == "main" and not self.spec.pinned and self.configured


class Box:
    """The box, its clock, and its transactions. ``fail`` is what becomes of the next loads.

    ``late_s``: so much later than they are due do ticks come. ``stuck``: engines do not stop when the gateway tells
    them to.
    """

    def __init__(self, specs: list[EngineSpec], taken: float, policy: Policy, late_s: float) -> None:
        self.policy = policy
        self.late_s = late_s
        self.stuck = False
        self.machines = {spec.name: Machine(spec, taken) for spec in specs}
        self.scheduler = Scheduler(specs, policy, self._memory)
        self.now = 1000.0
        self.host_gib = HOST_GIB
        self.fail: FailureKind | None = None
        self.change: Begin | Stop | None = None
        self.cancelled = False
        self.not_before = -math.inf
        # Whether anything but the change under way has touched the memory since it began, or may do so unseen.
        self.disturbed = False
        self.counts: Counter[str] = Counter()
        self._ids = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []

    def tell(self, *events: Event) -> None:
        raise NotImplementedError

    def at_rest(self) -> None:
        raise NotImplementedError

    # Memory

    @property
    def available_gib(self) -> float:
        return TOTAL_GIB - self.host_gib - sum(machine.held_gib for machine in self.machines.values())

    def _memory(self) -> MemoryView:
        return MemoryView(self.available_gib, FLOOR_GIB)

    def reserved_gib(self) -> float:
        """What those that start may yet take."""
        return sum(map(_may_take_gib, self.machines.values()))

    def unknown_gib(self) -> float:
        """The part of that of which nobody tells the gateway any more."""
        return sum(_may_take_gib(machine) for machine in self.machines.values() if not machine.configured)

    def spare_gib(self) -> float:
        return self.available_gib - self.reserved_gib() - FLOOR_GIB

    def coming_gib(self) -> float:
        """What is on its way back."""
        return sum(machine.held_gib for machine in self.machines.values() if machine.phase in {"stopped", "failed"})

    # Time

    def at(self, delay_s: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (self.now + delay_s, next(self._ids), call))

    def pass_(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = self.scheduler.due()
            due = math.inf if due is None else due + self.late_s
            planned = self._agenda[0][0] if self._agenda else math.inf
            if min(due, planned) > until:
                break
            self.now = min(due, planned)
            if planned <= due:
                heapq.heappop(self._agenda)[2]()
            else:
                self.tell(Tick())
                due = self.scheduler.due()
                assert due is None or due > self.now, "a tick is wanted again at the same time"
        self.now = until
        self.at_rest()

    # Engines, as systemd has them

    def _phase(self, machine: Machine, phase: Phase) -> None:
        machine.phase = phase
        machine.run += 1
        if phase == "starting":
            machine.held_gib = machine.spec.need_gib * machine.taken
        elif phase == "ready":
            machine.held_gib = machine.spec.need_gib
            machine.ready_since = machine.last_used = self.now
        elif phase in {"stopped", "failed"}:
            machine.unload_until = None
            run = machine.run
            self.at(LAG_S, lambda: self._give_back(machine, run))
        if machine.configured:
            self.tell(UnitChanged(machine.spec.name, phase))

    def _give_back(self, machine: Machine, run: int) -> None:
        if machine.run == run:
            machine.held_gib = 0.0

    def stranger_starts(self, name: str) -> None:
        """Admission lets a stranger's start through only where there is room for it."""
        machine = self.machines[name]
        if machine.held_gib or machine.is_up or self.spare_gib() < machine.spec.need_gib:
            return
        if machine.configured and name not in self.touched():
            self.disturbed = True
            self._starts(machine)

    def stranger_stops(self, name: str, *, restarts: bool) -> None:
        """Somebody stops an engine, or restarts it, and looks neither at the lock nor at what is in flight."""
        machine = self.machines[name]
        if machine.phase not in {"starting", "ready"} or name in self.touched():
            return
        self.disturbed = True
        self._phase(machine, "stopping")
        self._next(machine, STOP_S, lambda: self._ends(machine, restarts=restarts))

    def _ends(self, machine: Machine, *, restarts: bool) -> None:
        if not restarts:
            self._phase(machine, "stopped")
            return
        self.disturbed = True
        # As systemd shows it, that is a failure.
        machine.failed(self.now)
        if self.spare_gib() + machine.held_gib < machine.spec.need_gib:
            self._phase(machine, "failed")
        else:
            self._starts(machine)

    def crashes(self, name: str, *, restarted: bool) -> None:
        machine = self.machines[name]
        if machine.phase not in {"starting", "ready"} or name in self.touched():
            return
        self.disturbed = True
        machine.failed(self.now)
        if machine.phase == "starting" or not restarted:
            self._phase(machine, "failed")
        else:
            self._starts(machine)

    def _starts(self, machine: Machine) -> None:
        self._phase(machine, "starting")
        self._next(machine, machine.spec.load_s, lambda: self._phase(machine, "ready"))

    def _next(self, machine: Machine, delay_s: float, call: Callable[[], object]) -> None:
        """What happens next to an engine, unless something else does before."""
        run = machine.run
        self.at(delay_s, lambda: call() if machine.run == run else None)

    def host_takes(self, gib: float) -> None:
        """Another program takes what is free, or gives back what it took."""
        self.disturbed = True
        self.host_gib = max(0.0, self.host_gib + min(gib, max(0.0, self.spare_gib())))
        self.tell(Tick())

    def loads(self, name: str) -> bool:
        return isinstance(self.change, Begin) and self.change.engine == name

    def touched(self) -> set[str]:
        if self.change is None:
            return set()
        return {self.change.engine, *(self.change.evict if isinstance(self.change, Begin) else ())}

    # Transactions

    def carry_out(self, change: Begin | Stop) -> None:
        self.change, self.cancelled, self.disturbed = change, False, self.unknown_gib() > 0
        if isinstance(change, Stop):
            machine = self.machines[change.engine]
            if self.fail == "busy" or self.stuck:
                busy = self.fail == "busy"
                self.at(0.1, lambda: self._over(Stopped(change.engine, busy=busy)))
                return
            self._phase_later(machine)
            self.at(STOP_S, lambda: self._phase(machine, "stopped"))
            self.at(STOP_S + LAG_S, lambda: self._over(Stopped(change.engine)))
            return
        if self.fail == "busy":
            self.at(0.1, lambda: self._over(LoadFailed(change.engine, "busy")))
            return
        for name in change.evict:
            self._phase_later(self.machines[name])
        self.at(0.0, lambda: self._evict(change))

    def _phase_later(self, machine: Machine) -> None:
        self.at(0.0, lambda: self._phase(machine, "stopping"))

    def _evict(self, begin: Begin) -> None:
        for name in begin.evict:
            machine = self.machines[name]
            self.at(STOP_S, lambda machine=machine: self._phase(machine, "stopped"))  # type: ignore[misc]
        self.at(STOP_S + LAG_S + 0.1 if begin.evict else 0.0, lambda: self._start(begin))

    def _start(self, begin: Begin) -> None:
        target = self.machines[begin.engine]
        if target.phase not in {"stopped", "failed"}:
            return
        if self.cancelled:
            self._over(LoadFailed(begin.engine, "cancelled"))
        elif target.held_gib or self.spare_gib() < target.spec.need_gib - TINY_GIB:
            assert self.disturbed or target.held_gib, "admission refused what the scheduler had room for"
            target.failed(self.now)
            self._over(LoadFailed(begin.engine, "refused"))
        else:
            self._phase(target, "starting")
            self.at(target.spec.load_s, lambda: self._load_over(begin))

    def _load_over(self, begin: Begin) -> None:
        target = self.machines[begin.engine]
        if self.cancelled:
            self._phase(target, "stopping")
            self._phase(target, "stopped")
            self._over(LoadFailed(begin.engine, "cancelled"))
        elif self.fail in {"oom", "failed", "refused"}:
            target.oom, target.failed_once = self.fail == "oom", True
            if not target.oom:
                target.failed(self.now)
            self._phase(target, "failed")
            self._over(LoadFailed(begin.engine, self.fail))
        else:
            self._phase(target, "ready")
            self._over(Loaded(begin.engine, target.spec.load_s))

    def _over(self, result: Loaded | LoadFailed | Stopped) -> None:
        machine = self.machines[result.engine]
        self.change = None
        busy = result.busy if isinstance(result, Stopped) else isinstance(result, LoadFailed) and result.kind == "busy"
        if busy:
            self.not_before = self.now + self.policy.busy_retry_s
        elif isinstance(result, Stopped):
            machine.unload_until, machine.last_used = None, self.now
        if not machine.is_up:
            machine.unload_until = None
        if isinstance(result, LoadFailed) and result.kind in {"refused", "failed"}:
            machine.forget_wishes()
        self.tell(result)


def _may_take_gib(machine: Machine) -> float:
    return machine.spec.need_gib - machine.held_gib if machine.phase == "starting" else 0.0


def changed(spec: Fields, **fields: object) -> Fields:
    return msgspec.structs.replace(spec, **fields)
