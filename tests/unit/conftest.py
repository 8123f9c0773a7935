# SPDX-License-Identifier: Apache-2.0
"""What several files of tests share: makers of engines and states, a scripted engine, a systemd of the tests."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from hypothesis import settings
from ollama_server import OllamaServer

from hearth import cli, contract, errors, switch, transition, units
from hearth.ollama import make_ready

# No database: a run leaves nothing behind. No deadline: a slow machine is not a failure.
settings.register_profile("hearth", database=None, deadline=None, print_blob=True)
settings.load_profile("hearth")

MakeEngine = Callable[..., contract.Engine]
MakeState = Callable[..., units.UnitState]
Ready = Callable[..., float]
# What the scripted engine says to one request: a status, and a body (bytes as they are, anything else as JSON).
Answer = tuple[int, Any]


@pytest.fixture(autouse=True)
def no_proxy_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests talk to this machine only, whatever proxy its user has set."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


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


class ScriptedServer:
    """An engine of the tests. ``script`` has the answers by path: the last of them stays; a path without one is 404."""

    def __init__(self, port: int = 0) -> None:
        self.script: dict[str, list[Answer]] = {}
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.hangs = threading.Event()
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                server.seen.append((self.command, self.path, dict(self.headers), body))
                if server.hangs.is_set():
                    server.released.wait(10)
                    return
                answers = server.script.get(self.path, [(404, b"")])
                status, said = answers.pop(0) if len(answers) > 1 else answers[0]
                raw = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = answer  # noqa: N815 - names that http.server asks for

            def log_message(self, *args: object) -> None:
                """Says nothing: ``seen`` has it all."""

        self._httpd = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._httpd.server_address[1]
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def serves(self, *names: str) -> None:
        """From now on healthy, with these models."""
        self.script["/health"] = [(200, {"status": "ok"})]
        self.script["/v1/models"] = [(200, {"object": "list", "data": [{"id": name} for name in names]})]

    def close(self) -> None:
        self.released.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


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
def qwen(make_engine: MakeEngine, ollama: OllamaServer, tmp_path: Path) -> contract.Engine:
    """The engine that Hearth calls qwen, on that Ollama."""
    return make_engine(
        "qwen", engine="ollama", tag="qwen3:0.6b", port=ollama.port, model_path=str(tmp_path), start_timeout_s=30
    )


@pytest.fixture
def said() -> list[str]:
    """What ``ready`` wrote into the journal."""
    return []


@pytest.fixture
def ready(qwen: contract.Engine, said: list[str]) -> Ready:
    """``hearth ready qwen``, with more patience for bytes than a test lasts."""

    def make(engine: contract.Engine = qwen, pid: int | None = None, **fields: Any) -> float:
        return make_ready(engine, pid, **{"say": said.append, "stall_s": 60.0, "report_s": 60.0, **fields})

    return make


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is told to end: what a unit has as its main process."""
    with subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


class FakeSystemd:
    """What ``hearth`` asks of systemd, played on a table of states. ``calls`` is the record, in order.

    ``start_ends`` and ``stop_ends`` say, by unit, what state a job leaves behind; ``breaks`` lists calls that raise.
    """

    def __init__(self, *states: units.UnitState) -> None:
        self.table = {state.unit: state for state in states}
        self.calls: list[tuple[str, str]] = []
        # How long each start was waited for, in seconds.
        self.limits: list[float] = []
        self.start_ends: dict[str, tuple[str, str]] = {}
        self.stop_ends: dict[str, str] = {}
        self.breaks: set[tuple[str, str]] = set()
        self._engines: dict[str, tuple[int, str]] = {}
        self._running: dict[str, ScriptedServer] = {}

    def plays(self, engine: contract.Engine, *, serves: str = "") -> None:
        """From now on something answers on the engine's port exactly while its unit is up."""
        self._engines[engine.unit] = (engine.port, serves or engine.served_name)
        self._follow(engine.unit)

    def _follow(self, unit: str) -> None:
        if unit in self._running:
            self._running.pop(unit).close()
        if unit in self._engines and self.table[unit].active in ("active", "deactivating"):
            port, name = self._engines[unit]
            self._running[unit] = ScriptedServer(port)
            self._running[unit].serves(name)

    def close(self) -> None:
        for running in self._running.values():
            running.close()

    def __call__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def _record(self, verb: str, unit: str) -> None:
        self.calls.append((verb, unit))
        if (verb, unit) in self.breaks:
            raise errors.SystemdError(f"systemd refused {verb}: of the test")

    def _set(self, unit: str, **fields: Any) -> None:
        self.table[unit] = msgspec.structs.replace(self.table[unit], **fields)
        if "active" in fields:
            self._follow(unit)

    async def state(self, unit: str) -> units.UnitState:
        return self.table[unit]

    async def states(self, wanted: list[str]) -> dict[str, units.UnitState]:
        return {unit: self.table[unit] for unit in wanted}

    async def start(self, unit: str, timeout_s: float) -> str:
        self._record("start", unit)
        self.limits.append(timeout_s)
        active, result = self.start_ends.get(unit, ("active", "success"))
        self._set(unit, active=active, result=result, started_us=time.time_ns() // 1000)
        return "done" if active == "active" else "failed"

    async def stop(self, unit: str, timeout_s: float) -> str:
        self._record("stop", unit)
        self._set(unit, active=self.stop_ends.get(unit, "inactive"))
        return "done"

    async def reload(self) -> None:
        self.calls.append(("reload", ""))
        self.table = {unit: msgspec.structs.replace(state, outdated=False) for unit, state in self.table.items()}

    async def enable(self, unit: str) -> None:
        self._record("enable", unit)
        self._set(unit, enabled=True)

    async def disable(self, wanted: list[str]) -> None:
        for unit in wanted:
            self._record("disable", unit)
            self._set(unit, enabled=False)

    @property
    def up(self) -> list[str]:
        return [unit for unit, state in self.table.items() if state.is_alive]

    @property
    def at_boot(self) -> list[str]:
        return [unit for unit, state in self.table.items() if state.enabled]


@pytest.fixture
def fake_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., FakeSystemd]]:
    """Put a FakeSystemd where switch and CLI look for systemd, and the box's lock into the test's folder."""
    real_lock = switch.box_lock
    made: list[FakeSystemd] = []

    def make(*states: units.UnitState) -> FakeSystemd:
        fake = FakeSystemd(*states)
        made.append(fake)
        monkeypatch.setattr(switch, "Systemd", fake)
        monkeypatch.setattr(cli, "Systemd", fake)
        monkeypatch.setattr(switch, "box_lock", lambda _: real_lock(0.0, tmp_path / "run" / "switch.lock"))
        monkeypatch.setattr(transition, "log_tail", lambda unit: (f"last words of {unit}",))
        return fake

    yield make
    for fake in made:
        fake.close()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port
