# SPDX-License-Identifier: Apache-2.0
"""Has Docker run with the settings in its file, or with the old ones where it does not run with these.

PRIVATE to the collection. Standard library only: it runs on a fresh host.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import (
    _aside,
    _daemon,
    _daemon_back,
    _facts,
    _fileset,
    _program,
)

SETTINGS = Path("/etc/docker/daemon.json")
SOCKET = Path("/run/docker.sock")
# What a change had written when it was cut off. Not below /run: Docker may not come up after a power cut.
RECORD = Path("/var/lib/hearth/docker.json")
# What Hearth wrote of its settings, and what stood there before: beside it.
NOTE = "docker-settings.json"
_SERVICE = "docker.service"
# systemd gives containers and Docker itself 90 s each to end, and Docker 90 s more to start (DefaultTimeout*Sec).
_SYSTEMCTL_S = 300.0
_ANSWER_S, _INTERVAL_S = 60.0, 0.2


class DockerError(Exception):
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Which run of Docker (systemd's invocation) had not read the new file yet, and the copy of the old one, if any."""

    invocation: str
    backup: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is to be done with Docker: ``verb`` is systemctl's, empty for nothing; ``words`` say why."""

    verb: str = ""
    words: str = ""


class Dockerd:
    """Docker on this host: its file, its unit, its socket."""

    def __init__(self, path: Path = SETTINGS, socket: Path = SOCKET, record: Path = RECORD) -> None:
        # A link stays one.
        self.path = path.resolve()
        self._shown, self.socket, self._record = path, socket, record

    def text(self) -> str:
        """What the file says; empty where there is none. Raises DockerError."""
        try:
            return self.path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise DockerError(
                f"{self._shown} is no text in UTF-8 (byte {error.start}): mend it, or move it away"
            ) from None
        except OSError as error:
            raise DockerError(f"{self._shown} cannot be read ({error.strerror})") from None

    def answers(self) -> bool:
        """Whether it runs."""
        with suppress(OSError, ValueError, HTTPException):
            return bool(_facts.docker_get(self.socket, "/version").get("Version"))
        return False

    def has_cdi(self) -> bool:
        return _facts.docker_has_cdi(self.socket)

    def property(self, name: str) -> str:
        return _output("systemctl", "show", "--timestamp=unix", "--value", f"--property={name}", _SERVICE).strip()

    def started_s(self) -> float:
        """When it was started, in seconds since the epoch; 0 where nobody knows."""
        found = re.fullmatch(r"@(\d+)", self.property("ExecMainStartTimestamp"))
        return float(found[1]) if found else 0.0

    def validate(self, text: str) -> None:
        """Have dockerd itself look at it. Raises DockerError with its words."""
        with tempfile.TemporaryDirectory() as folder:
            # Readable for root only: settings may have a proxy's password in them.
            trial = Path(folder, "daemon.json")
            trial.write_text(text, encoding="utf-8")
            done = _program.run("dockerd", "--validate", f"--config-file={trial}")
        if done.returncode == _program.NO_PROGRAM:
            return
        # Docker knows it since 23.0 only; an older one says so when it starts.
        if done.returncode and "unknown flag: --validate" not in done.stderr:
            words = " ".join((done.stderr or done.stdout).replace(str(trial), str(self._shown)).split())
            raise DockerError(
                f"Docker would not start with {self._shown} as it was to be ({words}): nothing was changed"
            )

    def record(self) -> Record | None:
        try:
            return Record(**json.loads(self._record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def forget(self) -> None:
        """The change has ended, one way or the other."""
        self._record.unlink(missing_ok=True)

    def land(self, text: str) -> None:
        """Put it in the file's place, and remember what was there, and who has not read it yet. Raises DockerError."""
        try:
            self._record.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._take_note(text)
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            record = {"invocation": self.property("InvocationID"), "backup": self._backed_up()}
            _fileset.write(self._record, json.dumps(record).encode(), 0o644, os.geteuid(), os.getegid())
            self._write(text.encode())
        except OSError as error:
            raise DockerError(f"{self._shown} cannot be written ({error.strerror}): nothing was changed") from None

    def note_path(self) -> Path:
        return self._record.with_name(NOTE)

    def note(self) -> dict[str, Any]:
        """What Hearth changed of the settings so far; empty where nothing is known of that."""
        try:
            read = json.loads(self.note_path().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return read if isinstance(read, dict) and read.get("schema") == _daemon_back.SCHEMA else {}

    def _take_note(self, text: str) -> None:
        had_folder = self.path.parent.is_dir()
        noted = {"had_folder": had_folder, **_daemon_back.noted(self.note(), self.text(), text)}
        # For root alone: what stood there before may have been a secret.
        _fileset.write(
            self.note_path(), json.dumps(noted, indent=1).encode() + b"\n", 0o600, os.geteuid(), os.getegid()
        )

    def copies(self) -> list[Path]:
        """The copies of the file that changes left beside it, the oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.name}.????-??-??T??-??-??~"))

    def put(self, text: str | None) -> None:
        """Have the file say this, or none. Raises DockerError."""
        try:
            if text is None:
                self.path.unlink(missing_ok=True)
            else:
                self._write(text.encode())
        except OSError as error:
            raise DockerError(f"{self._shown} cannot be written ({error.strerror})") from None

    def tidy(self) -> None:
        """Remove the file's folder, where a change made it and it is empty."""
        folder = self.path.parent
        if not self.note().get("had_folder", True) and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _backed_up(self) -> str:
        if not self.path.exists():
            return ""
        backup = self.path.with_name(f"{self.path.name}.{time.strftime('%Y-%m-%dT%H-%M-%S')}~")
        _fileset.write(backup, self.path.read_bytes(), *self._attributes())
        return str(backup)

    def _attributes(self) -> tuple[int, int, int]:
        """Mode, owner and group that the file has, or gets."""
        try:
            have = self.path.stat()
        except FileNotFoundError:
            return 0o644, os.geteuid(), os.getegid()
        return stat.S_IMODE(have.st_mode), have.st_uid, have.st_gid

    def _write(self, content: bytes) -> None:
        _fileset.write(self.path, content, *self._attributes())

    def act(self, verb: str) -> str:
        """Start, restart or reload Docker, and wait until it answers; returns why it does not."""
        begun_s = time.time()
        # Those that failed would keep it from being started for a while.
        _output("systemctl", "reset-failed", _SERVICE, "docker.socket")
        if verb == "start":
            _output("systemctl", "enable", _SERVICE)
        done = _program.run("systemctl", verb, _SERVICE, timeout_s=_SYSTEMCTL_S)
        if done.returncode:
            return _said(begun_s) or f"systemctl {verb}: {' '.join(done.stderr.split())}"
        deadline = time.monotonic() + _ANSWER_S
        while not self.answers():
            if time.monotonic() >= deadline:
                return f"it gives no answer on {self.socket}"
            time.sleep(_INTERVAL_S)
        return ""

    def put_back(self, backup: str) -> None:
        """Have the old file, or none, as before the change. Raises DockerError."""
        try:
            if backup:
                self._write(Path(backup).read_bytes())
                Path(backup).unlink()
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise DockerError(
                f"{self._shown} cannot be put back from {backup} ({error.strerror}): do that by hand"
            ) from None


def _output(*command: str) -> str:
    return _program.run(*command, timeout_s=_SYSTEMCTL_S).stdout


def _said(since_s: float) -> str:
    """The line of Docker's log that says why it ended; empty where there is none."""
    words = ("--output=cat", "--no-pager", f"--unit={_SERVICE}", f"--since=@{int(since_s)}")
    lines = [line.strip() for line in _output("journalctl", *words).splitlines() if line.strip()]
    for mark in (r"^failed to start|^unable to configure", r"level=(?:fatal|error)"):
        found = [line for line in lines if re.search(mark, line)]
        if found:
            return found[-1]
    return ""


def step(dockerd: Dockerd, merged: _daemon.Merged, *, cdi: bool, since: Sequence[Path]) -> Step:
    """What Docker has to do so that what is asked for counts. ``since``: files that it looks at only when it starts."""
    left = dockerd.record()
    if not dockerd.answers():
        return Step(verb="start", words="start Docker, now and at boot")
    if merged.changed and not merged.reload:
        return Step(verb="restart", words=f"restart Docker, for {_listed(merged.keys)} changed")
    if left is not None and left.invocation == dockerd.property("InvocationID"):
        return Step(verb="restart", words="restart Docker, which has not read its settings since they were changed")
    if cdi and not dockerd.has_cdi():
        return Step(verb="restart", words="restart Docker, whose CDI is off")
    started_s = dockerd.started_s()
    newer = [path for path in since if started_s and _changed_s(path) > started_s]
    if newer:
        return Step(verb="restart", words=f"restart Docker, for {newer[0]} is newer than its start")
    if merged.changed:
        return Step(verb="reload", words=f"have Docker read {_listed(merged.keys)} again")
    return Step()


def _listed(keys: Sequence[str]) -> str:
    return " and ".join(keys)


def _changed_s(path: Path) -> float:
    """When a file got here: a package's files have the time of their making."""
    try:
        return path.stat().st_ctime
    except OSError:
        return 0.0


def carry_out(dockerd: Dockerd, merged: _daemon.Merged, todo: Step, *, cdi: bool, around: _aside.Around) -> None:
    """Write the file, which was validated, and do what was found to be done.

    Raises DockerError: with the old file back, and Docker running with it, where it does not run with the new one.
    """

    def work() -> str:
        # Not before engines are out of the way: who may not restart Docker changes nothing.
        if merged.changed:
            dockerd.land(merged.text)
        refused = dockerd.act(todo.verb)
        if not refused and cdi and not dockerd.has_cdi():
            return "Docker runs, and its CDI is still off: look at cdi-spec-dirs in its settings"
        return _back(dockerd, todo.verb, refused) if refused else ""

    refused, lost = around(work) if todo.verb == "restart" else (work() if todo.verb else "", ())
    dockerd.forget()
    said = [*([refused] if refused else []), *lost]
    if said:
        raise DockerError("; ".join(said))


def _back(dockerd: Dockerd, verb: str, refused: str) -> str:
    """Docker does not run with what is in its file: have it run with what was there before."""
    record = dockerd.record()
    if record is None:
        return f"Docker does not {verb} ({refused}): mend that, and run this again; journalctl -u docker tells more"
    dockerd.put_back(record.backup)
    again = dockerd.act("restart")
    ends = f"nor does it with the old ones, which are back ({again})" if again else "the old ones are back, and it runs"
    return f"Docker did not {verb} with its new settings ({refused}); {ends}"
