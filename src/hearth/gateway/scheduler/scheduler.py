# SPDX-License-Identifier: Apache-2.0
"""The scheduler: who gets through to which engine, and which engine starts or stops for it.

Pure, and the single writer of its state: events in, effects out; the time and the memory are told to it. Of an event it
takes note first, then it decides over all that is known (``deciding``), so that no decision hangs on the order in which
things are told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hearth.gateway.scheduler import events as told
from hearth.gateway.scheduler.deciding import ENDING, decide
from hearth.gateway.scheduler.effects import Code, Effect
from hearth.gateway.scheduler.spec import EngineSpec, MemoryLook, Phase, Policy
from hearth.gateway.scheduler.standing import Hold, Standing, Waiter, Wish
from hearth.gateway.scheduler.state import State
from hearth.gateway.scheduler.view import EngineView, Place, ahead_of, queue, view

# From one phase to the next where an engine has ended by itself. A person's stop shows as ready, stopping, stopped.
_FAILURES: frozenset[tuple[Phase, Phase]] = frozenset(
    {
        ("starting", "failed"),
        ("ready", "starting"),
        ("ready", "stopped"),
        ("ready", "failed"),
        ("stopping", "starting"),
        ("stopping", "failed"),
    }
)


class Scheduler:
    """All engines of one box. ``memory`` is asked for what is available where a start is weighed."""

    def __init__(self, engines: Sequence[EngineSpec], policy: Policy, memory: MemoryLook) -> None:
        self._state = State(engines, policy, memory)
        # Whether anything but requests for engines that are ready is going on.
        self._restless = True
        self._note: dict[type, Callable[[Any], bool]] = {
            told.Arrived: self._arrived,
            told.Left: self._left,
            told.Ended: self._ended,
            told.UnitChanged: self._unit_changed,
            told.Loaded: self._loaded,
            told.LoadFailed: self._load_failed,
            told.Stopped: self._stopped,
            told.HoldBegan: self._hold_began,
            told.HoldEnded: self._hold_ended,
            told.AdminLoad: self._admin_load,
            told.AdminUnload: self._admin_unload,
            told.Configured: self._configured,
            told.Closing: self._closing,
            told.Tick: lambda _: True,
        }

    def handle(self, event: told.Event, now: float) -> list[Effect]:
        """Take note of an event, and say what is to be done. ``now`` is monotonic, in seconds."""
        state = self._state
        state.now, state.effects = now, []
        if self._note[type(event)](event):
            decide(state)
            self._restless = bool(
                state.holds or any(one.wanted_since is not None or one.unload is not None for one in state.all)
            )
        return state.effects

    def enter(self, request: str, engine: str, now: float) -> bool:
        """Give a request its lease at once, where its engine's door is open; else nothing happens: tell Arrived."""
        state, found = self._state, self._find(engine)
        if found is None or not found.open or state.closing:
            return False
        state.now = now
        state.lease(found, request)
        return True

    def leave(self, request: str, now: float) -> bool:
        """End the lease of a request, where nothing has to be decided for that; else nothing happens: tell Left."""
        state = self._state
        engine = state.requests.get(request)
        if self._restless or engine is None or request not in engine.leases:
            return False
        state.now = now
        state.end_lease(engine, request)
        return True

    def due(self) -> float | None:
        """When a Tick is wanted at the latest, on the clock of ``now``; None: not before something happens."""
        return self._state.due if self._state.due < math.inf else None

    def view(self, now: float) -> tuple[EngineView, ...]:
        """All engines that are configured."""
        return tuple(view(one, now) for one in self._state.all if not one.removed)

    def place(self, request: str, now: float) -> Place:
        """Where a request stands that waits; ``ready`` for every other."""
        state = self._state
        state.now = now
        engine = state.requests.get(request)
        if engine is None or request not in engine.waiters:
            return Place(stage="ready")
        elapsed_s = now - engine.waiters[request].since
        expected_s = elapsed_s + state.left_s(engine)
        if engine is state.loading or engine.phase == "starting":
            return Place(stage="loading", elapsed_s=elapsed_s, expected_s=expected_s)
        ahead = len(ahead_of(engine, queue(state.all, state.loading))) + (state.loading is not None)
        return Place(stage="queued", ahead=ahead, elapsed_s=elapsed_s, expected_s=expected_s)

    def retry_after_s(self, engine: str, now: float) -> float:
        """In how many seconds this engine is expected to be ready. Raises KeyError for one that is not known."""
        self._state.now = now
        return self._state.left_s(self._state.engines[engine])

    # What is taken note of. Each says whether there is anything to decide.

    def _find(self, name: str) -> Standing | None:
        engine = self._state.engines.get(name)
        return None if engine is None or engine.removed else engine

    def _arrived(self, event: told.Arrived) -> bool:
        state, engine = self._state, self._find(event.engine)
        if engine is None:
            state.refuse_unknown(event.request, event.engine)
            return False
        if engine.open and not state.closing:
            state.grant(engine, event.request)
            return False
        queue_max = state.policy.queue_max if engine.spec.queue_max is None else engine.spec.queue_max
        full = len(engine.waiters) >= queue_max
        state.wait(engine, Waiter(event.request, state.now, state.now + event.patience_s))
        if state.closing:
            state.refuse(engine, event.request, "gateway_stopping", ENDING)
        elif engine.breaker.is_open(state.now) and engine.phase != "ready":
            state.refuse(engine, event.request, "breaker_open", engine.breaker.reason, engine.breaker.log)
        elif full:
            why = f"{queue_max} requests wait for {engine.name} already"
            state.refuse(engine, event.request, "queue_full", why)
        return True

    def _left(self, event: told.Left) -> bool:
        engine = self._state.requests.get(event.request)
        if engine is None or event.request not in engine.waiters:
            return self._ended(event)
        del self._state.requests[event.request], engine.waiters[event.request]
        engine.forget_if_unwanted()
        return True

    def _ended(self, event: told.Ended | told.Left) -> bool:
        engine = self._state.requests.get(event.request)
        if engine is None:
            return False
        self._state.end_lease(engine, event.request)
        return self._restless and not engine.leases

    def _unit_changed(self, event: told.UnitChanged) -> bool:
        state, engine = self._state, self._state.engines.get(event.engine)
        if engine is None or engine.phase == event.phase:
            return False
        was, engine.phase = engine.phase, event.phase
        if was == "ready" and state.now - engine.ready_since >= state.policy.breaker_window_s:
            engine.breaker.proved()
        if event.phase == "ready":
            engine.ready_since = engine.last_used = state.now
        elif event.phase == "starting":
            engine.started(state.now)
        elif not engine.is_up:
            engine.unload, engine.stale = None, False
            state.released_at = state.now
        if (was, event.phase) in _FAILURES and not engine.moving:
            state.failed(engine, event.reason or f"the engine {engine.name} ended by itself", event.log)
        return True

    def _loaded(self, event: told.Loaded) -> bool:
        engine = self._state.end_change(event.engine, load=True)
        if engine is not None:
            engine.load_s = event.load_s
            if self._state.released_at <= engine.run_began:
                # It began only once the memory of those that went for it was back.
                self._state.released_at = -math.inf
            if engine.phase != "ready":
                self._state.failed(engine, f"the engine {engine.name} ended as soon as it was ready")
        return True

    def _load_failed(self, event: told.LoadFailed) -> bool:
        state = self._state
        engine = state.end_change(event.engine, load=True)
        if engine is None or event.kind == "cancelled":
            return True
        if event.kind == "busy":
            state.not_before = state.now + state.policy.busy_retry_s
        elif event.kind == "oom" and not engine.swept and any(one.evictable for one in state.all):
            engine.sweep = True
        else:
            code: Code = "does_not_fit" if event.kind == "refused" else "load_failed"
            reason = event.reason or f"the engine {engine.name} did not start"
            engine.breaker.failed(state.now, engine.run_began, state.policy, reason, event.log)
            state.refuse_all(engine, code, reason, event.log)
        return True

    def _stopped(self, event: told.Stopped) -> bool:
        state = self._state
        engine = state.end_change(event.engine, load=False)
        if engine is not None and event.busy:
            state.not_before = state.now + state.policy.busy_retry_s
        elif engine is not None:
            # One that would not stop counts as used, or it would be told to stop again at once, and again.
            engine.unload, engine.last_used = None, state.now
        return True

    def _hold_began(self, event: told.HoldBegan) -> bool:
        state = self._state
        hold = state.holds[event.hold] = Hold(frozenset(event.engines), state.now + event.deadline_s)
        for engine in state.held(hold):
            engine.holds.add(event.hold)
        return True

    def _hold_ended(self, event: told.HoldEnded) -> bool:
        self._state.holds.pop(event.hold, None)
        for engine in self._state.all:
            engine.holds.discard(event.hold)
        return True

    def _admin_load(self, event: told.AdminLoad) -> bool:
        state, engine = self._state, self._find(event.engine)
        if engine is None:
            state.refuse_unknown(event.request, event.engine)
            return False
        engine.unload = None
        state.wait(engine, Waiter(event.request, state.now, admin=True))
        engine.wish = Wish(engine.wish.since if engine.wish else state.now, math.inf)
        return True

    def _admin_unload(self, event: told.AdminUnload) -> bool:
        state, engine = self._state, self._find(event.engine)
        if engine is None:
            return False
        state.refuse_all(engine, "unloaded", f"an administrator has just unloaded {engine.name}")
        if engine.is_up or engine is state.loading:
            engine.unload = state.now + event.drain_s
        return True

    def _configured(self, event: told.Configured) -> bool:
        state = self._state
        state.policy = event.policy or state.policy
        wanted = {spec.name: spec for spec in event.engines}
        for name, engine in list(state.engines.items()):
            if name in wanted:
                engine.configure(wanted[name])
                continue
            state.refuse_all(engine, "removed", f"the model {name} was just removed")
            engine.removed, engine.unload = True, None
            if not engine.leases and not engine.moving:
                del state.engines[name]
        for name, spec in wanted.items():
            if name not in state.engines:
                state.engines[name] = Standing.of(spec)
                state.engines[name].holds = {hold for hold, held in state.holds.items() if name in held.engines}
        return True

    def _closing(self, _: told.Closing) -> bool:
        self._state.closing = True
        return True
