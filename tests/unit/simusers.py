# SPDX-License-Identifier: Apache-2.0
"""The users of a simulated box, and its judge: whatever the scheduler wants is held against what is really the case."""

from __future__ import annotations

import math
from collections.abc import Callable

from simbox import FLOOR_GIB, POLICY, TINY_GIB, Box, Machine

from hearth.gateway.scheduler.effects import Begin, CancelLoad, Cut, Drained, Effect, Grant, Refuse, Stop
from hearth.gateway.scheduler.events import (
    AdminLoad,
    AdminUnload,
    Arrived,
    Configured,
    Ended,
    Event,
    HoldBegan,
    HoldEnded,
    Left,
    Tick,
    UnitChanged,
)
from hearth.gateway.scheduler.spec import EngineSpec, Policy


class SimBox(Box):
    """A box and the requests of its users; ``outcome`` is what became of each."""

    def __init__(self, specs: list[EngineSpec], taken: float = 0.5, policy: Policy = POLICY) -> None:
        super().__init__(specs, taken, policy)
        self.holds: dict[str, tuple[frozenset[str], float]] = {}
        self.outcome: dict[str, str] = {}
        self.admins: set[str] = set()
        self.cuts: set[str] = set()
        # Of waits that are over; only what was after the time from which they count.
        self.longest_wait_s, self.counted_from = 0.0, -math.inf
        self.on_grant: Callable[[str, str], None] = lambda _request, _engine: None
        self._events: list[Event] = []
        self._telling = False
        for name in self.machines:
            self.tell(UnitChanged(name, "stopped"))

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
        for view in self.scheduler.view(self.now):
            machine = self.machines[view.name]
            if view.open or view.phase != "ready":
                machine.shut_since = None
            elif machine.shut_since is None:
                machine.shut_since = self.now
        # Not after each event: memory may have come back since the last one that was decided on.
        if isinstance(event, Tick):
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

    # Effects, each held against what is the case

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
        # How much one that still loads has taken already cannot be seen from outside.
        loading = any(machine.phase == "starting" for machine in self.machines.values())
        if not loading and not self._sweeping(target):
            for name in begin.evict:
                assert spare_gib < self.machines[name].held_gib, "evicted one without whom it fits"
        self.counts[f"begin {begin.engine}"] += 1
        self.counts["switch"] += bool(begin.evict)
        self.carry_out(begin)

    def _sweeping(self, machine: Machine) -> bool:
        return self.counts[f"oom {machine.spec.name}"] > 0

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
        self.carry_out(stop)

    def _cancel(self, cancel: CancelLoad) -> None:
        assert isinstance(self.change, Begin)
        assert self.change.engine == cancel.engine
        assert not self.cancelled, "cancelled twice"
        machine = self.machines[cancel.engine]
        assert machine.unload_until is not None or not machine.waiting, "cancelled what is waited for"
        self.cancelled = True

    def _cut(self, cut: Cut) -> None:
        assert self.outcome[cut.request] == "leased"
        assert cut.request not in self.cuts, "cut twice"
        self.cuts.add(cut.request)
        machine = next(machine for machine in self.machines.values() if cut.request in machine.leases)
        deadlines = [until for engines, until in self.holds.values() if machine.spec.name in engines]
        deadlines += [] if machine.unload_until is None else [machine.unload_until]
        if not any(until <= self.now for until in deadlines):
            # For another engine: somebody has waited until the door was to be shut, and it was for a whole drain.
            assert self._is_wanted_long()
            assert self.now - machine.ready_since >= self.policy.min_residency_s + self.policy.drain_s - 1e-6
            assert machine.shut_since is not None
            assert self.now - machine.shut_since >= self.policy.drain_s - 1e-6, "cut before its time"
        self.at(0.05, lambda: self.end(cut.request))

    def _is_wanted_long(self) -> bool:
        """Whether somebody has waited for half of the longest wait, or is to be served without waiting."""
        waited = [self.now - since for machine in self.machines.values() for since in machine.waiting.values()]
        wished = any(machine.asked or machine.promised_until >= self.now for machine in self.machines.values())
        return wished or max(waited, default=0) >= self.policy.max_wait_s / 2 - 1e-6

    def _drained(self, drained: Drained) -> None:
        engines, until = self.holds[drained.hold]
        left = sum(len(self.machines[name].leases) for name in engines)
        assert drained.left == left
        assert not left or self.now >= until, "told that it is drained before its time"
