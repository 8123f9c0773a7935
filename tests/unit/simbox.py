# SPDX-License-Identifier: Apache-2.0
"""A simulated box for the promises of hearth.gateway.scheduler: it knows what the scheduler can only guess.

It carries out effects the way a box does: engines take their memory while they load, give it back some time after they
stopped, and do not always start. Whatever the scheduler wants is held against what is really the case.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from hearth.gateway.scheduler.effects import Begin, CancelLoad, Cut, Drained, Effect, Grant, Refuse, Stop
from hearth.gateway.scheduler.events import (
    AdminLoad,
    AdminUnload,
    Arrived,
    Configured,
    Ended,
    Event,
    FailureKind,
    HoldBegan,
    HoldEnded,
    Left,
    Loaded,
    LoadFailed,
    Stopped,
    Tick,
    UnitChanged,
)
from hearth.gateway.scheduler.scheduler import Scheduler
from hearth.gateway.scheduler.spec import EngineSpec, MemoryView, Phase, Policy

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
    """What is the case with one engine. ``taken`` is the part of its need that it takes as soon as it starts."""

    spec: EngineSpec
    taken: float
    phase: Phase = "stopped"
    held_gib: float = 0.0
    ready_since: float = -math.inf
    last_used: float = -math.inf
    # Who waits, and since when; None: an administrator.
    waiting: dict[str, float] = field(default_factory=dict)
    leases: set[str] = field(default_factory=set)
    asked: bool = False
    promised_until: float = -math.inf
    unload_until: float | None = None
    run: int = 0


class SimBox:
    """The box, its clock, and the requests of its users. ``fail`` is what becomes of the next loads."""

    def __init__(self, specs: list[EngineSpec], taken: float = 0.5, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.machines = {spec.name: Machine(spec, taken) for spec in specs}
        self.scheduler = Scheduler(specs, policy, self._memory)
        self.now = 1000.0
        self.host_gib = HOST_GIB
        self.fail: FailureKind | None = None
        self.change: Begin | Stop | None = None
        self.cancelled = False
        self.disturbed = False
        self.holds: dict[str, tuple[frozenset[str], float]] = {}
        self.outcome: dict[str, str] = {}
        self.admins: set[str] = set()
        self.cuts: set[str] = set()
        self.counts: Counter[str] = Counter()
        # Of waits that are over; only what was after the time from which they count.
        self.longest_wait_s, self.counted_from = 0.0, -math.inf
        self.on_grant: Callable[[str, str], None] = lambda _request, _engine: None
        self._ids = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._events: list[Event] = []
        self._telling = False
        for name in self.machines:
            self.tell(UnitChanged(name, "stopped"))

    # Memory

    @property
    def available_gib(self) -> float:
        return TOTAL_GIB - self.host_gib - sum(machine.held_gib for machine in self.machines.values())

    def _memory(self) -> MemoryView:
        return MemoryView(self.available_gib, FLOOR_GIB)

    def reserved_gib(self) -> float:
        """What those that start may yet take."""
        starting = (machine for machine in self.machines.values() if machine.phase == "starting")
        return sum(machine.spec.need_gib - machine.held_gib for machine in starting)

    def spare_gib(self) -> float:
        return self.available_gib - self.reserved_gib() - FLOOR_GIB

    # Time

    def at(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + delay_s, next(self._ids), call))

    def pass_(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = self.scheduler.due()
            due = math.inf if due is None else due
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

    # Events

    def tell(self, event: Event) -> None:
        self._events.append(event)
        if self._telling:
            return
        self._telling = True
        while self._events:
            for effect in self.scheduler.handle(self._events.pop(0), self.now):
                self._check_and_do(effect)
            assert self.available_gib >= FLOOR_GIB - TINY_GIB, "memory is over"
        self._telling = False
        if self.change is None or isinstance(self.change, Begin):
            assert self.scheduler.handle(Tick(), self.now) == [], "the same, looked at again, led to something else"

    def arrive(self, name: str, patience_s: float = math.inf) -> str:
        request = f"r{next(self._ids)}"
        self.outcome[request] = "waits"
        self.machines[name].waiting[request] = self.now
        self.tell(Arrived(request, name, patience_s))
        return request

    def leave(self, request: str) -> None:
        self.outcome[request] = "left"
        for machine in self.machines.values():
            machine.waiting.pop(request, None)
        self.tell(Left(request))

    def end(self, request: str) -> None:
        self.outcome[request] = "ended"
        for machine in self.machines.values():
            if request in machine.leases:
                machine.leases.discard(request)
                machine.last_used = self.now
        self.tell(Ended(request))

    def waiting(self) -> list[str]:
        return [request for request, outcome in self.outcome.items() if outcome == "waits"]

    def leased(self) -> list[str]:
        return [request for request, outcome in self.outcome.items() if outcome == "leased"]

    def admin_load(self, name: str) -> str:
        request = f"a{next(self._ids)}"
        self.outcome[request] = "waits"
        self.admins.add(request)
        machine = self.machines[name]
        machine.waiting[request] = self.now
        machine.asked, machine.unload_until = True, None
        self.tell(AdminLoad(request, name))
        return request

    def admin_unload(self, name: str, drain_s: float) -> None:
        machine = self.machines[name]
        machine.asked, machine.promised_until = False, -math.inf
        if machine.phase in {"starting", "ready", "stopping"} or self._loads(name):
            machine.unload_until = self.now + drain_s
        self.tell(AdminUnload(name, drain_s))

    def hold(self, engines: frozenset[str], deadline_s: float) -> str:
        name = f"h{next(self._ids)}"
        self.holds[name] = (engines, self.now + deadline_s)
        self.tell(HoldBegan(name, tuple(engines), deadline_s))
        return name

    def let_go(self, hold: str) -> None:
        del self.holds[hold]
        self.tell(HoldEnded(hold))

    def configure(self, specs: list[EngineSpec]) -> None:
        for spec in specs:
            self.machines[spec.name].spec = spec
        self.tell(Configured(tuple(specs)))

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
        self.tell(UnitChanged(machine.spec.name, phase))

    def _give_back(self, machine: Machine, run: int) -> None:
        if machine.run == run:
            machine.held_gib = 0.0

    def stranger_starts(self, name: str) -> None:
        """Admission lets a stranger's start through only where there is room for it."""
        machine = self.machines[name]
        if machine.held_gib or machine.phase not in {"stopped", "failed"} or self.spare_gib() < machine.spec.need_gib:
            return
        if isinstance(self.change, Begin) and name in {self.change.engine, *self.change.evict}:
            return
        self.disturbed = True
        self._phase(machine, "starting")
        run = machine.run
        self.at(machine.spec.load_s, lambda: self._stranger_ready(machine, run))

    def _stranger_ready(self, machine: Machine, run: int) -> None:
        if machine.run == run:
            self._phase(machine, "ready")

    def crashes(self, name: str, *, restarted: bool) -> None:
        machine = self.machines[name]
        if machine.phase != "ready" or machine.spec.name in self._touched():
            return
        self.disturbed = True
        if not restarted:
            self._phase(machine, "failed")
            return
        self._phase(machine, "starting")
        run = machine.run
        self.at(machine.spec.load_s, lambda: self._stranger_ready(machine, run))

    def host_takes(self, gib: float) -> None:
        """Another program takes what is free, or gives back what it took."""
        self.disturbed = True
        self.host_gib = max(0.0, self.host_gib + min(gib, max(0.0, self.spare_gib())))
        self.tell(Tick())

    def _loads(self, name: str) -> bool:
        return isinstance(self.change, Begin) and self.change.engine == name

    def _touched(self) -> set[str]:
        if self.change is None:
            return set()
        return {self.change.engine, *(self.change.evict if isinstance(self.change, Begin) else ())}

    # Effects

    def _check_and_do(self, effect: Effect) -> None:
        self.counts[type(effect).__name__] += 1
        match effect:
            case Grant():
                self._granted(effect)
            case Refuse():
                self._refused(effect)
            case Begin():
                self._begin(effect)
            case Stop():
                self._stop(effect)
            case CancelLoad():
                self._cancel(effect)
            case Cut():
                self._cut(effect)
            case Drained():
                self._drained(effect)

    def _granted(self, grant: Grant) -> None:
        machine = self.machines[grant.engine]
        assert self.outcome[grant.request] == "waits", "granted to one who does not wait"
        assert grant.request in machine.waiting
        assert machine.phase == "ready", "granted while not ready"
        assert grant.engine not in self._touched(), "granted while it is being changed"
        assert not any(grant.engine in engines for engines, _ in self.holds.values()), "granted during a hold"
        assert machine.unload_until is None, "granted while it is unloaded"
        self._waited(machine.waiting.pop(grant.request))
        machine.asked, machine.promised_until = False, -math.inf
        if grant.request in self.admins:
            self.outcome[grant.request] = "done"
            return
        self.outcome[grant.request] = "leased"
        machine.leases.add(grant.request)
        self.on_grant(grant.request, grant.engine)

    def _waited(self, since: float) -> None:
        self.longest_wait_s = max(self.longest_wait_s, self.now - max(since, self.counted_from))

    def _refused(self, refusal: Refuse) -> None:
        machine = self.machines[refusal.engine]
        assert self.outcome[refusal.request] == "waits", "refused one who does not wait"
        self.outcome[refusal.request] = refusal.code
        self._waited(machine.waiting.pop(refusal.request))
        assert refusal.retry_after_s is None or refusal.retry_after_s > 0
        if refusal.code == "waited_too_long":
            retry_after_s = refusal.retry_after_s or 0.0
            machine.promised_until = max(machine.promised_until, self.now + retry_after_s + self.policy.promise_s)
        elif refusal.code in {"load_failed", "does_not_fit", "breaker_open"} and refusal.request in self.admins:
            machine.asked = False

    def _nothing_else_changes(self) -> None:
        assert self.change is None, "two changes at a time"
        assert not self.holds, "a change during a hold"
        self.cancelled = self.disturbed = False

    def _begin(self, begin: Begin) -> None:
        self._nothing_else_changes()
        target = self.machines[begin.engine]
        assert target.phase in {"stopped", "failed"}, "began what runs"
        assert target.waiting or target.asked or target.promised_until >= self.now, "began what nobody wants"
        assert target.spec.start != "manual" or target.asked, "began what only a person starts"
        back_gib = 0.0
        for name in begin.evict:
            victim = self.machines[name]
            assert victim.phase == "ready"
            assert victim.spec.lane == "main"
            assert not victim.spec.pinned
            assert not victim.leases, "evicted one in use"
            assert (
                self.now - victim.ready_since >= self.policy.min_residency_s - 1e-6
                or self.now - victim.last_used >= self.policy.calm_s - 1e-6
            ), "evicted before its time"
            back_gib += victim.held_gib
        spare_gib = self.spare_gib() + back_gib - target.spec.need_gib
        assert spare_gib >= -TINY_GIB, "does not fit"
        if not self._sweeping(target):
            for name in begin.evict:
                assert spare_gib < self.machines[name].held_gib, "evicted one without whom it fits"
        self.change = begin
        self.counts[f"begin {begin.engine}"] += 1
        self.counts["switch"] += bool(begin.evict)
        if self.fail == "busy":
            self.at(0.1, lambda: self._over(LoadFailed(begin.engine, "busy")))
            return
        for name in begin.evict:
            self._phase_later(self.machines[name])
        self.at(0.0, lambda: self._evict(begin))

    def _sweeping(self, machine: Machine) -> bool:
        return self.counts[f"oom {machine.spec.name}"] > 0

    def _phase_later(self, machine: Machine) -> None:
        self.at(0.0, lambda: self._phase(machine, "stopping"))

    def _evict(self, begin: Begin) -> None:
        for name in begin.evict:
            machine = self.machines[name]
            self.at(STOP_S, lambda machine=machine: self._phase(machine, "stopped"))  # type: ignore[misc]
        self.at(STOP_S + LAG_S + 0.1 if begin.evict else 0.0, lambda: self._start(begin))

    def _start(self, begin: Begin) -> None:
        target = self.machines[begin.engine]
        if target.phase != "stopped" and target.phase != "failed":
            return
        if self.cancelled:
            self._over(LoadFailed(begin.engine, "cancelled"))
        elif target.held_gib or self.spare_gib() < target.spec.need_gib - TINY_GIB:
            assert self.disturbed or target.held_gib, "admission refused what the scheduler had room for"
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
            self._phase(target, "failed")
            self.counts[f"{self.fail} {begin.engine}"] += 1
            self._over(LoadFailed(begin.engine, self.fail))
        else:
            self._phase(target, "ready")
            self._over(Loaded(begin.engine, target.spec.load_s))

    def _over(self, result: Loaded | LoadFailed | Stopped) -> None:
        machine = self.machines[result.engine]
        self.change = None
        if isinstance(result, LoadFailed) and result.kind not in {"cancelled", "busy", "oom"}:
            machine.asked, machine.promised_until = False, -math.inf
        if machine.phase in {"stopped", "failed"}:
            machine.unload_until = None
        self.tell(result)

    def _stop(self, stop: Stop) -> None:
        self._nothing_else_changes()
        machine = self.machines[stop.engine]
        assert machine.phase in {"ready", "starting"}
        assert not machine.leases, "stopped one in use"
        if machine.unload_until is None:
            assert not machine.waiting
            assert machine.spec.start == "demand"
            assert not machine.spec.pinned
            assert self.now - machine.last_used >= self.policy.idle_stop_s - 1e-6, "stopped before it was idle"
        self.change = stop
        self._phase_later(machine)
        self.at(STOP_S, lambda: self._phase(machine, "stopped"))
        self.at(STOP_S + LAG_S, lambda: self._over(Stopped(stop.engine)))

    def _cancel(self, cancel: CancelLoad) -> None:
        assert isinstance(self.change, Begin)
        assert self.change.engine == cancel.engine
        assert not self.cancelled, "cancelled twice"
        machine = self.machines[cancel.engine]
        assert machine.unload_until is not None or not (machine.waiting or machine.asked), "cancelled what is wanted"
        self.cancelled = True

    def _cut(self, cut: Cut) -> None:
        assert self.outcome[cut.request] == "leased"
        assert cut.request not in self.cuts, "cut twice"
        self.cuts.add(cut.request)
        machine = next(machine for machine in self.machines.values() if cut.request in machine.leases)
        deadlines = [until for engines, until in self.holds.values() if machine.spec.name in engines]
        deadlines += [] if machine.unload_until is None else [machine.unload_until]
        if not any(until <= self.now for until in deadlines):
            # For another engine: whoever waits longest has waited until the door was shut, and as long as draining takes.
            waited = [self.now - since for other in self.machines.values() for since in other.waiting.values()]
            asked = [one for one in self.machines.values() if one.asked or one.promised_until >= self.now]
            assert asked or max(waited, default=0) >= self.policy.max_wait_s / 2 + self.policy.drain_s - 1e-6
            assert self.now - machine.ready_since >= self.policy.min_residency_s + self.policy.drain_s - 1e-6
        self.at(0.05, lambda: self.end(cut.request))

    def _drained(self, drained: Drained) -> None:
        engines, until = self.holds[drained.hold]
        left = sum(len(self.machines[name].leases) for name in engines)
        assert drained.left == left
        assert not left or self.now >= until, "told that it is drained before its time"


def changed(spec: EngineSpec, **fields: object) -> EngineSpec:
    return msgspec.structs.replace(spec, **fields)
