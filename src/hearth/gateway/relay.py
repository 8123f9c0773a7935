# SPDX-License-Identifier: Apache-2.0
"""From a client's exchange to an engine and back."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import lru_cache

import msgspec

from hearth.gateway.replies import Refusal
from hearth.gateway.wire.answer import StaleError
from hearth.gateway.wire.exchange import Exchange
from hearth.gateway.wire.head import Head
from hearth.gateway.wire.pool import Pool
from hearth.gateway.wire.upstream import Upstream

# Fields that belong to one connection (RFC 9110, 7.6.1), and those that the gateway sets itself.
_OWN = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
    }
    | {b"transfer-encoding", b"upgrade", b"http2-settings", b"content-length", b"expect", b"host", b"x-request-id"}
)
# The fields a client's key may come in: it is for the gateway, no engine sees it.
KEY_FIELDS = frozenset({b"authorization", b"x-api-key", b"api-key"})
_DROPPED = _OWN | KEY_FIELDS

_USAGE_SPAN = 1024
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d+)')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d+)')


class Target(msgspec.Struct, frozen=True):
    """An engine to be asked.

    ``add`` are fields for its head, such as the engine's own key, with names in lower case; ``path`` replaces the
    request's target (path and query) where that named the model.
    """

    port: int
    host: str = "127.0.0.1"
    add: tuple[tuple[bytes, bytes], ...] = ()
    path: bytes | None = None


class Usage(msgspec.Struct, frozen=True):
    """The tokens that the engine says it took and made."""

    prompt: int
    completion: int


class Relayed(msgspec.Struct, frozen=True):
    """How a relay ended. ``first_byte_s`` is from the question to the head of the answer, in seconds."""

    status: int
    whole: bool
    first_byte_s: float
    usage: Usage | None


async def relay(pool: Pool, exchange: Exchange, target: Target) -> Relayed:
    """Hand the request to the engine and its answer to the client, both as they are.

    Where the handler began a stream of events already (to comment on a load), the engine's events go on in it; what is
    no stream becomes an event. An answer that breaks off ends visibly for the client, and ``whole`` is false.
    Raises EngineGoneError when the engine ended before the client saw anything, the Refusal of a body that failed, and
    CancelledError when the client is gone; by then the engine's connection is closed.
    """
    head = head_for(exchange, target)
    # What may have been closed meanwhile is only asked what can be asked again.
    upstream = pool.take(target.host, target.port) if exchange.body.complete else None
    if upstream is None:
        upstream = await pool.connect(target.host, target.port)
    begun = time.monotonic()
    while True:
        done: asyncio.Future[bool] = pool.loop.create_future()
        upstream.ask(exchange, head, _into(done))
        try:
            whole = await done
        except StaleError:
            # An engine closes idle connections when it likes: the question did not reach it.
            pass
        else:
            first_byte_s = upstream.first_byte - begun if upstream.first_byte else 0.0
            return Relayed(upstream.status, whole, first_byte_s, usage_in(upstream.tail()))
        finally:
            if done.cancelled():
                upstream.abandon()
        upstream = await pool.connect(target.host, target.port)


def _into(done: asyncio.Future[bool]) -> Callable[[Upstream, bool, Refusal | None], None]:
    """For a future: what an exchange's end becomes of it."""

    def ended(_: Upstream, whole: bool, refusal: Refusal | None) -> None:
        if done.done():
            return
        if refusal is not None:
            done.set_exception(refusal)
        else:
            done.set_result(whole)

    return ended


def head_for(exchange: Exchange, target: Target) -> bytes:
    """The engine's request line and fields, without those of the framing."""
    return b"%b %b HTTP/1.1\r\nhost: %b:%d\r\nx-request-id: %b\r\n%b%b" % (
        exchange.method.encode(),
        target.path or exchange.target,
        target.host.encode(),
        target.port,
        exchange.id.encode(),
        exchange.head.once(_lines),
        _block(target.add),
    )


@lru_cache(maxsize=16)
def _block(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def _lines(head: Head) -> bytes:
    """The client's fields that go on."""
    named = head.headers.get(b"connection")
    dropped = _DROPPED
    if named is not None and named.lower() not in {b"keep-alive", b"close"}:
        dropped |= {one.strip() for one in named.lower().split(b",")}
    return b"".join([b"%b: %b\r\n" % field for field in head.headers.pairs if field[0] not in dropped])


def usage_in(tail: bytes) -> Usage | None:
    """The usage in the last bytes of an answer, JSON or events, where the engine reports it there."""
    at = tail.rfind(b'"usage"')
    if at < 0:
        return None
    end = at + _USAGE_SPAN
    prompt = _PROMPT.search(tail, at, end)
    if prompt is None:
        return None
    completion = _COMPLETION.search(tail, at, end)
    return Usage(int(prompt[1]), int(completion[1]) if completion is not None else 0)
