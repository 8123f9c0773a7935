# SPDX-License-Identifier: Apache-2.0
"""_facts: what runs on a box: listening programs, Docker, engine units."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _facts

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 778 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 779 1 0 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 780 1 0
   1: 00000000000000000000000001000000:2EE0 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 781 1 0
"""


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], None]:
    """Write a file of the box whose root is the test's folder."""

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A systemctl of the tests that answers with units, and with unit files."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def write(units: str, files: str) -> None:
        program = tmp_path / "bin" / "systemctl"
        program.write_text(f"#!/bin/sh\nif [ $1 = list-units ]; then printf '{units}'; else printf '{files}'; fi\n")
        program.chmod(0o755)

    return write


def test_ports_that_somebody_listens_on_with_the_program_where_it_can_be_read(
    tmp_path: Path, put: Callable[[str, str], None]
) -> None:
    put("proc/net/tcp", TCP)
    put("proc/net/tcp6", TCP6)
    put("proc/42/comm", "docker-proxy\n")
    (tmp_path / "proc/42/fd").mkdir()
    (tmp_path / "proc/42/fd/4").symlink_to("socket:[777]")
    (tmp_path / "proc/42/fd/5").symlink_to("/dev/null")

    assert _facts.listening(tmp_path) == {"22": "", "8080": "docker-proxy", "12000": ""}


def test_a_descriptor_that_closes_while_it_is_looked_at_does_not_hide_the_others(
    tmp_path: Path, put: Callable[[str, str], None]
) -> None:
    put("proc/net/tcp", TCP)
    put("proc/42/comm", "docker-proxy\n")
    # At these no link can be read. The order is the file system's; one of them is likely to come first.
    put("proc/42/fd/3", "")
    (tmp_path / "proc/42/fd/4").symlink_to("socket:[777]")
    put("proc/42/fd/5", "")

    assert _facts.listening(tmp_path)["8080"] == "docker-proxy"


def test_a_socket_of_this_very_process_is_listed_with_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])

        assert _facts.listening(Path("/"))[port] == Path("/proc/self/comm").read_text().strip()

    assert port not in _facts.listening(Path("/"))


def test_a_process_that_ends_while_it_is_looked_at_is_no_failure(
    tmp_path: Path, put: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("proc/net/tcp", TCP)
    put("proc/41/fd/x", "")
    put("proc/42/comm", "docker-proxy\n")
    (tmp_path / "proc/42/fd").mkdir()
    (tmp_path / "proc/42/fd/4").symlink_to("socket:[777]")
    real_scandir, real_listdir = os.scandir, os.listdir

    def gone(path: Any) -> None:
        if str(path).endswith("proc/41/fd"):
            raise ProcessLookupError(3, "No such process", str(path))

    def scandir(path: Any = ".") -> Any:
        gone(path)
        return real_scandir(path)

    def listdir(path: Any = ".") -> Any:
        gone(path)
        return real_listdir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", listdir)

    assert _facts.listening(tmp_path)["8080"] == "docker-proxy"


class TestDocker:
    """The engine's version, asked for at its socket."""

    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The test's folder by a short name: the path of a socket has 108 bytes at most."""
        (tmp_path / "run").mkdir()
        monkeypatch.chdir(tmp_path)
        return Path()

    @pytest.fixture
    def answers(self, root: Path) -> Iterator[Callable[..., None]]:
        """What the engine says, to every question, or by its path."""
        said: dict[str, bytes] = {}

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                path = self.rfile.readline().decode().split(" ")[1]
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(said.get(path, said[""]))

        with socketserver.ThreadingUnixStreamServer("run/docker.sock", Handler) as listener:
            thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield lambda raw, path="": said.__setitem__(path, raw)
            listener.shutdown()
            thread.join()

    def test_a_running_engine_tells_its_version(self, root: Path, answers: Callable[..., None]) -> None:
        answers(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"Version": "29.6.2"}')

        facts = _facts.docker(root)

        assert (facts["installed"], facts["version"], facts["error"]) == (True, "29.6.2", "")

    @pytest.mark.parametrize(
        ("info", "cdi"),
        [
            ('{"CDISpecDirs": ["/etc/cdi", "/var/run/cdi"]}', True),
            ('{"CDISpecDirs": []}', False),
            ('{"CDISpecDirs": null}', False),
            ('{"CDISpecDirs": [""]}', False),
            ("{}", False),
            ("no JSON", False),
        ],
    )
    def test_a_running_engine_tells_whether_it_gives_cdi_devices(
        self, root: Path, answers: Callable[..., None], info: str, cdi: bool
    ) -> None:
        answers(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"Version": "29.6.2"}')
        answers(f"HTTP/1.1 200 OK\r\nContent-Length: {len(info)}\r\n\r\n{info}".encode(), "/info")

        assert _facts.docker(root)["cdi"] is cdi

    @pytest.mark.parametrize("raw", [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"])
    def test_an_answer_that_is_none_has_no_version(
        self, root: Path, answers: Callable[[bytes], None], raw: bytes
    ) -> None:
        answers(raw)

        facts = _facts.docker(root)

        assert (facts["installed"], facts["version"]) == (False, "")
        assert facts["error"]

    @pytest.mark.parametrize(("path", "installed"), [("usr/bin/dockerd", True), ("usr/bin/docker", False)])
    def test_an_engine_that_does_not_run_is_installed_where_its_binary_is(
        self, root: Path, put: Callable[[str, str], None], path: str, installed: bool
    ) -> None:
        put(path, "")

        facts = _facts.docker(root)

        assert (facts["installed"], facts["version"]) == (installed, "")
        assert "No such file" in facts["error"]


def test_engine_units_are_those_that_run_and_those_that_are_only_files(systemctl: Callable[[str, str], None]) -> None:
    systemctl(
        "hearth-engine-b.service loaded active running Hearth engine b\\n"
        "● hearth-engine-c.service loaded failed failed Hearth engine c\\n",
        "hearth-engine-a.service disabled enabled\\nhearth-engine-b.service enabled enabled\\n\\n",
    )

    assert _facts.engine_units(_facts.ask_systemd()) == {
        "hearth-engine-a.service": "inactive",
        "hearth-engine-b.service": "active",
        "hearth-engine-c.service": "failed",
    }


def test_engine_units_whose_file_is_gone_count_only_while_they_run(systemctl: Callable[[str, str], None]) -> None:
    systemctl(
        "● hearth-engine-a.service not-found failed failed hearth-engine-a.service\\n"
        "● hearth-engine-b.service not-found active running Hearth engine b\\n",
        "",
    )

    assert _facts.engine_units(_facts.ask_systemd()) == {"hearth-engine-b.service": "active"}


def test_without_systemd_there_are_no_engine_units(systemctl: Callable[[str, str], None]) -> None:
    assert _facts.engine_units(_facts.ask_systemd()) == {}


@pytest.mark.parametrize(
    ("states", "ports"),
    [
        ({"a": "active", "b": "inactive"}, [8080]),
        ({"a": "activating", "b": "deactivating"}, [8080, 8081]),
        ({"a": "failed"}, []),
        ({}, []),
    ],
)
def test_the_ports_of_engines_that_run(states: dict[str, str], ports: list[int]) -> None:
    contract = {"schema": 1, "engines": [{"unit": "b", "port": 8081}, {"unit": "a", "port": 8080}]}

    assert _facts.engine_ports(json.dumps(contract), states) == ports


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"engines": 5}', '{"engines": [{}]}', '{"engines": ["a"]}'])
def test_a_contract_that_cannot_be_read_has_no_ports(text: str) -> None:
    assert _facts.engine_ports(text, {"a": "active"}) == []
