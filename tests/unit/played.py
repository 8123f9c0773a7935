# SPDX-License-Identifier: Apache-2.0
"""Engines of a gateway's tests, and the box that starts and stops them: in this process, as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import wires
from wires import LAST_CHUNK, STREAM_HEAD, Question, chunk, plain

from hearth import contract
from hearth.engines.units import UnitState
from hearth.gateway.scheduler.events import FailureKind, Loaded, LoadFailed
from hearth.gateway.scheduler.spec import Phase

TOTAL_GIB, FLOOR_GIB = 20.0, 4.0
_ACTIVE: Mapping[Phase, str] = {
    "stopped": "inactive",
    "starting": "activating",
    "ready": "active",
    "stopping": "deactivating",
    "failed": "failed",
}
EVENT_END = b"\n\n"


def said(word: str) -> bytes:
    """One event of an engine's stream."""
    return b"data: %b\n\n" % msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": word}}]})


DONE = b"data: [DONE]"


class Played(wires.Engine):
    """An engine: up or not, with what happened to it.

    ``may_load`` keeps a load from ending. ``failures`` are what its next loads end with. A body with ``until`` in it is
    answered as far as its first word, and then when the gate of that name is opened.
    """

    def __init__(self, name: str, need_gib: float) -> None:
        super().__init__(self._obey)
        self.name = name
        self.need_gib = need_gib
        self.phase: Phase = "stopped"
        self.load_s = 0.0
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.failures: list[tuple[FailureKind, str, str]] = []
        self.starts = self.stops = self.cancels = 0
        self.at_work = 0
        # Requests that came while it was not ready, and those that were under way when it was stopped.
        self.strays = self.interrupted = 0
        self.reply: wires.Script = self.talk
        self.gates: dict[str, asyncio.Event] = {}
        self.asked = asyncio.Event()

    def gate(self, name: str) -> asyncio.Event:
        """What an answer waits for."""
        return self.gates.setdefault(name, asyncio.Event())

    async def _obey(self, question: Question, writer: asyncio.StreamWriter) -> None:
        if self.phase != "ready":
            self.strays += 1
            writer.transport.abort()
            return
        self.at_work += 1
        self.asked.set()
        try:
            await self.reply(question, writer)
        finally:
            self.at_work -= 1

    async def talk(self, question: Question, writer: asyncio.StreamWriter) -> None:
        """Answer as an engine does: an object, or a stream of events."""
        if b"/metrics" in question.line:
            writer.write(plain(b"# TYPE tokens counter\ntokens 3\n", kind=b"text/plain") + b"")
            writer.close()
            return
        try:
            asked = json.loads(question.body or b"{}")
        except ValueError:
            asked = {}
        until = self.gate(asked["until"]) if "until" in asked else None
        if not asked.get("stream"):
            if until:
                await until.wait()
            writer.write(plain(msgspec.json.encode({"model": self.name, "length": len(question.body)})))
            return
        writer.write(STREAM_HEAD + chunk(said("one")))
        if until:
            await until.wait()
        for _ in range(asked.get("words", 1)):
            writer.write(chunk(said("more")))
            await writer.drain()
            await asyncio.sleep(asked.get("pace_s", 0))
        writer.write(chunk(DONE + EVENT_END) + LAST_CHUNK)

    def drop(self) -> None:
        """Every connection breaks, as when a process is killed."""
        for writer in self._writers:
            writer.transport.abort()


class Box:
    """The hands of the gateway, and the systemd that it watches: engines start, stop and fail as the test says."""

    def __init__(self, engines: Mapping[str, Played], meminfo: Path) -> None:
        self.engines = engines
        self.contract: contract.Contract | None = None
        self.calls: list[str] = []
        self.lowest_gib = TOTAL_GIB
        self.busy = 0
        self._meminfo = meminfo
        self._changed: Callable[[UnitState], None] = lambda _: None
        self._unwanted: dict[str, asyncio.Event] = {}
        self.at_once = 0
        self.most_at_once = 0
        self._write()

    # As hearth.gateway.box.Box

    async def begin(self, engine: str, evict: tuple[str, ...]) -> Loaded | LoadFailed:
        self._enter(f"start {engine}" + (f" for {' '.join(evict)}" if evict else ""))
        assert self.contract is not None
        assert self.contract.find(engine).port == self.engines[engine].port
        self._unwanted[engine] = asyncio.Event()
        try:
            if self.busy:
                self.busy -= 1
                return LoadFailed(engine, "busy", "a switch is under way")
            for name in evict:
                await self._stop(name)
            return await self._load(self.engines[engine])
        finally:
            self.at_once -= 1

    async def cancel(self, engine: str) -> None:
        self.calls.append(f"cancel {engine}")
        self.engines[engine].cancels += 1
        self._unwanted[engine].set()

    async def stop(self, engine: str) -> None:
        self._enter(f"stop {engine}")
        try:
            await self._stop(engine)
        finally:
            self.at_once -= 1

    async def phases(self, engines: Iterable[str]) -> Mapping[str, Phase]:
        assert self.contract is not None
        return {self.contract.find(name).name: self.engines[name].phase for name in engines}

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)

    async def _load(self, one: Played) -> Loaded | LoadFailed:
        one.starts += 1
        unwanted = self._unwanted[one.name]
        self.becomes(one.name, "starting")
        waits = [asyncio.ensure_future(event.wait()) for event in (one.may_load, unwanted)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if unwanted.is_set():
            self.becomes(one.name, "stopped")
            return LoadFailed(one.name, "cancelled", "nobody waits for it any more")
        if one.failures:
            kind, reason, log = one.failures.pop(0)
            self.becomes(one.name, "failed")
            return LoadFailed(one.name, kind, reason, log)
        if one.phase == "starting":
            self.becomes(one.name, "ready")
        return Loaded(one.name, one.load_s)

    async def _stop(self, name: str) -> None:
        one = self.engines[name]
        if one.phase == "stopped":
            return
        one.stops += 1
        self.becomes(name, "stopping")
        # That a client has been cut off takes a moment to get there.
        for _ in range(20):
            if not one.at_work:
                break
            await asyncio.sleep(0.002)
        one.interrupted += one.at_work
        one.drop()
        self.becomes(name, "stopped")

    # As hearth.engines.watch.Watch

    def watch(self, units: Iterable[str], changed: Callable[[UnitState], None]) -> Box:
        self._changed = changed
        return self

    async def start(self) -> None:
        for one in self.engines.values():
            self.becomes(one.name, one.phase)

    async def units(self, units: Iterable[str]) -> None:
        await self.start()

    async def close(self) -> None:
        self._changed = lambda _: None

    # For tests

    def becomes(self, name: str, phase: Phase) -> None:
        """An engine's unit changes, and the gateway hears of it."""
        self.engines[name].phase = phase
        self._write()
        self._changed(
            UnitState(
                unit=f"hearth-engine-{name}.service",
                load="loaded",
                active=_ACTIVE[phase],
                sub="",
                enabled=False,
                result="success",
                main_pid=0,
                started_us=0,
                fragment="",
                outdated=False,
            )
        )

    def crash(self, name: str) -> None:
        """An engine that was up ends by itself, in the middle of whatever it did."""
        self.engines[name].drop()
        self.becomes(name, "failed")

    def _write(self) -> None:
        held = sum(one.need_gib for one in self.engines.values() if one.phase not in {"stopped", "failed"})
        available = TOTAL_GIB - held
        self.lowest_gib = min(self.lowest_gib, available)
        kib = round(available * 2**20)
        self._meminfo.write_text(
            f"MemTotal: {round(TOTAL_GIB * 2**20)} kB\nMemFree: {kib} kB\nMemAvailable: {kib} kB\nCached: 0 kB\n",
            encoding="ascii",
        )
