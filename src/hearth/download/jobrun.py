# SPDX-License-Identifier: Apache-2.0
"""The process of a download job: brings its models, one after the other, and writes into its file how that goes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from hearth import disk, jobs
from hearth.download import job
from hearth.download.errors import DownloadError, UncheckedError, no_room
from hearth.download.job import Job, Outcome
from hearth.download.meter import Progress
from hearth.download.present import foretell, present, settled, verify
from hearth.download.request import Patience, Request
from hearth.errors import HearthError
from hearth.tags import registry_of

# For a question whose answer can be done without: it is not worth the half minute that a download is.
_BRIEF = Patience(connect_s=5.0, read_s=10.0, tries=2)


class _Record(jobs.Record[Job]):
    def tell(self, index: int, progress: Progress) -> None:
        before = self.job.progress
        if before is not None and (self.job.at_model, before.phase) == (index, progress.phase):
            self.write(progress=progress)
        else:
            self.enter(replace(self.job, at_model=index, progress=progress).doing, at_model=index, progress=progress)


class _Work:
    """The models of one job."""

    def __init__(self, record: _Record, token_file: str) -> None:
        self._record = record
        self._token_file = token_file
        # Hubs that did not answer: they are not waited for a second time.
        self._away: dict[str, str] = {}

    def all(self) -> dict[str, object]:
        """Bring them all. Raises DownloadError with the sentences of those that failed, when all were tried."""
        requests = self._record.job.requests
        if self._token_file:
            requests = tuple(replace(request, token_file=self._token_file) for request in requests)
        if len(requests) > 1:
            _assert_room_for_all(requests)
        for index, request in enumerate(requests):
            self._record.write(outcomes=(*self._record.job.outcomes, self._one(index, request)))
        failures = [outcome.failure for outcome in self._record.job.outcomes if outcome.failure]
        if failures:
            raise DownloadError("; ".join(dict.fromkeys(failures)))
        return {}

    def _one(self, index: int, request: Request) -> Outcome:
        before = job.state_of(request)

        def tell(progress: Progress) -> None:
            self._record.tell(index, progress)

        made = Outcome(folder=request.folder, ollama=request.ollama, before=before)
        try:
            if self._record.job.keep and self._record.job.do == "present":
                kept = self._kept(request, made)
                if kept is not None:
                    return replace(kept, after=before)
            result = (verify if self._record.job.do == "verified" else present)(request, tell)
        except HearthError as error:
            if isinstance(error, UncheckedError) and self._record.job.keep:
                result = present(replace(request, offline=True), tell)
                return replace(made, result=result, warning=f"{error}: it is used as it is", after=before)
            return replace(made, failure=str(error), after=job.state_of(request))
        return replace(made, result=result, after=job.state_of(request))

    def _kept(self, request: Request, made: Outcome) -> Outcome | None:
        """What is there already, also where the hub does not say whether it is current."""
        warning = self._away.get(request.endpoint, "") if request.repo else ""
        if not warning:
            try:
                result = settled(replace(request, patience=_BRIEF), ask=True)
                return None if result is None else replace(made, result=result)
            except UncheckedError as error:
                warning = f"{error.reason}; the models of {request.endpoint} that are whole are used as they are"
                self._away[request.endpoint] = warning
        result = settled(replace(request, offline=True))
        if result is None:
            return None
        return replace(made, result=result, warning=warning)


def _assert_room_for_all(requests: Sequence[Request]) -> None:
    """Before the first hours: room for all models that are not there yet, on each disk. Raises DownloadError."""
    missing: dict[Path, int] = {}
    for request in requests:
        # Why one cannot be asked for is told in its turn.
        with suppress(HearthError):
            if settled(replace(request, offline=True)) is None:
                where = disk.of(Path(request.folder))
                missing[where] = missing.get(where, 0) + foretell(replace(request, patience=_BRIEF)).bytes_fetched
    for where, count in missing.items():
        free, reserve = shutil.disk_usage(where).free, max(request.reserve_bytes for request in requests)
        if count + reserve > free:
            raise no_room(where, count, reserve, free)


def foretold(requests: Sequence[Request], *, keep: bool) -> list[Outcome]:
    """What a job would do; fetches and hashes nothing."""
    return [_foretold(request, keep=keep) for request in requests]


def _foretold(request: Request, *, keep: bool) -> Outcome:
    before = job.state_of(request)
    made = Outcome(folder=request.folder, ollama=request.ollama, before=before, after=before)
    try:
        try:
            result = foretell(request)
        except UncheckedError as error:
            if not keep:
                raise
            return replace(made, result=foretell(replace(request, offline=True)), warning=str(error))
    except HearthError as error:
        return replace(made, failure=str(error))
    after = job.described(result.commit, result.files, result.bytes_total) if result.changed else before
    if request.ollama and result.changed:
        after = f"what {registry_of(request.ollama)} has"
    return replace(made, result=result, after=after)


def run(begun: Job, folder: Path) -> int:
    """Carry out a job; returns the exit code of its process."""
    secret = jobs.secret_of(begun.id, folder)
    record = _Record(job.JOBS, begun, folder)
    return record.run(_Work(record, str(secret) if secret.exists() else "").all)


def main(arguments: Sequence[str]) -> int:
    """Carry out the job in the file that is named. Raises HearthError where there is none."""
    path = Path(arguments[0])
    return run(job.read(path.stem, path.parent), path.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
