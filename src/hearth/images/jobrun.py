# SPDX-License-Identifier: Apache-2.0
"""The process of a job on images: does it, and writes into its file how that goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hearth import jobs
from hearth.errors import BusyError, HearthError
from hearth.images import book, carry, job
from hearth.images.dockerd import Docker
from hearth.images.have import Outcome, Work
from hearth.images.job import Job
from hearth.images.progress import Progress
from hearth.images.request import Credential

# How long to wait for other work on images: as long as a pull over a slow line may take.
_LOCK_S = 7 * 24 * 3600.0
_LOOK_EVERY_S = 2.0
# How often the file says how far it is: each time costs a write to the disk.
_TELL_EVERY_S = 0.5


class _Record(jobs.Record[Job]):
    def __init__(self, known: jobs.Jobs[Job], begun: Job, folder: Path) -> None:
        super().__init__(known, begun, folder)
        self._told = 0.0

    def tell(self, index: int, progress: Progress) -> None:
        before, now = self.job.progress, time.monotonic()
        if before is None or (self.job.at_image, before.phase) != (index, progress.phase):
            said = msgspec.structs.replace(self.job, at_image=index, progress=progress).doing
            self.enter(said, at_image=index, progress=progress)
        elif now - self._told >= _TELL_EVERY_S:
            self.write(progress=progress)
        else:
            return
        self._told = now

    def add(self, outcome: Outcome) -> None:
        self.write(outcomes=(*self.job.outcomes, outcome))


def _work(record: _Record, credentials: Sequence[Credential]) -> dict[str, object]:
    asked, docker = record.job, Docker()
    waited = 0.0
    while True:
        try:
            with book.held(_LOOK_EVERY_S):
                _do(asked, record, docker, credentials)
                return {}
        except BusyError as busy:
            waited += _LOOK_EVERY_S
            if waited >= _LOCK_S:
                raise
            record.tell(0, Progress(phase="waiting", words=str(busy)))


def _do(asked: Job, record: _Record, docker: Docker, credentials: Sequence[Credential]) -> None:
    reserve, folder = asked.terms.reserve_bytes, Path(asked.folder)
    known = book.read()
    match asked.do:
        case "present":
            work = Work(asked.terms, credentials, record.tell, docker)
            for number, want in enumerate(asked.images):
                record.add(work.one(number, want))
        case "saved":
            entries = [known.images[name] for name in asked.names if name in known.images]
            for outcome in carry.save(entries, folder, docker, reserve, record.tell):
                record.add(outcome)
        case "loaded":
            for outcome in carry.load(folder, docker, record.tell):
                record.add(outcome)


def run(begun: Job, folder: Path) -> int:
    """Carry out a job; returns the exit code of its process."""
    secret = jobs.secret_of(begun.id, folder)
    record = _Record(job.JOBS, begun, folder)

    def work() -> dict[str, object]:
        credentials: list[Credential] = []
        if secret.exists():
            try:
                credentials = msgspec.json.decode(secret.read_bytes(), type=list[Credential])
            except (OSError, msgspec.DecodeError) as error:
                raise HearthError(
                    f"the credentials of this job cannot be read ({type(error).__name__}): run the play again"
                ) from None
        return _work(record, credentials)

    return record.run(work)


def main(arguments: Sequence[str]) -> int:
    """Carry out the job in the file that is named. Raises HearthError where there is none."""
    path = Path(arguments[0])
    return run(job.read(path.stem, path.parent), path.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
