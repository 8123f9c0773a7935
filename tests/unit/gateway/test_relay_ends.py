# SPDX-License-Identifier: Apache-2.0
"""However an exchange ends, the client can tell whether its answer is whole, and the engine is not kept at work."""

from __future__ import annotations

import asyncio
import json
from asyncio import StreamWriter

import pytest
from wires import (
    LAST_CHUNK,
    PATIENCE_S,
    STREAM_HEAD,
    Client,
    Question,
    chunk,
    connected,
    listening,
    plain,
    relaying,
    request,
    soon,
)

from hearth.gateway.relay import Target, relay
from hearth.gateway.replies import Refusal
from hearth.gateway.wire import EngineGoneError, Exchange, Limits, Pool

BREAKS = (asyncio.IncompleteReadError, ConnectionResetError)


class Stream:
    """An engine that streams one event and goes on when it is told to; ``then`` are its last bytes."""

    def __init__(self, first: bytes = STREAM_HEAD + chunk(b"data: 1\n\n")) -> None:
        self.first = first
        self.then = b""
        self.go = asyncio.Event()

    async def __call__(self, question: Question, writer: StreamWriter) -> None:
        writer.write(self.first)
        await self.go.wait()
        writer.write(self.then)
        await writer.drain()
        writer.close()


async def _collect(client: Client, events: list[bytes]) -> None:
    """Take in the events of a stream as they come. Raises IncompleteReadError where its end is missing."""
    await client.reader.readuntil(b"\r\n\r\n")
    while size := int(await client.reader.readuntil(b"\r\n"), 16):
        data = await client.reader.readexactly(size + 2)
        events += [event for event in data[:-2].split(b"\n\n") if event]
    await client.reader.readexactly(2)


async def error_at_the_end(client: Client) -> str:
    """The code of the error event that a stream ends with, which must not end as a whole one does."""
    events: list[bytes] = []
    with pytest.raises(BREAKS):
        await _collect(client, events)
    code = json.loads(events[-1].removeprefix(b"data: "))["error"]["code"]
    assert isinstance(code, str)
    return code


# The engine ends


async def test_a_stream_whose_engine_dies_ends_with_an_error_event_and_no_proper_end() -> None:
    stream = Stream()
    async with relaying(stream) as (listener, _, handler), connected(listener) as client:
        client.send(request())
        await soon(handler.asked)
        stream.go.set()
        assert await error_at_the_end(client) == "engine_died"
        await soon(handler.ended)
        assert [result.whole for result in handler.results] == [False]


async def test_an_event_that_broke_off_does_not_swallow_the_error() -> None:
    stream = Stream(STREAM_HEAD + chunk(b'data: {"half'))
    async with relaying(stream) as (listener, _, _), connected(listener) as client:
        client.send(request())
        stream.go.set()
        assert await error_at_the_end(client) == "engine_died"


@pytest.mark.parametrize(
    "first",
    [
        STREAM_HEAD + b"40\r\ndata: hal",
        STREAM_HEAD + b"3\r\nabc\r",
        STREAM_HEAD.replace(b"text/event-stream", b"application/json") + chunk(b'{"a":'),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + b'{"a":',
    ],
    ids=["amid a chunk", "amid a chunk's end", "JSON in chunks", "JSON with a length"],
)
async def test_an_answer_that_takes_no_event_breaks_off(first: bytes) -> None:
    stream = Stream(first)
    async with relaying(stream) as (listener, _, handler), connected(listener) as client:
        client.send(request())
        await client.reader.readuntil(b"\r\n\r\n")
        stream.go.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await soon(handler.ended)
        assert [result.whole for result in handler.results] == [False]


async def test_a_client_of_http_1_0_sees_a_break_and_no_end() -> None:
    stream = Stream(STREAM_HEAD.replace(b"text/event-stream", b"application/json") + chunk(b'{"a":'))
    async with relaying(stream) as (listener, _, _), connected(listener) as client:
        client.send(request(version=b"1.0"))
        await client.reader.readuntil(b"\r\n\r\n")
        stream.go.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
    ids=["nothing", "half a head", "no HTTP", "two lengths", "upgrade", "unknown coding", "status", "huge head"],
)
async def test_an_engine_that_gives_no_answer_is_a_502(first: bytes) -> None:
    stream = Stream(first)
    stream.go.set()
    async with relaying(stream) as (listener, _, _), connected(listener) as client:
        client.send(request("POST", "/", b"question"))
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "engine_gone")


async def test_the_handler_may_ask_elsewhere_when_the_engine_gave_no_answer() -> None:
    pool = Pool()

    async def twice(exchange: Exchange) -> None:
        with pytest.raises(EngineGoneError):
            await relay(pool, exchange, Target(1))
        exchange.respond(200, (), b"elsewhere")

    async with listening(twice) as listener, connected(listener) as client:
        client.send(request())
        assert (await client.answer()).body == b"elsewhere"


# The client ends


@pytest.mark.parametrize("answered", [False, True], ids=["before the answer", "amid the answer"])
@pytest.mark.parametrize("how", ["hangs up", "breaks off"])
async def test_the_engine_is_left_when_its_client(how: str, answered: bool) -> None:
    stream = Stream() if answered else Stream(b"")
    async with relaying(stream) as (listener, engine, handler), connected(listener) as client:
        client.send(request("POST", "/", b"question"))
        await soon(handler.asked)
        if answered:
            await client.reader.readuntil(b"data: 1\n\n")
        else:
            async with asyncio.timeout(PATIENCE_S):
                while not engine.questions:  # noqa: ASYNC110 # the script says nothing yet
                    await asyncio.sleep(0.005)
        if how == "hangs up":
            await client.close()
        else:
            client.break_off()
        await soon(engine.lost)
        await soon(handler.ended)
        assert handler.exchanges[0].gone


async def test_the_engine_is_left_when_its_client_ends_amid_its_question() -> None:
    async with relaying(Stream(b"")) as (listener, engine, handler), connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 100"), b"part")
        await soon(handler.asked)
        await client.close()
        await soon(handler.ended)
        assert engine.questions == []


@pytest.mark.parametrize("rest", [b"zz\r\n", b""], ids=["malformed", "slow"])
async def test_the_engine_is_left_when_the_question_fails(rest: bytes) -> None:
    limits = Limits(body_s=0.3, linger_s=0.3)
    async with relaying(Stream(b""), limits) as (listener, engine, handler), connected(listener) as client:
        client.send(request("POST", "/", None, b"Transfer-Encoding: chunked"), chunk(b"part"), rest)
        answer = await client.answer()
        assert answer.status == (400 if rest else 408)
        await soon(handler.ended)
        assert engine.questions == []


# Somebody else ends it


async def test_a_stream_that_is_cut_ends_with_the_reason() -> None:
    async with relaying(Stream()) as (listener, engine, handler), connected(listener) as client:
        client.send(request())
        await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readuntil(b"data: 1\n\n\r\n")
        handler.exchanges[0].cut(Refusal(503, "drained", "The model was changed."))
        await soon(engine.lost)
        rest = await client.rest()
        assert b'"code":"drained"' in rest
        assert not rest.endswith(LAST_CHUNK)
        await soon(handler.ended)


async def test_a_request_that_is_cut_before_its_answer_is_answered_with_the_reason() -> None:
    async with relaying(Stream(b"")) as (listener, engine, handler), connected(listener) as client:
        client.send(request("POST", "/", b"question"))
        await soon(handler.asked)
        async with asyncio.timeout(PATIENCE_S):
            while not engine.questions:  # noqa: ASYNC110 # the script says nothing
                await asyncio.sleep(0.005)
        handler.exchanges[0].cut(Refusal(503, "drained", "The model was changed."))
        assert (await client.answer()).status == 503
        await soon(engine.lost)


# Streams that were begun while the model loaded


async def test_events_go_on_after_the_comments() -> None:
    async def talk(_: Question, writer: StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b"data: 1\n\n") + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    async with relaying(talk, comment=b": loading\n\n") as (listener, _, handler), connected(listener) as client:
        client.send(request(), request("GET", "/", version=b"1.0"))
        for _ in range(2):
            assert (await client.answer()).body == b": loading\n\ndata: 1\n\ndata: [DONE]\n\n"
        assert [result.whole for result in handler.results] == [True, True]


@pytest.mark.parametrize(
    ("sent", "event"),
    [
        (
            plain(b'{"error": {"message": "too long",\n "code": 7}}', b"400 Bad Request"),
            {"message": "too long", "code": 7},
        ),
        (plain(b"Internal Server Error", b"500 No", b"text/plain"), {"message": "Internal Server Error"}),
        (plain(b'{"detail": "x"}', b"422 No"), {"message": '{"detail": "x"}'}),
        (plain(b"", b"503 No"), {"message": "The engine answered with 503."}),
    ],
)
async def test_an_engines_error_becomes_the_streams_last_event(sent: bytes, event: dict[str, object]) -> None:
    async def refuse(_: Question, writer: StreamWriter) -> None:
        writer.write(sent)

    async with relaying(refuse, comment=b": loading\n\n") as (listener, _, _), connected(listener) as client:
        client.send(request())
        comment, error, done, end = (await client.answer()).body.split(b"\n\n")
        assert (comment, done, end) == (b": loading", b"data: [DONE]", b"")
        found = json.loads(error.removeprefix(b"data: "))["error"]
        assert {name: found[name] for name in event} == event


async def test_an_engine_that_dies_before_its_first_event_is_an_error_event_after_the_comments() -> None:
    stream = Stream(b"")
    stream.go.set()
    async with relaying(stream, comment=b": loading\n\n") as (listener, _, _), connected(listener) as client:
        client.send(request())
        comment, error, done, end = (await client.answer()).body.split(b"\n\n")
        assert (comment, done, end) == (b": loading", b"data: [DONE]", b"")
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] in {"engine_died", "engine_gone"}


async def test_an_engine_that_dies_amid_its_events_is_an_error_event_and_no_proper_end() -> None:
    stream = Stream()
    async with relaying(stream, comment=b": loading\n\n") as (listener, _, handler), connected(listener) as client:
        client.send(request())
        await soon(handler.asked)
        stream.go.set()
        assert await error_at_the_end(client) == "engine_died"
