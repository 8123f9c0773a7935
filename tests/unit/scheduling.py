# SPDX-License-Identifier: Apache-2.0
"""For the tests of hearth.gateway.scheduler: a scheduler with a clock and a memory that a test sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from hearth.gateway.scheduler.effects import Begin, Effect, Grant, Refuse
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
    Loaded,
    LoadFailed,
    Stopped,
    Tick,
    UnitChanged,
)
from hearth.gateway.scheduler.scheduler import Scheduler
from hearth.gateway.scheduler.spec import EngineSpec, MemoryView, Phase, Policy
from hearth.gateway.scheduler.view import EngineView

FLOOR_GIB = 8.0
T = TypeVar("T")


def spec(name: str, gib: float = 60.0, **fields: Any) -> EngineSpec:
    """An engine that needs ``gib`` and gives as much back; a load of it takes 20 s."""
    return EngineSpec(**{"name": name, "need_gib": gib, "held_gib": gib, "load_s": 20.0, **fields})


def only(kind: type[T], effects: Sequence[object]) -> list[T]:
    return [effect for effect in effects if isinstance(effect, kind)]


class Bench:
    """A scheduler, what it was told, and what it wanted. ``free_gib`` is what is available above the floor."""

    def __init__(self, *engines: EngineSpec, free_gib: float = 100.0, **policy: Any) -> None:
        self.specs = {engine.name: engine for engine in engines}
        self.free_gib = free_gib
        self.now = 1000.0
        self.looks = 0
        self.scheduler = Scheduler(engines, Policy(**policy), self._memory)

    def _memory(self) -> MemoryView:
        self.looks += 1
        return MemoryView(self.free_gib + FLOOR_GIB, FLOOR_GIB)

    def tell(self, event: Event) -> list[Effect]:
        return self.scheduler.handle(event, self.now)

    def arrive(self, request: str, engine: str, **more: Any) -> list[Effect]:
        return self.tell(Arrived(request, engine, **more))

    def end(self, request: str) -> list[Effect]:
        return self.tell(Ended(request))

    def leave(self, request: str) -> list[Effect]:
        return self.tell(Left(request))

    def unit(self, engine: str, *phases: Phase) -> list[Effect]:
        return [effect for phase in phases for effect in self.tell(UnitChanged(engine, phase))]

    def loaded(self, engine: str, *victims: str, load_s: float = 20.0) -> list[Effect]:
        """What Begin of this engine leads to where all goes well."""
        effects = self.evicted(*victims)
        effects += self.unit(engine, "starting", "ready")
        self.free_gib -= self.specs[engine].need_gib
        return effects + self.tell(Loaded(engine, load_s))

    def evicted(self, *victims: str) -> list[Effect]:
        effects: list[Effect] = []
        for victim in victims:
            effects += self.unit(victim, "stopping", "stopped")
            self.free_gib += self.specs[victim].held_gib
        return effects

    def failed(self, engine: str, kind: Any = "failed", reason: str = "it broke", log: str = "") -> list[Effect]:
        """What Begin of this engine leads to where it does not start."""
        effects = self.unit(engine, "starting", "failed")
        return effects + self.tell(LoadFailed(engine, kind, reason, log))

    def stopped(self, engine: str) -> list[Effect]:
        """What Stop leads to."""
        return self.evicted(engine) + self.tell(Stopped(engine))

    def up(self, *engines: str) -> None:
        """These are ready, and were already when the gateway began; the memory is what is left beside them."""
        for engine in engines:
            self.unit(engine, "starting", "ready")

    def hold(self, *engines: str, deadline_s: float = 60.0, hold: str = "hold") -> list[Effect]:
        return self.tell(HoldBegan(hold, engines, deadline_s))

    def let_go(self, hold: str = "hold") -> list[Effect]:
        return self.tell(HoldEnded(hold))

    def load(self, request: str, engine: str) -> list[Effect]:
        return self.tell(AdminLoad(request, engine))

    def unload(self, engine: str, drain_s: float = 60.0) -> list[Effect]:
        return self.tell(AdminUnload(engine, drain_s))

    def configure(self, *engines: EngineSpec) -> list[Effect]:
        return self.tell(Configured(engines))

    def change(self, engine: str, **fields: Any) -> list[Effect]:
        """Configure one engine anew and leave the others."""
        self.specs[engine] = msgspec.structs.replace(self.specs[engine], **fields)
        return self.configure(*self.specs.values())

    def wait(self, seconds: float) -> list[Effect]:
        """Time passes; the scheduler hears of it only when it asked to."""
        until, effects = self.now + seconds, []
        while (due := self.scheduler.due()) is not None and due <= until:
            assert due > self.now, "it asked for a time that is past"
            self.now = due
            effects += self.tell(Tick())
        self.now = until
        return effects

    def view(self, engine: str) -> EngineView:
        return next(view for view in self.scheduler.view(self.now) if view.name == engine)


def crowded_box(*more: str, free_gib: float = 0.0, **policy: float) -> Bench:
    """``scout`` has been up and idle for long, and nothing fits beside it."""
    bench = Bench(*(spec(name) for name in ("scout", "coder", *more)), free_gib=free_gib, **policy)
    bench.up("scout")
    bench.wait(100)
    return bench


def granted(effects: Sequence[Effect]) -> list[str]:
    return [grant.request for grant in only(Grant, effects)]


def refused(effects: Sequence[Effect]) -> dict[str, str]:
    """The code by request."""
    return {refusal.request: refusal.code for refusal in only(Refuse, effects)}


def begun(effects: Sequence[Effect]) -> list[tuple[str, tuple[str, ...]]]:
    return [(begin.engine, begin.evict) for begin in only(Begin, effects)]
