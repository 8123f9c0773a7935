# SPDX-License-Identifier: Apache-2.0
"""Connections to engines: the answer's bytes go to the client as they are, parsed only to find their end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from hearth.gateway.replies import DONE_EVENT, Refusal, event_of
from hearth.gateway.wire import answer
from hearth.gateway.wire.answer import AnswerHead, AnswerHeads, EngineGoneError, StaleError
from hearth.gateway.wire.exchange import STATUS_LINES, Exchange
from hearth.gateway.wire.head import END

_MAX_HEAD = 64 * 1024
_MAX_COLLECTED = 64 * 1024
_WRITE_HIGH = 256 * 1024
_ONE_WRITE = 64 * 1024
# What stays of an answer to look for its usage: the last reads, and the last bytes of each.
_RECENT_READS = 4
_TAIL = 4096
_BETWEEN = frozenset({100, 102, 103})


class Keeper(Protocol):
    """What a connection asks of the pool it came from."""

    loop: asyncio.AbstractEventLoop

    def give(self, upstream: Upstream) -> None:
        """Its answer was whole, it may be asked again."""

    def discard(self, upstream: Upstream) -> None:
        """It is lost."""


# Told how an exchange ended: whether the answer was whole, or why there was none.
Ended = Callable[["Upstream", bool, Refusal | None], None]

# Where a connection stands. Not an enum: these are compared for every token.
_IDLE, _HEAD, _FIXED, _CHUNKED, _DECODED, _CLOSE, _OVER = 0, 1, answer.FIXED, answer.CHUNKED, 4, answer.CLOSE, 6
_PARSED = frozenset({_CHUNKED, _DECODED})


class Upstream(asyncio.Protocol):
    """One connection to an engine, with at most one exchange on it."""

    def __init__(self, pool: Keeper, address: tuple[str, int]) -> None:
        self._pool = pool
        self.address = address
        self.idle_since = 0.0
        self.reused = False
        self._phase = _IDLE
        self._lost = False
        self._held = False
        self._recent: deque[bytes] = deque(maxlen=_RECENT_READS)
        self._known = AnswerHeads()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase in _PARSED:
            try:
                self._feed(data)
            except httptools.HttpParserError:
                self._broken("sent what is not HTTP")
                return
            if self._surplus:
                self._broken("sent more than its answer")
                return
            if phase == _CHUNKED:
                self._recent.append(data)
                self._sent += len(data)
                self._write(data)
            if self._whole:
                self._finish()
        elif phase == _FIXED:
            self._fixed(data)
        elif phase == _HEAD:
            self._heads(data)
        elif phase == _CLOSE:
            self._write(data)
        else:
            # Nothing was asked: what comes now would be taken for the answer to the next request.
            self.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._pool.discard(self)
        if self._phase == _CLOSE and exc is None:
            self._finish()
        elif self._phase not in {_IDLE, _OVER}:
            self._broken("ended")

    def pause_writing(self) -> None:
        if self._phase != _IDLE:
            self._exchange.body.hold()

    def resume_writing(self) -> None:
        if self._phase not in {_IDLE, _OVER}:
            self._exchange.body.more()

    # llhttp

    def on_message_begin(self) -> None:
        self._surplus = self._whole

    def on_message_complete(self) -> None:
        self._whole = True

    # An exchange

    @property
    def is_open(self) -> bool:
        """Whether it may be asked."""
        return self._phase == _IDLE and not self._lost and not self._transport.is_closing()

    def ask(self, exchange: Exchange, head: bytes, ended: Ended) -> None:
        """Send a request: ``head`` is its lines without those of the framing.

        ``ended`` is called once: with an EngineGoneError, with the Refusal of a body that failed, or with whether the
        answer was whole.
        """
        self._exchange = exchange
        self._ended: Ended | None = ended
        # The answer's head is out already, for the comments of a stream that waited: the engine's is not sent.
        self._prelude = exchange.started
        self._begun = False
        self._heard = False
        self._asked = False
        self._buffer = b""
        self._sent = 0
        self._recent.clear()
        self._collected: list[bytes] | None = None
        self._write = exchange.write_raw()
        self._verbatim = not self._prelude
        self.status = 0
        self.first_byte = 0.0
        self._phase = _HEAD
        exchange.attach(self)
        body = exchange.body
        if not body.complete:
            self._request_chunked = body.length is None
            framing = b"transfer-encoding: chunked" if body.length is None else b"content-length: %d" % body.length
            self._transport.write(b"%b%b\r\n\r\n" % (head, framing))
            body.stream_to(self)
            return
        self._asked = True
        if body.size == 0 and body.length == 0 and exchange.method in {"GET", "HEAD", "DELETE", "OPTIONS"}:
            self._transport.write(head + b"\r\n")
            return
        data = body.buffered
        whole = b"%bcontent-length: %d\r\n\r\n" % (head, len(data))
        if len(data) <= _ONE_WRITE:
            self._transport.write(whole + data)
        else:
            self._transport.write(whole)
            self._transport.write(data)

    def tail(self) -> bytes:
        """The end of the answer."""
        recent = self._recent
        return recent[0][-_TAIL:] if len(recent) == 1 else b"".join([read[-_TAIL:] for read in recent])

    # The request's body (Sink)

    def body(self, data: bytes) -> None:
        if self._phase != _OVER:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._request_chunked else data)

    def body_end(self) -> None:
        self._asked = True
        if self._request_chunked and self._phase != _OVER:
            self._transport.write(b"0\r\n\r\n")

    def body_failed(self, refusal: Refusal) -> None:
        if self._phase == _OVER:
            return
        self._leave()
        if self._begun:
            self._exchange.abort()
            self._settle(whole=False)
        else:
            self._settle(refusal)

    # The answer (Source)

    def hold(self) -> None:
        if not self._held and not self._lost:
            self._held = True
            self._transport.pause_reading()

    def more(self) -> None:
        if self._held and not self._lost:
            self._held = False
            self._transport.resume_reading()

    def abandon(self) -> None:
        if self._phase != _OVER:
            self._leave()
            self._settle(whole=False)

    def cut(self, refusal: Refusal) -> None:
        if self._phase == _OVER:
            return
        exchange = self._exchange
        phase = self._phase
        in_frame = phase == _CHUNKED and not self._is_between_chunks()
        self._leave()
        if not self._begun:
            exchange.fail(refusal)
        elif in_frame or phase == _FIXED or not self._head.is_event_stream:
            exchange.abort()
        else:
            self._break_off(refusal.event(exchange.id))
        self._settle(whole=False)

    def _break_off(self, event: bytes) -> None:
        if not self._recent or not answer.ends_event(self._recent[-1]):
            event = b"\n\n" + event
        if self._exchange.http10:
            self._exchange.break_off(event)
        else:
            self._exchange.break_off(b"%x\r\n%b\r\n" % (len(event), event))

    def _is_between_chunks(self) -> bool:
        """Whether a chunk may stand here. The parser knows: would the last one be the end?"""
        if self._whole:
            return False
        try:
            self._feed(b"0\r\n\r\n")
        except httptools.HttpParserError:
            return False
        return self._whole

    # The answer's bytes

    def _heads(self, data: bytes) -> None:
        self._heard = True
        if self._buffer:
            data = self._buffer + data
        while True:
            end = data.find(END) + len(END)
            if end < len(END):
                self._buffer = data
                if len(data) > _MAX_HEAD:
                    self._broken(f"sent a head of more than {_MAX_HEAD} bytes")
                return
            raw, data = data[:end], data[end:]
            self._whole = self._surplus = False
            try:
                head = self._known.head(raw, self._exchange.method, self._read)
            except ValueError as error:
                self._broken(str(error))
                return
            # Those of 1xx are between the engine and whoever asked it, which is the gateway.
            if head.status in STATUS_LINES:
                break
            if head.status not in _BETWEEN:
                self._broken(f"answered with status {head.status}")
                return
        self._head = head
        self.status = head.status
        self.first_byte = time.monotonic()
        self._answer(raw, data)

    def _read(self, raw: bytes, method: str) -> AnswerHead:
        """Raises ValueError, which says what the engine did."""
        fields: dict[bytes, bytes] = {}
        plain = self._prelude or self._exchange.http10
        sink = answer.DecodingSink(self, fields, self._emit) if plain else answer.AnswerSink(self, fields)
        parser = httptools.HttpResponseParser(sink)
        self._feed = parser.feed_data
        try:
            self._feed(raw)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise ValueError("sent what is not HTTP") from None
        return AnswerHead(raw, parser.get_status_code(), fields, method)

    def _answer(self, raw: bytes, data: bytes) -> None:
        head = self._head
        self._keeps = head.keeps
        self._phase, self._left = head.framing, head.length
        if self._phase == _CHUNKED and (self._prelude or self._exchange.http10):
            self._phase = _DECODED
        self._verbatim = self._verbatim and self._phase in {_FIXED, _CHUNKED}
        if not self._verbatim:
            self._write = self._emit
        if self._prelude:
            if head.status != 200 or not head.is_event_stream:
                self._collected = []
        elif self._phase == _FIXED and data and len(data) <= self._left:
            # The whole of a short answer, mostly: its head and body are one write.
            self._left -= len(data)
            self._sent = len(data)
            self._recent.append(data)
            self._begin(raw, data)
            if self._left == 0:
                self._finish()
            return
        else:
            self._begin(raw)
        if data or (self._phase == _FIXED and self._left == 0):
            self.data_received(data)

    def _begin(self, raw: bytes, data: bytes = b"") -> None:
        """Send the engine's head on, without what belongs to its connection."""
        block = self._head.lines_for_client(raw, reframed=not self._verbatim)
        self._begun = True
        self._exchange.begin(self.status, block, data, framed=not self._verbatim)

    def _fixed(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            data = data[: self._left]
            self._left = 0
            self._keeps = False
        if data:
            self._recent.append(data)
            self._sent += len(data)
            self._write(data)
        if self._left == 0:
            self._finish()

    def _emit(self, data: bytes) -> None:
        """Payload without framing: on to the client in a framing of ours, or kept where it has to be an event."""
        if self._surplus:
            return
        if self._collected is None:
            self._begun = True
            self._recent.append(data)
            self._exchange.write(data)
        elif sum(map(len, self._collected)) < _MAX_COLLECTED:
            self._collected.append(data[:_MAX_COLLECTED])

    # The end

    def _finish(self) -> None:
        exchange = self._exchange
        if self._collected is not None:
            exchange.write(event_of(b"".join(self._collected), self.status, exchange.id) + DONE_EVENT)
        self._detach()
        if self._verbatim:
            exchange.finish(self._sent)
        else:
            exchange.end()
        if self._keeps and self._asked and not self._lost:
            # Had the answer come before the question was out, the question's rest would begin the next one.
            self._phase = _IDLE
            self.more()
            self._pool.give(self)
        else:
            self.close()
        self._settle(whole=True)

    def _broken(self, what: str) -> None:
        host, port = self.address
        sentence = f"The engine at {host}:{port} {what} before its answer was whole. Ask again."
        if self._begun:
            self.cut(Refusal(502, "engine_died", sentence, retry_after_s=1))
            return
        self._leave()
        self._settle(StaleError(sentence) if self.reused and not self._heard else EngineGoneError(sentence))

    def _leave(self) -> None:
        self.close()
        self._detach()

    def _detach(self) -> None:
        exchange = self._exchange
        if self._verbatim and not exchange.ended:
            exchange.bytes_out += self._sent
            self._sent = 0
        exchange.detach()

    def _settle(self, refusal: Refusal | None = None, *, whole: bool = False) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self, whole, refusal)

    def close(self) -> None:
        """Close it; nothing of it is kept."""
        self._phase = _OVER
        if not self._lost:
            self._transport.abort()
