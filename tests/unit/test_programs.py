# SPDX-License-Identifier: Apache-2.0
"""hearth.programs: a program's end, whatever becomes of it."""

from __future__ import annotations

import subprocess
import time

import pytest

from hearth import programs


def test_what_it_said_and_how_it_ended_is_given() -> None:
    done = programs.run("sh", "-c", "echo out; echo err >&2; exit 3", timeout_s=10)

    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_one_that_is_not_there_is_named() -> None:
    done = programs.run("hearth-no-such-program", timeout_s=10)

    assert (done.returncode, done.stderr) == (programs.NO_PROGRAM, "hearth-no-such-program is not installed")


def test_one_that_does_not_end_is_ended() -> None:
    begun = time.monotonic()

    done = programs.run("sleep", "60", timeout_s=0.2)

    assert (done.returncode, done.stderr) == (programs.LATE, "no end after 0 s")
    assert time.monotonic() - begun < 30


def test_what_is_no_text_does_not_end_it() -> None:
    assert programs.run("printf", r"\377", timeout_s=10).stdout == "\ufffd"


AWAY = [
    "Failed to connect to system scope bus via local transport: Connection refused",
    "Failed to get properties: Transport endpoint is not connected",
    "Failed to get properties: Connection reset by peer",
]


class Systemd:
    """Says these things on its error output, one after the other, and then answers."""

    def __init__(self, *says: str) -> None:
        self.says = list(says)
        self.asked = 0

    def __call__(self) -> programs.Done:
        self.asked += 1
        said = self.says.pop(0) if self.says else ""
        return subprocess.CompletedProcess((), 1 if said else 0, "" if said else "active", said)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_AGAIN_S", 0.0)


@pytest.mark.parametrize("said", AWAY)
def test_while_systemd_replaces_itself_it_is_asked_again(said: str) -> None:
    systemd = Systemd(said, said)

    assert programs.patiently(systemd).stdout == "active"
    assert systemd.asked == 3


def test_what_may_have_begun_is_not_begun_again() -> None:
    assert programs.patiently(Systemd(AWAY[0]), begins=True).returncode == 0

    cut = Systemd("Failed to start transient service unit: Connection reset by peer")
    assert programs.patiently(cut, begins=True).returncode == 1
    assert cut.asked == 1


def test_what_systemd_refuses_is_not_asked_again() -> None:
    systemd = Systemd("Unit x.service not found.")

    assert programs.patiently(systemd).returncode == 1
    assert systemd.asked == 1


def test_a_systemd_that_stays_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_AWAY_S", 0.0)

    assert programs.patiently(Systemd(*AWAY, *AWAY)).returncode == 1
