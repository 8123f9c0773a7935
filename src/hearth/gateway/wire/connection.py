# SPDX-License-Identifier: Apache-2.0
"""Connections of clients, one exchange of each at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from hearth.gateway.replies import Refusal
from hearth.gateway.wire import head as heads
from hearth.gateway.wire.body import Body, too_large
from hearth.gateway.wire.exchange import Exchange
from hearth.gateway.wire.limits import Limits

if TYPE_CHECKING:
    from hearth.gateway.wire.server import Listener

_log = logging.getLogger(__name__)

# A socket closed with these goes with a reset, which no client takes for the end of an answer.
_RESET = struct.pack("ii", 1, 0)
_WRITE_HIGH = 256 * 1024


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._handler = listener.handler
        self._limits = listener.limits
        self._loop = listener.loop
        self._peer = ""
        self._fd = -1
        self._ahead = b""
        self._heads = heads.HeadReader(listener.limits)
        self._exchange: Exchange | None = None
        self._reading = True
        self._writable: asyncio.Future[None] | None = None
        self._lingering = False
        self._lost = False
        self.paused = False
        # Of the loop's clock, in seconds: the last answer, the first byte of a head, the last byte of a body, and since
        # when so many bytes wait for the client.
        self._idle_since = self._loop.time()
        self._head_since = 0.0
        self._body_since = 0.0
        self._stuck = (0, 0.0)

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "local"
        self._fd = transport.get_extra_info("socket").fileno()
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._listener.joined(self)
        if self._listener.is_full():
            self._refuse(Refusal(503, "too_many_connections", "Too many connections are open here.", retry_after_s=1))

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            if not self._lingering:
                self._head(data)
        elif exchange.body.complete or exchange.body.failure is not None:
            self._early(data)
        else:
            self._body_since = self._loop.time()
            rest = exchange.body.feed(data)
            if rest is not None:
                self.more()
                if rest:
                    self._early(rest)

    def eof_received(self) -> bool:
        """A client that ends its side has hung up: nothing is generated for it any more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio names it
        self._lost = True
        self._listener.left(self, self._fd)
        self._free()
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.gone:
            return
        exchange.gone = True
        if exchange.source is not None:
            exchange.source.abandon()
        if not exchange.ended and exchange.task is not None:
            exchange.task.cancel()

    def pause_writing(self) -> None:
        self.paused = True
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.hold()

    def resume_writing(self) -> None:
        self.paused = False
        self._free()
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.more()

    # What comes in

    def _head(self, data: bytes) -> None:
        if self._ahead:
            data = self._ahead + data
            self._ahead = b""
        if data[:2] == b"\r\n":
            # One empty line before a request is allowed for, RFC 9112, 2.2.
            data = data[2:]
        end = data.find(heads.END) + len(heads.END)
        if end < len(heads.END):
            self._part_of_head(data)
            return
        self._head_since = 0.0
        limits = self._limits
        try:
            if end > limits.max_head_bytes:
                raise _head_too_large(limits)
            head = self._heads.read(data[:end])
            if head.length is not None and head.length > limits.max_body_bytes:
                raise too_large(limits.max_body_bytes)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        body = Body(self, head.length, limit=limits.max_body_bytes, hold_bytes=limits.hold_bytes, expects=head.expects)
        now = self._loop.time()
        exchange = Exchange(self, head, body, self._peer, keep=head.keep and not self._listener.closing, begun=now)
        self._exchange = exchange
        self._body_since = now
        if end < len(data):
            rest = data[end:] if body.complete else body.feed(data[end:])
            if rest:
                self._early(rest)
        self._serve(exchange)

    def _part_of_head(self, data: bytes) -> None:
        if len(data) > self._limits.max_head_bytes:
            self._refuse(_head_too_large(self._limits))
        elif heads.has_bare_line_feed(data):
            self._refuse(heads.malformed("its lines do not end with CR and LF"))
        else:
            self._ahead = data
            if data and not self._head_since:
                self._head_since = self._loop.time()

    def _early(self, data: bytes) -> None:
        """Bytes of the next request before this one is over. Reading goes on, or the client's end would go unseen."""
        exchange = self._exchange
        if exchange is None or not exchange.keep:
            return
        self._ahead += data
        if len(self._ahead) <= self._limits.ahead_bytes:
            return
        if exchange.ended:
            # Who has its answer may go on: it is the handler that is not done yet.
            self.hold()
        else:
            # Such a client has to ask again on another connection, RFC 9112, 9.3.2.
            self._ahead = b""
            exchange.keep = False

    # What a body asks for

    def hold(self) -> None:
        if self._reading and not self._lost:
            self._reading = False
            self._transport.pause_reading()
            self._listener.hangups.watch(self._fd, self.abort)

    def more(self) -> None:
        if not self._reading and not self._lost:
            self._reading = True
            self._listener.hangups.forget(self._fd)
            self._body_since = self._loop.time()
            self._transport.resume_reading()

    def invite(self) -> None:
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # What an exchange asks for

    def abort(self) -> None:
        if not self._lost:
            self._listener.hangups.forget(self._fd)
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def wait_writable(self) -> asyncio.Future[None] | None:
        if not self.paused or self._lost:
            return None
        if self._writable is None or self._writable.done():
            self._writable = self._loop.create_future()
        return self._writable

    def _free(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # From request to request

    def _serve(self, exchange: Exchange) -> None:
        try:
            work = self._handler(exchange)
        except Exception as error:  # noqa: BLE001 # as in a task
            self._fail(exchange, error)
        else:
            if work is not None:
                self.run(exchange, work)
                return
            if exchange.source is not None or exchange.task is not None:
                return
        self.over(exchange)

    def run(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        exchange.task = self._loop.create_task(work)
        exchange.task.add_done_callback(partial(self._done, exchange))

    def _done(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(exchange, error)
        elif task.cancelled() and not exchange.ended:
            # By somebody else than the client.
            exchange.fail(Refusal(503, "cancelled", "The request was cancelled.", retry_after_s=1))
            exchange.keep = False
        self.over(exchange)

    def _fail(self, exchange: Exchange, error: BaseException) -> None:
        """Whatever it is, this client gets an answer and the others stay."""
        if isinstance(error, Refusal):
            exchange.fail(error)
        else:
            _log.error("%s failed", exchange.id, exc_info=error)
            exchange.fail(Refusal(500, "internal_error", "The gateway failed at this request; its log has the reason."))

    def over(self, exchange: Exchange) -> None:
        exchange.task = None
        if not exchange.ended and not exchange.gone:
            self._fail(exchange, RuntimeError(f"no answer to {exchange.method} {exchange.path}"))
        at_end, exchange.at_end = exchange.at_end, None
        if at_end is not None:
            at_end()
        if self._exchange is not exchange:
            return
        self._exchange = None
        if self._lost:
            return
        if not exchange.keep or self._listener.closing:
            self._part(unread=not exchange.body.complete)
            return
        self._idle_since = self._loop.time()
        if self._ahead:
            # In a turn of its own: each answer would be within the one before it.
            self._loop.call_soon(self._next)
            self.more()

    def _next(self) -> None:
        """The request that was sent ahead, unless more has come meanwhile and it was read with that."""
        if self._exchange is None and self._ahead and not self._transport.is_closing():
            self._head(b"")

    def _refuse(self, refusal: Refusal) -> None:
        """Answer bytes that are no request, and part."""
        body = Body(self, 1, limit=1, hold_bytes=1)
        fields = heads.Headers({})
        exchange = Exchange(self, heads.Head("GET", b"/", False, fields), body, self._peer, keep=False, begun=0.0)
        exchange.fail(refusal)
        self._part(unread=True)

    def _part(self, *, unread: bool) -> None:
        """Close. With bytes unread that would be a reset, which can take the answer from under the client's eyes."""
        self._ahead = b""
        if not unread:
            self._transport.close()
            return
        self._lingering = True
        self._idle_since = self._loop.time()
        self.more()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    # Of the listener

    def check(self, now: float) -> None:
        """End what takes too long; ``now`` is the loop's clock in seconds."""
        limits = self._limits
        exchange = self._exchange
        if self._is_stuck(now):
            self.abort()
        elif exchange is None:
            if self._lingering:
                if now - self._idle_since > limits.linger_s:
                    self.abort()
            elif self._head_since:
                if now - self._head_since > limits.head_s:
                    self._refuse(Refusal(408, "slow_head", f"No whole request came within {limits.head_s:g} s."))
            elif now - self._idle_since > limits.idle_s:
                self._transport.close()
        elif self._reading and not exchange.body.complete and now - self._body_since > limits.body_s:
            exchange.body.fail(Refusal(408, "slow_body", f"Nothing came of the body for {limits.body_s:g} s."))

    def _is_stuck(self, now: float) -> bool:
        waiting = self._transport.get_write_buffer_size()
        if not waiting or waiting != self._stuck[0]:
            self._stuck = (waiting, now)
        return now - self._stuck[1] > self._limits.stall_s

    def finish(self) -> None:
        """Close when the answer under way is over, at once where there is none."""
        if self._exchange is not None:
            self._exchange.keep = False
        elif not self._lingering:
            self._transport.close()

    def cut(self, refusal: Refusal) -> None:
        """End the answer under way."""
        if self._exchange is not None:
            self._exchange.cut(refusal)


def _head_too_large(limits: Limits) -> Refusal:
    return Refusal(431, "head_too_large", f"The request's head is larger than {limits.max_head_bytes} bytes.")
