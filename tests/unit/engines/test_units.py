# SPDX-License-Identifier: Apache-2.0
"""engines.units: jobs of systemd are waited for by their signal, and the journal's tail never hides a failure."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message, MessageType

from hearth.engines import units
from hearth.errors import SystemdError, SystemdGoneError

JOB = "/org/freedesktop/systemd1/job/7"
UNIT = "hearth-engine-scout.service"


class Bus:
    """A bus that answers every call with a job, and says when that job is removed as the test wants it."""

    def __init__(self, systemd: units.Systemd) -> None:
        self.systemd = systemd
        self.asked: list[tuple[str, list[Any]]] = []
        self.before_the_answer: Callable[[], None] = lambda: None
        self.after_the_answer: Callable[[], None] = lambda: None
        self.error = ""
        self.error_name = "org.freedesktop.systemd1.NoSuchUnit"

    def removed(self, result: str, path: str = JOB) -> None:
        self.systemd._on_message(
            Message(
                message_type=MessageType.SIGNAL,
                path="/org/freedesktop/systemd1",
                interface="org.freedesktop.systemd1.Manager",
                member="JobRemoved",
                signature="uoss",
                body=[7, path, UNIT, result],
            )
        )

    async def call(self, message: Message) -> Message:
        self.asked.append((str(message.member), message.body))
        message.serial = 1
        if self.error:
            return Message.new_error(message, self.error_name, self.error)
        self.before_the_answer()
        asyncio.get_running_loop().call_soon(self.after_the_answer)
        return Message.new_method_return(message, "o", [JOB])


@pytest.fixture
def bus() -> Bus:
    systemd = units.Systemd()
    made = Bus(systemd)
    systemd._bus = made  # type: ignore[assignment]
    return made


async def test_a_job_is_over_when_its_signal_says_so(bus: Bus) -> None:
    bus.after_the_answer = lambda: bus.removed("done")

    assert await bus.systemd.stop(UNIT, 5) == "done"
    assert bus.asked == [("StopUnit", [UNIT, "replace"])]


async def test_a_signal_that_overtakes_the_answer_is_not_lost(bus: Bus) -> None:
    bus.before_the_answer = lambda: bus.removed("failed")

    assert await bus.systemd.stop(UNIT, 5) == "failed"


async def test_the_end_of_somebody_elses_job_is_not_ours(bus: Bus) -> None:
    bus.before_the_answer = lambda: bus.removed("failed", JOB + "7")
    bus.after_the_answer = lambda: bus.removed("done")

    assert await bus.systemd.stop(UNIT, 5) == "done"


async def test_a_job_without_end_says_job_unit_and_limit(bus: Bus) -> None:
    with pytest.raises(SystemdError) as caught:
        await bus.systemd.stop(UNIT, 0.05)

    assert str(caught.value) == (
        f"systemd did not finish StopUnit of {UNIT} within 0.05 s: see systemctl status {UNIT}"
    )


async def test_a_refusal_has_systemds_own_words(bus: Bus) -> None:
    bus.error = f"Unit {UNIT} not found."

    with pytest.raises(SystemdError, match=rf"^systemd refused StopUnit: Unit {UNIT} not found\.$"):
        await bus.systemd.stop(UNIT, 5)


async def test_nothing_can_be_asked_without_a_connection() -> None:
    with pytest.raises(SystemdError, match="not connected"):
        await units.Systemd().stop(UNIT, 5)


@pytest.mark.parametrize(
    ("active", "is_up", "is_coming", "is_alive"),
    [
        ("active", True, True, True),
        ("reloading", False, True, True),
        ("activating", False, True, True),
        ("deactivating", False, False, True),
        ("inactive", False, False, False),
        ("failed", False, False, False),
    ],
)
def test_what_a_state_means(
    make_engine: Any, make_state: Any, active: str, is_up: bool, is_coming: bool, is_alive: bool
) -> None:
    state = make_state(make_engine(), active)

    assert (state.is_up, state.is_coming, state.is_alive) == (is_up, is_coming, is_alive)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Scripts in place of the system's programs; nothing else is on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(path, 0o755)  # noqa: S103, PTH101 - a program of the test

    return put


def test_the_tail_is_of_the_newest_run_and_without_blank_lines(programs: Callable[[str, str], None]) -> None:
    programs("systemctl", "echo 0123abcd")
    programs("journalctl", 'echo "$@"; echo; echo out of memory')

    assert units.log_tail(UNIT, 5) == (
        "--no-pager --output=cat --lines=5 _SYSTEMD_INVOCATION_ID=0123abcd",
        "out of memory",
    )


def test_a_unit_that_never_ran_has_the_tail_of_its_name(programs: Callable[[str, str], None]) -> None:
    programs("systemctl", "echo")
    programs("journalctl", 'echo "$@"')

    assert units.log_tail(UNIT, 5) == (f"--no-pager --output=cat --lines=5 --unit={UNIT}",)


def test_a_journal_that_is_no_text_is_shown_as_far_as_it_is(programs: Callable[[str, str], None]) -> None:
    programs("systemctl", "echo")
    programs("journalctl", r"printf 'ab\377\n'")

    assert units.log_tail(UNIT) == ("ab\N{REPLACEMENT CHARACTER}",)


def test_a_journal_that_fails_has_no_tail(programs: Callable[[str, str], None]) -> None:
    programs("systemctl", "exit 1")
    programs("journalctl", "echo no journal >&2; exit 1")

    assert units.log_tail(UNIT) == ()


def test_a_journal_that_is_missing_has_no_tail(programs: Callable[[str, str], None]) -> None:
    assert units.log_tail(UNIT) == ()


def test_a_journal_that_does_not_answer_has_no_tail(
    programs: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("systemctl", "echo")
    programs("journalctl", "exec /bin/sleep 5")
    real = subprocess.run

    def impatient(*arguments: Any, **options: Any) -> Any:
        return real(*arguments, **{**options, "timeout": 0.1})

    monkeypatch.setattr(subprocess, "run", impatient)

    assert units.log_tail(UNIT) == ()


async def test_a_connection_that_breaks_ends_the_wait_for_a_job(bus: Bus) -> None:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone.set_exception(EOFError())
    bus.after_the_answer = lambda: bus.systemd._on_gone(gone)

    with pytest.raises(SystemdGoneError, match=r"^the connection to systemd broke: try again$"):
        await bus.systemd.stop(UNIT, 5)


async def test_a_systemd_that_is_not_on_the_bus_is_not_one_that_refuses(bus: Bus) -> None:
    bus.error, bus.error_name = "The name is not activatable", "org.freedesktop.DBus.Error.ServiceUnknown"

    with pytest.raises(SystemdGoneError, match=r"^systemd is not there to be asked for StopUnit \("):
        await bus.systemd.stop(UNIT, 5)


async def test_jobs_of_others_are_not_kept(bus: Bus) -> None:
    bus.before_the_answer = lambda: bus.removed("failed", JOB + "7")
    bus.after_the_answer = lambda: bus.removed("done")
    await bus.systemd.stop(UNIT, 5)

    bus.removed("done", JOB + "8")

    assert bus.systemd._finished == {}


async def test_a_main_process_is_told_once_more_to_end(bus: Bus) -> None:
    await bus.systemd.end_again(UNIT)

    assert bus.asked == [("KillUnit", [UNIT, "main", 15])]
