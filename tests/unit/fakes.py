# SPDX-License-Identifier: Apache-2.0
"""A box of the tests: a clock, a memory, a systemd, and engines that answer while their units are up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import msgspec

from hearth import contract, errors, memory
from hearth.engines import units

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
# What the scripted engine says to one request: a status, and a body (bytes as they are, anything else as JSON).
Answer = tuple[int, Any]


def said(text: str) -> dict[str, Any]:
    """A chat completion with this text."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


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

    def answers(self) -> None:
        """From now on it has something to say to every question."""
        self.script[CHAT] = [(200, said("Yes."))]
        self.script[EMBEDDINGS] = [(200, {"data": [{"embedding": [0.1, 0.2]}]})]

    def close(self) -> None:
        self.released.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


class FakeClock(memory.Clock):
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.time = 5000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def utc(self) -> str:
        return "2026-11-21T05:00:00Z"


class FakeMemory:
    """A host's memory, in GiB, of which engines take and to which they give back. ``lowest`` is the least there was.

    ``late_s``: how long a driver takes until it gives back what a stopped engine had; ``leaks``: how many GiB it never
    gives back of what the next engine to stop had.
    """

    def __init__(self, clock: FakeClock, total_gib: float = 20.0) -> None:
        self._clock = clock
        self._total_gib = total_gib
        self._held: dict[str, float] = {}
        self._coming: list[tuple[float, float]] = []
        self.lowest = total_gib
        self.late_s = 0.0
        self.leaks = 0.0

    @property
    def available(self) -> float:
        not_yet = sum(gib for at, gib in self._coming if at > self._clock.time)
        return self._total_gib - sum(self._held.values()) - not_yet

    def take(self, holder: str, gib: float) -> None:
        self._held[holder] = gib
        self.lowest = min(self.lowest, self.available)

    def give_back(self, holder: str) -> None:
        gib = self._held.pop(holder, 0.0)
        if not gib:
            return
        self._coming.append((float("inf"), self.leaks))
        self._coming.append((self._clock.time + self.late_s, gib - self.leaks))
        self.leaks = 0.0

    def read(self) -> memory.Memory:
        return memory.Memory(
            total_gib=self._total_gib, available_gib=self.available, free_gib=self.available, cached_gib=0.0
        )


class Killed(BaseException):
    """kill -9 of the process under test: no code of it runs any more, and its lock is free."""


class FakeSystemd:
    """What ``hearth`` asks of systemd, played on a table of states. ``calls`` is the record, in order.

    ``start_ends`` and ``stop_ends`` say, by unit, what state a job leaves behind; ``breaks`` lists calls that raise.
    ``cut`` is a call at which the caller is killed: "before" it, "during" the job, which systemd goes on with, or
    "after" it.
    """

    def __init__(self, *states: units.UnitState, host_memory: FakeMemory | None = None) -> None:
        self.table = {state.unit: state for state in states}
        self.calls: list[tuple[str, str]] = []
        # How long each start was waited for, in seconds.
        self.limits: list[float] = []
        self.start_ends: dict[str, tuple[str, str]] = {}
        self.stop_ends: dict[str, str] = {}
        self.breaks: set[tuple[str, str]] = set()
        self.cut: tuple[tuple[str, str], str] | None = None
        # Units whose start job does not end within the time it is waited for.
        self.hangs: set[str] = set()
        self.hanging = asyncio.Event()
        # Starts that admission, which every unit asks, did not allow.
        self.refused: list[str] = []
        # By unit: what is changed of the answers of the engine that runs there.
        self.scripts: dict[str, dict[str, list[Answer]]] = {}
        self.running: dict[str, ScriptedServer] = {}
        self._memory = host_memory
        self._engines: dict[str, tuple[contract.Engine, str]] = {}
        self._jobs: dict[str, tuple[str, int]] = {}
        self._floor_gib = 0.0

    def plays(self, engine: contract.Engine, *, serves: str = "") -> None:
        """From now on something answers on the engine's port exactly while its unit is up, and takes its memory."""
        self._engines[engine.unit] = (engine, serves or engine.served_name)
        self._follow(engine.unit)

    def keeps_free(self, floor_gib: float) -> None:
        """Admission, which every unit asks, leaves this to the host."""
        self._floor_gib = floor_gib

    def _follow(self, unit: str) -> None:
        if unit in self.running:
            self.running.pop(unit).close()
        if unit not in self._engines:
            return
        engine, name = self._engines[unit]
        if self._memory is not None:
            if self.table[unit].is_alive:
                self._memory.take(unit, engine.memory_gib)
            else:
                self._memory.give_back(unit)
        if self.table[unit].active in ("active", "deactivating"):
            self.running[unit] = ScriptedServer(engine.port)
            self.running[unit].serves(name)
            self.running[unit].answers()
            self.running[unit].script.update(self.scripts.get(unit, {}))

    def close(self) -> None:
        for running in self.running.values():
            running.close()

    def __call__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def _record(self, verb: str, unit: str) -> None:
        self._killed(verb, unit, "before")
        self.calls.append((verb, unit))
        if (verb, unit) in self.breaks:
            raise errors.SystemdError(f"systemd refused {verb}: of the test")

    def _killed(self, verb: str, unit: str, when: str) -> None:
        if self.cut == ((verb, unit), when):
            self.cut = None
            raise Killed

    def set(self, unit: str, **fields: Any) -> None:
        self.table[unit] = msgspec.structs.replace(self.table[unit], **fields)
        if "active" in fields:
            self._follow(unit)

    async def state(self, unit: str) -> units.UnitState:
        return self.read([unit])[unit]

    async def states(self, wanted: list[str]) -> dict[str, units.UnitState]:
        return self.read(wanted)

    def read(self, wanted: list[str]) -> dict[str, units.UnitState]:
        """As systemd says it now. A job that nobody waits for ends once it was looked at three times."""
        found = {unit: self.table[unit] for unit in wanted}
        for unit in self._jobs.keys() & set(wanted):
            ends, looks = self._jobs.pop(unit)
            if looks > 1:
                self._jobs[unit] = (ends, looks - 1)
            else:
                self.set(unit, active=ends)
        return found

    def _fits(self, unit: str) -> bool:
        """What admission, which every unit asks, says to a start."""
        if self._memory is None or unit not in self._engines:
            return True
        return self._memory.available >= self._engines[unit][0].memory_gib + self._floor_gib

    async def start(self, unit: str, timeout_s: float) -> str:
        self._record("start", unit)
        self.limits.append(timeout_s)
        if not self.table[unit].is_alive and not self._fits(unit):
            self.refused.append(unit)
            self.set(unit, active="failed", result="exit-code")
            return "failed"
        if self.table[unit].active != "active":
            self.set(unit, active="activating", started_us=time.time_ns() // 1000)
        self._killed("start", unit, "during")
        if unit in self.hangs:
            self.hanging.set()
            await asyncio.sleep(timeout_s)
            raise errors.SystemdError(f"systemd did not finish StartUnit of {unit}: of the test")
        active, result = self.start_ends.get(unit, ("active", "success"))
        self.set(unit, result=result)
        if self.table[unit].active != active:
            self.set(unit, active=active)
        self._killed("start", unit, "after")
        return "done" if active == "active" else "failed"

    def stops_later(self, unit: str, ends: str = "inactive") -> None:
        """Somebody else asked for a stop, which goes on for a while."""
        self.set(unit, active="deactivating")
        self._jobs[unit] = (ends, 3)

    async def stop(self, unit: str, timeout_s: float) -> str:
        self._record("stop", unit)
        ends = self.stop_ends.get(unit, "inactive")
        if self.cut == (("stop", unit), "during"):
            self.stops_later(unit, ends)
        self._killed("stop", unit, "during")
        self.set(unit, active=ends)
        self._killed("stop", unit, "after")
        return "done"

    async def end_again(self, unit: str) -> None:
        self._record("end again", unit)

    async def forgive(self, unit: str) -> None:
        self._record("forgive", unit)
        if self.table[unit].active == "failed":
            self.set(unit, active="inactive")

    async def reload(self) -> None:
        self.calls.append(("reload", ""))
        self.table = {unit: msgspec.structs.replace(state, outdated=False) for unit, state in self.table.items()}

    async def enable(self, unit: str) -> None:
        self._record("enable", unit)
        self.set(unit, enabled=True)
        self._killed("enable", unit, "after")

    async def disable(self, wanted: list[str]) -> None:
        for unit in wanted:
            self._record("disable", unit)
            self.set(unit, enabled=False)
            self._killed("disable", unit, "after")

    @property
    def up(self) -> list[str]:
        return [unit for unit, state in self.table.items() if state.is_alive]

    @property
    def at_boot(self) -> list[str]:
        return [unit for unit, state in self.table.items() if state.enabled]


@contextlib.contextmanager
def docker(path: Path, status: int, body: bytes = b"{}") -> Iterator[list[str]]:
    """A Docker that answers every question with ``status`` and ``body``; what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "a socket"

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with socketserver.ThreadingUnixStreamServer(os.fspath(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()
