# SPDX-License-Identifier: Apache-2.0
"""Downloads as jobs of systemd; ``hearth.download.jobrun`` is the process of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from hearth import jobs, proxy, state
from hearth.download import manifest
from hearth.download.meter import Progress
from hearth.download.request import Request, Result
from hearth.download.store import Store
from hearth.words import amount, span

FOLDER = state.RUN / "downloads"

Do = Literal["present", "verified"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one model.

    ``failure`` says why it failed, ``warning`` what whoever asked should know. ``before`` and ``after`` are in words,
    for a diff.
    """

    folder: str
    ollama: str = ""
    result: Result = Result(changed=False)
    failure: str = ""
    warning: str = ""
    before: str = ""
    after: str = ""

    @property
    def name(self) -> str:
        """As a person calls it."""
        return self.ollama or short(self.folder)

    @property
    def where(self) -> str:
        """For a diff."""
        return f"{self.folder} {self.ollama}".rstrip()


class Job(jobs.Job, frozen=True, kw_only=True):
    """A job that brings models, one after the other. ``at_model`` counts from 0.

    With ``keep``, a model that is whole is taken as it is where its hub cannot be asked. Of a job that failed,
    ``outcomes`` has all there are.
    """

    UNIT: ClassVar[str] = "hearth-download"
    PROCESS: ClassVar[str] = "hearth.download.jobrun"
    TITLE: ClassVar[str] = "Hearth brings models"
    NOUN: ClassVar[str] = "download"
    OF: ClassVar[str] = "of"
    LOOK: ClassVar[str] = "run the play again"
    AGAIN: ClassVar[str] = "it goes on where it was"
    # Engines go first, at the processor, at the disk, and when memory runs out: a download can be taken up again. What
    # the libraries leave in /tmp goes with the job.
    OPTIONS: ClassVar[tuple[str, ...]] = (
        "--nice=10",
        "--property=IOSchedulingClass=best-effort",
        "--property=IOSchedulingPriority=7",
        "--property=OOMScoreAdjust=500",
        "--property=PrivateTmp=yes",
    )
    # The way out, where a box has one of its own, and whom to trust on it.
    VARIABLES: ClassVar[tuple[str, ...]] = (*proxy.VARIABLES, "SSL_CERT_FILE", "SSL_CERT_DIR")

    do: Do
    requests: tuple[Request, ...]
    keep: bool = False
    at_model: int = 0
    progress: Progress | None = None
    outcomes: tuple[Outcome, ...] = ()

    @property
    def wants(self) -> object:
        return self.do, self.requests, self.keep

    @property
    def asked(self) -> str:
        return " and ".join(request.name for request in self.requests)

    @property
    def doing(self) -> str:
        if self.progress is None:
            return ""
        count = f" ({self.at_model + 1} of {len(self.requests)})" if len(self.requests) > 1 else ""
        return f"{self.requests[self.at_model].name}{count}: {self.progress.words}"


JOBS = jobs.Jobs(Job, FOLDER)
write, current, read, follow = JOBS.write, JOBS.current, JOBS.read, JOBS.follow


def begin(do: Do, requests: Sequence[Request], *, keep: bool = False, token: str = "", folder: Path = FOLDER) -> Job:
    """The job that brings these models: one that does already, else a new one. Raises HearthError.

    ``token`` is for the hub. It is no part of what is asked: it reaches the job by a file of its own.
    """
    ident, at = jobs.stamp()
    job = Job(id=ident, at=at, do=do, requests=tuple(requests), keep=keep)
    return JOBS.begin(job, secret=token, folder=folder)


def short(folder: str) -> str:
    """A model's folder, as a person calls it: family and name."""
    return "/".join(Path(folder).parts[-2:])


def state_of(request: Request) -> str:
    """What there is of a model, for a diff."""
    path = Path(request.folder)
    if request.ollama:
        store = Store(path)
        found = store.record(request.ollama)
        if found is None:
            return "not brought by Hearth" if store.knows(request.ollama) else "nothing"
        return described(found.commit, len(found.files), found.bytes_total)
    known = manifest.read(path)
    if known is None:
        return "not brought by Hearth" if path.is_dir() and any(path.iterdir()) else "nothing"
    return described(known.commit, len(known.files), known.bytes_total)


def described(commit: str, files: int, size: int) -> str:
    at = f"commit {commit}, " if commit else ""
    return f"{at}{files} {'file' if files == 1 else 'files'}, {amount(size)}"


def cut_off(result: Result) -> str:
    """What was pruned, in words."""
    said = f"{result.files} {'download that was' if result.files == 1 else 'downloads that were'} cut off"
    if not result.unnamed:
        return said
    layers = f"{result.unnamed} {'layer' if result.unnamed == 1 else 'layers'} that no model of Ollama needs"
    return f"{said} and {layers}" if result.files else layers


def sentence(outcome: Outcome, state: str, *, foretold: bool = False) -> str:
    """For a person: what was done about one model, or would be. ``state`` is what was asked: Do, absent, or pruned."""
    result, name = outcome.result, outcome.name
    if outcome.failure:
        return f"{name}: {outcome.failure}"
    if state in ("absent", "pruned"):
        return _sentence_of_removal(outcome, state, foretold=foretold)
    there = described(result.commit[:12], result.files, result.bytes_total)
    if not result.changed:
        whole = "is whole" if state == "verified" and not foretold else "is there"
        taken = "" if result.verified else ", taken as it is: nothing says what it should be"
        return f"{name} {whole} ({there}){taken}"
    if foretold and outcome.ollama:
        return f"{name} would come from Ollama's registry, which says how much that is when it begins"
    if foretold:
        return f"{name} would come: {amount(result.bytes_fetched)} ({there})"
    rate = f", {result.rate / 1e6:.0f} MB/s" if result.rate else ""
    return f"{name}: {amount(result.bytes_fetched)} came in {span(result.seconds)}{rate} ({there})"


def _sentence_of_removal(outcome: Outcome, state: str, *, foretold: bool) -> str:
    result = outcome.result
    freed = f"{amount(result.freed)} {'would be ' if foretold else ''}given back"
    if state == "pruned":
        left = f"; under way, and left alone: {', '.join(map(short, result.kept))}" if result.kept else ""
        return f"{cut_off(result)} below {outcome.folder}, {freed}{left}"
    if not result.changed:
        return f"{outcome.name} is not there"
    kept = f"; what others put there stays: {', '.join(result.kept[:5])}" if result.kept else ""
    return f"{outcome.name} {'would go' if foretold else 'is gone'}, {freed}{kept}"
