# SPDX-License-Identifier: Apache-2.0
"""How things stand, for who asks: an engine, and the place of one who waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from hearth.gateway.scheduler.spec import Phase
from hearth.gateway.scheduler.standing import Standing

# A load that lasts longer than was expected is said to last as much longer as this share of what it took so far.
_OVERDUE = 0.1
_LEAST_S = 1.0


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """One engine now. Times are in seconds, as they have lasted or are to last.

    ``open``: a request gets through at once. ``in_flight`` and ``waiting`` count requests. ``ready_s``: for how long it
    has been ready, ``idle_s``: for how long nobody has used it; None where it is not ready. ``loading_s``: for how long
    it has been starting, else None. ``load_s``: how long a load is expected to last, None: nobody knows. ``stale``: it
    runs as it was configured earlier. ``retry_after_s``: when its breaker lets the next start through, else None;
    ``reason`` is what its last failure was.
    """

    name: str
    phase: Phase
    open: bool
    in_flight: int
    waiting: int
    ready_s: float | None
    idle_s: float | None
    loading_s: float | None
    load_s: float | None
    stale: bool
    retry_after_s: float | None
    reason: str


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one who waits stands: ``ahead`` models are loaded before, ``elapsed_s`` of ``expected_s`` are over."""

    stage: Literal["queued", "loading", "ready"]
    ahead: int = 0
    elapsed_s: float = 0.0
    expected_s: float = 0.0

    @property
    def words(self) -> str:
        """For a person."""
        if self.stage == "ready":
            return "ready"
        stage = "loading" if self.stage == "loading" else f"waiting, {self.ahead} to load before it"
        return f"{stage}; {self.elapsed_s:.0f} s of about {self.expected_s:.0f} s"


def view(engine: Standing, now: float) -> EngineView:
    ready = engine.phase == "ready"
    return EngineView(
        name=engine.name,
        phase=engine.phase,
        open=engine.open,
        in_flight=len(engine.leases),
        waiting=len(engine.waiters),
        ready_s=now - engine.ready_since if ready else None,
        idle_s=(0.0 if engine.leases else now - engine.last_used) if ready else None,
        loading_s=now - engine.run_began if engine.phase == "starting" else None,
        load_s=engine.load_s or None,
        stale=engine.stale,
        retry_after_s=engine.breaker.open_until - now if engine.breaker.is_open(now) else None,
        reason=engine.breaker.reason,
    )


def queue(engines: Iterable[Standing], loading: Standing | None) -> list[Standing]:
    """The engines that are wanted and neither ready for it nor on their way up: the oldest wish first."""
    waited = [
        (since, one)
        for one in engines
        if one is not loading and one.phase != "starting" and (since := one.wanted_since) is not None
    ]
    return [one for _, one in sorted(waited, key=lambda pair: pair[0])]


def ahead_of(engine: Standing, waiting: Sequence[Standing]) -> Sequence[Standing]:
    """Those of the queue ``waiting`` that are loaded before ``engine``: all where it is not among them yet."""
    return waiting[: waiting.index(engine)] if engine in waiting else waiting


def left_s(engine: Standing, waiting: Sequence[Standing], loading: Standing | None, now: float) -> float:
    """In how many seconds ``engine`` is expected to be ready: at least 1."""
    if engine is loading or engine.phase == "starting":
        return _load_left_s(engine, now)
    before_s = sum(one.expected_load_s for one in ahead_of(engine, waiting))
    return before_s + (_load_left_s(loading, now) if loading else 0.0) + max(_LEAST_S, engine.expected_load_s)


def _load_left_s(engine: Standing, now: float) -> float:
    elapsed_s = now - engine.run_began
    return max(_LEAST_S, engine.expected_load_s - elapsed_s, elapsed_s * _OVERDUE)
