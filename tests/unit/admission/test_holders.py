# SPDX-License-Identifier: Apache-2.0
"""admission.holders: who holds memory, by /proc, nvidia-smi and Docker's socket, each of which may be missing."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from hearth.admission import holders
from hearth.admission.holders import Holder

COMFY = "c0" * 32
SCOUT = "5c" * 32
BOX = "b0" * 32


class Proc:
    """A /proc of the test; sizes in GiB."""

    def __init__(self, path: Path, root: str = "") -> None:
        self.path = path
        self.root = root
        path.mkdir()
        self.add(1, "systemd", 0.01, cgroup="/init.scope", cmdline="/sbin/init")

    def add(
        self,
        pid: int,
        name: str,
        anon: float,
        *,
        shared: float = 0.0,
        mapped: float = 0.0,
        cgroup: str = "/user.slice/user-1000.slice/session-1.scope",
        cmdline: str = "",
    ) -> None:
        folder = self.path / str(pid)
        folder.mkdir()
        sizes = {"VmRSS": anon + shared + mapped, "RssAnon": anon, "RssFile": mapped, "RssShmem": shared}
        lines = [f"Name:\t{name}", "State:\tS (sleeping)"]
        lines += [f"{field}:\t{round(gib * 2**20):8} kB" for field, gib in sizes.items()]
        (folder / "status").write_text("\n".join(lines) + "\n")
        (folder / "cmdline").write_bytes(cmdline.replace(" ", "\0").encode() + b"\0")
        (folder / "cgroup").write_text(f"0::{self.root}{cgroup}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an nvidia-smi of the test on the PATH, where nothing else is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(script: str) -> None:
        path = folder / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(path, 0o755)  # noqa: S103, PTH101 - a program of the test

    return put


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Path]:
    """A Docker that runs two containers, on a socket of the test."""
    running = [
        {"Id": COMFY, "Names": ["/comfyui"], "Image": "comfy", "State": "running"},
        {"Id": SCOUT, "Names": ["/hearth-scout"], "Image": "llama.cpp", "State": "running"},
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(running if self.path == "/containers/json" else {"message": "page not found"}).encode()
            self.send_response(200 if self.path == "/containers/json" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "a unix socket"

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    path = tmp_path / "docker.sock"
    server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield path
    server.shutdown()
    server.server_close()
    thread.join()


def seen(proc: Proc, docker: Path = Path("/nonexistent"), ours: tuple[str, ...] = ()) -> list[Holder]:
    return list(holders.programs(ours, proc=proc.path, docker_socket=docker))


def test_a_program_is_seen_with_the_memory_that_only_it_can_give_back(proc: Proc) -> None:
    proc.add(42, "postgres", 1.5, shared=0.5, mapped=60.0)

    assert seen(proc) == [Holder(name="postgres", gib=2.0, pid=42)]


def test_programs_below_a_gib_are_not_named(proc: Proc) -> None:
    proc.add(42, "small", 0.99)
    proc.add(43, "large", 1.0)

    assert [holder.name for holder in seen(proc)] == ["large"]


def test_the_four_biggest_are_named_biggest_first(proc: Proc) -> None:
    for pid, gib in enumerate([2.0, 6.0, 4.0, 5.0, 3.0], 10):
        proc.add(pid, f"p{gib:.0f}", gib)

    assert [holder.name for holder in seen(proc)] == ["p6", "p5", "p4", "p3"]


def test_kernel_threads_and_processes_that_ended_meanwhile_are_passed_over(proc: Proc) -> None:
    (proc.path / "2").mkdir()
    (proc.path / "2" / "status").write_text("Name:\tkthreadd\n")
    (proc.path / "77").mkdir()
    (proc.path / "sys").mkdir()

    assert seen(proc) == []


@pytest.mark.parametrize(
    ("comm", "cmdline", "name"),
    [
        ("ollama", "/usr/bin/ollama serve", "ollama"),
        ("python3", "/usr/bin/python3 -u /opt/ComfyUI/main.py --listen", "python3 main.py"),
        ("python", "python -m vllm.entrypoints.cli --api-key secret", "python -m vllm.entrypoints.cli"),
        ("python3", "python3 -c secret.py", "python3"),
        ("python3", "python3 secret", "python3"),
        ("python3", "python3 two\nlines.py", "python3 two lines.py"),
        ("", "", "a process"),
    ],
)
def test_a_program_is_named_by_its_command_and_script_and_no_more_of_its_command_line(
    proc: Proc, comm: str, cmdline: str, name: str
) -> None:
    proc.add(42, comm, 2.0, cmdline=cmdline)

    assert [holder.name for holder in seen(proc)] == [name]


def test_the_processes_of_a_service_count_as_one_named_by_the_biggest(proc: Proc) -> None:
    proc.add(42, "ollama", 0.5, cgroup="/system.slice/ollama.service")
    proc.add(43, "llama-server", 0.75, cgroup="/system.slice/ollama.service")

    assert seen(proc) == [Holder(name="llama-server", gib=1.25, pid=43, unit="ollama.service")]


def test_programs_of_a_session_count_each_by_itself_and_belong_to_no_system_service(proc: Proc) -> None:
    session = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.scope"
    proc.add(42, "firefox", 2.0, cgroup=session)
    proc.add(43, "firefox", 3.0, cgroup=session)

    assert [(holder.gib, holder.unit) for holder in seen(proc)] == [(3.0, ""), (2.0, "")]


@pytest.mark.parametrize("cgroup", [f"/system.slice/docker-{COMFY}.scope", f"/docker/{COMFY}", f"/docker/{COMFY}/init"])
def test_a_container_is_named_as_docker_does(proc: Proc, docker: Path, cgroup: str) -> None:
    proc.add(42, "python3", 2.0, cgroup=cgroup)
    proc.add(43, "python3", 4.0, cgroup=cgroup)

    assert seen(proc, docker) == [Holder(name="python3", gib=6.0, pid=43, container="comfyui")]


def test_on_cgroup_v1_the_hierarchy_of_systemd_counts(proc: Proc, docker: Path) -> None:
    proc.add(42, "python3", 2.0)
    (proc.path / "42" / "cgroup").write_text(f"9:name=systemd:/docker/{COMFY}\n4:memory:/elsewhere\n0::/\n")

    assert [holder.container for holder in seen(proc, docker)] == ["comfyui"]


def test_the_containers_of_our_engines_are_left_out(proc: Proc, docker: Path) -> None:
    proc.add(42, "llama-server", 30.0, cgroup=f"/system.slice/docker-{SCOUT}.scope")

    assert seen(proc, docker, ours=("hearth-scout",)) == []


def test_the_container_of_an_engine_that_should_be_down_is_a_stranger(proc: Proc, docker: Path) -> None:
    proc.add(42, "llama-server", 30.0, cgroup=f"/system.slice/docker-{SCOUT}.scope")

    assert [holder.remedy for holder in seen(proc, docker, ours=("hearth-qwen",))] == ["docker stop hearth-scout"]


def test_the_units_of_our_engines_are_left_out(proc: Proc) -> None:
    proc.add(42, "docker", 30.0, cgroup="/hearth.slice/hearth-engine-scout.service")

    assert seen(proc, ours=("hearth-engine-scout.service",)) == []


def test_what_an_engine_holds_is_the_sum_of_its_container_and_its_unit(proc: Proc, docker: Path) -> None:
    proc.add(42, "docker", 0.25, cgroup="/hearth.slice/hearth-engine-scout.service")
    proc.add(43, "llama-server", 30.0, cgroup=f"/system.slice/docker-{SCOUT}.scope")
    proc.add(44, "llama-server", 0.5, cgroup=f"/system.slice/docker-{SCOUT}.scope")
    proc.add(45, "python3", 12.0, cgroup=f"/system.slice/docker-{COMFY}.scope")
    proc.add(46, "firefox", 3.0)

    held = holders.held_by("hearth-scout", "hearth-engine-scout.service", proc=proc.path, docker_socket=docker)

    assert held == 30.75


@pytest.mark.parametrize("answer", ["nobody", "nonsense"])
def test_where_docker_does_not_answer_a_container_is_a_program(proc: Proc, tmp_path: Path, answer: str) -> None:
    proc.add(42, "python3", 2.0, cgroup=f"/docker/{COMFY}")
    path = tmp_path / "silent.sock"
    if answer == "nonsense":
        with socketserver.UnixStreamServer(str(path), socketserver.StreamRequestHandler) as server:
            threading.Thread(target=server.handle_request).start()
            assert seen(proc, path) == [Holder(name="python3", gib=2.0, pid=42)]
    else:
        assert seen(proc, path) == [Holder(name="python3", gib=2.0, pid=42)]


def test_on_a_host_that_is_itself_a_container_its_own_id_is_nobodys(tmp_path: Path, docker: Path) -> None:
    proc = Proc(tmp_path / "inner", root=f"/docker/{BOX}")
    proc.add(42, "postgres", 2.0, cgroup="/system.slice/postgresql.service")
    proc.add(43, "python3", 2.0)
    (proc.path / "43" / "cgroup").write_text(f"0::/docker/{COMFY}\n")

    assert {(holder.name, holder.unit, holder.container) for holder in seen(proc, docker)} == {
        ("postgres", "postgresql.service", ""),
        ("python3", "", "comfyui"),
    }


def test_memory_on_the_gpu_is_added_to_a_processs_own(proc: Proc, programs: Callable[[str], None]) -> None:
    programs("echo '42, /usr/bin/python3, 19456'")
    proc.add(42, "python3", 2.0)

    assert seen(proc) == [Holder(name="python3", gib=21.0, pid=42)]


def test_a_process_that_only_the_driver_knows_is_named_as_the_driver_does(
    proc: Proc, programs: Callable[[str], None]
) -> None:
    programs("echo '4242, /opt/a folder, of someone/blender, 4096'")

    assert seen(proc) == [Holder(name="blender", gib=4.0, pid=4242)]


def test_a_process_on_two_gpus_counts_with_both(proc: Proc, programs: Callable[[str], None]) -> None:
    programs("echo '42, python3, 1024'; echo '42, python3, 2048'")
    proc.add(42, "python3", 0.0)

    assert [holder.gib for holder in seen(proc)] == [3.0]


def test_nvidia_smi_is_asked_for_mib_without_units(programs: Callable[[str], None]) -> None:
    wanted = "--query-compute-apps=pid,process_name,used_memory --format=csv,noheader,nounits"
    programs(f'[ "$*" = "{wanted}" ] && echo 7, x, 1024')

    assert holders.gpu_processes() == {7: ("x", 1.0)}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("echo '42, python3, [N/A]'", id="does not tell"),
        pytest.param("echo 'Failed to initialize NVML: Driver/library version mismatch'", id="says something else"),
        pytest.param("echo '42, python3, 1024'; exit 9", id="fails"),
        pytest.param("exec /bin/sleep 5", id="hangs"),
    ],
)
def test_a_driver_that_does_not_answer_adds_nothing(
    programs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(holders, "_TIMEOUT_S", 0.2 if "sleep" in script else 10)
    programs(script)

    assert holders.gpu_processes() == {}


def test_a_host_has_a_gpu_where_it_has_nvidias_program(programs: Callable[[str], None]) -> None:
    without = holders.has_gpu()
    programs("exit 0")

    assert (without, holders.has_gpu()) == (False, True)


@pytest.mark.parametrize(
    ("holder", "words", "remedy"),
    [
        (
            Holder(name="qwen", gib=32, engine=True),
            "qwen holds 32.0 GiB",
            "hearth stop qwen",
        ),
        (
            Holder(name="python3 main.py", gib=12.34, pid=42),
            "python3 main.py (pid 42) holds 12.3 GiB",
            "end python3 main.py (pid 42)",
        ),
        (
            Holder(name="python3", gib=12.34, pid=42, container="comfyui"),
            "python3 (pid 42, container comfyui) holds 12.3 GiB",
            "docker stop comfyui",
        ),
        (
            Holder(name="ollama", gib=2, pid=42, unit="ollama.service"),
            "ollama (pid 42, ollama.service) holds 2.0 GiB",
            "systemctl stop ollama.service",
        ),
    ],
)
def test_a_holder_in_words_and_what_gives_its_memory_back(holder: Holder, words: str, remedy: str) -> None:
    assert (holder.words, holder.remedy) == (words, remedy)
