# SPDX-License-Identifier: Apache-2.0
"""Heads that are alike but for their length are read as any other: what was known before changes nothing."""

from __future__ import annotations

import itertools
import json
from asyncio import StreamWriter
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wires import Question, connected, listening, plain, relaying, request

from hearth.gateway.replies import Refusal
from hearth.gateway.wire import Exchange, Limits
from hearth.gateway.wire.head import Alike, Head, HeadReader, parse

LIMITS = Limits()
HEAD = b"POST /v1/chat?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\nX-Last: 1\r\n\r\n"


def seen(head: Head) -> tuple[object, ...]:
    """All that a head says."""
    said = (head.method, head.target, head.path, head.query, head.http10, head.length, head.keep, head.expects)
    return (*said, list(head.headers), len(head.headers), head.headers.get(b"content-length"))


LENGTHS = st.sampled_from([b"5", b"0", b"007", b"9" * 18, b"9" * 19, b"+5", b"5 ", b" 5", b"", b"5, 5", b"x", b"\xb2"])
FIELDS = st.sampled_from(
    [
        b"X: 1\r\n",
        b"X: 2\r\n",
        b"X: 1\r\nX: 2\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X: a\r\n b\r\n",
        b"Content-Length: 5\r\n",
        b"X: Content-Length: 5\r\n",
        b"",
    ]
)
HEADS = st.builds(
    lambda line, before, name, length, after: (
        line + b"Host: x\r\n" + before + (name + length + b"\r\n" if name else b"") + after + b"\r\n"
    ),
    st.sampled_from([b"POST /a HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"GET /a HTTP/1.0\r\n"]),
    FIELDS,
    st.sampled_from([b"Content-Length: ", b"Content-Length: ", b"content-length:", b"X-Content-Length: ", b""]),
    LENGTHS,
    FIELDS,
)


def outcome(read: Callable[[bytes], Head], raw: bytes) -> object:
    """What a head says, or the code of its refusal."""
    try:
        return seen(read(raw))
    except Refusal as refusal:
        return refusal.code


EXPECTS = HEAD.replace(b"X-Last: 1", b"Expect: 100-continue")
TWICE = HEAD.replace(b"X-Last: 1", b"X: 1\r\nX: 2")


@given(raws=st.lists(HEADS, max_size=8))
@example([EXPECTS % b"5", EXPECTS % b"0", EXPECTS % b"5"])
@example([TWICE % b"5", TWICE % b"6"])
@example([HEAD % b"5", EXPECTS % b"5", HEAD % b"6", TWICE % b"7", HEAD % b"8"])
def test_what_a_connection_knows_of_its_heads_changes_nothing(raws: list[bytes]) -> None:
    reader = HeadReader(LIMITS)
    # Twice each, so that what was just read is known.
    for raw in itertools.chain.from_iterable((raw, raw) for raw in raws):
        assert outcome(reader.read, raw) == outcome(lambda raw: parse(raw, LIMITS), raw)


def test_a_head_that_is_alike_is_known() -> None:
    reader = HeadReader(LIMITS)
    first = reader.read(HEAD % b"5")
    assert (reader.read(HEAD % b"1234") is first, first.length) == (True, 1234)


def test_what_is_made_of_a_head_is_made_once_for_those_that_are_alike() -> None:
    made: list[str] = []

    def make(head: Head) -> str:
        made.append(head.path)
        return head.path

    reader = HeadReader(LIMITS)
    for length in (b"5", b"6", b"7"):
        assert reader.read(HEAD % length).once(make) == "/v1/chat"
    assert reader.read((HEAD % b"5").replace(b"/v1/chat", b"/other")).once(make) == "/other"
    assert made == ["/v1/chat", "/other"]


@pytest.mark.parametrize(
    "other",
    [
        HEAD % b"5a",
        HEAD % b"+5",
        HEAD % b"5\r\nX: 1",
        HEAD % b"5\r\nContent-Length: 6",
        (HEAD % b"5").replace(b"X-Last: 1", b"X-Last: 2"),
        (HEAD % b"5").replace(b"POST", b"PUT"),
        (HEAD % b"5")[:-2],
        b"POST /v1/chat?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: \r\nX-Last: 1\r\n\r\n",
        b"POST /v1/chat?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: X-Last: 1\r\n\r\n",
    ],
)
def test_what_is_not_alike_in_every_byte_is_not_taken_for_it(other: bytes) -> None:
    alike = Alike()
    assert alike.learn(HEAD % b"5")
    assert alike.length_in(HEAD % b"67") == b"67"
    assert alike.length_in(other) == b""


async def test_requests_of_one_connection_have_the_bodies_that_they_say() -> None:
    async def tell(exchange: Exchange) -> None:
        length = exchange.headers.get(b"content-length")
        exchange.respond(200, (), json.dumps([(length or b"").decode(), (await exchange.read()).decode()]).encode())

    async with listening(tell) as listener, connected(listener) as client:
        for size in (5, 0, 12, 100_000, 3):
            client.send(request("POST", "/", b"x" * size))
            assert json.loads((await client.answer()).body) == [str(size), "x" * size]
        client.send(request("POST", "/", b"12345") + request("POST", "/", b"123") + request("POST", "/", b""))
        assert [json.loads((await client.answer()).body)[1] for _ in range(3)] == ["12345", "123", ""]


async def test_a_length_beyond_the_limit_is_refused_on_a_connection_that_is_known_too() -> None:
    async def read(exchange: Exchange) -> None:
        exchange.respond(200, (), await exchange.read())

    async with listening(read, Limits(max_body_bytes=10, linger_s=0.4)) as listener, connected(listener) as client:
        client.send(request("POST", "/", b"12345"))
        assert (await client.answer()).body == b"12345"
        client.send(request("POST", "/", b"12345678901"))
        assert (await client.answer()).status == 413


async def test_answers_of_one_connection_have_the_lengths_that_they_say() -> None:
    async def echo(question: Question, writer: StreamWriter) -> None:
        writer.write(plain(question.body))

    async with relaying(echo) as (listener, engine, _), connected(listener) as client:
        for size in (5, 700, 0, 9_000, 5):
            client.send(request("POST", "/", b"x" * size))
            assert (await client.answer()).body == b"x" * size
        assert engine.connections == 1


async def test_an_answer_without_a_body_is_none_whatever_its_length_said_before() -> None:
    async def answer(question: Question, writer: StreamWriter) -> None:
        head, _, body = plain(b"12345").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" + (b"" if question.line.startswith(b"HEAD") else body))

    async with relaying(answer) as (listener, engine, _), connected(listener) as client:
        for method in ("GET", "HEAD", "GET", "HEAD", "GET"):
            client.send(request(method))
            found = await client.answer(of_head=method == "HEAD")
            assert (found.get(b"content-length"), found.body) == (b"5", b"" if method == "HEAD" else b"12345")
        assert engine.connections == 1


async def test_the_status_and_fields_of_an_answer_are_its_own() -> None:
    heads = [
        b"HTTP/1.1 200 OK\r\nx: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: 1\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nx: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nx: 2\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nx: 2\r\ncontent-length: 2\r\n\r\n",
    ]
    left = iter(heads)

    async def answer(_: Question, writer: StreamWriter) -> None:
        writer.write(next(left) + b"hi")

    async with relaying(answer) as (listener, engine, _), connected(listener) as client:
        found = []
        for _ in heads:
            client.send(request())
            answered = await client.answer()
            assert (answered.body, answered.get(b"connection")) == (b"hi", None)
            found.append((answered.status, answered.get(b"x")))
        assert found == [(200, b"1"), (200, b"1"), (404, b"1"), (404, b"2"), (404, b"2")]
        assert engine.connections == 1
