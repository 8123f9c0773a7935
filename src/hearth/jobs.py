# SPDX-License-Identifier: Apache-2.0
"""Long work as jobs of systemd, so that nobody who waits for one can cut it off by going away.

A job is a transient unit, made by ``systemd-run``: the command returns when the job's process is there, costs about
10 ms, and needs none of the D-Bus library, which costs whoever only waits more than that. What the job does is in its
file, which is replaced whole; whether it is alive, systemd knows.
"""

from __future__ import annotations

import math
import os
import secrets
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

import msgspec

from hearth import programs, state
from hearth.errors import HearthError, SystemdError

# How many files of jobs that ended are kept, for whoever still waits for them, and to look at.
_KEPT = 20
_LOOK_EVERY_S = 0.02
# A phase that lasts less than this is not told of by itself: telling costs more than that.
_PHASE_S = 0.5
# systemd answers within milliseconds, or is in trouble.
_SYSTEMD_TIMEOUT_S = 30.0
# A secret is written right before its job is begun: one that is older and has no job was left by a caller who died.
_SECRET_STALE_S = 120.0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed. ``kind`` is the name of the class in ``hearth.errors``."""

    sentence: str
    kind: str = "HearthError"
    log: tuple[str, ...] = ()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as its file says it. ``at`` is when it was asked for (ISO 8601, UTC); ``step`` counts the phases."""

    # Of its unit's name.
    UNIT: ClassVar[str]
    # The module that is its process, with the job's file as its argument.
    PROCESS: ClassVar[str]
    TITLE: ClassVar[str]
    # What it is, as in "the change", and how what was asked goes with it, as in "the change to scout".
    NOUN: ClassVar[str]
    OF: ClassVar[str]
    # What to do where the box knows nothing of it, and what becomes of one that was cut off.
    LOOK: ClassVar[str]
    AGAIN: ClassVar[str]
    # Words for systemd-run, and variables of the caller that its process gets.
    OPTIONS: ClassVar[tuple[str, ...]] = ()
    VARIABLES: ClassVar[tuple[str, ...]] = ()

    id: str
    at: str
    state: Literal["running", "done", "failed"] = "running"
    step: int = 0
    failure: Failure | None = None

    @property
    def unit(self) -> str:
        return f"{self.UNIT}-{self.id}.service"

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    @property
    def wants(self) -> object:
        """What was asked for: two jobs that want the same are one."""
        raise NotImplementedError

    @property
    def asked(self) -> str:
        """For a person: what was asked for."""
        raise NotImplementedError

    @property
    def doing(self) -> str:
        """For a person: what it does just now; empty where it has not told anything."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """For a person: what it does just now."""
        return self.doing or "beginning"


J = TypeVar("J", bound=Job)


def stamp() -> tuple[str, str]:
    """A new job's ``id`` and ``at``; ids sort by time."""
    now = time.time()
    ident = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"-{int(now * 1000) % 1000:03}-{secrets.token_hex(2)}"
    return ident, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def path_of(ident: str, folder: Path) -> Path:
    return folder / f"{ident}.json"


def secret_of(ident: str, folder: Path) -> Path:
    """Where the secret of a job is while it runs."""
    return folder / f"{ident}.secret"


class Jobs(Generic[J]):
    """All jobs of one kind, in a folder of their own."""

    def __init__(self, kind: type[J], folder: Path) -> None:
        self._kind = kind
        self._folder = folder

    def write(self, job: J, folder: Path | None = None) -> None:
        """Replace the job's file. Its log is an engine's, which not everybody may read. Raises OSError."""
        state.replace(path_of(job.id, folder or self._folder), msgspec.json.encode(job), mode=0o640)

    def begin(self, job: J, *, secret: str = "", folder: Path | None = None) -> J:
        """Begin the job, or give back the one that is at the same already.

        ``secret`` is in the file ``secret_of`` the job, which only root may read, for as long as the job runs. Raises
        HearthError.
        """
        folder = folder or self._folder
        known = self._known(folder)
        for other in known:
            if other.is_running and other.wants == job.wants and _main_pid(other.unit):
                return other
        self._clean(known[_KEPT:], folder)
        path, hidden = path_of(job.id, folder), secret_of(job.id, folder)
        try:
            self.write(job, folder)
            if secret:
                state.replace(hidden, secret.encode(), mode=0o600)
        except OSError as error:
            raise HearthError(f"{path} cannot be written ({error.strerror}): run this as root") from None
        # Services have no environment of whoever asks for them.
        more = [f"--setenv={name}" for name in job.VARIABLES if name in os.environ]
        if secret:
            # Also when the process is killed.
            more.append(f"--property=ExecStopPost=-/bin/rm -f {hidden}")
        # -P: nothing of this name in the folder where it starts may stand in for the package.
        command = (sys.executable, "-P", "-m", job.PROCESS, str(path))
        # Of this type: it returns when the process is there, and fails where it cannot be.
        options = ("--quiet", "--collect", "--service-type=exec", "--property=SyslogIdentifier=hearth", *job.OPTIONS)
        names = (f"--unit={job.unit}", f"--description={job.TITLE}: {job.asked}")
        try:
            _run("systemd-run", *options, *more, *names, "--", *command)
        except SystemdError:
            path.unlink(missing_ok=True)
            hidden.unlink(missing_ok=True)
            raise
        return job

    def current(self, folder: Path | None = None) -> list[J]:
        """The jobs under way, oldest first. Raises SystemdError."""
        known = reversed(self._known(folder or self._folder))
        return [job for job in known if job.is_running and _main_pid(job.unit)]

    def read(self, ident: str, folder: Path | None = None) -> J:
        """What the job's file says. Raises HearthError where there is none."""
        try:
            return msgspec.json.decode(path_of(ident, folder or self._folder).read_bytes(), type=self._kind)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            raise HearthError(
                f"the box knows nothing any more of the {self._kind.NOUN} {ident}, as after a restart: "
                f"{self._kind.LOOK}"
            ) from None

    def follow(self, ident: str, *, step: int = -1, timeout_s: float | None = None, folder: Path | None = None) -> J:
        """Wait until the job has ended, or is well in another phase than ``step``, or ``timeout_s`` seconds went by.

        A job whose process is gone without having said how it ended has failed. Raises HearthError.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        unit = self.read(ident, folder).unit
        pid = _main_pid(unit)
        watched: list[int] = []
        # The end of the process wakes us; a process that ended just now is not found.
        with suppress(ProcessLookupError):
            watched = [os.pidfd_open(pid)] if pid else []
        try:
            while True:
                gone = not watched or bool(select.select(watched, [], [], _LOOK_EVERY_S)[0])
                # In this order: what a process that is gone has written, is written.
                job = self.read(ident, folder)
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

    def _known(self, folder: Path) -> list[J]:
        """All jobs whose files can be read, newest first."""
        jobs = []
        for path in sorted(folder.glob("*.json"), reverse=True):
            with suppress(HearthError):
                jobs.append(self.read(path.stem, folder))
        return jobs

    def _clean(self, jobs: Sequence[J], folder: Path) -> None:
        for job in jobs:
            if job.is_running and _main_pid(job.unit):
                continue
            with suppress(OSError):
                path_of(job.id, folder).unlink(missing_ok=True)
        for path in folder.glob("*.secret"):
            with suppress(OSError):
                old = time.time() - path.stat().st_mtime > _SECRET_STALE_S
                if old and not _main_pid(f"{self._kind.UNIT}-{path.stem}.service"):
                    path.unlink()


class Record(Generic[J]):
    """A job's file while its process is at it, and a line in the journal for each phase."""

    def __init__(self, jobs: Jobs[J], begun: J, folder: Path) -> None:
        self.job = begun
        self._jobs = jobs
        self._folder = folder

    def enter(self, phase: str, **fields: object) -> None:
        """Another phase has begun, in words."""
        _say(phase)
        self.write(step=self.job.step + 1, **fields)

    def write(self, **fields: object) -> None:
        self.job = msgspec.structs.replace(self.job, **fields)
        # That nobody can be told is no reason to leave the work half done.
        with suppress(OSError):
            self._jobs.write(self.job, self._folder)

    def run(self, work: Callable[[], dict[str, object]], **ended: object) -> int:
        """Do the work, which gives the fields of its result; returns the exit code. ``ended`` is set in any case."""
        try:
            fields = work()
        except HearthError as error:
            return self._failed(Failure(kind=type(error).__name__, sentence=str(error), log=error.log), ended)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
            trace = tuple(line for part in traceback.format_exception(error) for line in part.splitlines())
            sentence = f"{_name(self.job)} ended by an error of Hearth's own ({error!r}): {self.job.LOOK}"
            return self._failed(Failure(sentence=sentence, log=trace), ended)
        self.write(state="done", **ended, **fields)
        _say("done")
        return 0

    def _failed(self, failure: Failure, ended: dict[str, object]) -> int:
        self.write(state="failed", failure=failure, **ended)
        _say(failure.sentence)
        return 1


def _cut_off(job: J) -> J:
    doing = f" while {job.doing}" if job.doing else ""
    return msgspec.structs.replace(
        job,
        state="failed",
        failure=Failure(
            sentence=f"{_name(job)} was cut off{doing}: its process is gone (journalctl -u "
            f"{job.unit.removesuffix('.service')} may say why); ask for it again, and {job.AGAIN}"
        ),
    )


def _name(job: Job) -> str:
    return f"the {job.NOUN} {job.OF} {job.asked}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _main_pid(unit: str) -> int:
    """The process of a unit; 0 where it runs none. Raises SystemdError."""
    said = _run("systemctl", "show", "--value", "--property=MainPID", unit).strip()
    return int(said) if said.isdigit() else 0


def _run(*command: str) -> str:
    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMD_TIMEOUT_S, check=False)

    try:
        done = programs.patiently(ask, begins=command[0] == "systemd-run")
    except OSError as error:
        raise SystemdError(f"{command[0]} cannot be run ({error.strerror}): is this a systemd host?") from None
    except subprocess.TimeoutExpired:
        raise SystemdError(f"{command[0]} said nothing within {_SYSTEMD_TIMEOUT_S:g} s: systemctl status") from None
    if done.returncode:
        raise SystemdError(f"{command[0]} failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout
