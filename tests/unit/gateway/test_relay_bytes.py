# SPDX-License-Identifier: Apache-2.0
"""What goes through the gateway comes out as it was: heads, bodies, streams, characters."""

from __future__ import annotations

import asyncio
from asyncio import StreamWriter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wires import LAST_CHUNK, STREAM_HEAD, Question, chunk, connected, engine_of, listening, plain, relaying, request

from hearth.gateway.relay import Target, Usage, relay, usage_in
from hearth.gateway.wire import Exchange, Pool

CHUNKED = b"Transfer-Encoding: chunked"


async def echo(question: Question, writer: StreamWriter) -> None:
    writer.write(plain(question.body))


# The question


async def test_a_body_arrives_as_it_was_sent() -> None:
    body = bytes(range(256)) * 10
    async with relaying(echo) as (listener, engine, _), connected(listener) as client:
        client.send(request("POST", "/v1/audio/transcriptions?x=%2F", body, b"Content-Type: multipart/form-data"))
        assert (await client.answer()).body == body
        question = engine.questions[0]
        assert question.line == b"POST /v1/audio/transcriptions?x=%2F HTTP/1.1"
        assert question.body == body
        assert question.fields[b"content-type"] == b"multipart/form-data"


@pytest.mark.parametrize("size", [8_000_000, 60_000_000])
async def test_a_big_body_arrives_whole(size: int) -> None:
    async with relaying(echo) as (listener, engine, _), connected(listener) as client:
        body = b"0123456789abcdef" * (size // 16)
        client.send(request("POST", "/", body))
        assert (await client.answer()).body == body
        assert engine.questions[0].body == body


async def test_chunks_arrive_as_one_body() -> None:
    async with relaying(echo) as (listener, _, _), connected(listener) as client:
        client.send(request("POST", "/", None, CHUNKED), chunk(b"hel"))
        client.send(chunk(b"lo"), LAST_CHUNK)
        assert (await client.answer()).body == b"hello"


async def test_chunks_that_came_already_go_on_with_their_length() -> None:
    async with engine_of(echo) as engine:
        pool = Pool()

        async def read_first(exchange: Exchange) -> None:
            await exchange.read()
            await relay(pool, exchange, Target(engine.port))

        async with listening(read_first) as listener, connected(listener) as client:
            client.send(request("POST", "/", None, CHUNKED), chunk(b"hel"), chunk(b"lo"), LAST_CHUNK)
            assert (await client.answer()).body == b"hello"
            assert engine.questions[0].fields[b"content-length"] == b"5"
        pool.close()


async def test_the_engine_sees_neither_the_clients_key_nor_its_connection() -> None:
    async with engine_of(echo) as engine:
        pool = Pool()

        async def handler(exchange: Exchange) -> None:
            await relay(pool, exchange, Target(engine.port, add=((b"authorization", b"Bearer engine"),), path=b"/v1/x"))

        async with listening(handler) as listener, connected(listener) as client:
            keys = (b"Authorization: Bearer client", b"X-Api-Key: client", b"api-key: client")
            own = (b"Connection: X-Hop, close", b"X-Hop: 1", b"Keep-Alive: 5", b"TE: trailers", b"X-Request-Id: mine")
            client.send(request("POST", "/v1/m/x", b"", *keys, *own, b"X-Other: 2", b"Accept-Encoding: gzip"))
            answer = await client.answer()
            question = engine.questions[0]
            assert question.line == b"POST /v1/x HTTP/1.1"
            assert question.fields == {
                b"host": b"127.0.0.1:%d" % engine.port,
                b"x-request-id": answer.get(b"x-request-id"),
                b"x-other": b"2",
                b"accept-encoding": b"gzip",
                b"authorization": b"Bearer engine",
                b"content-length": b"0",
            }
        pool.close()


async def test_the_body_goes_on_before_all_of_it_has_come() -> None:
    began = asyncio.Event()

    async with engine_of(echo) as engine:
        pool = Pool()

        async def early(exchange: Exchange) -> None:
            await exchange.peek(lambda data, _: True if b"model" in data else None)
            began.set()
            await relay(pool, exchange, Target(engine.port))

        async with listening(early) as listener, connected(listener) as client:
            client.send(request("POST", "/", None, b"Content-Length: 10"), b"model")
            await began.wait()
            client.send(b"12345")
            assert (await client.answer()).body == b"model12345"
        pool.close()


# The answer


async def test_an_answers_head_goes_on_but_for_what_belongs_to_the_connection() -> None:
    async def answer_with_fields(_: Question, writer: StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 418 I'm a teapot\r\nServer: engine\r\nKeep-Alive: timeout=5, max=100\r\nSet-Cookie: a\r\n"
            b"Set-Cookie: b\r\nX-Request-Id: theirs\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
        )

    async with relaying(answer_with_fields) as (listener, _, handler), connected(listener) as client:
        client.send(request())
        answer = await client.answer()
        assert (answer.status, answer.body) == (418, b"hi")
        request_id = handler.exchanges[0].id.encode()
        assert sorted(answer.fields) == [
            (b"content-length", b"2"),
            (b"server", b"engine"),
            (b"set-cookie", b"a"),
            (b"set-cookie", b"b"),
            (b"x-request-id", request_id),
        ]


async def test_events_come_out_one_by_one_as_they_go_in() -> None:
    step = asyncio.Event()

    async def talk(_: Question, writer: StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for number in range(3):
            writer.write(chunk(b"data: %d\n\n" % number))
            await step.wait()
            step.clear()
        writer.write(LAST_CHUNK)

    async with relaying(talk) as (listener, _, _), connected(listener) as client:
        client.send(request())
        assert b"text/event-stream" in await client.reader.readuntil(b"\r\n\r\n")
        for number in range(3):
            event = chunk(b"data: %d\n\n" % number)
            assert await client.reader.readexactly(len(event)) == event
            step.set()
        assert await client.reader.readexactly(5) == LAST_CHUNK


@given(
    payload=st.lists(st.binary(min_size=1, max_size=60) | st.text(min_size=1).map(str.encode), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    old=st.booleans(),
)
async def test_a_stream_comes_out_the_same_however_it_is_cut_up(
    payload: list[bytes], cuts: list[int], old: bool
) -> None:
    sent = STREAM_HEAD + b"".join(map(chunk, payload)) + LAST_CHUNK
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]

    async def dribble(_: Question, writer: StreamWriter) -> None:
        for begin, end in pairwise(edges):
            writer.write(sent[begin:end])
            await writer.drain()
            await asyncio.sleep(0)

    async with relaying(dribble) as (listener, _, handler), connected(listener) as client:
        client.send(request(version=b"1.0" if old else b"1.1"))
        assert (await client.answer()).body == b"".join(payload)
        assert handler.results[0].whole


async def test_a_character_that_is_cut_in_two_comes_out_whole() -> None:
    word = "grüße".encode()

    async def split(_: Question, writer: StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(word[:3]))
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(chunk(word[3:]) + LAST_CHUNK)

    async with relaying(split) as (listener, _, _), connected(listener) as client:
        client.send(request())
        assert (await client.answer()).body.decode() == "grüße"


async def test_an_answer_that_ends_with_its_connection_goes_in_chunks() -> None:
    async def until_close(_: Question, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async with relaying(until_close) as (listener, _, handler), connected(listener) as client:
        client.send(request(), request("GET", "/", version=b"1.0"))
        answer = await client.answer()
        assert (answer.get(b"transfer-encoding"), answer.body) == (b"chunked", b"all of it")
        assert (await client.answer()).body == b"all of it"
        assert [result.whole for result in handler.results] == [True, True]


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_leaves_both_connections_open(method: str, sent: bytes) -> None:
    async def bare(_: Question, writer: StreamWriter) -> None:
        writer.write(sent)

    async with relaying(bare) as (listener, engine, handler), connected(listener) as client:
        for _ in range(2):
            client.send(request(method))
            answer = await client.answer(of_head=method == "HEAD")
            assert answer.body == b""
        assert engine.connections == 1
        assert [result.whole for result in handler.results] == [True, True]


async def test_bytes_beyond_an_answers_length_reach_nobody() -> None:
    async def too_much(_: Question, writer: StreamWriter) -> None:
        writer.write(plain(b"mine") + plain(b"somebody else's"))

    async with relaying(too_much) as (listener, engine, _), connected(listener) as client:
        client.send(request(), request())
        assert [(await client.answer()).body for _ in range(2)] == [b"mine", b"mine"]
        assert engine.connections == 2


async def test_bytes_beyond_a_streams_end_break_it() -> None:
    async def too_much(_: Question, writer: StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b"data: 1\n\n"))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(LAST_CHUNK + plain(b"somebody else's"))

    async with relaying(too_much) as (listener, _, handler), connected(listener) as client:
        client.send(request())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()
        assert handler.exchanges[0].keep is False


# What is counted


async def test_bytes_and_tokens_are_counted() -> None:
    async def talk(_: Question, writer: StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b"data: x\n\n"))
        await writer.drain()
        usage = b'{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3,"prompt_tokens_details":null}'
        writer.write(chunk(b'data: {"choices":[],"usage":%b}\n\n' % usage) + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    async with relaying(talk) as (listener, _, handler), connected(listener) as client:
        client.send(request("POST", "/", b"12345"))
        await client.answer()
        assert handler.results[0].usage == Usage(7, 3)
        assert handler.results[0].status == 200
        assert handler.results[0].first_byte_s > 0
        assert handler.exchanges[0].bytes_in == 5
        assert handler.exchanges[0].bytes_out > 100


@pytest.mark.parametrize(
    ("tail", "usage"),
    [
        (b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}', Usage(1, 2)),
        (b'{"data":[],"usage": {"prompt_tokens": 9, "total_tokens": 9}}', Usage(9, 0)),
        (b'{"usage":{"input_tokens":3,"output_tokens":4}}', Usage(3, 4)),
        (b'{"usage":null}', None),
        (b"data: [DONE]\n\n", None),
        (b"", None),
    ],
)
def test_the_usage_is_found_where_the_engine_reports_it(tail: bytes, usage: Usage | None) -> None:
    assert usage_in(tail) == usage
