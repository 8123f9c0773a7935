# SPDX-License-Identifier: Apache-2.0
"""The process of a job: takes one step of an update forward or back, and writes into its file how that goes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from hearth import contract, jobs, state
from hearth.errors import BusyError, ContractError
from hearth.switching.around import around
from hearth.switching.progress import Progress
from hearth.updates import job, step
from hearth.updates.changes import Result
from hearth.updates.job import Job, Request
from hearth.updates.step import Step, Tell

# Does the work, and returns what went wrong: what the work said, and what became of the engines.
Around = Callable[[Callable[[], str]], str]


class _Record(jobs.Record[Job]):
    _phase = ""

    def tell(self, phase: str, words: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self.enter(words, now=words)
        elif words != self.job.now:
            self.write(now=words)


def _alone() -> AbstractContextManager[None]:
    return state.locked(
        step.FOLDER / step.LOCK,
        0.0,
        lambda who: BusyError(f"another update of this box is under way ({who}): wait for its end"),
    )


def carry_out(request: Request, tell: Tell, aside: Around | None = None) -> Result:
    """Do what is asked. Raises HearthError where nothing, or nothing more, was changed."""
    around_it = aside or (_engines(request, tell) if request.engines else _plain)
    made = request.made(tell=tell)
    with _alone():
        return _forward(made, request, around_it) if request.do == "updated" else _back(made, request, around_it)


def _forward(made: Step, request: Request, around_it: Around) -> Result:
    made.recover()
    told = made.refresh() if request.refresh else []
    plan, book = made.plan(), made.book()
    cut_off = book is not None and book.state == "begun"
    trouble = ""
    if plan.changes or cut_off:
        # Before they are out of the way.
        engines = made.packages.engines()
        wanted = made.prepare(plan)
        trouble = around_it(lambda: made.install(plan, wanted, engines))
    elif book is not None and book.state == "installed":
        trouble = made.troubled(book)
    book = made.book()
    shown = book.changes if book is not None and book.is_open else plan.changes
    return Result(
        changed=bool(plan.changes) or cut_off, changes=shown, held=plan.held, trouble=trouble, told=tuple(told)
    )


def _back(made: Step, request: Request, around_it: Around) -> Result:
    book = made.book()
    if book is None or book.stays(unconfirmed=request.unconfirmed):
        return Result(changed=False)

    def work() -> str:
        made.revert(book)
        return ""

    said = [around_it(work), made.start_engines(book), made.troubled(book)]
    return Result(changed=True, changes=tuple(one.back for one in book.changes), trouble="; ".join(filter(None, said)))


def _plain(work: Callable[[], str]) -> str:
    return work()


def _engines(request: Request, tell: Tell) -> Around:
    """Engines are out of the way while something is done; who ran before runs again after it."""

    def told(progress: Progress) -> None:
        tell(f"{progress.phase} {progress.engine}", progress.words)

    def run(work: Callable[[], str]) -> str:
        if not contract.PATH.exists():
            return work()
        try:
            known = contract.load()
        except ContractError:
            # Of another version, and to be written anew; systemd starts again what ran.
            return work()
        done = asyncio.run(
            around(known, work, drain_s=request.drain_s, lock_timeout_s=request.lock_timeout_s, tell=told)
        )
        return "; ".join(filter(None, [done.said, *done.failures]))

    return run


def run(begun: Job, folder: Path) -> int:
    """Carry out a job; returns the exit code of its process."""
    record = _Record(job.JOBS, begun, folder)
    return record.run(lambda: {"result": carry_out(begun.request, record.tell)})


def main(arguments: Sequence[str]) -> int:
    """Carry out the job in the file that is named. Raises HearthError where there is none."""
    path = Path(arguments[0])
    return run(job.read(path.stem, path.parent), path.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
