# SPDX-License-Identifier: Apache-2.0
"""Keep-alive, pipelining, answers of the gateway's own, clients that leave, and the end of the listener."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest
from wires import PATIENCE_S, QUICK, Client, connected, listening, request, soon

from hearth.gateway.replies import Refusal
from hearth.gateway.wire import Exchange, Limits, serve

EVENTS = [(b"content-type", b"text/event-stream")]


async def path(exchange: Exchange) -> None:
    exchange.respond(200, (), exchange.path.encode())


class Waits:
    """A handler that waits, and says what became of it."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.free = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.exchanges: list[Exchange] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.waiting.set()
        try:
            await self.free.wait()
            exchange.respond(200, (), exchange.path.encode())
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


# From request to request


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with listening(path) as listener, connected(listener) as client:
        for target in ("/one", "/two", "/three"):
            client.send(request("GET", target))
            assert (await client.answer()).body == target.encode()
        assert listener.connections == 1


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    async with listening(path) as listener, connected(listener) as client:
        client.send(b"".join(request("GET", f"/{number}") for number in range(500)))
        assert [(await client.answer()).body for _ in range(500)] == [b"/%d" % number for number in range(500)]


async def test_a_request_sent_ahead_waits_for_the_answer_before_it() -> None:
    waits = Waits()
    async with listening(waits) as listener, connected(listener) as client:
        client.send(request("GET", "/one") + request("GET", "/two"))
        await soon(waits.waiting)
        assert [exchange.path for exchange in waits.exchanges] == ["/one"]
        waits.free.set()
        assert [(await client.answer()).body for _ in range(2)] == [b"/one", b"/two"]


async def test_who_sends_too_much_ahead_gets_one_answer_and_has_to_come_again() -> None:
    waits = Waits()
    async with listening(waits, Limits(ahead_bytes=1000)) as listener, connected(listener) as client:
        client.send(request("GET", "/one"))
        await soon(waits.waiting)
        client.send(request("GET", "/two") * 100)
        await client.writer.drain()
        async with asyncio.timeout(PATIENCE_S):
            while waits.exchanges[0].keep:  # noqa: ASYNC110 # nobody tells when bytes have come in
                await asyncio.sleep(0.01)
        waits.free.set()
        answer = await client.answer()
        assert (answer.body, answer.get(b"connection")) == (b"/one", b"close")
        assert await client.rest() == b""


async def test_the_connection_is_closed_where_the_client_wants_it() -> None:
    async with listening(path) as listener, connected(listener) as client:
        client.send(request("GET", "/", None, b"Connection: close") + request("GET", "/ahead"))
        answer = await client.answer()
        assert answer.get(b"connection") == b"close"
        assert await client.rest() == b""


async def test_a_client_of_http_1_0_gets_its_answer_and_the_end() -> None:
    async with listening(path) as listener, connected(listener) as client:
        client.send(request("GET", "/old", version=b"1.0"))
        answer = await client.answer()
        assert (answer.body, answer.get(b"connection")) == (b"/old", b"close")
        assert await client.rest() == b""


async def test_every_answer_has_an_id_of_its_own() -> None:
    async with listening(path) as listener, connected(listener) as client:
        client.send(request(), request())
        ids = [(await client.answer()).get(b"x-request-id") for _ in range(2)]
        assert ids[0] != ids[1]
        assert all(one is not None and one.startswith(b"req_") and len(one) == 30 for one in ids)


# Answers


async def test_head_is_answered_with_the_length_and_no_body() -> None:
    async with listening(path) as listener, connected(listener) as client:
        client.send(request("HEAD", "/four"), request("GET", "/next"))
        answer = await client.answer(of_head=True)
        assert answer.get(b"content-length") == b"5"
        assert (await client.answer()).body == b"/next"


async def test_an_answer_of_unknown_length_goes_in_chunks() -> None:
    async def count(exchange: Exchange) -> None:
        exchange.start(200, EVENTS)
        for number in range(3):
            exchange.write(b"data: %d\n\n" % number)
            await exchange.drain()
        exchange.end()

    async with listening(count) as listener, connected(listener) as client:
        client.send(request(), request("GET", "/", version=b"1.0"))
        assert (await client.answer()).body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        old = await client.answer()
        assert (old.get(b"transfer-encoding"), old.body) == (None, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")


async def test_a_refusal_is_an_error_as_openai_shapes_it() -> None:
    async def refuse(exchange: Exchange) -> None:
        raise Refusal(503, "load_failed", "It did not load.", param="model", retry_after_s=4.2, log=("last words",))

    async with listening(refuse) as listener, connected(listener) as client:
        client.send(request())
        answer = await client.answer()
        request_id = answer.get(b"x-request-id")
        assert request_id is not None
        assert (answer.status, answer.get(b"retry-after")) == (503, b"5")
        assert answer.get(b"content-type") == b"application/json"
        assert json.loads(answer.body) == {
            "error": {
                "message": "It did not load.",
                "type": "server_error",
                "param": "model",
                "code": "load_failed",
                "log": ["last words"],
                "retry_after_s": 5,
            },
            "request_id": request_id.decode(),
        }


async def test_a_refusal_in_a_stream_is_its_last_event_and_a_whole_end() -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.start(200, EVENTS)
        exchange.write(b": loading\n\n")
        raise Refusal(503, "load_failed", "It did not load.")

    async with listening(refuse) as listener, connected(listener) as client:
        client.send(request(), request())
        for _ in range(2):
            comment, event, done, end = (await client.answer()).body.split(b"\n\n")
            assert (comment, done, end) == (b": loading", b"data: [DONE]", b"")
            assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "load_failed"


async def test_a_refusal_amid_another_answer_breaks_the_connection() -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"application/json")])
        exchange.write(b'{"half":')
        raise Refusal(503, "load_failed", "It did not load.")

    async with listening(refuse) as listener, connected(listener) as client:
        client.send(request())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()


async def test_a_handler_that_answers_nothing_is_an_error() -> None:
    async def silent(exchange: Exchange) -> None:
        pass

    async with listening(silent) as listener, connected(listener) as client:
        client.send(request())
        assert (await client.answer()).status == 500


async def test_a_field_of_an_answer_cannot_begin_another() -> None:
    async def injected(exchange: Exchange) -> None:
        exchange.respond(200, [(b"x-model", b"a\r\nset-cookie: b")])

    async with listening(injected) as listener, connected(listener) as client:
        client.send(request())
        answer = await client.answer()
        assert (answer.status, answer.get(b"set-cookie")) == (500, None)


async def test_who_waits_to_write_waits_while_the_client_does_not_read() -> None:
    sent = 0
    whole = asyncio.Event()

    async def pour(exchange: Exchange) -> None:
        nonlocal sent
        exchange.start(200)
        for _ in range(300):
            exchange.write(b"x" * 100_000)
            sent += 100_000
            await exchange.drain()
        whole.set()
        exchange.end()

    async with listening(pour) as listener, connected(listener, receive_buffer=10_000) as client:
        client.send(request())
        await asyncio.sleep(0.3)
        assert sent < 20_000_000
        assert not whole.is_set()
        assert len((await client.answer()).body) == 30_000_000


# Clients that leave


async def test_the_handler_is_cancelled_when_the_client_hangs_up() -> None:
    waits = Waits()
    async with listening(waits) as listener, connected(listener) as client:
        client.send(request())
        await soon(waits.waiting)
        await client.close()
        await soon(waits.cancelled)
        assert waits.exchanges[0].gone


async def test_the_handler_is_cancelled_when_the_client_breaks_off() -> None:
    waits = Waits()
    async with listening(waits) as listener, connected(listener) as client:
        client.send(request("POST", "/", b"x" * 1000))
        await soon(waits.waiting)
        client.break_off()
        await soon(waits.cancelled)


async def test_a_client_that_hangs_up_is_noticed_while_its_body_is_not_read() -> None:
    waits = Waits()
    async with listening(waits, Limits(hold_bytes=10)) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 50000000"), b"x" * 1000)
        await _until_held(waits)
        client.send(b"x" * 1000)
        await client.close()
        await soon(waits.cancelled)


async def test_a_client_that_breaks_off_is_noticed_while_its_body_is_not_read() -> None:
    waits = Waits()
    async with listening(waits, Limits(hold_bytes=10)) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, b"Content-Length: 50000000"), b"x" * 30_000_000)
        await _until_held(waits)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 0.3)
        client.break_off()
        await soon(waits.cancelled)


async def _until_held(waits: Waits) -> None:
    """Until the gateway reads no more, so that the end cannot come by reading."""
    await soon(waits.waiting)
    async with asyncio.timeout(PATIENCE_S):
        while not waits.exchanges[0].bytes_in:  # noqa: ASYNC110 # nobody tells when bytes have come in
            await asyncio.sleep(0.01)


async def test_a_client_that_takes_nothing_of_its_answer_is_given_up() -> None:
    ended = asyncio.Event()

    async def pour(exchange: Exchange) -> None:
        try:
            exchange.start(200)
            for _ in range(1000):
                exchange.write(b"x" * 100_000)
                await exchange.drain()
        finally:
            ended.set()

    async with listening(pour, Limits(stall_s=0.4)) as listener, connected(listener, receive_buffer=10_000) as client:
        client.send(request())
        await soon(ended)


# The listener


async def test_one_connection_too_many_is_told_so() -> None:
    limits = Limits(max_connections=1, linger_s=0.4)
    async with listening(path, limits) as listener, connected(listener) as first, connected(listener) as second:
        assert (await second.answer()).status == 503
        first.send(request("GET", "/well"))
        assert (await first.answer()).body == b"/well"


async def test_closing_lets_an_answer_end_and_closes_what_is_idle() -> None:
    waits = Waits()
    listener = await serve(waits, host="127.0.0.1", port=0, limits=QUICK)
    async with connected(listener) as busy, connected(listener) as idle:
        busy.send(request("GET", "/busy"))
        await soon(waits.waiting)
        closing = asyncio.ensure_future(listener.close(PATIENCE_S))
        assert await idle.rest() == b""
        assert not closing.done()
        waits.free.set()
        answer = await busy.answer()
        assert (answer.body, answer.get(b"connection")) == (b"/busy", b"close")
        await closing


async def test_closing_refuses_new_connections() -> None:
    listener = await serve(path, host="127.0.0.1", port=0, limits=QUICK)
    address = listener.addresses[0]
    await listener.close(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


async def test_closing_tells_who_is_not_served_in_time() -> None:
    waits = Waits()
    listener = await serve(waits, host="127.0.0.1", port=0, limits=QUICK)
    async with connected(listener) as client:
        client.send(request())
        await soon(waits.waiting)
        await listener.close(0.05)
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "gateway_stopping")
        assert waits.cancelled.is_set()


async def test_an_exchange_that_is_cut_answers_with_the_reason() -> None:
    waits = Waits()
    async with listening(waits) as listener, connected(listener) as client:
        client.send(request())
        await soon(waits.waiting)
        waits.exchanges[0].cut(Refusal(503, "drained", "Its time is over."))
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "drained")
        await soon(waits.cancelled)
        client.send(request())
        waits.free.set()
        assert (await client.answer()).status == 200


async def test_a_socket_that_listens_already_is_served() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    listener = await serve(path, sock=sock, limits=QUICK)
    async with connected(listener) as client:
        client.send(request("GET", "/given"))
        assert (await client.answer()).body == b"/given"
    await listener.close(0)


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    place = str(tmp_path / "gateway.sock")
    listener = await serve(path, path=place, limits=QUICK)
    client = Client(*await asyncio.open_unix_connection(place))
    client.send(request("GET", "/here"))
    assert (await client.answer()).body == b"/here"
    await client.close()
    await listener.close(0)
