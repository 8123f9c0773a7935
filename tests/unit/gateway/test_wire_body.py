# SPDX-License-Identifier: Apache-2.0
"""Bodies on their way in: chunks, limits, back-pressure, 100 Continue, and what becomes of those nobody reads."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wires import LAST_CHUNK, QUICK, chunk, connected, listening, request, soon

from hearth.gateway.replies import Refusal
from hearth.gateway.wire import Exchange, Limits
from hearth.gateway.wire.body import ChunkedDecoder

CHUNKED = b"Transfer-Encoding: chunked"


def chunked_head(*fields: bytes) -> bytes:
    return request("POST", "/", None, CHUNKED, *fields)


async def echo(exchange: Exchange) -> None:
    exchange.respond(200, (), await exchange.read())


def error_code(body: bytes) -> str:
    found = json.loads(body)["error"]["code"]
    assert isinstance(found, str)
    return found


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


# Chunks


@given(
    payload=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    trailers=st.sampled_from([b"", b"X-Sum: 5\r\n"]),
    rest=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_chunks_however_they_come_give_the_payload_and_what_follows(
    payload: list[bytes], trailers: bytes, rest: bytes, cuts: list[int]
) -> None:
    sent = b"".join(map(chunk, payload)) + b"0\r\n" + trailers + b"\r\n" + rest
    decoder = ChunkedDecoder()
    found, after = b"", b""
    for piece in cut_up(sent, cuts):
        if decoder.complete:
            after += piece
            continue
        data, more = decoder.feed(piece)
        found += data
        after += more
    assert (decoder.complete, found, after) == (True, b"".join(payload), rest)


class Judge:
    """What llhttp makes of the same bytes."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@given(
    st.lists(
        st.sampled_from([b"0", b"1", b"a", b"5", b"\r\n", b"\n", b"\r", b";x=1", b" ", b"-", b"hello", b"0\r\n\r\n"]),
        max_size=12,
    ).map(b"".join)
)
def test_no_chunks_are_taken_that_llhttp_refuses(sent: bytes) -> None:
    decoder = ChunkedDecoder()
    try:
        found, rest = decoder.feed(sent)
    except Refusal:
        return
    if not decoder.complete:
        return
    judge = Judge()
    httptools.HttpRequestParser(judge).feed_data(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + sent[: len(sent) - len(rest)]
    )
    assert (judge.complete, judge.body) == (True, found)


BAD_CHUNKS = {
    "no size": b"\r\nhello",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size in another notation": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size beyond 60 bits": b"1000000000000000\r\nhello",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a bare line feed after the size": b"5\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk without its line end": b"5\r\nhello0\r\n\r\n",
    "an extension without end": b"5;" + b"x" * 1000,
    "trailers without end": b"0\r\n" + b"X: y\r\n" * 5000,
}


@pytest.mark.parametrize("raw", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_malformed_chunks_are_refused_and_the_connection_closed(raw: bytes) -> None:
    async with listening(echo) as listener, connected(listener) as client:
        client.send(chunked_head() + raw)
        answer = await client.answer()
        assert (answer.status, error_code(answer.body)) == (400, "malformed_request")
        assert await client.rest() == b""


async def test_a_request_may_follow_chunks_in_the_same_breath() -> None:
    async with listening(echo) as listener, connected(listener) as client:
        client.send(chunked_head() + chunk(b"one") + LAST_CHUNK + request("POST", "/", b"two"))
        assert [(await client.answer()).body for _ in range(2)] == [b"one", b"two"]


# Limits


async def test_chunks_beyond_the_limit_are_refused() -> None:
    limits = Limits(max_body_bytes=1000, linger_s=0.4)
    async with listening(echo, limits) as listener, connected(listener) as client:
        client.send(chunked_head() + chunk(b"x" * 600) * 2)
        answer = await client.answer()
        assert (answer.status, error_code(answer.body)) == (413, "body_too_large")
        assert await client.rest() == b""


async def test_a_client_that_sends_too_much_still_reads_why_it_was_refused() -> None:
    async with listening(echo, Limits(max_body_bytes=1000)) as listener, connected(listener) as client:
        client.send(request("POST", "/", b"x" * 5_000_000))
        answer = await client.answer()
        assert (answer.status, error_code(answer.body)) == (413, "body_too_large")


async def test_a_body_that_stops_coming_is_given_up() -> None:
    async with listening(echo, Limits(body_s=0.2, linger_s=0.2)) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 5") + b"hel")
        answer = await client.answer()
        assert (answer.status, error_code(answer.body)) == (408, "slow_body")


async def test_a_body_that_nobody_asks_for_is_not_taken_in() -> None:
    free = asyncio.Event()

    async def busy(exchange: Exchange) -> None:
        await free.wait()
        held = exchange.bytes_in
        body = await exchange.read()
        exchange.respond(200, (), b"%d %d" % (held, len(body)))

    size = 30_000_000
    async with listening(busy, Limits(hold_bytes=100_000)) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: %d" % size))
        sending = asyncio.ensure_future(_send(client.writer, b"x" * size))
        # What is in flight before the client feels it are the sockets' buffers: a few megabytes, not thirty.
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        assert not done
        free.set()
        held, whole = map(int, (await client.answer()).body.split())
        await sending
        assert (whole, held < 1_000_000) == (size, True)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


# 100 Continue


async def test_a_client_that_waits_for_it_is_told_to_go_on() -> None:
    async with listening(echo) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 5", b"Expect: 100-continue"))
        assert (await client.answer()).status == 100
        client.send(b"hello")
        assert (await client.answer()).body == b"hello"


async def test_a_client_that_is_refused_is_not_told_to_go_on() -> None:
    async def refuse(exchange: Exchange) -> None:
        raise Refusal(401, "invalid_api_key", "No.")

    async with listening(refuse, QUICK) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 5", b"Expect: 100-continue"))
        answer = await client.answer()
        assert (answer.status, answer.get(b"connection")) == (401, b"close")


# What is looked at


async def test_what_was_looked_at_is_still_there() -> None:
    async def look(exchange: Exchange) -> None:
        first = await exchange.peek(lambda data, _: data[:4] if len(data) >= 4 else None)
        exchange.respond(200, (), b"%b|%b" % (first, await exchange.read()))

    async with listening(look) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 8") + b"ab")
        client.send(b"cdefgh")
        assert (await client.answer()).body == b"abcd|abcdefgh"


async def test_who_looks_for_what_is_not_there_gets_nothing_at_the_end() -> None:
    async def look(exchange: Exchange) -> None:
        found = await exchange.peek(lambda data, complete: None)
        exchange.respond(200, (), repr(found).encode())

    async with listening(look) as listener, connected(listener) as client:
        client.send(chunked_head() + chunk(b"a"), chunk(b"b"), LAST_CHUNK)
        assert (await client.answer()).body == b"None"


async def test_looking_again_and_again_costs_a_bounded_number_of_looks() -> None:
    looks = 0

    async def look(exchange: Exchange) -> None:
        def decide(data: bytes, complete: bool) -> None:
            nonlocal looks
            looks += 1

        await exchange.peek(decide)
        exchange.respond(200)

    async with listening(look) as listener, connected(listener) as client:
        client.send(chunked_head(), *[chunk(b"x" * 1000) for _ in range(2000)], LAST_CHUNK)
        assert (await client.answer()).status == 200
        assert looks < 20


# Bodies nobody reads


async def test_an_answer_that_comes_before_the_body_ends_the_connection() -> None:
    async def hasty(exchange: Exchange) -> None:
        exchange.respond(200, (), b"done")

    async with listening(hasty, QUICK) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 100") + b"part")
        answer = await client.answer()
        assert (answer.body, answer.get(b"connection")) == (b"done", b"close")
        assert await client.rest() == b""


async def test_a_body_that_has_come_and_is_not_read_leaves_the_connection_open() -> None:
    async def hasty(exchange: Exchange) -> None:
        exchange.respond(200, (), exchange.path.encode())

    async with listening(hasty) as listener, connected(listener) as client:
        client.send(request("POST", "/one", b"body") + request("GET", "/two"))
        assert [(await client.answer()).body for _ in range(2)] == [b"/one", b"/two"]


async def test_the_handler_ends_when_the_client_hangs_up_amid_its_body() -> None:
    ended = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        try:
            await exchange.read()
        finally:
            ended.set()

    async with listening(wait) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 100") + b"part")
        await client.writer.drain()
        await client.close()
        await soon(ended)
