# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.hold: a change has the gateway drain the engines that stop, and does without where it cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hearth.switching import hold

if TYPE_CHECKING:
    from switchbox import Box

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


class Gateway:
    """A gateway that answers one hold after the other with the lines that the test wants.

    ``events`` is the record: "held", "let go", and what the test adds.
    """

    def __init__(self) -> None:
        self.head = HEAD
        self.lines: list[Any] = [{"in_flight": 0}, {"drained": True, "left": 0}]
        self.events: list[str] = []
        self.asked: list[tuple[str, Any]] = []
        self.let_go = asyncio.Event()
        # Where not set, it answers nothing.
        self.answers = asyncio.Event()
        self.answers.set()
        self.goes_away = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ") for line in head.splitlines()[1:] if line)
        self.asked.append((head.splitlines()[0], json.loads(await reader.readexactly(int(fields["content-length"])))))
        await self.answers.wait()
        self.events.append("held")
        with suppress(ConnectionError):
            await self.answer(reader, writer)
        self.events.append("let go")
        self.let_go.set()
        writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.head.encode())
        for line in self.lines:
            # In two pieces, cut in the middle: a chunk is no line.
            text = json.dumps(line).encode() + b"\n"
            for piece in (text[:5], text[5:]):
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if "chunked" in self.head else piece)
                await writer.drain()
        if not self.goes_away:
            await reader.read()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Listens where the box of ``switching`` has its gateway."""
    made = Gateway()
    (tmp_path / "run").mkdir(exist_ok=True)
    server = await asyncio.start_unix_server(made.serve, tmp_path / "run" / "gateway.sock")
    yield made
    server.close()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "run" / "gateway.sock"


async def test_engines_and_time_are_asked_for_and_let_go_at_the_end_of_the_block(
    gateway: Gateway, socket: Path
) -> None:
    async with hold.held(["old", "small"], 30.0, socket):
        gateway.events.append("stopped and started")
    await asyncio.wait_for(gateway.let_go.wait(), 5)

    assert gateway.asked == [("POST /api/holds HTTP/1.1", {"engines": ["old", "small"], "drain_s": 30.0})]
    assert gateway.events == ["held", "stopped and started", "let go"]


async def test_a_change_that_fails_lets_go(gateway: Gateway, socket: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with hold.held(["old"], 30.0, socket):
            raise ZeroDivisionError

    await asyncio.wait_for(gateway.let_go.wait(), 5)


async def test_a_change_that_is_cancelled_while_it_drains_lets_go(gateway: Gateway, socket: Path) -> None:
    gateway.lines = [{"in_flight": 1}]
    heard = asyncio.Event()

    async def change() -> None:
        async with hold.held(["old"], 30.0, socket, lambda _: heard.set()):
            pass

    task = asyncio.ensure_future(change())
    await asyncio.wait_for(heard.wait(), 5)

    task.cancel()

    await asyncio.wait_for(gateway.let_go.wait(), 5)


async def test_how_many_are_left_is_told_and_how_many_ended_is_given(gateway: Gateway, socket: Path) -> None:
    gateway.lines = [{"in_flight": 3}, {"in_flight": 2}, {"drained": True, "left": 1}]
    told: list[int] = []

    async with hold.held(["old"], 30.0, socket, told.append) as ended:
        assert ended == 2

    assert told == [3, 2]


async def test_an_answer_without_chunks_is_understood_too(gateway: Gateway, socket: Path) -> None:
    gateway.head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    gateway.lines = [{"in_flight": 3}, {"drained": True, "left": 0}]

    async with hold.held(["old"], 30.0, socket) as ended:
        assert ended == 3


async def test_where_nothing_stops_nobody_is_asked(gateway: Gateway, socket: Path) -> None:
    async with hold.held([], 30.0, socket) as ended:
        assert ended == 0

    assert gateway.asked == []


async def test_a_box_without_a_gateway_goes_on_at_once(tmp_path: Path) -> None:
    async with hold.held(["old"], 30.0, tmp_path / "gateway.sock") as ended:
        assert ended == 0


async def test_a_gateway_that_hangs_is_not_waited_for(
    gateway: Gateway, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "_ANSWER_S", 0.05)
    gateway.answers.clear()

    async with hold.held(["old"], 30.0, socket) as ended:
        assert ended == 0
    gateway.answers.set()
    await asyncio.wait_for(gateway.let_go.wait(), 5)


async def test_a_gateway_that_falls_silent_while_it_drains_is_not_waited_for(
    gateway: Gateway, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "_SILENCE_S", 0.05)
    gateway.lines = [{"in_flight": 1}]

    async with hold.held(["old"], 30.0, socket) as ended:
        assert ended == 0


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", []),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", []),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", []),
        (HEAD, ["not what is wanted"]),
        (HEAD, [{"in_flight": 1}]),
        ("HTTP/1.1 200 OK\r\n\r\n", [{"in_flight": 1}]),
    ],
    ids=["unknown engine", "on its way down", "no HTTP", "other lines", "ends in the middle", "ends without chunks"],
)
async def test_a_gateway_that_answers_something_else_is_done_without(
    gateway: Gateway, socket: Path, head: str, lines: list[Any]
) -> None:
    gateway.head, gateway.lines, gateway.goes_away = head, lines, True

    async with hold.held(["old"], 30.0, socket) as ended:
        assert ended == 0


async def test_a_switch_holds_who_stops_from_before_its_stop_until_the_new_one_serves(
    gateway: Gateway, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.lines = [{"in_flight": 2}, {"drained": True, "left": 0}]
    start, stop = box.systemd.start, box.systemd.stop

    async def started(unit: str, timeout_s: float) -> str:
        gateway.events.append("start")
        return await start(unit, timeout_s)

    async def stopped(unit: str, timeout_s: float) -> str:
        gateway.events.append("stop")
        return await stop(unit, timeout_s)

    monkeypatch.setattr(box.systemd, "start", started)
    monkeypatch.setattr(box.systemd, "stop", stopped)

    outcome = await box.run("new", drain_s=5.0)
    await asyncio.wait_for(gateway.let_go.wait(), 5)

    assert gateway.asked == [("POST /api/holds HTTP/1.1", {"engines": ["old"], "drain_s": 5.0})]
    assert gateway.events == ["held", "stop", "start", "let go"]
    assert outcome.drained == 2
    assert [(one.phase, one.words) for one in box.told if one.phase == "draining"] == [
        ("draining", "waiting for requests of old to end: 2 left")
    ]


async def test_who_asks_an_engine_past_the_gateway_is_waited_for_as_well(gateway: Gateway, box: Box) -> None:
    box.systemd.running[box.unit("old")].script["/metrics"] = [
        (200, b"llamacpp:requests_processing 1\n"),
        (200, b"llamacpp:requests_processing 0\n"),
    ]

    outcome = await box.run("new", drain_s=5.0)

    assert outcome.drained == 1


async def test_the_gateways_own_transactions_ask_it_for_nothing(gateway: Gateway, box: Box) -> None:
    await box.run("new", beside=True, demand=True, evict=("old",), boot=False)

    assert box.calls == ["stop old", "start new"]
    assert gateway.asked == []
