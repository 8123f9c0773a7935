# SPDX-License-Identifier: Apache-2.0
"""Steps of an update as jobs of systemd; ``hearth.updates.jobrun`` is the process of one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from hearth import jobs, proxy, state
from hearth.switching.change import DRAIN_S
from hearth.updates.changes import Result
from hearth.updates.step import FOLDER as KEPT
from hearth.updates.step import Step, Tell, say_nothing

FOLDER = state.RUN / "updates"

Do = Literal["updated", "reverted"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a step. ``hold`` and ``only`` are patterns of package names.

    With ``refresh`` the lists of packages are fetched first; with ``engines`` they are out of the way meanwhile, for
    which requests under way have ``drain_s`` seconds; with ``unconfirmed`` only what nobody confirmed is taken back.
    """

    do: Do = "updated"
    step: str
    hold: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    refresh: bool = False
    engines: bool = False
    unconfirmed: bool = False
    drain_s: float = DRAIN_S
    lock_timeout_s: float = 600.0

    def made(self, *, tell: Tell = say_nothing, scratch: Path | None = None) -> Step:
        """The step itself; with ``scratch`` to ask only."""
        return Step(self.step, self.hold, self.only, self.lock_timeout_s, tell=tell, scratch=scratch, folder=KEPT)


class Job(jobs.Job, frozen=True, kw_only=True):
    """A job that takes one step forward or back."""

    UNIT: ClassVar[str] = "hearth-update"
    PROCESS: ClassVar[str] = "hearth.updates.jobrun"
    TITLE: ClassVar[str] = "Hearth updates packages"
    NOUN: ClassVar[str] = "update"
    OF: ClassVar[str] = "of"
    LOOK: ClassVar[str] = "run the play again"
    AGAIN: ClassVar[str] = "it goes on where it was"
    # For apt, which goes by them where it has no settings of its own.
    VARIABLES: ClassVar[tuple[str, ...]] = proxy.VARIABLES

    request: Request
    now: str = ""
    result: Result | None = None

    @property
    def wants(self) -> object:
        return self.request

    @property
    def asked(self) -> str:
        return self.request.step

    @property
    def doing(self) -> str:
        return self.now


JOBS = jobs.Jobs(Job, FOLDER)
read, follow, current = JOBS.read, JOBS.follow, JOBS.current


def begin(request: Request, *, folder: Path = FOLDER) -> Job:
    """The job that does this: one that does already, else a new one. Raises HearthError."""
    ident, at = jobs.stamp()
    return JOBS.begin(Job(id=ident, at=at, request=request), folder=folder)
