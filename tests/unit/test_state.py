# SPDX-License-Identifier: Apache-2.0
"""hearth.state: a lock that dies with its holder, and files that are whole or as before.

hearth.engines.service: a word to systemd.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hearth
from hearth import state
from hearth.engines import service
from hearth.errors import BusyError, HearthError

HOLDER = """
import sys, time
from pathlib import Path
from hearth import state
with state.locked(Path(sys.argv[1]), 0, RuntimeError):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run" / "start.lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    source = Path(hearth.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_another_process_holds_is_waited_for_and_its_holder_named(
    lock: Path, holder: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(BusyError, match=rf"^pid {holder.pid}, since \d\d:\d\d:\d\d$"),
        state.locked(lock, 0.1, BusyError),
    ):
        pytest.fail("two hold the lock")


def test_a_lock_comes_back_from_a_killed_process(lock: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with state.locked(lock, 0, BusyError):
        assert lock.read_text().startswith(f"pid {os.getpid()}, ")


def test_a_lock_comes_back_when_its_block_ends(lock: Path) -> None:
    with state.locked(lock, 0, BusyError):
        pass
    with state.locked(lock, 0, BusyError):
        pass


def test_a_lock_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")

    with (
        pytest.raises(HearthError, match=r"run/start\.lock cannot be made"),
        state.locked(tmp_path / "run" / "start.lock", 0, BusyError),
    ):
        pytest.fail("there is no lock")


def test_a_file_is_replaced_with_the_mode_it_should_have_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "made" / "figures.json"
    umask = os.umask(0o077)
    try:
        state.replace(path, b"new")
    finally:
        os.umask(umask)

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_reader_that_has_the_old_file_open_keeps_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_bytes(b"old figures")
    with path.open("rb") as reader:
        state.replace(path, b"new")

        assert reader.read() == b"old figures"


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    (tmp_path / "figures.json.new").write_bytes(b"half of something that is longer")
    state.replace(path, b"whole")

    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("figures.json", b"whole")]


def test_a_file_that_cannot_be_replaced_is_an_error_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.mkdir()

    with pytest.raises(IsADirectoryError):
        state.replace(path, b"new")

    assert [one.name for one in tmp_path.iterdir()] == ["figures.json"]


def test_outside_of_a_unit_there_is_no_invocation_and_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    service.keep_waiting("waiting", 30)

    assert service.invocation() == ""


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_what_is_waited_for_and_asked_for_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    address = f"@hearth-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        service.keep_waiting("engine scout waits for qwen", 30)

        assert systemd.recv(1000) == b"STATUS=engine scout waits for qwen\nEXTEND_TIMEOUT_USEC=30000000"


def test_a_systemd_that_does_not_listen_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    service.keep_waiting("waiting", 30)

    assert not (tmp_path / "gone").exists()


def test_a_lock_is_not_taken_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "lock").symlink_to(tmp_path / "other")

    with pytest.raises(HearthError), state.locked(tmp_path / "lock", 0, HearthError):
        pass
    assert (tmp_path / "other").read_text() == "kept"


def test_a_file_is_not_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "file.new").symlink_to(tmp_path / "other")

    state.replace(tmp_path / "file", b"new")

    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "other").read_text() == "kept"
