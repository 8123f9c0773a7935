# SPDX-License-Identifier: Apache-2.0
"""The body of a request: its framing, what of it was read ahead, and its way to an engine."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

from hearth.gateway.replies import Refusal
from hearth.gateway.wire.head import malformed

Found = TypeVar("Found")

# A chunk's size: hexadecimal digits, and extensions, which mean nothing here.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")
_MAX_CHUNK_LINE = 512
_MAX_TRAILERS = 8 * 1024
_FIRST_LOOK = 4096


class ChunkedDecoder:
    """Takes chunked framing off, strictly; trailers are read and dropped."""

    __slots__ = ("_buffer", "_left", "_trailers", "complete")

    # What stands next: a size line (-1), the line break after a chunk (0), or so many bytes of a chunk.
    _SIZE = -1

    def __init__(self) -> None:
        self._buffer = b""
        self._left = self._SIZE
        self._trailers = -1
        self.complete = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The payload in these bytes, and what follows the body's end. Raises Refusal."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        payload: list[bytes] = []
        at = 0
        while not self.complete and at < len(data):
            if self._left > 0:
                piece = data[at : at + self._left]
                payload.append(piece)
                self._left -= len(piece)
                at += len(piece)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep(data[at:])
                return b"".join(payload), b""
            self._line(data[at:end])
            at = end + 2
        return b"".join(payload), data[at:] if self.complete else b""

    def _keep(self, rest: bytes) -> None:
        """Part of a line, until the rest of it comes."""
        if b"\n" in rest or (self._left == 0 and rest != b"\r") or len(rest) > _MAX_CHUNK_LINE:
            raise malformed("a chunk of its body has no proper end or size")
        self._buffer = rest

    def _line(self, line: bytes) -> None:
        if self._trailers >= 0:
            self._trailers += len(line) + 2
            if self._trailers > _MAX_TRAILERS or (line and _TRAILER.fullmatch(line) is None):
                raise malformed("its body ends with what is no trailer")
            self.complete = not line
        elif self._left == 0:
            if line:
                raise malformed("a chunk of its body is longer than it says")
            self._left = self._SIZE
        else:
            size = _CHUNK_LINE.fullmatch(line)
            if size is None or len(line) > _MAX_CHUNK_LINE:
                raise malformed("a chunk of its body has no proper size")
            self._left = int(size[1], 16)
            if self._left == 0:
                self._left = self._SIZE
                self._trailers = 0


class Reading(Protocol):
    """What a body asks of its connection."""

    def hold(self) -> None:
        """Take in no more for now."""

    def more(self) -> None:
        """Take in more."""

    def invite(self) -> None:
        """Send 100 Continue."""


class Sink(Protocol):
    """Where a body goes once it is not kept any more."""

    def body(self, data: bytes) -> None: ...
    def body_end(self) -> None: ...
    def body_failed(self, refusal: Refusal) -> None: ...


class Body:
    """One request's body. ``size`` is what came of it in bytes; ``failure`` says why no more will."""

    __slots__ = (
        "_decoder", "_expects", "_hold_bytes", "_left", "_limit", "_parts", "_reading", "_sink", "_waiter", "_wanted",
        "complete", "failure", "length", "size",
    )  # fmt: skip

    def __init__(
        self, reading: Reading, length: int | None, *, limit: int, hold_bytes: int, expects: bool = False
    ) -> None:
        self._reading = reading
        self.length = length
        self._left = length or 0
        self._decoder = ChunkedDecoder() if length is None else None
        self._limit = limit
        self._hold_bytes = hold_bytes
        self._expects = expects
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 0
        self._sink: Sink | None = None
        self.size = 0
        self.complete = length == 0
        self.failure: Refusal | None = None

    # Of the connection

    def feed(self, data: bytes) -> bytes | None:
        """Take in bytes of the connection. What follows the body's end is given back, None before that end.

        Raises nothing: see ``failure``.
        """
        rest = b""
        if self._decoder is None:
            if len(data) > self._left:
                data, rest = data[: self._left], data[self._left :]
            self._left -= len(data)
            self.complete = self._left == 0
        else:
            try:
                data, rest = self._decoder.feed(data)
            except Refusal as refusal:
                self.fail(refusal)
                return None
            if self.size + len(data) > self._limit:
                self.fail(too_large(self._limit))
                return None
            self.complete = self._decoder.complete
        self._take(data)
        return rest if self.complete else None

    def _take(self, data: bytes) -> None:
        self.size += len(data)
        if self._sink is not None:
            if data:
                self._sink.body(data)
            if self.complete:
                self._sink.body_end()
            return
        if data:
            self._parts.append(data)
        if self._waiter is not None:
            if self.complete or self.size >= self._wanted:
                self._wake()
        elif not self.complete and self.size > self._hold_bytes:
            self._reading.hold()

    def fail(self, refusal: Refusal) -> None:
        """No more of this body will come."""
        if self.complete or self.failure is not None:
            return
        self.failure = refusal
        if self._sink is not None:
            self._sink.body_failed(refusal)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Of handlers

    @property
    def buffered(self) -> bytes:
        """What came so far and was not handed on."""
        if len(self._parts) > 1:
            self._parts[:] = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    async def peek(self, decide: Callable[[bytes, bool], Found | None]) -> Found | None:
        """Read on until ``decide(what came so far, whether that is all)`` gives something; None at the body's end.

        It is asked again only when the body has doubled or ended. What was looked at is still handed on to an engine.
        Raises Refusal when the body is malformed, too large or does not come.
        """
        look = 1
        while True:
            if self.complete or self.size >= look:
                found = decide(self.buffered, self.complete)
                if found is not None or self.complete:
                    return found
                look = max(2 * self.size, _FIRST_LOOK)
            await self._more(look)

    async def read(self) -> bytes:
        """The whole body. Raises Refusal as ``peek``."""
        if not self.complete:
            await self._more(sys.maxsize)
        return self.buffered

    async def _more(self, wanted: int) -> None:
        """Wait until so many bytes have come, or the end."""
        if self.failure is not None:
            raise self.failure
        self._invite()
        self._reading.more()
        self._wanted = wanted
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self.failure is not None:
            raise self.failure

    def _invite(self) -> None:
        if self._expects:
            self._expects = False
            if not self.size and not self.complete:
                self._reading.invite()

    # Of the relay

    def stream_to(self, sink: Sink) -> None:
        """Hand over what came, and everything else as it comes, with ``hold`` and ``more`` for back-pressure."""
        self._invite()
        self._sink = sink
        parts, self._parts = self._parts, []
        for part in parts:
            sink.body(part)
        if self.complete:
            sink.body_end()
        elif self.failure is not None:
            sink.body_failed(self.failure)
        else:
            self._reading.more()

    def detach(self) -> None:
        """The sink wants no more: what still comes is held, and unread when the answer is over."""
        self._sink = None

    def hold(self) -> None:
        """The sink takes no more for now."""
        if not self.complete:
            self._reading.hold()

    def more(self) -> None:
        """The sink takes more again."""
        self._reading.more()


def too_large(limit: int) -> Refusal:
    """The refusal of a body beyond the limit (bytes)."""
    return Refusal(413, "body_too_large", f"The request's body is larger than the {limit} bytes that are taken here.")
