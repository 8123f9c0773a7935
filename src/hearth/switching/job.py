# SPDX-License-Identifier: Apache-2.0
"""Changes of engines as jobs of systemd; ``hearth.switching.jobrun`` is the process of one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from hearth import contract, jobs, state
from hearth.jobs import Failure, path_of
from hearth.memory import MEMINFO_VARIABLE
from hearth.switching.change import Change
from hearth.switching.progress import Progress

__all__ = ["FOLDER", "Failure", "Job", "Result", "Serving", "begin", "current", "follow", "path_of", "read", "write"]

FOLDER = state.RUN / "jobs"
_TOOK = {
    "fetch": "files brought in {:.1f} s",
    "drain": "waited {:.1f} s for requests",
    "stop": "stopped in {:.1f} s",
    "memory": "memory back in {:.1f} s",
    "load": "loaded in {:.1f} s",
    "first": "first answer after {:.1f} s",
}
_WORTH_TELLING_S = 0.05


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that is up, and where on the box it answers."""

    name: str
    url: str
    lane: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What changes did together, or would do.

    ``active`` is what runs for the first of them, "none" where nothing does; ``before``, what ran in its lane.
    ``seconds`` and ``drained`` are sums; ``memory`` is in GiB. ``old`` and ``new`` are the two sides of a diff.
    """

    changed: bool
    active: str
    before: tuple[str, ...]
    actions: tuple[str, ...]
    healed: tuple[str, ...]
    drained: int
    seconds: dict[str, float]
    memory: dict[str, float]
    serving: tuple[Serving, ...]
    old: str
    new: str

    def lines(self, *, foretold: bool = False) -> list[str]:
        """For a person: what was done, or would be; what serves where; how long each part took; memory."""
        steps = ", ".join(self.actions) or "nothing to do"
        said = [
            f"Would: {steps}." if foretold else f"Done: {steps}.",
            *(f"Before that: {text}." for text in self.healed),
        ]
        serves = "would serve" if foretold else "serves"
        said += [f"{one.name} {serves} on {one.url} of the box ({one.lane} lane)." for one in self.serving]
        if not self.serving:
            said.append("No model would run." if foretold else "No model runs.")
        seconds = {part: self.seconds.get(part, 0.0) for part in _TOOK}
        took = [_TOOK[part].format(taken) for part, taken in seconds.items() if taken >= _WORTH_TELLING_S]
        if self.drained:
            took.insert(0, f"{self.drained} {'request' if self.drained == 1 else 'requests'} under way ended first")
        if took:
            said.append(f"Times: {', '.join(took)}.")
        available, total, floor = (self.memory[name] for name in ("available", "total", "floor"))
        said.append(
            f"Memory: {available:.1f} of {total:.1f} GiB available, {floor:.1f} GiB of them stay with the host."
        )
        return said


class Job(jobs.Job, frozen=True, kw_only=True):
    """A job that changes engines.

    ``contract`` is the digest of the engines.json of when it was asked for. ``holder`` is who holds the box's lock
    while the job waits for it.
    """

    UNIT: ClassVar[str] = "hearth-switch"
    PROCESS: ClassVar[str] = "hearth.switching.jobrun"
    TITLE: ClassVar[str] = "Hearth changes the engines"
    NOUN: ClassVar[str] = "change"
    OF: ClassVar[str] = "to"
    LOOK: ClassVar[str] = "hearth status says what runs"
    AGAIN: ClassVar[str] = "what was left is set right first"
    # The one variable that a change reads.
    VARIABLES: ClassVar[tuple[str, ...]] = (MEMINFO_VARIABLE,)

    changes: tuple[Change, ...]
    lock_timeout_s: float
    contract: str
    holder: str = ""
    progress: Progress | None = None
    result: Result | None = None

    @property
    def wants(self) -> object:
        return self.changes, self.contract

    @property
    def asked(self) -> str:
        return " and ".join(change.words for change in self.changes)

    @property
    def doing(self) -> str:
        return self.progress.words if self.progress is not None else ""

    @property
    def words(self) -> str:
        """For a person: what it does just now."""
        return self.doing or (f"waiting for another change to end ({self.holder})" if self.holder else "beginning")


JOBS = jobs.Jobs(Job, FOLDER)
write, current, read, follow = JOBS.write, JOBS.current, JOBS.read, JOBS.follow


def begin(changes: Sequence[Change], *, lock_timeout_s: float, folder: Path = FOLDER) -> Job:
    """The job that carries out these changes: one that does already, else a new one.

    A new one waits at most ``lock_timeout_s`` seconds for another to end. Raises HearthError.
    """
    ident, at = jobs.stamp()
    job = Job(id=ident, at=at, changes=tuple(changes), lock_timeout_s=lock_timeout_s, contract=_digest())
    return JOBS.begin(job, folder=folder)


def _digest() -> str:
    """Of engines.json: the same change to other engines is another change."""
    try:
        return hashlib.sha256(contract.PATH.read_bytes()).hexdigest()
    except OSError:
        # The job itself says what is wrong with it.
        return ""
