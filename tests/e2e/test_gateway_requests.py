# SPDX-License-Identifier: Apache-2.0
"""Requests that no two programs may read in two ways, and those that are none, on the gateway's real port."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from boxes import Box
from callers import Caller


@pytest.fixture(scope="module")
def caller(box: Box) -> Iterator[Caller]:
    # Tests before these may have left other models, and a gateway that knows them.
    box.write_inventory()
    box.ok("site.yml")
    yield Caller(box.address(), box.out("hearth keys add e2e-requests 2>/dev/null"))
    box.out("hearth keys revoke e2e-requests")


def key_line(caller: Caller) -> bytes:
    return b"Host: x\r\nAuthorization: Bearer %b\r\n" % caller.key.encode()


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
CHAT = b'{"model": "tiny-a", "messages": [], "max_tokens": 1}'


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 49\r\n",
        b"Content-Length: 5, 49\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 49\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 49\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X: a\r\n folded\r\nContent-Length: 49\r\n",
        b"X: a\nContent-Length: 49\r\n",
        b"X: a\0b\r\nContent-Length: 49\r\n",
        b"Content-Length: 49\r\n" + b"X: %b\r\n" % (b"x" * 40_000),
        b"Content-Length: 49\r\n" + b"".join(b"X%d: x\r\n" % number for number in range(200)),
    ],
    ids=[
        "length twice",
        "two lengths",
        "list of lengths",
        "signed length",
        "length and chunked",
        "chunked and length",
        "unknown coding",
        "coding after chunked",
        "chunked twice",
        "space before the colon",
        "folded",
        "bare line feed",
        "NUL",
        "huge head",
        "many fields",
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_heard(
    caller: Caller, fields: bytes
) -> None:
    said = caller.raw(
        b"POST /v1/chat/completions HTTP/1.1\r\n" + key_line(caller) + fields + b"\r\n" + CHAT + b"\r\n" + SMUGGLED
    )

    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), said[:300]
    assert said.count(b"x-request-id:") == 1, said


def test_bad_chunks_are_refused(caller: Caller) -> None:
    said = caller.raw(
        b"POST /v1/chat/completions HTTP/1.1\r\n"
        + key_line(caller)
        + b"Transfer-Encoding: chunked\r\n\r\n5;x=\n\r\nhello\r\nzz\r\n\r\n"
        + SMUGGLED
    )

    assert said.startswith(b"HTTP/1.1 400 "), said[:300]
    assert said.count(b"x-request-id:") == 1


def test_a_head_that_does_not_come_to_its_end_is_answered_and_closed(caller: Caller) -> None:
    said = caller.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost:")

    assert said.startswith(b"HTTP/1.1 408 ")


def test_many_slow_heads_keep_nobody_out(caller: Caller) -> None:
    slow = [caller.connection() for _ in range(200)]
    for connection in slow:
        connection.connect()
        connection.sock.sendall(b"GET / HTTP/1.1\r\n")
    try:
        assert caller.ask("tiny-a").status == 200
    finally:
        for connection in slow:
            connection.close()


def test_whatever_comes_is_answered_or_closed_and_the_next_client_is_served(box: Box, caller: Caller) -> None:
    dice = random.Random(7)  # noqa: S311 - the same bytes each time
    whole = b"POST /v1/chat/completions HTTP/1.1\r\n" + key_line(caller) + b"Content-Length: 53\r\n\r\n" + CHAT
    before = box.out("systemctl show -P MainPID hearth-gateway")
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data))
            data[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        said = caller.raw(bytes(data), quiet_s=0.05)
        assert not said or said.startswith(b"HTTP/1.1 "), said[:200]

    assert caller.ask("tiny-a").status == 200
    assert box.out("systemctl show -P MainPID hearth-gateway") == before
    assert "Traceback" not in box.out("journalctl --no-pager -o cat -u hearth-gateway")
