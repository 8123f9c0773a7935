# SPDX-License-Identifier: Apache-2.0
"""Changes of engines as jobs of systemd, so that nobody who waits for one can cut it off by going away.

A job is a transient unit, made by ``systemd-run``: the command returns when the job's process is there, costs about
10 ms, and needs none of the D-Bus library, which costs whoever only waits more than that. What the job does is in its
file, which is replaced whole; whether it is alive, systemd knows. ``hearth.switching.jobrun`` is the process.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from hearth import contract, state
from hearth.errors import HearthError, SystemdError
from hearth.memory import MEMINFO_VARIABLE
from hearth.switching.change import Change
from hearth.switching.progress import Progress

FOLDER = state.RUN / "jobs"
# How many files of jobs that ended are kept, for whoever still waits for them, and to look at.
_KEPT = 20
_TOOK = {
    "drain": "waited {:.1f} s for requests",
    "stop": "stopped in {:.1f} s",
    "memory": "memory back in {:.1f} s",
    "load": "loaded in {:.1f} s",
    "first": "first answer after {:.1f} s",
}
_WORTH_TELLING_S = 0.05
_LOOK_EVERY_S = 0.02
# A phase that lasts less than this is not told of by itself: telling costs more than that.
_PHASE_S = 0.5
# systemd answers within milliseconds, or is in trouble.
_SYSTEMD_TIMEOUT_S = 30.0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed. ``kind`` is the name of the class in ``hearth.errors``."""

    sentence: str
    kind: str = "HearthError"
    log: tuple[str, ...] = ()


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


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as its file says it.

    ``at`` is when it was asked for (ISO 8601, UTC), ``contract`` the digest of the engines.json of then. ``step``
    counts the phases. ``holder`` is who holds the box's lock while the job waits for it.
    """

    id: str
    changes: tuple[Change, ...]
    lock_timeout_s: float
    contract: str
    at: str
    state: Literal["running", "done", "failed"] = "running"
    step: int = 0
    holder: str = ""
    progress: Progress | None = None
    result: Result | None = None
    failure: Failure | None = None

    @property
    def unit(self) -> str:
        return f"hearth-switch-{self.id}.service"

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    @property
    def words(self) -> str:
        """For a person: what it does just now."""
        if self.progress is not None:
            return self.progress.words
        return f"waiting for another change to end ({self.holder})" if self.holder else "beginning"

    @property
    def asked(self) -> str:
        """For a person: what was asked for."""
        return " and ".join(change.words for change in self.changes)


def path_of(ident: str, folder: Path = FOLDER) -> Path:
    return folder / f"{ident}.json"


def write(job: Job, folder: Path = FOLDER) -> None:
    """Replace the job's file. Its log is an engine's, which not everybody may read. Raises OSError."""
    state.replace(path_of(job.id, folder), msgspec.json.encode(job), mode=0o640)


def begin(changes: Sequence[Change], *, lock_timeout_s: float, folder: Path = FOLDER) -> Job:
    """The job that carries out these changes: one that does already, else a new one.

    A new one waits at most ``lock_timeout_s`` seconds for another to end. Raises HearthError.
    """
    asked, digest = tuple(changes), _digest()
    known = _known(folder)
    for job in known:
        if job.is_running and job.changes == asked and job.contract == digest and _main_pid(job.unit):
            return job
    _clean(known[_KEPT:], folder)
    now = time.time()
    ident = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"-{int(now * 1000) % 1000:03}-{secrets.token_hex(2)}"
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    job = Job(id=ident, changes=asked, lock_timeout_s=lock_timeout_s, contract=digest, at=at)
    try:
        write(job, folder)
    except OSError as error:
        raise HearthError(f"{path_of(ident, folder)} cannot be written ({error.strerror}): run this as root") from None
    # Services have no environment of whoever asks for them; this is the one variable that a change reads.
    environment = [f"--setenv={MEMINFO_VARIABLE}"] if MEMINFO_VARIABLE in os.environ else []
    # -P: nothing of this name in the folder where it starts may stand in for the package.
    command = (sys.executable, "-P", "-m", "hearth.switching.jobrun", str(path_of(ident, folder)))
    # Of this type: it returns when the process is there, and fails where it cannot be.
    options = ("--quiet", "--collect", "--service-type=exec", "--property=SyslogIdentifier=hearth", *environment)
    names = (f"--unit={job.unit}", f"--description=Hearth changes the engines: {job.asked}")
    try:
        _run("systemd-run", *options, *names, "--", *command)
    except SystemdError:
        path_of(ident, folder).unlink(missing_ok=True)
        raise
    return job


def current(folder: Path = FOLDER) -> list[Job]:
    """The jobs under way, oldest first. Raises SystemdError."""
    return [job for job in reversed(_known(folder)) if job.is_running and _main_pid(job.unit)]


def read(ident: str, folder: Path = FOLDER) -> Job:
    """What the job's file says. Raises HearthError where there is none."""
    try:
        return msgspec.json.decode(path_of(ident, folder).read_bytes(), type=Job)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise HearthError(
            f"the box knows nothing any more of the change {ident}, as after a restart: hearth status says what runs"
        ) from None


def follow(ident: str, *, step: int = -1, timeout_s: float | None = None, folder: Path = FOLDER) -> Job:
    """Wait until the job has ended, or is well in another phase than ``step``, or ``timeout_s`` seconds went by.

    A job whose process is gone without having said how it ended has failed. Raises HearthError.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    unit = read(ident, folder).unit
    pid = _main_pid(unit)
    watched: list[int] = []
    # The end of the process wakes us; a process that ended just now is not found.
    with suppress(ProcessLookupError):
        watched = [os.pidfd_open(pid)] if pid else []
    try:
        while True:
            gone = not watched or bool(select.select(watched, [], [], _LOOK_EVERY_S)[0])
            # In this order: what a process that is gone has written, is written.
            job = read(ident, folder)
            if job.is_running and gone:
                return _cut_off(job)
            if not job.is_running or time.monotonic() >= deadline:
                return job
            if step not in (-1, job.step):
                step = -1
                deadline = min(deadline, time.monotonic() + _PHASE_S)
    finally:
        for descriptor in watched:
            os.close(descriptor)


def _cut_off(job: Job) -> Job:
    doing = f" while {job.progress.words}" if job.progress else ""
    return msgspec.structs.replace(
        job,
        state="failed",
        failure=Failure(
            sentence=f"the change to {job.asked} was cut off{doing}: its process is gone (journalctl -u "
            f"{job.unit.removesuffix('.service')} may say why); ask for it again, and what was left is set right first"
        ),
    )


def _known(folder: Path) -> list[Job]:
    """All jobs whose files can be read, newest first."""
    jobs = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        with suppress(HearthError):
            jobs.append(read(path.stem, folder))
    return jobs


def _clean(jobs: Sequence[Job], folder: Path) -> None:
    for job in jobs:
        if job.is_running and _main_pid(job.unit):
            continue
        with suppress(OSError):
            path_of(job.id, folder).unlink(missing_ok=True)


def _digest() -> str:
    """Of engines.json: the same change to other engines is another change."""
    try:
        return hashlib.sha256(contract.PATH.read_bytes()).hexdigest()
    except OSError:
        # The job itself says what is wrong with it.
        return ""


def _main_pid(unit: str) -> int:
    """The process of a unit; 0 where it runs none. Raises SystemdError."""
    said = _run("systemctl", "show", "--value", "--property=MainPID", unit).strip()
    return int(said) if said.isdigit() else 0


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMD_TIMEOUT_S, check=False)
    except OSError as error:
        raise SystemdError(f"{command[0]} cannot be run ({error.strerror}): is this a systemd host?") from None
    except subprocess.TimeoutExpired:
        raise SystemdError(f"{command[0]} said nothing within {_SYSTEMD_TIMEOUT_S:g} s: systemctl status") from None
    if done.returncode:
        raise SystemdError(f"{command[0]} failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout
