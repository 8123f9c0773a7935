# SPDX-License-Identifier: Apache-2.0
"""Changes of engines: one transaction under one lock. The Ansible module, the CLI and the gateway all call it.

What a killed one leaves behind is in the journal: the next change knows from it what ran before, so that it can go back
there, and finishes or undoes the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec

from hearth import state
from hearth.admission import admit
from hearth.contract import Contract, Engine, read_key
from hearth.engines.units import Systemd, UnitState
from hearth.errors import BusyError, EngineFailedError, HearthError, SystemdError, SystemdGoneError
from hearth.switching import foresight, journal, recovery, transition
from hearth.switching.change import Change
from hearth.switching.journal import Journal
from hearth.switching.plan import Plan, Situation, keeps_its_choice, plan_start, plan_stop, plan_switch, states_after
from hearth.switching.progress import Tell, say_nothing
from hearth.switching.transition import Hand

__all__ = ("LOCK", "Change", "Outcome", "box_lock", "foretell", "switch")

LOCK = state.RUN / "switch.lock"
_LOCK_INTERVAL_S = 0.05
# A request does not wait for a download. But who may not look at the files learns only so that they are there.
_FETCH_ON_DEMAND_S = 20.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a change did, or in a dry run would do.

    ``fetched``: the model's files had to be brought first. ``drained`` requests were waited for. Times are in seconds:
    ``load_s`` until the engine was ready, ``first_s`` until it had answered. ``healed`` says what an earlier change had
    left undone.
    """

    plan: Plan
    active: str | None
    fetched: bool = False
    fetch_s: float = 0.0
    drained: int = 0
    drain_s: float = 0.0
    stop_s: float = 0.0
    memory_s: float = 0.0
    load_s: float = 0.0
    first_s: float = 0.0
    healed: str = ""


@contextmanager
def box_lock(timeout_s: float, path: Path | None = None) -> Iterator[None]:
    """Hold the box's one lock. Raises BusyError with who holds it and since when, after ``timeout_s`` seconds."""

    def busy(holder: str) -> HearthError:
        return BusyError(f"a switch is under way ({holder}): wait for it, or end that process")

    with state.locked(path or LOCK, timeout_s, busy):
        yield


@asynccontextmanager
async def _turn(timeout_s: float, path: Path) -> AsyncIterator[None]:
    """``box_lock`` for a running loop, which goes on while it is waited for."""
    deadline = time.monotonic() + timeout_s
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(box_lock(0.0, path))
                break
            except BusyError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_LOCK_INTERVAL_S)
        yield


async def switch(
    contract: Contract,
    change: Change,
    *,
    dry: bool = False,
    lock_timeout_s: float = 60.0,
    tell: Tell = say_nothing,
    unwanted: asyncio.Future[None] | None = None,
    host: admit.Host = admit.HOST,
) -> Outcome:
    """Carry out a change, or go back to what was; with ``dry`` only plan it.

    ``unwanted`` is done where what starts is not wanted any more: then it is stopped, and UnwantedError is raised.
    Raises UnknownModelError, BusyError, SystemdError, and EngineFailedError with what broke and what runs now.
    """
    if dry:
        return (await foretell(contract, [change], host=host))[0]
    target = contract.find(change.name) if change.name is not None else None
    key = read_key(contract)

    async def run(*, files_are_there: bool = False) -> Outcome:
        async with _turn(lock_timeout_s, host.run / LOCK.name), Systemd() as systemd:
            hand = Hand(systemd=systemd, contract=contract, key=key, host=host, tell=tell, unwanted=unwanted)
            return await _Transaction(hand, change, target, files_are_there=files_are_there).run()

    try:
        return await run()
    except _FilesMissingError as missing:
        # Without the lock: a download may take hours, in which the box is not to be without a way to change engines.
        async with Systemd() as systemd:
            hand = Hand(systemd=systemd, contract=contract, key=key, host=host, tell=tell, unwanted=unwanted)
            limit_s = _FETCH_ON_DEMAND_S if change.demand else transition.FETCH_S
            fetch_s = await transition.fetch(hand, missing.engine, limit_s)
        outcome = await run(files_are_there=True)
        healed = "; ".join(filter(None, (*missing.healed, outcome.healed)))
        return msgspec.structs.replace(outcome, fetched=True, fetch_s=fetch_s, healed=healed)


async def foretell(contract: Contract, changes: Sequence[Change], *, host: admit.Host = admit.HOST) -> list[Outcome]:
    """What changes would do, one after the other, if nothing else happened on the box.

    Raises UnknownModelError, SystemdError, and EngineFailedError with what would keep one from beginning.
    """
    targets = [contract.find(change.name) if change.name is not None else None for change in changes]
    key = read_key(contract)
    outcomes: list[Outcome] = []
    async with Systemd() as systemd:
        hand = Hand(systemd=systemd, contract=contract, key=key, host=host, tell=say_nothing)
        states = now = await hand.states()
        available_gib = host.read_memory().available_gib
        for change, target in zip(changes, targets, strict=True):
            plan = await _plan(hand, change, target, states, available_gib)
            if plan.start or plan.restart:
                await asyncio.to_thread(foresight.foresee, hand, change, plan, states, now)
            outcomes.append(Outcome(plan=plan, active=plan.target, fetched=foresight.lacks_files(contract, plan)))
            states, available_gib = states_after(plan, contract, states), plan.free_after_gib
    return outcomes


async def _plan(
    hand: Hand, change: Change, target: Engine | None, states: Mapping[str, UnitState], available_gib: float
) -> Plan:
    """The plan for a change. With ``keep`` its target may be another than the one that was named."""
    if change.keep and not change.beside:
        target = keeps_its_choice(hand.contract, states, target.lane if target else change.lane) or target
    ledger = hand.host.ledger
    now = Situation(
        contract=hand.contract,
        states=states,
        needs={engine.name: ledger.need(engine).gib for engine in hand.contract.engines},
        available_gib=available_gib,
        held={engine.name: ledger.held_gib(engine) for engine in hand.contract.engines},
    )
    if target is not None and change.stop:
        return plan_stop(now, target, boot=change.boot)
    if target is not None and change.demand:
        return plan_start(now, target, evict=change.evict)
    sick = target is not None and await asyncio.to_thread(transition.is_sick, target, states[target.unit], hand.key)
    if target is not None and change.beside:
        return plan_start(now, target, sick=sick, boot=change.boot)
    spare = [hand.contract.find(name).name for name in change.spare]
    return plan_switch(now, target, sick=sick, boot=change.boot, lane=change.lane, spare=spare)


class _FilesMissingError(Exception):
    """Nothing was stopped yet, and the model that is to be started has to be brought first."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.name)
        self.engine = engine
        self.healed: list[str] = []


class _Transaction:
    """One change, from the states that systemd tells to the states that were asked for, or back.

    With ``files_are_there`` nothing has to be brought first any more.
    """

    def __init__(self, hand: Hand, change: Change, target: Engine | None, *, files_are_there: bool) -> None:
        self._files_are_there = files_are_there
        self._hand = hand
        self._change = change
        self._target = target
        self._engines = {engine.name: engine for engine in hand.contract.engines}
        self._journal = hand.host.run / journal.PATH.name

    async def run(self) -> Outcome:
        """Raises HearthError, with what an earlier change had left undone where there was one."""
        if self._change.demand:
            return await self._on_demand()
        states = await recovery.settled(self._hand)
        left = journal.read(self._journal)
        if left is None:
            return await self._change_from(states, None)
        takes_over = self._takes_over(left, states)
        done: list[str] = []
        if not takes_over:
            done = await recovery.heal(self._hand, left, self._target if self._change.stop else None)
            journal.clear(self._journal)
        elif not self._change.boot:
            done = await recovery.undo_boot(self._hand, left)
        healed = "; ".join((left.words, *done))
        try:
            outcome = await self._change_from(await recovery.settled(self._hand), left if takes_over else None)
        except _FilesMissingError as missing:
            missing.healed.insert(0, healed)
            raise
        except HearthError as error:
            raise type(error)(f"{error}; before that, {healed}", error.log) from None
        return msgspec.structs.replace(outcome, healed=healed)

    async def _on_demand(self) -> Outcome:
        """What an earlier change has left undone is for the next one of a person: it was about more than one start."""
        hand = self._hand
        states = await recovery.settled(hand, reload=False)
        plan = await _plan(hand, self._change, self._target, states, hand.host.read_memory().available_gib)
        if plan.start:
            await asyncio.to_thread(foresight.foresee, hand, self._change, plan, states, states)
            if not self._files_are_there and await asyncio.to_thread(foresight.lacks_files, hand.contract, plan):
                raise _FilesMissingError(self._engines[plan.target or ""])
        target = self._engines[plan.target] if plan.target else None
        return await self._steps(Outcome(plan=plan, active=plan.target), target, self._leaving(plan))

    def _takes_over(self, left: Journal, states: Mapping[str, UnitState]) -> bool:
        """Whether this change decides about all that the unfinished one had touched, so that nothing is to heal."""
        if self._change.stop or self._change.keep:
            return False
        if self._target is not None and self._target.name == left.target:
            # Room is made with what is up, and not with what is just coming back.
            coming = any(states[engine.unit].is_coming for engine in recovery.missing(self._hand, left, states))
            return not (self._change.beside and coming)
        # In the utility lane a switch leaves alone what else is there.
        lane = self._target.lane if self._target else self._change.lane
        if self._change.beside or (self._target is not None and lane != "main"):
            return False
        spare = [self._hand.contract.find(name).name for name in self._change.spare]
        touched = [self._engines[name] for name in (left.target, *left.previous) if name in self._engines]
        return all(
            engine.lane == lane and engine.name not in spare and not (engine.pinned and self._target)
            for engine in touched
        )

    async def _change_from(self, states: Mapping[str, UnitState], left: Journal | None) -> Outcome:
        """Carry out the change; ``left`` is of an unfinished one that it takes over."""
        plan = await _plan(self._hand, self._change, self._target, states, self._hand.host.read_memory().available_gib)
        target = self._engines[plan.target] if plan.target else None
        if left and plan.target == left.target and not (plan.start or plan.restart):
            # It came up when nobody was there to verify it.
            plan = msgspec.structs.replace(plan, wait=True)
        if plan.start or plan.restart:
            try:
                await asyncio.to_thread(foresight.foresee, self._hand, self._change, plan, states, states)
            except HearthError as error:
                if left is None:
                    raise
                done = await recovery.heal(self._hand, left)
                journal.clear(self._journal)
                raise EngineFailedError("; ".join((str(error), *done))) from None
            if not self._files_are_there and await asyncio.to_thread(foresight.lacks_files, self._hand.contract, plan):
                missing = _FilesMissingError(self._engines[plan.target or ""])
                if left is not None:
                    # What ran before serves while they come.
                    missing.healed = await recovery.heal(self._hand, left)
                    journal.clear(self._journal)
                raise missing
        outcome = Outcome(plan=plan, active=plan.target)
        if plan.changes or plan.wait:
            way_back = self._way_back(plan, left, states)
            outcome = await self._carry_out(outcome, target, way_back, healing=left is not None)
        journal.clear(self._journal)
        return outcome

    def _way_back(self, plan: Plan, left: Journal | None, states: Mapping[str, UnitState]) -> list[str]:
        """What a failure goes back to: what is stopped for this change, and what an unfinished one had stopped.

        Not that one's own target, which was never verified. Who wants nothing to run goes back to nothing.
        """
        if plan.target is None:
            return []
        unfinished = [engine.name for engine in recovery.missing(self._hand, left, states)] if left else []
        apart = {plan.target, left.target if left and unfinished else ""}
        return [name for name in dict.fromkeys((*plan.stop, *unfinished)) if name not in apart]

    async def _carry_out(
        self, outcome: Outcome, target: Engine | None, previous: Sequence[str], *, healing: bool
    ) -> Outcome:
        plan, hand, leaving = outcome.plan, self._hand, self._leaving(outcome.plan)
        began_s = time.monotonic()
        async with transition.emptied(hand, leaving, self._change.drain_s) as drained:
            outcome = msgspec.structs.replace(outcome, drained=drained, drain_s=time.monotonic() - began_s)
            if plan.changes:
                self._write_journal(plan, previous)
            try:
                outcome = await self._steps(outcome, target, leaving, healing=healing)
            except SystemdGoneError:
                # The journal stays: the next change goes on from there.
                raise
            except HearthError as error:
                raise await self._undone(error, plan, previous) from None
        # Last, so that a boot in the middle of a failing change still brings the old engine up.
        try:
            await recovery.move_boot(hand, [plan.target] if plan.target and plan.enable else [], plan.disable)
        except SystemdError as error:
            journal.clear(self._journal)
            done = f"{plan.target} serves" if plan.target else f"nothing runs in the {plan.lane} lane"
            raise SystemdError(f"{done}, but what starts at boot could not be changed: {error}") from None
        return outcome

    def _leaving(self, plan: Plan) -> list[Engine]:
        """Who stops, in this order."""
        return [self._engines[name] for name in (*plan.stop, *([plan.target] if plan.restart else [])) if name]

    async def _steps(
        self, outcome: Outcome, target: Engine | None, leaving: Sequence[Engine], *, healing: bool = False
    ) -> Outcome:
        """Stop, wait for memory, start. Raises what the first failure raised, and undoes nothing."""
        plan, hand = outcome.plan, self._hand
        stop_s = await self._stop(leaving, all_of_them=target is None)
        outcome = msgspec.structs.replace(outcome, stop_s=stop_s)
        if target is not None and (plan.start or plan.restart or plan.wait):
            if leaving or (healing and plan.start):
                memory_s = await transition.memory_back(hand, target)
                outcome = msgspec.structs.replace(outcome, memory_s=memory_s)
            ask = not self._change.demand
            load_s, first_s = await transition.start(hand, target, self._change.timeout_s, ask=ask)
            outcome = msgspec.structs.replace(outcome, load_s=load_s, first_s=first_s)
        return outcome

    def _write_journal(self, plan: Plan, previous: Sequence[str]) -> None:
        # An engine that is restarted ran before, too.
        ran = (*previous, plan.target) if plan.target and plan.restart else tuple(previous)
        began = self._hand.host.clock.utc()
        entry = Journal(target=plan.target or "none", previous=ran, at=began, enable=plan.enable, disable=plan.disable)
        journal.write(entry, self._journal)

    async def _stop(self, engines: Sequence[Engine], *, all_of_them: bool) -> float:
        """Stop engines; returns the seconds that took. With ``all_of_them`` one that stays up does not spare the rest.

        Raises what the first failure raised.
        """
        stop_s = 0.0
        failures: list[HearthError] = []
        for engine in engines:
            try:
                stop_s += await transition.stop(self._hand, engine)
            except HearthError as error:
                failures.append(error)
                if not all_of_them:
                    break
        if failures:
            raise failures[0]
        return stop_s

    async def _undone(self, error: HearthError, plan: Plan, previous: Sequence[str]) -> HearthError:
        """Go back to what ran before; returns the error with what runs now."""
        restored, failures = await recovery.restore(self._hand, [self._engines[name] for name in previous])
        journal.clear(self._journal)
        said = [str(error)]
        if restored:
            said.append(f"{_and(restored)} {'serves' if len(restored) == 1 else 'serve'} again")
        said += failures
        with suppress(SystemdError):
            if plan.target and not await self._serves(plan.lane):
                said.append(f"nothing serves in the {plan.lane} lane now: hearth status tells more")
        return EngineFailedError("; ".join(said), error.log)

    async def _serves(self, lane: str) -> bool:
        """Whether any engine of the lane is up."""
        states = await self._hand.states()
        return any(states[engine.unit].is_up for engine in self._hand.contract.engines if engine.lane == lane)


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
