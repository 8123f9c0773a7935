# SPDX-License-Identifier: Apache-2.0
"""One request and its answer, as a handler sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from email.utils import formatdate
from http import HTTPStatus
from random import getrandbits
from typing import Any, Protocol

from hearth.gateway.replies import DONE_EVENT, Refusal
from hearth.gateway.wire.answer import EVENT_STREAM
from hearth.gateway.wire.body import Body, Found
from hearth.gateway.wire.head import Head, Headers

Fields = Iterable[tuple[bytes, bytes]]

STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode() if status in set(HTTPStatus) else b"")
    for status in range(200, 600)
}
_CLOSE = b"connection: close\r\n"


class Source(Protocol):
    """What an answer is taken from while it is relayed."""

    def hold(self) -> None:
        """The client reads too slowly."""

    def more(self) -> None:
        """The client can take more again."""

    def abandon(self) -> None:
        """The client is gone."""

    def cut(self, refusal: Refusal) -> None:
        """End the answer here, so that the client sees that it is not whole."""


class Wire(Protocol):
    """What an exchange asks of its connection."""

    paused: bool

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None: ...
    def wait_writable(self) -> asyncio.Future[None] | None: ...
    def run(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None: ...
    def over(self, exchange: Exchange) -> None: ...


class Exchange:
    """One request and its answer.

    ``target`` is the request's path and query as they came, ``path`` and ``query`` its halves, still percent-encoded.
    ``peer`` is the client's address. ``id`` is in the answer's head and in every error. The counts of bytes are of
    bodies; ``status`` is 0 until the answer begins.

    A handler that has to wait returns a coroutine, which becomes ``task``. One that returns None has answered, or has
    the answer come from a ``source``, and says when it is ``over``. When the client goes away, ``gone`` is set, the
    source abandoned and the task cancelled. ``at_end`` is called once when nothing more happens, however that came:
    there a handler gives back what it holds, for a task may be cancelled before it began. A Refusal raised by the
    handler is the answer; once the answer has begun it ends it, visibly.
    """

    __slots__ = (
        "_chunked", "_wire", "at_end", "begun", "body", "bytes_out", "ended", "gone", "head", "headers", "http10", "id",
        "keep", "method", "path", "peer", "query", "source", "sse", "started", "status", "target", "task",
    )  # fmt: skip

    def __init__(self, wire: Wire, head: Head, body: Body, peer: str, *, keep: bool, begun: float) -> None:
        self._wire = wire
        self.head = head
        self.method = head.method
        self.target = head.target
        self.path = head.path
        self.query = head.query
        self.headers: Headers = head.headers
        self.http10 = head.http10
        self.body = body
        self.peer = peer
        self.id = "req_" + getrandbits(104).to_bytes(13).hex()
        # When the head was read, of the loop's clock, in seconds.
        self.begun = begun
        self.keep = keep
        self.status = 0
        self.bytes_out = 0
        self.started = False
        self.ended = False
        self.gone = False
        # Whether the answer that the handler began is a stream of events, so that comments and errors fit in.
        self.sse = False
        self._chunked = False
        self.source: Source | None = None
        self.task: asyncio.Task[None] | None = None
        self.at_end: Callable[[], None] | None = None

    # Its handler

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on in a task."""
        self._wire.run(self, work)

    def over(self) -> None:
        """Nothing more happens, without a task that would say so by its end."""
        self._wire.over(self)

    # The request's body

    @property
    def bytes_in(self) -> int:
        """How much of the body came."""
        return self.body.size

    @property
    def buffered(self) -> bytes:
        """What of the body came so far and was not handed on."""
        return self.body.buffered

    async def peek(self, decide: Callable[[bytes, bool], Found | None]) -> Found | None:
        """See ``Body.peek``."""
        return await self.body.peek(decide)

    async def read(self) -> bytes:
        """The whole body. Raises Refusal when it is malformed, too large or does not come."""
        return await self.body.read()

    # An answer of the gateway's own

    def respond(self, status: int, fields: Fields = (), body: bytes = b"") -> None:
        """A whole answer."""
        block = b"%bdate: %b\r\ncontent-length: %d\r\n" % (_block(fields), _date(), len(body))
        sent = b"" if self.method == "HEAD" else body
        self.begin(status, block, sent)
        self.finish(len(sent))

    def start(self, status: int, fields: Fields = ()) -> None:
        """Begin an answer whose length is not known; ``write`` and ``end`` go on."""
        fields = tuple(fields)
        self.sse = any(name == b"content-type" and value.startswith(EVENT_STREAM) for name, value in fields)
        self.begin(status, b"%bdate: %b\r\n" % (_block(fields), _date()), framed=True)

    def write(self, data: bytes) -> None:
        """A piece of an answer that ``start`` began. Await ``drain`` now and then."""
        if data and not self.ended and self.method != "HEAD":
            self.bytes_out += len(data)
            self._wire.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def drain(self) -> None:
        """Wait until the client has taken what was written, but for a little."""
        waiting = self._wire.wait_writable()
        if waiting is not None:
            await waiting

    def end(self) -> None:
        """The end of an answer that ``start`` began."""
        if not self.ended:
            if self._chunked and self.method != "HEAD":
                self._wire.write(b"0\r\n\r\n")
            self.finish(0)

    def abort(self) -> None:
        """Break the connection, so that the client cannot take what it has for the whole answer."""
        self.ended = True
        self.keep = False
        self._wire.abort()

    def fail(self, refusal: Refusal) -> None:
        """End with an error: as the answer, as the last event of a stream that ``start`` began, or by breaking off."""
        if self.ended or self.gone:
            return
        if self.source is not None:
            self.source.cut(refusal)
        elif not self.started:
            self.respond(refusal.status, refusal.headers(), refusal.body(self.id))
        elif self.sse:
            self.write(refusal.event(self.id) + DONE_EVENT)
            self.end()
        else:
            self.abort()

    def cut(self, refusal: Refusal) -> None:
        """End somebody else's exchange now; its handler is cancelled."""
        self.fail(refusal)
        if self.task is not None:
            self.task.cancel()

    # Of the relay, which has the answer's bytes already

    def begin(self, status: int, block: bytes, data: bytes = b"", *, framed: bool = False) -> None:
        """Send a head: ``block`` is its lines without those that belong to the connection.

        ``framed``: the length is not known, and ``write`` and ``end`` send the rest.
        """
        if self.ended or self.gone:
            return
        self.status = status
        self.started = True
        if not self.body.complete:
            self.keep = False
        if framed and not self.http10:
            self._chunked = True
            block += b"transfer-encoding: chunked\r\n"
        line = STATUS_LINES[status]
        close = b"" if self.keep else _CLOSE
        self._wire.write(b"%b%bx-request-id: %b\r\n%b\r\n%b" % (line, block, self.id.encode(), close, data))

    def finish(self, sent: int) -> None:
        """The answer is written, ``sent`` bytes of it since the last count."""
        self.bytes_out += sent
        self.ended = True

    def break_off(self, data: bytes) -> None:
        """Send these last bytes as they are, and close without the end that a whole answer has."""
        self._wire.write(data)
        self.keep = False
        self.finish(len(data))

    def write_raw(self) -> Callable[[bytes], None]:
        """What writes to the client as it is, for the bytes of a framing that is passed on unchanged."""
        return self._wire.write

    def attach(self, source: Source) -> None:
        """The answer comes from here now."""
        self.source = source
        if self._wire.paused:
            source.hold()

    def detach(self) -> None:
        """The answer's source has given all."""
        self.source = None
        self.body.detach()


Handler = Callable[[Exchange], Coroutine[Any, Any, None] | None]


def _block(fields: Fields) -> bytes:
    """Lines of a head. Raises ValueError for a value that would be more than one."""
    lines = [b"%b: %b" % field for field in fields]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise ValueError(f"a header field of an answer holds a line break: {lines!r}")
    return b"".join([line + b"\r\n" for line in lines])


class _Clock:
    """The date of the answers, made once a second."""

    second = 0
    text = b""


def _date() -> bytes:
    now = int(time.time())
    if now != _Clock.second:
        _Clock.second = now
        _Clock.text = formatdate(now, usegmt=True).encode()
    return _Clock.text
