# SPDX-License-Identifier: Apache-2.0
"""hearth.cli.console: how a change goes on at a terminal, and what a signal does to it."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import commands
import pytest
from fakes import FakeClock

from hearth import state
from hearth.cli import console
from hearth.errors import BusyError
from hearth.switching import journal
from hearth.switching.journal import Journal
from hearth.switching.progress import Phase, Progress

# A change in the middle: it holds the lock, has written its journal, and waits in a thread as a first question does.
CHANGE = """
import asyncio, sys, time
from pathlib import Path
from hearth import state
from hearth.cli import console
from hearth.switching import journal
from hearth.errors import BusyError
run = Path(sys.argv[1])

async def work():
    print("begun", flush=True)
    await asyncio.to_thread(time.sleep, float(sys.argv[2]))

with state.locked(run / "switch.lock", 0, BusyError):
    if sys.argv[3] == "half done":
        journal.write(journal.Journal(target="new", previous=("old",), at="2026-11-21T05:00:00Z"), run / "switch.json")
    with console.uninterrupted(console.Watcher(sys.stderr), lambda line: print(line, file=sys.stderr, flush=True), run):
        asyncio.run(work())
print("ended")
"""


def progress(phase: Phase = "loading", elapsed_s: float = 0.0) -> Progress:
    return Progress(phase=phase, engine="new", elapsed_s=elapsed_s)


class Change:
    """A process with a change that lasts ``seconds``."""

    def __init__(self, run: Path, seconds: float, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHANGE, str(run), str(seconds), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=commands.ENVIRONMENT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begun\n"

    def send(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
        return self.process.returncode, out, err


class TestWatcher:
    def test_tells_each_phase_when_it_begins(self) -> None:
        stream = io.StringIO()
        watcher = console.Watcher(stream)

        for phase in ("stopping", "loading", "verifying"):
            watcher(progress(phase))

        assert stream.getvalue() == "stopping new\nloading new\nasking new a first question\n"

    def test_tells_of_one_phase_every_five_seconds(self) -> None:
        stream, clock = io.StringIO(), FakeClock()
        watcher = console.Watcher(stream, clock=clock.now)

        for elapsed_s in range(12):
            watcher(progress(elapsed_s=elapsed_s))
            clock.sleep(1)

        assert stream.getvalue().splitlines() == ["loading new", "loading new, 5 s", "loading new, 10 s"]

    def test_on_a_terminal_rewrites_one_line_and_leaves_none_behind(self) -> None:
        stream = io.StringIO()
        watcher = console.Watcher(stream, columns=12)

        watcher(progress(elapsed_s=3))
        watcher(progress(elapsed_s=4))
        watcher.close()

        # Never a whole line of the terminal: it would wrap, and what wrapped cannot be rewritten.
        assert stream.getvalue() == "\r\x1b[Kloading new\r\x1b[Kloading new\r\x1b[K"

    def test_knows_a_terminal(self) -> None:
        above, below = pty.openpty()
        with os.fdopen(above, "rb", buffering=0) as master, os.fdopen(below, "w") as terminal:
            console.Watcher(terminal)(progress())

            assert master.read(100).startswith(b"\r\x1b[K")

    def test_a_stream_that_is_gone_ends_nothing(self) -> None:
        read, write = os.pipe()
        os.close(read)
        stream = io.TextIOWrapper(io.FileIO(write, "w", closefd=False), write_through=True)

        console.Watcher(stream)(progress())

        os.close(write)
        assert stream.writable()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_at_once_and_says_what_it_means(run: Path, number: int) -> None:
    # Not after the thread, which may be in the middle of a first answer of minutes: `send` waits for half of one.
    code, out, err = Change(run, 3600.0, "half done").send(number)

    assert (code, out) == (130, "")
    assert err == (
        "interrupted: the change to new is half done; the next hearth switch, start or stop finishes or undoes it, and "
        "hearth status tells how things stand\n"
    )
    assert journal.read(run / "switch.json") is not None


def test_an_interruption_before_anything_was_done_says_so(run: Path) -> None:
    code, _, err = Change(run, 3600.0, "not yet").send(signal.SIGINT)

    assert (code, err) == (130, "interrupted: nothing was stopped or started\n")


def test_an_interruption_while_another_change_goes_on_is_not_that_ones(run: Path) -> None:
    journal.write(Journal(target="new", previous=(), at="2026-11-21T05:00:00Z"), run / "switch.json")
    with subprocess.Popen(
        [sys.executable, "-c", CHANGE, str(run), "3600", "half done"],
        stdout=subprocess.PIPE,
        text=True,
        env=commands.ENVIRONMENT,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"

        assert console.interruption(run) == "interrupted: nothing was stopped or started"
        other.kill()


def test_a_lost_connection_changes_nothing(run: Path) -> None:
    assert Change(run, 0.5, "half done").send(signal.SIGHUP) == (0, "ended\n", "")


@pytest.fixture
def handlers() -> list[object]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [signal.getsignal(number) for number in numbers]


def test_signals_are_as_before_when_a_change_has_ended(run: Path, handlers: list[object]) -> None:
    with console.uninterrupted(console.Watcher(io.StringIO()), print, run), state.locked(run / "x", 0, BusyError):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
