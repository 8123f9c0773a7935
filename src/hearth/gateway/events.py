# SPDX-License-Identifier: Apache-2.0
"""What happens to models, for everybody who listens, and for the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from hearth.gateway.metrics import Metrics
from hearth.gateway.scheduler.effects import Begin, Effect
from hearth.gateway.scheduler.events import Event, Loaded, LoadFailed, UnitChanged

News = tuple[str, dict[str, object]]
# Who reads so slowly that so much waits for him misses the rest.
_WAITING_MAX = 1000


class Bulletin:
    """Passes on what the conductor hears, to subscribers and metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._phases: dict[str, str] = {}
        self._subscribers: set[asyncio.Queue[News]] = set()

    @contextmanager
    def subscribed(self) -> Iterator[asyncio.Queue[News]]:
        """News from now on."""
        queue: asyncio.Queue[News] = asyncio.Queue(_WAITING_MAX)
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)

    def hear(self, said: Event | Effect) -> None:
        """One event or effect of the scheduler."""
        match said:
            case UnitChanged(engine=engine, phase=phase):
                if self._phases.get(engine) != phase:
                    self._phases[engine] = phase
                    self._tell("state", {"model": engine, "state": phase})
            case Begin(engine=engine, evict=evict):
                if evict:
                    self._metrics.switched()
                self._tell("load", {"model": engine, "instead_of": evict})
            case Loaded(engine=engine, load_s=load_s):
                self._metrics.loaded(engine, load_s)
                self._tell("loaded", {"model": engine, "seconds": round(load_s, 3)})
            case LoadFailed(engine=engine, kind=kind, reason=reason):
                self._metrics.load_failed(engine, kind)
                self._tell("load_failed", {"model": engine, "kind": kind, "reason": reason})

    def _tell(self, kind: str, data: dict[str, object]) -> None:
        for queue in self._subscribers:
            if not queue.full():
                queue.put_nowait((kind, data))
