# SPDX-License-Identifier: Apache-2.0
"""The judge of a simulated box: whatever the scheduler wants, or leaves undone, is held against what is the case."""

from __future__ import annotations

import math
from collections.abc import Callable

from simbox import FLOOR_GIB, TINY_GIB, Box, Machine

from hearth.gateway.scheduler.effects import Begin, CancelLoad, Code, Cut, Drained, Effect, Grant, Refuse, Stop
from hearth.gateway.scheduler.events import Event, LoadFailed, Tick
from hearth.gateway.scheduler.spec import EngineSpec, Policy
from hearth.gateway.scheduler.view import EngineView

TINY_S = 1e-6
# With these all who wait for an engine are refused, and it is started for nobody.
_FOR_ALL: frozenset[Code] = frozenset(
    {"load_failed", "does_not_fit", "unloaded", "removed", "not_on_demand", "gateway_stopping"}
)


class Judge(Box):
    """A box, what became of each request there (``outcome``), and who is to be cut, held or let go until when."""

    def __init__(self, specs: list[EngineSpec], taken: float, policy: Policy, late_s: float) -> None:
        super().__init__(specs, taken, policy, late_s)
        # By hold: the engines, and its deadline. Those that were told that they are drained.
        self.holds: dict[str, tuple[frozenset[str], float]] = {}
        self.told: set[str] = set()
        self.outcome: dict[str, str] = {}
        self.patience: dict[str, float] = {}
        self.admins: set[str] = set()
        self.cuts: set[str] = set()
        self.closing = False
        # Of waits that are over; only what was after the time from which they count.
        self.longest_wait_s, self.counted_from = 0.0, -math.inf
        self.on_grant: Callable[[str, str], None] = lambda _request, _engine: None
        # What is being told, or was last.
        self.event: Event = Tick()

    def held(self, machine: Machine) -> bool:
        return any(machine.spec.name in engines for engines, _ in self.holds.values())

    # Each effect

    def judge(self, effect: Effect) -> None:
        """Hold an effect against what is the case, and carry it out."""
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

    def end(self, request: str) -> None:
        raise NotImplementedError

    def _granted(self, grant: Grant) -> None:
        machine = self.machines[grant.engine]
        assert self.outcome[grant.request] == "waits", "granted to one who does not wait"
        assert machine.configured, "granted though it is not configured"
        assert machine.phase == "ready", "granted while not ready"
        assert grant.engine not in self.touched(), "granted while it is being changed"
        assert not self.held(machine), "granted during a hold"
        assert machine.unload_until is None, "granted while it is unloaded"
        self._waited(machine.waiting.pop(grant.request))
        machine.forget_wishes()
        if grant.request in self.admins:
            self.outcome[grant.request] = "done"
            return
        assert not self.closing, "granted though the gateway ends"
        self.outcome[grant.request] = "leased"
        machine.leases.add(grant.request)
        self.on_grant(grant.request, grant.engine)

    def _waited(self, since: float) -> None:
        self.longest_wait_s = max(self.longest_wait_s, self.now - max(since, self.counted_from))

    def _refused(self, refusal: Refuse) -> None:
        machine = self.machines[refusal.engine]
        assert self.outcome[refusal.request] == "waits", "refused one who does not wait"
        assert refusal.retry_after_s is None or refusal.retry_after_s > 0
        self.outcome[refusal.request] = refusal.code
        since = machine.wanted_since(self.now) or self.now
        self._waited(machine.waiting.pop(refusal.request))
        if refusal.code == "waited_too_long":
            assert self.patience[refusal.request] <= self.now + TINY_S, "refused before its patience was over"
            assert refusal.retry_after_s is not None
            machine.wish(since, self.now)
            machine.promised_until = max(
                machine.promised_until, self.now + refusal.retry_after_s + self.policy.promise_s
            )
        elif refusal.code == "queue_full":
            assert len(machine.waiting) >= self.queue_max(machine), "refused though there is a place in the queue"
        elif refusal.code == "breaker_open":
            assert machine.failed_once, "refused for failures that there were not"
            # One who comes by is refused alone, all others when it opens.
            if refusal.request in self.admins:
                machine.asked = False
            assert refusal.retry_after_s is not None
            assert self.now + refusal.retry_after_s >= self._broken_until(machine) - TINY_S, "to come again too soon"
        elif refusal.code == "does_not_fit" and not isinstance(self.event, LoadFailed):
            self._does_not_fit(machine)
        elif refusal.code == "not_on_demand":
            assert machine.spec.start == "manual"
        elif refusal.code == "removed":
            assert not machine.configured
        if refusal.code in _FOR_ALL:
            machine.forget_wishes()

    def queue_max(self, machine: Machine) -> int:
        return self.policy.queue_max if machine.spec.queue_max is None else machine.spec.queue_max

    def _does_not_fit(self, target: Machine) -> None:
        known = [machine for machine in self.machines.values() if machine.configured]
        assert not any(machine.phase in {"starting", "stopping"} for machine in known), "refused while memory moves"
        back_gib = sum(machine.held_gib for machine in known if machine.may_go or not machine.is_up)
        assert self.spare_gib() + back_gib < target.spec.need_gib + TINY_GIB, "refused though it would fit"

    def _nothing_else_changes(self) -> None:
        assert self.change is None, "two changes at a time"
        assert not self.holds, "a change during a hold"
        assert not self.closing, "a change though the gateway ends"
        assert self.now >= self.not_before - TINY_S, "a change while another has the box"

    def _broken_until(self, machine: Machine) -> float:
        """Until when its breaker is open at least."""
        policy = self.policy
        counted = machine.failures[-policy.breaker_failures :]
        if len(counted) < policy.breaker_failures or counted[-1] - counted[0] >= policy.breaker_window_s:
            return -math.inf
        return counted[-1] + policy.breaker_open_s

    def _begin(self, begin: Begin) -> None:
        self._nothing_else_changes()
        target = self.machines[begin.engine]
        assert target.configured
        assert target.phase in {"stopped", "failed"}, "began what runs"
        assert target.wanted_since(self.now) is not None, "began what nobody wants"
        assert target.spec.start != "manual" or target.asked, "began what only a person starts"
        assert target.asked or self.now >= self._broken_until(target) - TINY_S, "began what fails again and again"
        back_gib = 0.0
        for name in begin.evict:
            victim = self.machines[name]
            assert victim.phase == "ready"
            assert victim.may_go
            assert not victim.leases, "evicted one in use"
            assert (
                self.now - victim.ready_since >= self.policy.min_residency_s - TINY_S
                or self.now - victim.last_used >= self.policy.calm_s - TINY_S
            ), "evicted before its time"
            back_gib += victim.held_gib
        spare_gib = self.spare_gib() + self.unknown_gib() + back_gib - target.spec.need_gib
        assert spare_gib >= -TINY_GIB, "does not fit"
        # How much one that still loads has taken already cannot be seen from outside.
        if not any(machine.phase == "starting" for machine in self.machines.values()) and not target.oom:
            for name in begin.evict:
                without_gib = spare_gib + self.coming_gib() - self.machines[name].held_gib
                assert without_gib < 0, "evicted one without whom it fits"
        self._turns(begin, spare_gib)
        self.counts[f"begin {begin.engine}"] += 1
        self.counts["switch"] += bool(begin.evict)
        self.carry_out(begin)

    def _turns(self, begin: Begin, spare_gib: float) -> None:
        """Another that was waited for before this one has waited for room, not for long yet, and loses none."""
        since = self.machines[begin.engine].wanted_since(self.now) or self.now
        for other in self.machines.values():
            if other.waiting and min(other.waiting.values()) < since and not other.is_up:
                assert self.now - min(other.waiting.values()) < self.policy.max_wait_s / 2 + TINY_S, "out of turn"
                assert not begin.evict, "evicted for one whose turn it is not"
                goes_gib = sum(one.held_gib for one in self.machines.values() if one.phase == "ready" and one.may_go)
                assert spare_gib + goes_gib >= other.spec.need_gib - TINY_GIB, "took the room of one before it"

    def _stop(self, stop: Stop) -> None:
        self._nothing_else_changes()
        machine = self.machines[stop.engine]
        assert machine.configured
        assert machine.phase in {"ready", "starting"}
        assert not machine.leases, "stopped one in use"
        if machine.unload_until is None:
            assert not machine.waiting
            assert machine.spec.start == "demand"
            assert not machine.spec.pinned
            assert self.policy.idle_stop_s
            assert self.now - machine.last_used >= self.policy.idle_stop_s - TINY_S, "stopped before it was idle"
        self.carry_out(stop)

    def _cancel(self, cancel: CancelLoad) -> None:
        assert self.loads(cancel.engine)
        assert not self.cancelled, "cancelled twice"
        assert not self.closing, "cancelled though the gateway ends"
        machine = self.machines[cancel.engine]
        assert machine.unload_until is not None or not machine.waiting, "cancelled what is waited for"
        assert machine.unload_until is not None or not machine.asked, "cancelled what an administrator wants"
        promised = machine.promised_until > self.now and machine.spec.start != "manual"
        assert machine.unload_until is not None or not promised, "cancelled what somebody is to come again for"
        self.cancelled = True

    def _deadline(self, machine: Machine) -> float:
        """When what is in flight there is to be cut for an administrator or for another process."""
        ends = [until for engines, until in self.holds.values() if machine.spec.name in engines]
        return min([*ends, math.inf if machine.unload_until is None else machine.unload_until])

    def _cut(self, cut: Cut) -> None:
        assert self.outcome[cut.request] == "leased"
        assert cut.request not in self.cuts, "cut twice"
        self.cuts.add(cut.request)
        machine = next(machine for machine in self.machines.values() if cut.request in machine.leases)
        if self._deadline(machine) > self.now:
            # For another engine: somebody has waited until the door was to be shut, and it was for a whole drain.
            self._may_be_shut(machine)
            assert machine.shut_since is not None
            assert self.now - machine.shut_since >= self.policy.drain_s - TINY_S, "cut before its time"
        self.at(0.05, lambda: self.end(cut.request))

    def _drained(self, drained: Drained) -> None:
        assert drained.hold not in self.told, "told twice"
        self.told.add(drained.hold)
        engines, until = self.holds[drained.hold]
        left = sum(len(self.machines[name].leases) for name in engines)
        assert drained.left == left
        assert not left or self.now >= until, "told that it is drained before its time"

    # What is left undone

    def at_rest(self) -> None:
        """Nothing more is wanted for what was told: hold that against what is the case, too."""
        late = self.now - self.late_s - TINY_S
        for view in self.scheduler.view(self.now):
            machine = self.machines[view.name]
            assert (view.phase, view.in_flight, view.waiting) == (
                machine.phase,
                len(machine.leases),
                len(machine.waiting),
            )
            self._door(machine, view)
            self._waiters(machine, late)
            if self._deadline(machine) <= late:
                assert machine.leases <= self.cuts, "not cut in time"
            if machine.wanted_since(self.now) is None:
                machine.oom = False
        for hold, (engines, until) in self.holds.items():
            in_flight = any(self.machines[name].leases for name in engines)
            assert hold in self.told or (in_flight and until > late), "not told that it is drained"
        self._change(late)

    def looked_at(self) -> None:
        """The same after a tick: only then was everything decided on, memory included, which comes back unseen."""
        assert self.scheduler.handle(Tick(), self.now) == [], "the same, looked at again, led to something else"
        self._progress()

    def _door(self, machine: Machine, view: EngineView) -> None:
        if view.open or machine.phase != "ready":
            machine.shut_since = None
        elif machine.shut_since is None:
            machine.shut_since = self.now
        if view.open:
            assert not machine.waiting, "waits at an open door"
            return
        excused = self.held(machine) or machine.spec.name in self.touched() or machine.unload_until is not None
        if machine.phase == "ready" and not excused:
            self._may_be_shut(machine)

    def _may_be_shut(self, machine: Machine) -> None:
        """Only for another that was wanted for half of the longest wait already."""
        assert machine.may_go, "shut though it may stay"
        assert self.now - machine.ready_since >= self.policy.min_residency_s - TINY_S, "shut before its time"
        times = [
            since
            for other in self.machines.values()
            if not other.is_up
            and not self.loads(other.spec.name)
            and (since := other.wanted_since(self.now)) is not None
        ]
        long_s = self.now - min(times, default=math.inf)
        assert long_s >= self.policy.max_wait_s / 2 - TINY_S, "shut though nobody has waited for long"

    def _waiters(self, machine: Machine, late: float) -> None:
        waiting = machine.waiting
        for request in waiting:
            assert self.patience[request] > late, "waits for longer than it wanted to"
            place = self.scheduler.place(request, self.now)
            assert place.stage != "ready"
            assert place.expected_s > place.elapsed_s
        assert not (waiting and self.closing), "waits though the gateway ends"
        if waiting and not machine.is_up and not machine.asked and not self.loads(machine.spec.name):
            assert machine.spec.start != "manual", "waits for what only a person starts"
            assert self.now >= self._broken_until(machine), "waits though the breaker is open"

    def _change(self, late: float) -> None:
        if isinstance(self.change, Begin) and not self.cancelled and not self.closing:
            target = self.machines[self.change.engine]
            wanted = target.waiting or target.asked or target.promised_until >= late
            assert wanted or target.phase == "ready" or not self.policy.cancel_unwanted_loads, "loads for nobody"
            assert target.unload_until is None or target.phase == "ready", "loads what is unloaded"
        if self.change is not None or self.holds or self.closing or late < self.not_before:
            return
        for machine in self.machines.values():
            if machine.configured and machine.unload_until is not None and machine.phase in {"starting", "ready"}:
                assert machine.leases, "not unloaded"

    def _progress(self) -> None:
        """Whoever is wanted for longest and fits begins at once."""
        engines = [machine for machine in self.machines.values() if machine.configured]
        if self.change is not None or self.holds or self.closing or self.now < self.not_before + self.late_s:
            return
        if any(machine.phase in {"starting", "stopping"} for machine in engines):
            return
        wanted = [
            (since, machine)
            for machine in engines
            if not machine.is_up and (since := machine.wanted_since(self.now)) is not None
        ]
        wanted.sort(key=lambda pair: pair[0])
        if wanted and wanted[0][1].waiting and [since for since, _ in wanted].count(wanted[0][0]) == 1:
            head = wanted[0][1]
            assert head.oom or self.spare_gib() < head.spec.need_gib, "there is room, and it does not begin"

    def memory_holds(self) -> None:
        assert self.available_gib >= FLOOR_GIB - TINY_GIB, "memory is over"
