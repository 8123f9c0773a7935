# SPDX-License-Identifier: Apache-2.0
"""The users of a simulated box, its administrators, and other processes that change it."""

from __future__ import annotations

import math

from simbox import POLICY
from simjudge import Judge

from hearth.gateway.scheduler.effects import Grant
from hearth.gateway.scheduler.events import (
    AdminLoad,
    AdminUnload,
    Arrived,
    Closing,
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


class SimBox(Judge):
    """A box and all who want something of it. ``failed``: what the scheduler did was not right once."""

    def __init__(
        self, specs: list[EngineSpec], taken: float = 0.5, policy: Policy = POLICY, late_s: float = 0.0
    ) -> None:
        super().__init__(specs, taken, policy, late_s)
        self.failed = False
        self._events: list[Event] = []
        self._telling = False
        for name in self.machines:
            self.tell(UnitChanged(name, "stopped"))

    def tell(self, *events: Event) -> None:
        self._events += events
        if self._telling:
            return
        self._telling = True
        try:
            while self._events:
                self.event = self._events.pop(0)
                for effect in self.scheduler.handle(self.event, self.now):
                    self.judge(effect)
                self.memory_holds()
            self.at_rest()
            if isinstance(self.event, Tick):
                self.looked_at()
        except AssertionError:
            self.failed = True
            raise
        finally:
            self._telling = False

    # Requests

    def _waits(self, request: str, name: str, patience_s: float) -> str:
        self.outcome[request] = "waits"
        self.patience[request] = self.now + patience_s
        self.machines[name].waiting[request] = self.now
        return request

    def arrive(self, name: str, patience_s: float = math.inf) -> str:
        machine = self.machines[name]
        most = max(len(machine.waiting), self.queue_max(machine))
        request = self._waits(f"r{next(self._ids)}", name, patience_s)
        # Every other one comes, and goes, by the short way where that is open.
        if len(self.outcome) % 2 and self.scheduler.enter(request, name, self.now):
            self.judge(Grant(request, name))
            self.at_rest()
        else:
            self.tell(Arrived(request, name, patience_s))
        assert len(machine.waiting) <= most, "more wait than may"
        return request

    def leave(self, request: str) -> None:
        """Who waits, or is in flight, is gone."""
        self._over_with(request, "left")
        if self.scheduler.leave(request, self.now):
            self.at_rest()
        else:
            self.tell(Left(request))

    def end(self, request: str) -> None:
        self._over_with(request, "ended")
        self.tell(Ended(request))

    def _over_with(self, request: str, outcome: str) -> None:
        self.outcome[request] = outcome
        for machine in self.machines.values():
            machine.waiting.pop(request, None)
            if request in machine.leases:
                machine.leases.discard(request)
                machine.last_used = self.now

    def waiting(self) -> list[str]:
        return [request for request, outcome in self.outcome.items() if outcome == "waits"]

    def leased(self) -> list[str]:
        return [request for request, outcome in self.outcome.items() if outcome == "leased"]

    # Administrators

    def admin_load(self, name: str) -> str:
        request = self._waits(f"a{next(self._ids)}", name, math.inf)
        self.admins.add(request)
        machine = self.machines[name]
        if machine.configured:
            machine.wish(self.now, self.now)
            machine.asked, machine.unload_until = True, None
        self.tell(AdminLoad(request, name))
        return request

    def admin_unload(self, name: str, drain_s: float) -> None:
        machine = self.machines[name]
        machine.forget_wishes()
        if machine.configured and (machine.is_up or self.loads(name)):
            machine.unload_until = self.now + drain_s
        self.tell(AdminUnload(name, drain_s))

    def configure(self, specs: list[EngineSpec], policy: Policy | None = None) -> None:
        self.policy = policy or self.policy
        wanted = {spec.name: spec for spec in specs}
        new = []
        for name, machine in self.machines.items():
            if name in wanted:
                new += [] if machine.configured else [machine]
                machine.spec, machine.configured = wanted[name], True
            elif machine.configured:
                machine.configured, machine.unload_until = False, None
                machine.forget_wishes()
        for machine in new:
            machine.failures.clear()
        # How those stand that are new is told at once.
        states = (UnitChanged(machine.spec.name, machine.phase) for machine in new)
        self.tell(Configured(tuple(specs), policy), *states)

    def close(self) -> None:
        """The gateway is about to end."""
        self.closing = True
        self.tell(Closing())

    # Other processes

    def hold(self, engines: frozenset[str], deadline_s: float) -> str:
        name = f"h{next(self._ids)}"
        self.holds[name] = (engines, self.now + deadline_s)
        self.tell(HoldBegan(name, tuple(engines), deadline_s))
        return name

    def let_go(self, hold: str) -> None:
        del self.holds[hold]
        self.tell(HoldEnded(hold))

    def told_again(self, name: str) -> None:
        """The same state, by another signal."""
        machine = self.machines[name]
        if machine.configured:
            self.tell(UnitChanged(name, machine.phase))
