# SPDX-License-Identifier: Apache-2.0
"""What is taken for a request and what is refused: request smuggling, oddities, limits, slowness, noise."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wires import QUICK, Client, connected, listening, request

from hearth.gateway.replies import Refusal
from hearth.gateway.wire import Exchange, Limits
from hearth.gateway.wire.head import parse

LIMITS = Limits()


async def echo(exchange: Exchange) -> None:
    """Answers with what it understood."""
    body = await exchange.read()
    fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in exchange.headers]
    seen = {"method": exchange.method, "path": exchange.path, "query": exchange.query, "fields": fields}
    exchange.respond(200, (), json.dumps({**seen, "body": body.decode("latin-1")}).encode())


async def code_of(client: Client) -> tuple[int, str]:
    """The status and the code of an error, after which the connection is closed."""
    answer = await client.answer()
    assert answer.get(b"connection") == b"close"
    assert await client.rest() == b""
    return answer.status, json.loads(answer.body)["error"]["code"]


HOST = b"POST / HTTP/1.1\r\nHost: x\r\n"
MALFORMED = {
    "two lengths that differ": HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two lengths that agree": HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": HOST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": HOST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": HOST + b"Content-Length: -5\r\n\r\nhello",
    "a hexadecimal length": HOST + b"Content-Length: 0x5\r\n\r\nhello",
    "an empty length": HOST + b"Content-Length:\r\n\r\nhello",
    "a length beyond 64 bits": HOST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "a length and chunks": HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two codings": HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked not last": HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown coding": HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding behind a vertical tab": HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": HOST + b"X: a\r\n b\r\n\r\n",
    "a line that begins folded": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a bare line feed after a field": HOST + b"X: a\nY: b\r\n\r\n",
    "bare line feeds only": b"GET / HTTP/1.1\nHost: x\n\n",
    "a bare carriage return": HOST + b"X: a\rY: b\r\n\r\n",
    "a NUL": HOST + b"X: a\0b\r\n\r\n",
    "a control character": HOST + b"X: a\x01b\r\n\r\n",
    "a space before the colon": HOST + b"X : a\r\n\r\n",
    "a field without a colon": HOST + b"X\r\n\r\n",
    "a field without a name": HOST + b": a\r\n\r\n",
    "a name beyond ASCII": HOST + b"X\xff: a\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": HOST + b"Host: y\r\n\r\n",
    "two spaces": b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab for a space": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control character in the path": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path beyond ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path without a slash": b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"GET / RTSP/1.0\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a method in small letters": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "nothing but line ends": b"\r\n\r\n\r\n\r\n",
}
REFUSED = {
    "a method nobody serves": (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unknown_method"),
    "a tunnel": (b"CONNECT a:80 HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unknown_method"),
    "a WebSocket": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400, "no_upgrade"
    ),
    "a coding besides chunked": (HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "unknown_transfer_coding"),
    "a head too large": (HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431, "head_too_large"),
    "a path too large": (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "head_too_large"),
    "a head that does not end": (HOST + b"X: " + b"a" * 40_000, 431, "head_too_large"),
    "too many fields": (HOST + b"X: a\r\n" * 200 + b"\r\n", 431, "too_many_headers"),
    "a body too large": (HOST + b"Content-Length: 104857601\r\n\r\n", 413, "body_too_large"),
}  # fmt: skip


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_requests_are_refused_and_the_connection_closed(raw: bytes) -> None:
    async with listening(echo) as listener, connected(listener) as client:
        client.send(raw + request("GET", "/smuggled"))
        status, code = await code_of(client)
        assert (status, code) in {(400, "malformed_request"), (501, "unknown_transfer_coding")}


@pytest.mark.parametrize(("raw", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_served_is_refused(raw: bytes, status: int, code: str) -> None:
    async with listening(echo) as listener, connected(listener) as client:
        client.send(raw)
        assert await code_of(client) == (status, code)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_a_head_may_come_in_pieces(size: int) -> None:
    raw = request("POST", "/a?b=c", b"body", b"X-One: 1")
    async with listening(echo) as listener, connected(listener) as client:
        for at in range(0, len(raw), size):
            client.send(raw[at : at + size])
            await client.writer.drain()
            await asyncio.sleep(0)
        seen = json.loads((await client.answer()).body)
        assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/a", "b=c", "body")
        assert ["x-one", "1"] in seen["fields"]


async def test_one_empty_line_before_a_request_is_passed_over() -> None:
    async with listening(echo) as listener, connected(listener) as client:
        client.send(b"\r\n" + request("GET", "/a"))
        assert json.loads((await client.answer()).body)["path"] == "/a"


async def test_a_target_with_scheme_and_host_is_taken_for_its_path() -> None:
    async with listening(echo) as listener, connected(listener) as client:
        client.send(request("GET", "http://elsewhere:80/a?b"), request("GET", "http://elsewhere?c"))
        first, second = [json.loads((await client.answer()).body) for _ in range(2)]
        assert (first["path"], first["query"]) == ("/a", "b")
        assert (second["path"], second["query"]) == ("/", "c")


async def test_the_offer_of_http2_is_passed_over() -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAA")
    async with listening(echo) as listener, connected(listener) as client:
        client.send(request("POST", "/a", b"body", *offer))
        assert json.loads((await client.answer()).body)["body"] == "body"


async def test_a_head_that_dribbles_in_is_given_up() -> None:
    async with listening(echo, Limits(head_s=0.2, linger_s=0.2)) as listener, connected(listener) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        assert await code_of(client) == (408, "slow_head")


async def test_a_connection_that_asks_nothing_is_closed_without_a_word() -> None:
    async with listening(echo, Limits(idle_s=0.2)) as listener, connected(listener) as client:
        assert await client.rest() == b""


NAMES = st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"X", b"Upgrade", b"Expect"])
VALUES = st.one_of(
    st.sampled_from([b"5", b"0", b"chunked", b"close", b"gzip", b"h2c", b"websocket", b"100-continue"]),
    st.binary(max_size=12),
)
HEADS = st.builds(
    lambda line, fields, end: line + b"".join(b"%b:%b\r\n" % field for field in fields) + end,
    st.one_of(st.sampled_from([b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST /a HTTP/1.0\r\n"]), st.binary(max_size=30)),
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.sampled_from([b"\r\n", b"\n", b"\r\n\r\n"]),
)


@given(raw=HEADS)
def test_any_head_is_understood_or_refused(raw: bytes) -> None:
    raw = raw.split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    head = None
    with suppress(Refusal):
        head = parse(raw, LIMITS)
    if head is None:
        return
    # What was understood has one framing at most, and nothing in it that could begin another line.
    assert head.headers.count(b"content-length") + head.headers.count(b"transfer-encoding") <= 1
    assert not any(b"\r" in value or b"\n" in value or b"\0" in value for _, value in head.headers)


@given(noise=st.lists(st.one_of(st.binary(max_size=200), HEADS, st.just(b"\r\n")), max_size=6))
async def test_no_noise_stops_the_listener(noise: list[bytes]) -> None:
    async with listening(echo, QUICK) as listener:
        async with connected(listener) as client:
            for piece in noise:
                client.send(piece)
            client.writer.write_eof()
            with suppress(ConnectionResetError):
                await client.rest()
        async with connected(listener) as client:
            client.send(request("GET", "/well"))
            assert (await client.answer()).status == 200


async def test_what_fails_in_a_handler_is_an_error_with_the_id_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(exchange: Exchange) -> None:
        raise ZeroDivisionError

    async with listening(broken) as listener, connected(listener) as client:
        with caplog.at_level(logging.ERROR):
            client.send(request())
            answer = await client.answer()
        found = json.loads(answer.body)
        assert (answer.status, found["error"]["code"]) == (500, "internal_error")
        request_id = answer.get(b"x-request-id")
        assert request_id is not None
        assert found["request_id"] == request_id.decode()
        assert request_id.decode() in caplog.text
