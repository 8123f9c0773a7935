# SPDX-License-Identifier: Apache-2.0
"""What several files of tests share: makers of engines and states, a scripted engine, a systemd of the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes import FakeClock, FakeMemory, FakeSystemd, ScriptedServer
from hypothesis import settings

# Fixtures of the tests of the module model.
from modelruns import downloads, run_model  # noqa: F401
from ollama_on_disk import OllamaOnDisk
from ollama_server import OllamaServer
from ollamas import asked, on_disk
from switchbox import FLOOR_GIB, NEEDS, Box

from hearth import contract
from hearth.admission import admit, holders
from hearth.download import Request
from hearth.engines import units
from hearth.engines.ollama import make_ready
from hearth.switching import switch, transition

# No database: a run leaves nothing behind. No deadline: a slow machine is not a failure. The same examples in every
# run: who looks for others sets HEARTH_EXAMPLES=search (and says --hypothesis-seed=N).
settings.register_profile("hearth", database=None, deadline=None, print_blob=True, derandomize=True)
settings.register_profile("search", database=None, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HEARTH_EXAMPLES", "hearth"))

MakeEngine = Callable[..., contract.Engine]
MakeState = Callable[..., units.UnitState]
Ready = Callable[..., float]


@pytest.fixture(autouse=True)
def no_proxy_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests talk to this machine only, whatever proxy its user has set."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_docker_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engines of the tests are no containers, and a Docker that knows none of them would be believed."""
    monkeypatch.setattr(holders, "DOCKER_SOCKET", Path("/nonexistent/docker.sock"))


@pytest.fixture(scope="session")
def make_engine() -> MakeEngine:
    def make(name: str = "scout", **fields: Any) -> contract.Engine:
        complete: dict[str, Any] = {
            "name": name,
            "engine": "llama.cpp",
            "unit": f"hearth-engine-{name}.service",
            "container": f"hearth-{name}",
            "image": "registry.example/llama.cpp@sha256:0",
            "model_path": f"/home/spark/ai/models/{name}.gguf",
            "tag": "",
            "port": 8080,
            "served_name": name,
            "lane": "main",
            "start": "demand",
            "pinned": False,
            "memory_gib": 1.0,
            "capabilities": ("chat",),
            "aliases": (),
            "start_timeout_s": 5,
            "stop_timeout_s": 1,
            "load_s": 0.0,
        }
        return contract.Engine(**{**complete, **fields})

    return make


@pytest.fixture(scope="session")
def make_contract() -> Callable[..., contract.Contract]:
    def make(*engines: contract.Engine, key_file: Path | str = "/nonexistent/engine.env") -> contract.Contract:
        return contract.Contract(schema=contract.SCHEMA, key_file=str(key_file), floor_gib=4.0, engines=engines)

    return make


@pytest.fixture(scope="session")
def make_state() -> MakeState:
    def make(engine: contract.Engine, active: str = "inactive", **fields: Any) -> units.UnitState:
        complete: dict[str, Any] = {
            "unit": engine.unit,
            "load": "loaded",
            "active": active,
            "sub": "",
            "enabled": False,
            "result": "success",
            "main_pid": 0,
            "started_us": 0,
            "fragment": "",
            "outdated": False,
        }
        return units.UnitState(**{**complete, **fields})

    return make


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    """An Ollama with an empty store; its registry has qwen3:0.6b, of 0.52 GB, most of it in its first layer."""
    server = OllamaServer()
    server.registry["qwen3:0.6b"] = ("d1", {"weights": 522_000_000, "licence": 11_000})
    yield server
    server.close()


@pytest.fixture
def ollama_folder(tmp_path: Path) -> Path:
    """A store of Ollama: there is none yet."""
    return tmp_path / "models" / "ollama"


@pytest.fixture
def request_(ollama_folder: Path) -> Request:
    """A request for qwen3:0.6b in that store."""
    return asked(ollama_folder)


@pytest.fixture
def disk(
    ollama_folder: Path, starts: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OllamaOnDisk]:
    """The Ollama that is started for that store; until then there is nothing in it."""
    with on_disk(ollama_folder, tmp_path / "elsewhere", monkeypatch, starts) as made:
        yield made


@pytest.fixture
def starts() -> list[Request]:
    """What it was started for, in order."""
    return []


@pytest.fixture
def qwen(make_engine: MakeEngine, ollama: OllamaServer, tmp_path: Path) -> contract.Engine:
    """The engine that Hearth calls qwen, on that Ollama."""
    return make_engine(
        "qwen", engine="ollama", tag="qwen3:0.6b", port=ollama.port, model_path=str(tmp_path), start_timeout_s=30
    )


@pytest.fixture
def ready(qwen: contract.Engine) -> Ready:
    """``hearth ready qwen``."""

    def make(engine: contract.Engine = qwen, pid: int | None = None) -> float:
        return make_ready(engine, pid)

    return make


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is told to end: what a unit has as its main process."""
    with subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


@pytest.fixture
def fake_host(tmp_path: Path) -> admit.Host:
    """A host whose run folder, measurements and memory are the test's. Its 20 GiB stay as they are."""
    clock = FakeClock()
    return admit.Host(
        run=tmp_path / "run",
        measured=tmp_path / "var" / "measured.json",
        units=tmp_path / "units",
        proc=tmp_path / "proc",
        docker_socket=tmp_path / "docker.sock",
        read_memory=FakeMemory(clock).read,
        read_states=lambda _: {},
        clock=clock,
    )


@pytest.fixture
def fake_systemd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_host: admit.Host
) -> Iterator[Callable[..., FakeSystemd]]:
    """Put a FakeSystemd where switch and CLI look for systemd, and the box's lock into the test's folder.

    Callers that name no host and no patience of their own have those of the test.
    """
    real_lock = switch.box_lock
    made: list[FakeSystemd] = []

    def make(*states: units.UnitState) -> FakeSystemd:
        fake = FakeSystemd(*states)
        made.append(fake)
        monkeypatch.setattr(switch, "Systemd", fake)
        monkeypatch.setattr(units, "Systemd", fake)
        monkeypatch.setattr(switch, "box_lock", lambda *_: real_lock(0.0, tmp_path / "run" / "switch.lock"))
        monkeypatch.setitem(switch.switch.__kwdefaults__, "lock_timeout_s", 0.0)
        for function in (switch.switch, switch.foretell):
            monkeypatch.setitem(function.__kwdefaults__, "host", fake_host)
        monkeypatch.setattr(transition, "log_tail", lambda unit, lines=20: (f"last words of {unit}",))
        return fake

    yield make
    for fake in made:
        fake.close()


@pytest.fixture
def box(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_engine: MakeEngine,
    make_state: MakeState,
    make_contract: Callable[..., contract.Contract],
    fake_host: admit.Host,
) -> Iterator[Box]:
    """The box of ``switching``. Whatever a test does, its memory must not run short, nor a start be refused."""
    (tmp_path / "models").mkdir()
    (tmp_path / "proc").mkdir()
    clock = FakeClock()
    memory = FakeMemory(clock)
    engines = []
    with ExitStack() as stack:
        for name, gib in NEEDS.items():
            bound = stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            model = tmp_path / "models" / f"{name}.gguf"
            model.write_bytes(b"GGUF")
            lane = "utility" if name == "embed" else "main"
            port = bound.getsockname()[1]
            engines.append(make_engine(name, memory_gib=gib, model_path=str(model), port=port, lane=lane))
    up = ("old", "embed")
    states = [
        make_state(engine, "active" if engine.name in up else "inactive", enabled=engine.name in up)
        for engine in engines
    ]
    systemd = FakeSystemd(*states, host_memory=memory)
    systemd.keeps_free(FLOOR_GIB)
    for engine in engines:
        systemd.plays(engine)
    host = msgspec.structs.replace(fake_host, read_memory=memory.read, read_states=systemd.read, clock=clock)
    monkeypatch.setattr(switch, "Systemd", systemd)
    monkeypatch.setattr(transition, "log_tail", lambda unit, lines=20: (f"last words of {unit}",))
    made = Box(make_contract(*engines), systemd, host, memory, tmp_path / "models")
    yield made
    systemd.close()
    assert memory.lowest >= FLOOR_GIB
    assert systemd.refused == made.refusals


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port
