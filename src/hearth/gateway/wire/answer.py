# SPDX-License-Identifier: Apache-2.0
"""The head of an engine's answer: what frames its body, and which of its lines go on to the client."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from hearth.gateway.replies import Refusal
from hearth.gateway.wire.head import Alike

# How the end of a body is known.
FIXED, CHUNKED, CLOSE = 2, 3, 5

EVENT_STREAM = b"text/event-stream"
_FINAL = 200
_NO_BODY = frozenset({204, 304})
# The fields that belong to the connection, and the id, which is the gateway's.
_DROPPED = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"x-request-id"})
_DROPPED_LINES = re.compile(
    rb"^(?:connection|keep-alive|proxy-connection|upgrade|x-request-id):[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE
)
_FRAMING_LINES = re.compile(rb"^(?:transfer-encoding|content-length):[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\n\n\r\n", b"\r\n\r\n\r\n")


class EngineGoneError(Refusal):
    """An engine could not be reached, or ended before a byte of its answer: nothing was sent to the client yet."""

    def __init__(self, sentence: str) -> None:
        super().__init__(502, "engine_gone", sentence, retry_after_s=1)


class StaleError(EngineGoneError):
    """A connection kept for reuse had been closed by the engine."""


class Marks(Protocol):
    """Who is told where an answer begins and ends."""

    def on_message_begin(self) -> None: ...
    def on_message_complete(self) -> None: ...


class AnswerSink:
    """Where llhttp puts an answer: only what is wanted of it, for it calls for nothing else."""

    def __init__(self, marks: Marks, fields: dict[bytes, bytes]) -> None:
        # In C, unlike a method of ours. Of a name that comes twice the first counts; llhttp refuses two lengths.
        self.on_header = fields.setdefault
        self.on_message_begin = marks.on_message_begin
        self.on_message_complete = marks.on_message_complete


class DecodingSink(AnswerSink):
    """The same, for an answer whose chunks are taken off."""

    def __init__(self, marks: Marks, fields: dict[bytes, bytes], on_body: Callable[[bytes], None]) -> None:
        super().__init__(marks, fields)
        self.on_body = on_body


class AnswerHead:
    """One answer's head.

    ``framing`` is how the answer's end is known, ``length`` its body's size in bytes where that is how. ``keeps``: the
    engine says that it may be asked again on this connection.
    """

    __slots__ = ("_drops", "fields", "framing", "keeps", "length", "status")

    def __init__(self, raw: bytes, status: int, fields: dict[bytes, bytes], method: str) -> None:
        """``method`` is that of the request. Raises ValueError, which says what the engine did."""
        self.status = status
        self.fields = {name.lower(): value for name, value in fields.items()}
        self.framing, self.length = self._framing(method)
        self.keeps = (
            self.framing != CLOSE
            and raw.startswith(b"HTTP/1.1")
            and b"close" not in self.fields.get(b"connection", b"").lower()
        )
        self._drops = not self.fields.keys().isdisjoint(_DROPPED)

    def _framing(self, method: str) -> tuple[int, int]:
        coding = self.fields.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise ValueError("answered with a transfer coding that is not known here")
        if method == "HEAD" or self.status in _NO_BODY:
            return FIXED, 0
        if coding is not None:
            return CHUNKED, 0
        length = self.fields.get(b"content-length")
        return (CLOSE, 0) if length is None else (FIXED, int(length))

    @property
    def has_length(self) -> bool:
        """Whether its Content-Length says all about the body."""
        return self.framing == FIXED and self.status >= _FINAL and self.status not in _NO_BODY

    @property
    def is_event_stream(self) -> bool:
        return self.fields.get(b"content-type", b"").lower().startswith(EVENT_STREAM)

    def lines_for_client(self, raw: bytes, *, reframed: bool) -> bytes:
        """The lines that go on; ``reframed`` says that the client gets another framing than the engine's."""
        block = raw[raw.find(b"\r\n") + 2 : -2]
        if self._drops:
            block = _DROPPED_LINES.sub(b"", block)
        return _FRAMING_LINES.sub(b"", block) if reframed else block


class AnswerHeads:
    """The heads of one engine's connection. Those of whole answers are mostly alike but for the length of the body."""

    __slots__ = ("_alike", "_last")

    def __init__(self) -> None:
        self._alike = Alike()
        self._last: AnswerHead | None = None

    def head(self, raw: bytes, method: str, read: Callable[[bytes, str], AnswerHead]) -> AnswerHead:
        """What ``read`` makes of a head, or the last one, changed, where this one is alike. Raises as ``read``."""
        if method == "HEAD":
            return read(raw, method)
        length = self._alike.length_in(raw)
        if length and self._last is not None:
            self._last.length = int(length)
            return self._last
        head = read(raw, method)
        if head.has_length and self._alike.learn(raw):
            self._last = head
        return head


def ends_event(data: bytes) -> bool:
    """Whether an event ends with these bytes, in chunks or plain, so that another may follow."""
    return data.endswith(_EVENT_ENDS)
