# SPDX-License-Identifier: Apache-2.0
"""The process of a job: carries out its changes, one after the other, and writes into its file how that goes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from hearth import contract, jobs, state
from hearth.admission import admit
from hearth.contract import Contract
from hearth.engines.units import Systemd, UnitState
from hearth.errors import BusyError, HearthError, SystemdError
from hearth.switching import job, switch
from hearth.switching.change import Change
from hearth.switching.job import Job, Result, Serving
from hearth.switching.plan import states_after
from hearth.switching.progress import Progress, Tell, say_nothing
from hearth.switching.switch import Outcome


async def carry_out(
    known: Contract,
    changes: Sequence[Change],
    *,
    lock_timeout_s: float,
    tell: Tell = say_nothing,
    host: admit.Host = admit.HOST,
) -> Result:
    """Carry out changes. One that fails does not keep the others from being carried out.

    Raises what ``switch`` raises; of several failures the kind of the first, with the sentences of all.
    """
    _names_are_known(known, changes)
    outcomes: list[Outcome] = []
    failures: list[HearthError] = []
    for change in changes:
        try:
            outcomes.append(await switch.switch(known, change, lock_timeout_s=lock_timeout_s, tell=tell, host=host))
        except (BusyError, SystemdError):
            # These would stop the others as well.
            raise
        except HearthError as error:
            failures.append(error)
    if failures:
        log = tuple(line for failure in failures for line in failure.log)
        raise type(failures[0])("; ".join(map(str, failures)), log)
    return _result(known, outcomes, host.read_memory().available_gib, await _up(known), host)


async def foretell(known: Contract, changes: Sequence[Change], *, host: admit.Host = admit.HOST) -> Result:
    """What ``carry_out`` would do, if nothing else happened on the box.

    Raises what that would raise before it stops anything.
    """
    _names_are_known(known, changes)
    states = await _states(known)
    outcomes = await switch.foretell(known, changes, host=host)
    for outcome in outcomes:
        states = states_after(outcome.plan, known, states)
    up = [engine.name for engine in known.engines if states[engine.unit].is_coming]
    return _result(known, outcomes, outcomes[-1].plan.free_after_gib, up, host)


def _names_are_known(known: Contract, changes: Sequence[Change]) -> None:
    """Before the first is carried out. Raises UnknownModelError."""
    for change in changes:
        for name in (*([change.name] if change.name is not None else []), *change.spare):
            known.find(name)


async def _states(known: Contract) -> dict[str, UnitState]:
    async with Systemd() as systemd:
        return await systemd.states([engine.unit for engine in known.engines])


async def _up(known: Contract) -> list[str]:
    states = await _states(known)
    return [engine.name for engine in known.engines if states[engine.unit].is_up]


def _result(
    known: Contract, outcomes: Sequence[Outcome], available_gib: float, up: Sequence[str], host: admit.Host
) -> Result:
    first = outcomes[0]
    parts = ("fetch", "drain", "stop", "memory", "load", "first")
    serving = [engine for engine in known.engines if engine.name in up]
    old, new = _sides(outcomes)
    return Result(
        changed=any(outcome.plan.changes or outcome.healed for outcome in outcomes),
        active=first.active or "none",
        before=first.plan.before,
        actions=tuple(step for outcome in outcomes for step in _steps(outcome)),
        healed=tuple(outcome.healed for outcome in outcomes if outcome.healed),
        drained=sum(outcome.drained for outcome in outcomes),
        seconds={part: round(sum(getattr(one, f"{part}_s") for one in outcomes), 3) for part in parts},
        memory={
            "total": round(host.read_memory().total_gib, 1),
            "available": round(available_gib, 1),
            "floor": round(known.floor_gib, 1),
        },
        serving=tuple(Serving(name=engine.name, url=engine.base_url, lane=engine.lane) for engine in serving),
        old=old,
        new=new,
    )


def _steps(outcome: Outcome) -> list[str]:
    """For a person: what is done, in its order."""
    brought = [f"bring the files of {outcome.active}"] if outcome.fetched else []
    return [*brought, *outcome.plan.sentences()]


def _sides(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """Before and after, for a diff: what runs in each lane, and what was moved of the start at boot."""
    before: dict[str, Sequence[str]] = {}
    after: dict[str, Sequence[str]] = {}
    for plan in (outcome.plan for outcome in outcomes):
        before.setdefault(plan.lane, plan.before)
        new = " (restarted)" if plan.restart else ""
        stay = [name for name in after.get(plan.lane, plan.before) if name not in (*plan.stop, plan.target)]
        after[plan.lane] = [*stay, *([plan.target + new] if plan.target else [])]
    old_boot = [name for outcome in outcomes for name in outcome.plan.disable]
    new_boot = [outcome.plan.target or "" for outcome in outcomes if outcome.plan.enable]
    old, new = ("".join(f"{lane} lane: {_list(side[lane])}\n" for lane in side) for side in (before, after))
    if old_boot or new_boot:
        old, new = f"{old}at boot: {_list(old_boot)}\n", f"{new}at boot: {_list(new_boot)}\n"
    return old, new


def _list(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"


class _Record(jobs.Record[Job]):
    def tell(self, progress: Progress) -> None:
        before = self.job.progress
        if before is not None and (before.phase, before.engine) == (progress.phase, progress.engine):
            self.write(progress=progress)
        else:
            self.enter(progress.words, progress=progress, holder="")


def run(begun: Job, folder: Path, host: admit.Host = admit.HOST) -> int:
    """Carry out a job; returns the exit code of its process."""
    record = _Record(job.JOBS, begun, folder)
    holder = state.holder(host.run / switch.LOCK.name)
    if holder:
        record.write(holder=holder)

    def work() -> dict[str, object]:
        told = carry_out(
            contract.load(), begun.changes, lock_timeout_s=begun.lock_timeout_s, tell=record.tell, host=host
        )
        return {"result": asyncio.run(told)}

    return record.run(work, holder="")


def main(arguments: Sequence[str]) -> int:
    """Carry out the job in the file that is named. Raises HearthError where there is none."""
    path = Path(arguments[0])
    return run(job.read(path.stem, path.parent), path.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
