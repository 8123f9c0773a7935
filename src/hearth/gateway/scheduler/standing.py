# SPDX-License-Identifier: Apache-2.0
"""How things stand with one engine: what systemd says of it, who waits, what is in flight, and its breaker."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hearth.gateway.scheduler.spec import EngineSpec, Phase, Policy

# For the first load, of which nothing is known: weights from a disk at 1 GiB/s, and as much again to make ready.
_GUESS_S_PER_GIB = 2.0
_GUESS_LEAST_S = 10.0


@dataclass(slots=True, eq=False)
class Waiter:
    """One who waits. ``until`` is when its patience ends; ``admin``: it wants the engine to run, but no lease of it."""

    request: str
    since: float
    until: float = math.inf
    admin: bool = False


@dataclass(slots=True, eq=False)
class Wish:
    """That an engine should run though nobody waits: an administrator's, or of one who was told to come again."""

    since: float
    until: float


@dataclass(slots=True)
class Breaker:
    """Counts failures, and says until when no start is tried. Half open from then until the next result."""

    failures: list[float] = field(default_factory=list)
    opened: int = 0
    open_until: float = -math.inf
    reason: str = ""
    log: str = ""

    def is_open(self, now: float) -> bool:
        return now < self.open_until

    def failed(self, now: float, run_began: float, policy: Policy, reason: str, log: str) -> bool:
        """Count a failure of a run that began at ``run_began``; whether that opens it."""
        if run_began > self.open_until + policy.breaker_window_s:
            self.opened = 0
        self.failures = [at for at in self.failures if now - at < policy.breaker_window_s]
        self.failures.append(now)
        self.reason, self.log = reason, log
        if not self.opened and len(self.failures) < policy.breaker_failures:
            return False
        self.open_until = now + min(policy.breaker_open_s * 2**self.opened, policy.breaker_max_s)
        self.opened += 1
        return True

    def proved(self) -> None:
        """The engine has run for so long that what was before says nothing any more."""
        self.opened = 0


@dataclass(slots=True, eq=False)
class Standing:
    """One engine. Points in time are of the monotonic clock of all events, in seconds.

    ``holds`` are of other processes. ``closing``: its door is shut for another engine that needs its room, ``unload``:
    because an administrator lets it go; both say when what is in flight is cut. ``moving``: the change under way
    touches it. ``sweep``: memory ran out while it loaded, so everything that can go is to go before it is tried once
    more; ``swept``: that was tried. ``stale``: it runs as it was configured earlier. ``removed``: it is not configured
    any more.
    """

    spec: EngineSpec
    held_gib: float
    load_s: float
    phase: Phase = "stopped"
    ready_since: float = 0.0
    run_began: float = 0.0
    last_used: float = 0.0
    waiters: dict[str, Waiter] = field(default_factory=dict)
    leases: dict[str, None] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    holds: set[str] = field(default_factory=set)
    breaker: Breaker = field(default_factory=Breaker)
    wish: Wish | None = None
    closing: float | None = None
    unload: float | None = None
    moving: bool = False
    sweep: bool = False
    swept: bool = False
    stale: bool = False
    removed: bool = False

    @classmethod
    def of(cls, spec: EngineSpec) -> Standing:
        return cls(spec=spec, held_gib=spec.held_gib, load_s=spec.load_s)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def open(self) -> bool:
        """Whether a request is let through at once."""
        return (
            self.phase == "ready"
            and self.closing is None
            and self.unload is None
            and not self.moving
            and not self.holds
            and not self.removed
        )

    @property
    def is_up(self) -> bool:
        """Holding memory, or about to, or not yet rid of it."""
        return self.phase in ("starting", "ready", "stopping")

    @property
    def wanted_since(self) -> float | None:
        """Since when somebody wants it who has not got it; None: nobody does."""
        times = [next(iter(self.waiters.values())).since] if self.waiters else []
        if self.wish is not None:
            times.append(self.wish.since)
        return min(times, default=None)

    @property
    def is_asked_for(self) -> bool:
        """Whether an administrator wants it."""
        return self.wish is not None and self.wish.until == math.inf

    @property
    def evictable(self) -> bool:
        """Whether it may go to make room for another."""
        return self.phase == "ready" and self.spec.lane == "main" and not self.spec.pinned and not self.removed

    @property
    def expected_load_s(self) -> float:
        return self.load_s or max(_GUESS_LEAST_S, self.spec.need_gib * _GUESS_S_PER_GIB)

    def may_go_at(self, policy: Policy) -> float:
        """From when on it may go if nothing is in flight, and nobody uses it until then."""
        return min(self.ready_since + policy.min_residency_s, self.last_used + policy.calm_s)

    def cost(self, now: float) -> float:
        """What its absence is expected to cost: the seconds of a reload, less the longer nobody has used it."""
        idle_s = 0.0 if self.leases else max(0.0, now - self.last_used)
        return self.expected_load_s / (idle_s + 1.0)

    def configure(self, spec: EngineSpec) -> None:
        """Take over what is configured now; one that runs goes on as it was started."""
        if self.is_up and spec.version != self.spec.version:
            self.stale = True
        if not self.stale:
            self.held_gib = spec.held_gib
        if spec.load_s != self.spec.load_s:
            self.load_s = spec.load_s
        self.spec = spec
        self.removed = False

    def started(self, now: float) -> None:
        """Its unit is starting, so it is what is configured now."""
        self.run_began, self.held_gib, self.stale = now, self.spec.held_gib, False

    def forget_demand(self) -> None:
        self.wish = None
        self.sweep = self.swept = False

    def forget_if_unwanted(self) -> None:
        if self.wanted_since is None:
            self.forget_demand()


@dataclass(slots=True, eq=False)
class Transaction:
    """The one change under way: a load with those that go for it, or else a stop."""

    engine: Standing
    evict: tuple[Standing, ...] = ()
    load: bool = True
    cancelled: bool = False

    @property
    def touched(self) -> tuple[Standing, ...]:
        return (self.engine, *self.evict)


@dataclass(slots=True, eq=False)
class Hold:
    """Another process changes these engines; ``told``: it knows that nothing is in flight there any more."""

    engines: frozenset[str]
    until: float
    told: bool = False
