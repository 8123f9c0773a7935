# SPDX-License-Identifier: Apache-2.0
"""_facts: what is read of a box, from files that look like a Spark's and from this machine."""

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

SERIAL = "1234567890123"
# As on a Spark that was updated twice: one DGX_OTA_ pair is appended by every update, the last without quotes.
DGX_RELEASE = f"""\
DGX_NAME="DGX Spark"
DGX_PRETTY_NAME="NVIDIA DGX Spark"
DGX_SWBUILD_DATE="2025-09-10-13-50-03"
DGX_SWBUILD_VERSION="7.2.3"
DGX_COMMIT_ID="833b4a7"
DGX_PLATFORM="DGX Server for KVM"
DGX_SERIAL_NUMBER="{SERIAL}"

DGX_OTA_VERSION="7.3.1"
DGX_OTA_DATE="Mon Dec  1 10:00:00 UTC 2025"

DGX_OTA_VERSION=7.5.0
DGX_OTA_DATE=Mon Apr  6 10:00:00 UTC 2026
"""
OS_RELEASE = """\
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
"""
MEMINFO = """\
MemTotal:       125513576 kB
MemFree:        90021212 kB
MemAvailable:   117440512 kB
Active(anon):    1048576 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""
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


def test_of_many_updates_the_last_one_counts() -> None:
    assert _facts.dgx_release(DGX_RELEASE) == {"platform": "DGX Server for KVM", "build": "7.2.3", "ota": "7.5.0"}


def test_a_spark_from_the_factory_had_no_update() -> None:
    assert _facts.dgx_release('DGX_SWBUILD_VERSION="7.2.3"\nDGX_PLATFORM="GX10"\n') == {
        "platform": "GX10",
        "build": "7.2.3",
        "ota": "",
    }


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_what_is_no_dgx_has_no_release(text: str) -> None:
    assert _facts.dgx_release(text) == {}


def test_the_serial_number_is_in_no_fact(tmp_path: Path, put: Callable[[str, str], None]) -> None:
    put("etc/dgx-release", DGX_RELEASE)

    facts = _facts.read(tmp_path)

    assert facts["dgx"]["ota"] == "7.5.0"
    assert SERIAL not in json.dumps(facts)


def test_the_operating_system() -> None:
    assert _facts.os_release(OS_RELEASE) == {
        "id": "ubuntu",
        "version": "24.04",
        "codename": "noble",
        "name": "Ubuntu 24.04.3 LTS",
    }


def test_an_operating_system_that_says_nothing() -> None:
    assert set(_facts.os_release("").values()) == {""}


def test_memory_is_in_gib() -> None:
    assert _facts.memory(MEMINFO) == {"total_gib": 119.7, "available_gib": 112.0}


def test_unknown_memory_is_none() -> None:
    assert _facts.memory("") == {"total_gib": 0, "available_gib": 0}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: "0"}]\n', id="YAML"),
        pytest.param('kind: "nvidia.com/gpu"\n', id="YAML with quotes"),
        pytest.param("kind: 'nvidia.com/gpu' # all of them\n", id="YAML with other quotes"),
        pytest.param('{\n  "cdiVersion": "0.5.0",\n  "kind": "nvidia.com/gpu"\n}\n', id="JSON"),
        pytest.param('{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[]}', id="JSON on one line"),
    ],
)
@pytest.mark.parametrize("folder", ["etc/cdi", "var/run/cdi", "run/cdi"])
def test_the_kinds_of_device_that_cdi_offers(
    tmp_path: Path, put: Callable[[str, str], None], folder: str, text: str
) -> None:
    put(f"{folder}/nvidia.{'json' if text.startswith('{') else 'yaml'}", text)

    assert _facts.cdi_kinds(tmp_path) == ["nvidia.com/gpu"]


def test_the_kinds_of_several_specs_are_sorted_and_each_named_once(
    tmp_path: Path, put: Callable[[str, str], None]
) -> None:
    put("etc/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n")
    put("run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n")
    put("run/cdi/net.yaml", "kind: mellanox.com/nic\n")
    put("etc/cdi/empty.yaml", "")

    assert _facts.cdi_kinds(tmp_path) == ["mellanox.com/nic", "nvidia.com/gpu"]


@pytest.mark.parametrize("name", ["nvidia.yaml.bak", "nvidia.disabled", "README"])
def test_what_docker_does_not_take_for_a_spec_is_none(
    tmp_path: Path, put: Callable[[str, str], None], name: str
) -> None:
    put(f"etc/cdi/{name}", "kind: nvidia.com/gpu\n")

    assert _facts.cdi_kinds(tmp_path) == []


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
    def answers(self, root: Path) -> Iterator[Callable[[bytes], None]]:
        said = [b""]

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(said[0])

        with socketserver.ThreadingUnixStreamServer("run/docker.sock", Handler) as listener:
            thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield lambda raw: said.__setitem__(0, raw)
            listener.shutdown()
            thread.join()

    def test_a_running_engine_tells_its_version(self, root: Path, answers: Callable[[bytes], None]) -> None:
        answers(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"Version": "29.6.2"}')

        facts = _facts.docker(root)

        assert (facts["installed"], facts["version"], facts["error"]) == (True, "29.6.2", "")

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

    assert _facts.engine_units() == {
        "hearth-engine-a.service": "inactive",
        "hearth-engine-b.service": "active",
        "hearth-engine-c.service": "failed",
    }


def test_without_systemd_there_are_no_engine_units(systemctl: Callable[[str, str], None]) -> None:
    assert _facts.engine_units() == {}


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


def test_looking_at_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("12345")

    assert _facts.look_at(f"{tmp_path}/f", None) == {
        "path": f"{tmp_path}/f",
        "exists": True,
        "is_dir": False,
        "size": 5,
    }
    assert _facts.look_at(str(tmp_path), None)["is_dir"]


def test_looking_at_what_is_not_there(tmp_path: Path) -> None:
    assert _facts.look_at(f"{tmp_path}/f/g", None) == {
        "path": f"{tmp_path}/f/g",
        "exists": False,
        "is_dir": False,
        "size": 0,
    }


def test_the_tilde_is_the_home_of_the_user_and_not_ours(tmp_path: Path) -> None:
    (tmp_path / "ai").mkdir()

    assert _facts.look_at("~/ai", {"home": str(tmp_path)}) == {
        "path": f"{tmp_path}/ai",
        "exists": True,
        "is_dir": True,
        "size": (tmp_path / "ai").stat().st_size,
    }


def test_nothing_has_to_exist_on_a_box(tmp_path: Path) -> None:
    facts = _facts.read(tmp_path)

    assert facts["dgx"] == {}
    assert facts["cdi"] == []
    assert facts["listening"] == {}
    assert facts["engine_ports"] == []
    assert not facts["runtime"]
    assert not facts["systemd"]
    assert json.loads(json.dumps(facts)) == facts
