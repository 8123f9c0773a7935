# SPDX-License-Identifier: Apache-2.0
"""What is decided after each event, over all that is known, the same way whatever the event was."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from hearth.gateway.scheduler.effects import CancelLoad, Cut, Drained
from hearth.gateway.scheduler.rules import Choice
from hearth.gateway.scheduler.standing import Standing, Wish
from hearth.gateway.scheduler.state import State
from hearth.gateway.scheduler.view import queue

# While memory is on its way back it is looked at this often: the kernel gives no signal of it.
_LOOK_AGAIN_S = 1.0

ENDING = "the gateway is about to end: ask again in a moment"


def decide(state: State) -> None:
    """Let in and turn away, end what is late, and begin the next change where one is due and none is under way."""
    state.due = math.inf
    state.let_in()
    for engine in state.all:
        if engine.wanted_since is not None:
            _turn_away(state, engine, engine.wanted_since)
    _open_doors(state)
    for engine in state.all:
        if engine.leases:
            _cut_late(state, engine)
    _tell_holds(state)
    if state.change is not None:
        _cancel_unwanted(state)
    elif not state.holds and not state.closing:
        _next_change(state)


def _turn_away(state: State, engine: Standing, since: float) -> None:
    """Refuse those whom no waiting helps, and those who wait no longer."""
    if state.closing:
        state.refuse_all(engine, "gateway_stopping", ENDING)
    elif engine.spec.start == "manual" and engine.phase not in {"ready", "starting"} and not engine.is_asked_for:
        why = f"{engine.name} does not run, and only an administrator starts it"
        state.refuse_all(engine, "not_on_demand", why)
    elif engine.breaker.is_open(state.now) and engine.phase in {"stopped", "failed"} and not engine.is_asked_for:
        state.refuse_all(engine, "breaker_open", engine.breaker.reason, engine.breaker.log)
    late = [waiter.request for waiter in engine.waiters.values() if waiter.until <= state.now]
    if late:
        # Who comes again when told to is to find it ready: so the wish stays, and its place in the queue.
        until = state.now + state.left_s(engine) + state.policy.promise_s
        for request in late:
            state.refuse(engine, request, "waited_too_long", f"{engine.name} is not ready yet")
        engine.wish = Wish(since, max(until, engine.wish.until if engine.wish else until))
    for waiter in engine.waiters.values():
        state.wake(waiter.until)
    if engine.wish is not None and engine.wish.until <= state.now:
        engine.wish = None
        engine.forget_if_unwanted()
    elif engine.wish is not None:
        state.wake(engine.wish.until)


def _open_doors(state: State) -> None:
    """Open those that are shut for nobody any more, or whose engine has ended or may stay."""
    head = next(iter(_startable(state)), None)
    is_shut = head is not None and state.now >= _half(state, head) and not state.holds and not state.closing
    state.open_all_but([engine for engine in state.all if is_shut and engine.evictable])


def _startable(state: State) -> list[Standing]:
    """The engines that are to be started, whose turn it is first."""
    return [one for one in queue(state.all, state.loading) if one.phase in {"stopped", "failed"}]


def _half(state: State, engine: Standing) -> float:
    """When this engine has been waited for so long that a door may be shut for it."""
    since = engine.wanted_since
    return (state.now if since is None else since) + state.policy.max_wait_s / 2


def _cut_late(state: State, engine: Standing) -> None:
    """End what is still in flight where the time to drain is over."""
    ends = [engine.closing, engine.unload, *(state.holds[hold].until for hold in engine.holds)]
    until = min((end for end in ends if end is not None), default=math.inf)
    if state.now < until:
        state.wake(until)
        return
    state.effects += [Cut(request) for request in engine.leases if request not in engine.cut]
    engine.cut.update(engine.leases)


def _tell_holds(state: State) -> None:
    for name, hold in state.holds.items():
        if hold.told:
            continue
        left = sum(len(engine.leases) for engine in state.held(hold))
        if not left or state.now >= hold.until:
            hold.told = True
            state.effects.append(Drained(name, left))


def _cancel_unwanted(state: State) -> None:
    engine, change = state.loading, state.change
    if engine is None or change is None or change.cancelled or engine.phase == "ready" or state.closing:
        return
    unwanted = engine.wanted_since is None and state.policy.cancel_unwanted_loads
    if unwanted or engine.unload is not None:
        change.cancelled = True
        state.effects.append(CancelLoad(engine.name))


def _next_change(state: State) -> None:
    state.wake(state.not_before)
    for engine in state.all:
        wanted_away = engine.unload is not None and engine.phase in {"starting", "ready"}
        if wanted_away and not engine.leases and not state.busy:
            state.stop(engine)
            return
    state.open_all_but(_make_room(state))
    if state.change is None and not state.busy:
        _stop_idle(state)


def _make_room(state: State) -> Collection[Standing]:
    """Begin a load, or have room made for one; returns the engines whose doors are to be shut for that."""
    waiting = _startable(state)
    shut = [one for one in state.all if one.closing is not None]
    if waiting and state.busy:
        return shut
    while waiting:
        head = waiting.pop(0)
        choice = state.choose(head)
        if choice.fit == "now":
            return _begin_or_wait(state, head, choice, waiting)
        if choice.fit == "later":
            if state.now < state.settled_at:
                state.wake(min(state.now + _LOOK_AGAIN_S, state.settled_at))
            return shut
        why = f"{head.name} needs {head.spec.need_gib:.1f} GiB, and so much would not be free if all stopped that may"
        state.refuse_all(head, "does_not_fit", why)
    return ()


def _begin_or_wait(state: State, head: Standing, choice: Choice, behind: Iterable[Standing]) -> Collection[Standing]:
    """Begin the load of ``head`` where all who go for it may; else shut the doors of those whose time it is."""
    now, policy = state.now, state.policy
    if all(not one.leases and one.may_go_at(policy) <= now for one in choice.victims):
        state.begin(head, choice.victims)
        return ()
    half = _half(state, head)
    shut = []
    for one in choice.victims:
        shut_at = max(half, one.ready_since + policy.min_residency_s)
        if now < shut_at:
            state.wake(shut_at)
        else:
            one.closing = now + policy.drain_s if one.closing is None else one.closing
            state.wake(one.closing)
            shut.append(one)
        if not one.leases:
            state.wake(one.may_go_at(policy))
    if now < half and not head.sweep:
        _begin_beside(state, behind, choice.spare_gib)
    return shut


def _begin_beside(state: State, waiting: Iterable[Standing], spare_gib: float) -> None:
    """While the first of the queue waits for room: begin the load of another that takes none from it."""
    for one in waiting:
        choice = state.choose(one)
        if choice.fit == "now" and not choice.victims and one.spec.need_gib <= spare_gib:
            state.begin(one, ())
            return


def _stop_idle(state: State) -> None:
    idle_stop_s = state.policy.idle_stop_s
    for engine in state.all:
        if not idle_stop_s or engine.spec.start != "demand" or engine.spec.pinned or not engine.open:
            continue
        at = (state.now if engine.leases else engine.last_used) + idle_stop_s
        if at <= state.now:
            state.stop(engine)
            return
        # Of one in use too: it cannot be idle for so long any sooner, and the end of its requests is not looked at.
        state.wake(at)
