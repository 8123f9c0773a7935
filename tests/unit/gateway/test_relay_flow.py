# SPDX-License-Identifier: Apache-2.0
"""Connections to engines are used again where that is safe, and nobody's slowness fills the memory."""

from __future__ import annotations

import asyncio
import json
from asyncio import StreamWriter

from wires import (
    LAST_CHUNK,
    STREAM_HEAD,
    Question,
    Relay,
    chunk,
    connected,
    engine_of,
    listening,
    plain,
    relaying,
    request,
)

from hearth.gateway.wire import Limits

MEGABYTE = b"x" * 1_000_000


async def echo(question: Question, writer: StreamWriter) -> None:
    writer.write(plain(question.body))


# Connections that are used again


async def test_one_connection_serves_request_after_request() -> None:
    async with relaying(echo) as (listener, engine, _), connected(listener) as client:
        for number in range(20):
            client.send(request("POST", "/", b"%d" % number))
            assert (await client.answer()).body == b"%d" % number
        assert engine.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    both = asyncio.Barrier(2)

    async def meet(question: Question, writer: StreamWriter) -> None:
        await both.wait()
        writer.write(plain(question.body))

    async with relaying(meet) as (listener, engine, _), connected(listener) as first, connected(listener) as second:
        first.send(request("POST", "/", b"one"))
        second.send(request("POST", "/", b"two"))
        assert (await first.answer()).body == b"one"
        assert (await second.answer()).body == b"two"
        assert engine.connections == 2


async def test_a_connection_that_the_engine_closes_is_not_used_again() -> None:
    async def close_after(question: Question, writer: StreamWriter) -> None:
        writer.write(plain(question.body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    async with relaying(close_after) as (listener, engine, _), connected(listener) as client:
        for _ in range(3):
            client.send(request("POST", "/", b"x"))
            assert (await client.answer()).status == 200
        assert engine.connections == 3


async def test_a_request_is_asked_again_when_its_connection_had_been_closed_meanwhile() -> None:
    async def once(question: Question, writer: StreamWriter) -> None:
        # The engine closes this idle connection in the moment in which the next question comes.
        if len(engine.questions) == 2:
            writer.transport.abort()
            return
        writer.write(plain(question.body))

    async with relaying(once) as (listener, engine, handler), connected(listener) as client:
        for body in (b"one", b"two"):
            client.send(request("POST", "/", body))
            assert (await client.answer()).body == body
        assert [question.body for question in engine.questions] == [b"one", b"two", b"two"]
        assert [result.whole for result in handler.results] == [True, True]


async def test_a_request_on_a_fresh_connection_is_not_asked_twice() -> None:
    async def die(question: Question, writer: StreamWriter) -> None:
        writer.transport.abort()

    async with relaying(die) as (listener, engine, _), connected(listener) as client:
        client.send(request("POST", "/", b"one"))
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "engine_gone")
        assert len(engine.questions) == 1


async def test_after_an_answer_that_came_too_early_nothing_is_used_again() -> None:
    async def hasty(reader: asyncio.StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain(b"too long", b"413 Content Too Large"))
        await reader.read()
        ended.set()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_server(hasty, "127.0.0.1", 0)
    handler = Relay(server.sockets[0].getsockname()[1])
    async with listening(handler) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 1000"), b"part")
        answer = await client.answer()
        assert (answer.status, answer.body, answer.get(b"connection")) == (413, b"too long", b"close")
        await asyncio.wait_for(ended.wait(), 20)
    server.close()


# Nobody's slowness fills the memory


async def test_an_engine_waits_for_a_client_that_reads_slowly() -> None:
    poured = 0

    async def pour(_: Question, writer: StreamWriter) -> None:
        nonlocal poured
        writer.write(STREAM_HEAD)
        for _ in range(60):
            writer.write(chunk(MEGABYTE))
            await writer.drain()
            poured += 1
        writer.write(LAST_CHUNK)

    async with relaying(pour) as (listener, _, handler), connected(listener, receive_buffer=10_000) as client:
        client.send(request())
        await client.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        # The sockets' buffers take some megabytes; the gateway's own is a part of one.
        assert poured < 30
        before = poured
        await asyncio.sleep(0.2)
        assert poured == before
        await _read_chunks(client.reader, 60)
        assert [result.whole for result in handler.results] == [True]


async def _read_chunks(reader: asyncio.StreamReader, count: int) -> None:
    for _ in range(count):
        assert int(await reader.readuntil(b"\r\n"), 16) == len(MEGABYTE)
        await reader.readexactly(len(MEGABYTE) + 2)
    assert await reader.readexactly(5) == LAST_CHUNK


async def test_the_next_request_is_served_after_a_slow_read() -> None:
    async def pour(question: Question, writer: StreamWriter) -> None:
        writer.write(plain(MEGABYTE * 8) if b"big" in question.line else plain(b"small"))

    async with relaying(pour) as (listener, engine, _), connected(listener, receive_buffer=10_000) as slow:
        slow.send(request("GET", "/big"))
        await slow.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        assert len(await slow.reader.readexactly(8_000_000)) == 8_000_000
        async with connected(listener) as other:
            other.send(request("GET", "/small"))
            assert (await other.answer()).body == b"small"
        assert engine.connections == 1


async def test_a_client_waits_for_an_engine_that_reads_slowly() -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        await reader.readexactly(size)
        writer.write(plain(b"thanks"))
        await writer.drain()
        writer.close()

    size = 60_000_000
    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    handler = Relay(server.sockets[0].getsockname()[1])
    async with listening(handler, Limits(linger_s=0.4)) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: %d" % size))
        client.send(b"x" * size)
        await asyncio.sleep(0.5)
        assert handler.exchanges[0].bytes_in < 30_000_000
        go.set()
        assert (await client.answer()).body == b"thanks"
        assert handler.exchanges[0].bytes_in == size
    server.close()


async def test_the_end_of_a_client_is_noticed_while_the_engine_reads_nothing() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handler.ended.wait()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1000)
    handler = Relay(server.sockets[0].getsockname()[1])
    async with listening(handler) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 20000000"))
        client.send(b"x" * 12_000_000)
        await asyncio.wait_for(handler.asked.wait(), 20)
        await asyncio.sleep(0.3)
        client.break_off()
        await asyncio.wait_for(handler.ended.wait(), 20)
        assert handler.exchanges[0].gone
    server.close()


async def test_engines_do_not_share_connections() -> None:
    async with engine_of(echo) as one, engine_of(echo) as other:
        handler = Relay(one.port)
        async with listening(handler) as listener, connected(listener) as client:
            for port in (one.port, other.port, one.port):
                handler.port = port
                client.send(request("POST", "/", b"x"))
                assert (await client.answer()).status == 200
        handler.pool.close()
        assert (one.connections, other.connections) == (1, 1)
        assert (len(one.questions), len(other.questions)) == (2, 1)
