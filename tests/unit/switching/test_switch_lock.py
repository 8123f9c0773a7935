# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.switch: one change at a time on a box, whoever asks for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hearth import errors
from hearth.cli import standing
from hearth.switching import switch
from hearth.switching.change import Change

if TYPE_CHECKING:
    from switchbox import Box

HOLDER = """
import sys
from pathlib import Path
from hearth.switching.switch import box_lock
with box_lock(0, Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run" / "switch.lock"


def test_the_second_holder_is_told_who_the_first_is(lock: Path) -> None:
    with switch.box_lock(0, lock), pytest.raises(errors.BusyError) as caught, switch.box_lock(0, lock):
        pass

    assert str(caught.value).startswith(f"a switch is under way (pid {os.getpid()}, since ")
    assert str(caught.value).endswith("): wait for it, or end that process")


def test_the_lock_is_free_again_after_its_holder(lock: Path) -> None:
    for _ in range(2):
        with switch.box_lock(0, lock):
            pass


def test_the_lock_is_free_again_after_a_holder_that_failed(lock: Path) -> None:
    with pytest.raises(ZeroDivisionError), switch.box_lock(0, lock):
        raise ZeroDivisionError

    with switch.box_lock(0, lock):
        pass


def test_the_lock_is_free_again_when_its_holder_is_killed(lock: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(switch.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.BusyError, match=rf"\(pid {holder.pid}, since "), switch.box_lock(0, lock):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    with switch.box_lock(0, lock):
        assert lock.read_text().startswith(f"pid {os.getpid()}, since ")


def test_a_program_started_while_the_lock_is_held_does_not_hold_it_on(lock: Path) -> None:
    with switch.box_lock(0, lock):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    with child, switch.box_lock(0, lock):
        pass


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")

    with pytest.raises(errors.HearthError), switch.box_lock(0, tmp_path / "run" / "switch.lock"):
        pass


def test_whoever_only_looks_looks_at_the_same_lock() -> None:
    assert switch.LOCK.name == standing.LOCK


async def test_a_change_that_finds_another_under_way_says_who_is_at_it_and_touches_nothing(box: Box) -> None:
    with switch.box_lock(0, box.lock), pytest.raises(errors.BusyError, match=rf"\(pid {os.getpid()}, since "):
        await box.run("new")

    assert box.calls == []


async def test_a_change_waits_for_the_one_under_way_and_then_starts_from_what_that_left(box: Box) -> None:
    first = box.carry_out(Change(name="new", drain_s=0))
    second = box.carry_out(Change(name="small", drain_s=0), lock_timeout_s=60)

    await asyncio.gather(first, second)

    assert box.calls[:2] == ["stop old", "start new"]
    assert box.calls[4:6] == ["stop new", "start small"]
    assert box.up == {"small", "embed"}


async def test_whoever_waits_for_the_lock_lets_others_in_the_process_go_on(box: Box) -> None:
    with switch.box_lock(0, box.lock):
        waiting = asyncio.create_task(box.carry_out(Change(name="new", drain_s=0), lock_timeout_s=60))
        # Comes back only where the loop is free.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()

    assert (await waiting).active == "new"


async def test_a_dry_run_does_not_need_the_lock(box: Box) -> None:
    with switch.box_lock(0, box.lock):
        assert (await box.run("new", dry=True)).active == "new"


async def test_a_change_that_failed_gives_the_lock_back(box: Box) -> None:
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")
    with pytest.raises(errors.EngineFailedError):
        await box.run("new")

    assert (await box.run("small")).active == "small"
