# SPDX-License-Identifier: Apache-2.0
"""Who has its answer may send its next request, though the handler of the last one is not done yet."""

from __future__ import annotations

import asyncio

import pytest
from wires import Client, connected, listening, request, soon

from hearth.gateway.wire import Exchange, Limits


class Lingers:
    """A handler that goes on after its answer, until it may end; it keeps how much came of each body."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.exchanges: list[Exchange] = []
        self.cancelled = False

    async def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        body = await exchange.read()
        exchange.respond(200, (), b"%d" % len(body))
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def answered(client: Client) -> bytes:
    """The first request, and its answer."""
    client.send(request("POST", "/one", b"x"))
    return (await client.answer()).body


@pytest.mark.parametrize("size", [10, 100_000, 30_000_000])
async def test_the_next_request_waits_for_the_handler_whatever_its_size(size: int) -> None:
    lingers = Lingers()
    async with listening(lingers) as listener, connected(listener) as client:
        assert await answered(client) == b"1"
        client.send(request("POST", "/two", b"x" * size))
        await asyncio.sleep(0.1)
        assert len(lingers.exchanges) == 1
        lingers.may_end.set()
        answer = await client.answer()
        assert (answer.status, answer.body, answer.get(b"connection")) == (200, b"%d" % size, None)
        assert await answered(client) == b"1"


async def test_no_more_of_it_is_taken_in_than_of_requests_sent_ahead() -> None:
    lingers = Lingers()
    async with listening(lingers, Limits(ahead_bytes=1000)) as listener, connected(listener) as client:
        await answered(client)
        client.send(request("POST", "/two", b"x" * 30_000_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 0.3)
        lingers.may_end.set()
        assert (await client.answer()).body == b"30000000"


async def test_a_client_that_leaves_meanwhile_is_noticed() -> None:
    lingers = Lingers()
    async with listening(lingers, Limits(ahead_bytes=1000)) as listener, connected(listener) as client:
        await answered(client)
        client.send(request("POST", "/two", b"x" * 100_000))
        await asyncio.sleep(0.1)
        client.break_off()
        async with asyncio.timeout(20):
            while listener.connections:  # noqa: ASYNC110 # nobody tells when a connection is lost
                await asyncio.sleep(0.01)
        lingers.may_end.set()
        await asyncio.sleep(0.05)
        assert (len(lingers.exchanges), lingers.cancelled) == (1, False)


async def test_requests_sent_ahead_of_an_answer_are_still_limited() -> None:
    lingers = Lingers()

    async def slow(exchange: Exchange) -> None:
        asked.set()
        await lingers.may_end.wait()
        exchange.respond(200, (), b"late")

    asked = asyncio.Event()
    async with listening(slow, Limits(ahead_bytes=1000, linger_s=0.4)) as listener, connected(listener) as client:
        client.send(request("GET", "/one"))
        await soon(asked)
        client.send(request("POST", "/two", b"x" * 100_000))
        await asyncio.sleep(0.1)
        lingers.may_end.set()
        assert (await client.answer()).get(b"connection") == b"close"
