# SPDX-License-Identifier: Apache-2.0
"""All that the scheduler knows, and the steps that change it together with what is wanted done."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from hearth.gateway.scheduler.effects import Begin, Code, Effect, Grant, Refuse, Stop
from hearth.gateway.scheduler.rules import Choice, choose
from hearth.gateway.scheduler.spec import EngineSpec, MemoryLook, Policy
from hearth.gateway.scheduler.standing import Hold, Standing, Transaction, Waiter
from hearth.gateway.scheduler.view import left_s, queue

# What is expected to go well if only tried again.
_SOON_S = 1.0


class State:
    """One box at ``now``. ``effects`` gathers what is to be done, ``due`` when time alone will change something.

    ``requests`` has every request that waits or has a lease. ``released_at``: when an engine last let go of memory.
    ``not_before``: earlier no change is begun.
    """

    def __init__(self, engines: Sequence[EngineSpec], policy: Policy, memory: MemoryLook) -> None:
        self.policy = policy
        self.engines = {spec.name: Standing.of(spec) for spec in engines}
        self.requests: dict[str, Standing] = {}
        self.holds: dict[str, Hold] = {}
        self.change: Transaction | None = None
        self.closing = False
        self.released_at = self.not_before = -math.inf
        self.now = -math.inf
        self.due = math.inf
        self.effects: list[Effect] = []
        self._memory = memory

    @property
    def all(self) -> Collection[Standing]:
        return self.engines.values()

    @property
    def loading(self) -> Standing | None:
        """What the change under way loads."""
        return self.change.engine if self.change and self.change.load else None

    @property
    def busy(self) -> bool:
        """Whether another change was found to have the box just now."""
        return self.now < self.not_before

    @property
    def settled_at(self) -> float:
        """From when on the memory of engines that stopped has had its time to come back."""
        return self.released_at + self.policy.settle_s

    def held(self, hold: Hold) -> list[Standing]:
        return [engine for name, engine in self.engines.items() if name in hold.engines]

    def left_s(self, engine: Standing) -> float:
        """In how many seconds this engine is expected to be ready."""
        return left_s(engine, queue(self.all, self.loading), self.loading, self.now)

    def choose(self, engine: Standing) -> Choice:
        return choose(engine, self.all, self._memory(), self.now, settled=self.now >= self.settled_at)

    def wake(self, at: float) -> None:
        """Decide again then. What is past was decided already, and waits for an event."""
        if self.now < at < self.due:
            self.due = at

    # Of requests

    def wait(self, engine: Standing, waiter: Waiter) -> None:
        self.requests[waiter.request] = engine
        engine.waiters[waiter.request] = waiter

    def grant(self, engine: Standing, request: str) -> None:
        self.lease(engine, request)
        self.effects.append(Grant(request, engine.name))

    def lease(self, engine: Standing, request: str) -> None:
        self.requests[request] = engine
        engine.leases[request] = None

    def end_lease(self, engine: Standing, request: str) -> None:
        del self.requests[request], engine.leases[request]
        engine.cut.discard(request)
        engine.last_used = self.now

    def let_in(self) -> None:
        """Give a lease to everybody who waits at an open door."""
        for engine in self.all:
            if not engine.open:
                continue
            for waiter in engine.waiters.values():
                if waiter.admin:
                    del self.requests[waiter.request]
                    self.effects.append(Grant(waiter.request, engine.name))
                else:
                    self.grant(engine, waiter.request)
            engine.waiters.clear()
            engine.forget_demand()

    def refuse(self, engine: Standing, request: str, code: Code, reason: str, log: str = "") -> None:
        """Refuse one who waits."""
        retry_after_s: float | None = None
        if code in {"queue_full", "waited_too_long"}:
            retry_after_s = self.left_s(engine)
        elif code in {"breaker_open", "load_failed"}:
            retry_after_s = max(_SOON_S, engine.breaker.open_until - self.now)
        elif code == "does_not_fit":
            retry_after_s = self.policy.unfit_retry_s
        elif code == "gateway_stopping":
            retry_after_s = _SOON_S
        del self.requests[request], engine.waiters[request]
        self.effects.append(Refuse(request, engine.name, code, reason, retry_after_s, log))

    def refuse_all(self, engine: Standing, code: Code, reason: str, log: str = "") -> None:
        """Refuse all who wait for this engine, and start it for none of them."""
        for request in list(engine.waiters):
            self.refuse(engine, request, code, reason, log)
        engine.forget_demand()

    def refuse_unknown(self, request: str, engine: str) -> None:
        self.effects.append(Refuse(request, engine, "removed", f"the model {engine} is not there any more"))

    # Of engines

    def failed(self, engine: Standing, reason: str, log: str = "") -> None:
        """Count that an engine ended which had been started. Who waits goes on waiting unless its breaker opens."""
        if engine.breaker.failed(self.now, engine.run_began, self.policy, reason, log):
            self.refuse_all(engine, "breaker_open", reason, log)

    def open_all_but(self, shut: Collection[Standing]) -> None:
        """Open every door that was shut for another engine, but these."""
        for engine in self.all:
            if engine not in shut:
                engine.closing = None
        self.let_in()

    def begin(self, engine: Standing, victims: Sequence[Standing]) -> None:
        self.change = Transaction(engine, tuple(victims))
        engine.run_began, engine.swept = self.now, engine.sweep
        for one in self.change.touched:
            one.moving, one.closing = True, None
        self.effects.append(Begin(engine.name, tuple(one.name for one in victims)))

    def stop(self, engine: Standing) -> None:
        self.change = Transaction(engine, load=False)
        engine.moving, engine.closing = True, None
        self.effects.append(Stop(engine.name))

    def end_change(self, name: str, *, load: bool) -> Standing | None:
        """The engine whose change this is the result of; None: of none that is under way."""
        change = self.change
        if change is None or change.engine.name != name or change.load is not load:
            return None
        self.change = None
        for one in change.touched:
            one.moving = False
            one.unload = one.unload if one.is_up else None
        return change.engine
