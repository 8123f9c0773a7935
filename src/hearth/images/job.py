# SPDX-License-Identifier: Apache-2.0
"""Long work on images as jobs of systemd; ``hearth.images.jobrun`` is the process of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from hearth import jobs, state
from hearth.download import job as downloads
from hearth.images.have import Outcome
from hearth.images.progress import Progress
from hearth.images.request import Credential, Terms, Want

FOLDER = state.RUN / "images"

Do = Literal["present", "saved", "loaded"]


class Job(jobs.Job, frozen=True, kw_only=True):
    """A job that has ``images`` on the box, or saves ``names`` to ``folder``, or loads what is in it.

    ``at_image`` counts from 0. Of a job that failed, ``outcomes`` has those that were had before.
    """

    UNIT: ClassVar[str] = "hearth-images"
    PROCESS: ClassVar[str] = "hearth.images.jobrun"
    TITLE: ClassVar[str] = "Hearth works on images"
    NOUN: ClassVar[str] = "work"
    OF: ClassVar[str] = "on"
    LOOK: ClassVar[str] = "run the play again"
    AGAIN: ClassVar[str] = "it goes on where it was"
    # As a download: engines go first.
    OPTIONS: ClassVar[tuple[str, ...]] = downloads.Job.OPTIONS
    VARIABLES: ClassVar[tuple[str, ...]] = downloads.Job.VARIABLES

    do: Do
    images: tuple[Want, ...] = ()
    names: tuple[str, ...] = ()
    folder: str = ""
    terms: Terms = Terms()
    at_image: int = 0
    progress: Progress | None = None
    outcomes: tuple[Outcome, ...] = ()

    @property
    def wants(self) -> object:
        return self.do, self.images, self.names, self.folder, self.terms

    @property
    def asked(self) -> str:
        match self.do:
            case "present":
                return " and ".join(want.words for want in self.images)
            case "saved":
                return f"images for {self.folder}"
            case "loaded":
                return f"images of {self.folder}"

    @property
    def doing(self) -> str:
        if self.progress is None:
            return ""
        of = self.images[self.at_image].words if self.images else self.folder
        count = f" ({self.at_image + 1} of {len(self.images)})" if len(self.images) > 1 else ""
        return f"{of}{count}: {self.progress.line}"


JOBS = jobs.Jobs(Job, FOLDER)
read, follow = JOBS.read, JOBS.follow


def begin(
    do: Do,
    *,
    images: Sequence[Want] = (),
    names: Sequence[str] = (),
    where: str = "",
    terms: Terms = Terms(),  # noqa: B008 - frozen
    credentials: Sequence[Credential] = (),
    folder: Path = FOLDER,
) -> Job:
    """The job that does this: one that does already, else a new one. Raises HearthError.

    ``credentials`` are no part of what is asked: they reach the job by a file of its own.
    """
    ident, at = jobs.stamp()
    asked = Job(id=ident, at=at, do=do, images=tuple(images), names=tuple(names), folder=where, terms=terms)
    secret = msgspec.json.encode(list(credentials)).decode() if credentials else ""
    return JOBS.begin(asked, secret=secret, folder=folder)
