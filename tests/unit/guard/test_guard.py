# SPDX-License-Identifier: Apache-2.0
"""hearth.guard at work: what it reads, whom it ends, and what it tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth import state
from hearth.cli import arguments, doctor
from hearth.contract import Contract
from hearth.errors import HearthError
from hearth.guard import record, watch
from hearth.guard.record import Ended
from hearth.guard.victims import Victims

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:   {} kB\nBuffers: 1 kB\n"


class Docker(UnixStreamServer):
    """Docker's socket, with containers by name and the process that each has."""

    def __init__(self, path: Path) -> None:
        self.pids: dict[str, int] = {}
        docker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.removeprefix("/containers/").removesuffix("/json").strip("/")
                if name == "containers/json" or self.path == "/containers/json":
                    answer: object = [{"Id": f"{pid:064x}", "Names": [f"/{one}"]} for one, pid in docker.pids.items()]
                else:
                    answer = {"State": {"Pid": docker.pids.get(name, 0)}}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        super().__init__(str(path), Handler)


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Docker]:
    with Docker(tmp_path / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield started
    for one in started:
        one.kill()
        one.wait()


@pytest.fixture
def contract(make_engine: MakeEngine) -> Contract:
    engines = tuple(make_engine(name=name, container=f"hearth-{name}") for name in ("a", "b"))
    return Contract(schema=1, key_file="/k", floor_gib=1.0, engines=engines)


def test_those_that_run_are_known_with_the_order_in_which_they_started(
    docker: Docker, sleepers: list[subprocess.Popen[bytes]], contract: Contract, tmp_path: Path
) -> None:
    docker.pids = {"hearth-a": sleepers[0].pid, "hearth-b": sleepers[1].pid, "stranger": os.getpid()}
    victims = Victims(tmp_path / "docker.sock")

    victims.look(contract)

    assert [one.name for one in victims.running] == ["a", "b"]
    assert victims.running[0].started <= victims.running[1].started


def test_one_is_ended_at_once_and_is_known_no_more(
    docker: Docker, sleepers: list[subprocess.Popen[bytes]], contract: Contract, tmp_path: Path
) -> None:
    docker.pids = {"hearth-a": sleepers[0].pid, "hearth-b": sleepers[1].pid}
    victims = Victims(tmp_path / "docker.sock")
    victims.look(contract)

    assert victims.end("b")

    assert sleepers[1].wait(5) == -signal.SIGKILL
    assert sleepers[0].poll() is None
    assert [one.name for one in victims.running] == ["a"]


def test_one_that_ended_by_itself_is_not_taken_for_its_numbers_next_owner(
    docker: Docker, sleepers: list[subprocess.Popen[bytes]], contract: Contract, tmp_path: Path
) -> None:
    docker.pids = {"hearth-a": sleepers[0].pid}
    victims = Victims(tmp_path / "docker.sock")
    victims.look(contract)
    sleepers[0].kill()
    sleepers[0].wait()

    assert not victims.end("a")


def test_where_docker_does_not_answer_those_known_before_still_are(
    docker: Docker, sleepers: list[subprocess.Popen[bytes]], contract: Contract, tmp_path: Path
) -> None:
    docker.pids = {"hearth-a": sleepers[0].pid}
    victims = Victims(tmp_path / "docker.sock")
    victims.look(contract)
    (tmp_path / "docker.sock").rename(tmp_path / "elsewhere")

    victims.look(contract)

    assert victims.end("a")


def test_it_reads_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = tmp_path / "meminfo"
    monkeypatch.setenv("HEARTH_MEMINFO", str(played))
    meter = watch.Meter()

    for gib in (3, 1):
        state.replace(played, MEMINFO.format(gib * 2**20).encode())
        assert meter.read() == gib


def test_the_kernels_own_is_read_without_opening_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTH_MEMINFO", raising=False)
    meter = watch.Meter()
    began = time.process_time()
    for _ in range(200):
        assert meter.read() > 0

    # Five readings a second are then less than half a percent of one core.
    assert (time.process_time() - began) / 200 < 0.001


def test_only_one_guard_watches(tmp_path: Path) -> None:
    with (
        state.locked(tmp_path / record.FOLDER / record.LOCK, 0, HearthError),
        pytest.raises(HearthError, match="another guard watches already"),
    ):
        watch.run(tmp_path / "engines.json", 1.0, folder=tmp_path / "hearth", learned=tmp_path)


def ended(engine: str, at: str = "2026-11-28T08:00:00Z") -> Ended:
    return Ended(at=at, engine=engine, available_gib=3.21, floor_gib=5.0)


def test_what_was_ended_is_kept_the_last_twenty_of_it(tmp_path: Path) -> None:
    for number in range(25):
        record.add(tmp_path / record.NAME, ended(str(number)))

    kept = record.read(tmp_path / record.NAME)
    assert [one.engine for one in kept] == [str(number) for number in range(5, 25)]


@pytest.mark.parametrize("text", ["", "{", '[{"at": 5}]'])
def test_a_damaged_record_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / record.NAME).write_text(text)

    assert record.read(tmp_path / record.NAME) == ()
    record.add(tmp_path / record.NAME, ended("a"))
    assert len(record.read(tmp_path / record.NAME)) == 1


def test_only_a_day_is_recent(tmp_path: Path) -> None:
    record.add(tmp_path / record.NAME, ended("a"))
    then = 1795852800.0

    assert record.recent(tmp_path / record.NAME, then + 86_000) == ended("a")
    assert record.recent(tmp_path / record.NAME, then + 87_000) is None
    assert record.recent(tmp_path / "none", then) is None


def test_it_says_what_it_did_in_figures() -> None:
    words = "the guard ended a at 2026-11-28T08:00:00Z: 3.2 GiB were available, below its floor of 5.0 GiB"

    assert ended("a").words == words
    assert msgspec.json.decode(msgspec.json.encode(ended("a")), type=Ended) == ended("a")


@pytest.mark.parametrize("floor", ["0", "-1", "much", "nan"])
def test_a_floor_that_is_none_is_refused(floor: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parser().parse_args(["guard", f"--floor={floor}"])

    assert f"invalid number of GiB value: '{floor}'" in capsys.readouterr().err


def test_doctor_says_that_it_watches_or_whom_it_ended() -> None:
    verdicts = [
        doctor.guard(installed=False, watches=False, last=None).verdict,
        doctor.guard(installed=True, watches=True, last=None).verdict,
        doctor.guard(installed=True, watches=True, last=ended("a")).verdict,
        doctor.guard(installed=True, watches=False, last=ended("a")).verdict,
    ]

    assert verdicts == ["ok", "ok", "warning", "failed"]
