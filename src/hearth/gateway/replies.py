# SPDX-License-Identifier: Apache-2.0
"""What the gateway itself answers: refusals in the shape of OpenAI's errors, as JSON or as an SSE event."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from hearth.errors import HearthError

JSON = (b"content-type", b"application/json")
EVENTS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
DONE_EVENT = b"data: [DONE]\n\n"

_CLIENT_ERROR = 400
_RATE_LIMITED = 429
_SERVER_ERROR = 500
# How much of an engine's own words goes into a message.
_MAX_TEXT = 2000


class Refusal(HearthError):  # noqa: N818 # it is an answer as much as an error
    """A request that gets an error for an answer; who raises it in a handler has answered.

    ``code`` is for programs and stays as it is, ``sentence`` is for people. ``param`` names the field of the body that
    is wrong. ``retry_after_s`` (seconds) becomes Retry-After, rounded up. ``log`` is the tail of an engine's log.
    """

    def __init__(
        self,
        status: int,
        code: str,
        sentence: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        log: tuple[str, ...] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(sentence, log)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self._headers = headers

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields of the answer's head, besides those that every answer has."""
        if self.retry_after_s is None:
            return (JSON, *self._headers)
        return (JSON, (b"retry-after", b"%d" % max(1, math.ceil(self.retry_after_s))), *self._headers)

    def body(self, request_id: str) -> bytes:
        """The answer's body, JSON."""
        return msgspec.json.encode(self._shape(request_id))

    def event(self, request_id: str) -> bytes:
        """The same as one event of a stream that had begun already."""
        return b"data: %b\n\n" % self.body(request_id)

    def _shape(self, request_id: str) -> dict[str, Any]:
        error: dict[str, Any] = {
            "message": str(self),
            "type": _type_of(self.status),
            "param": self.param,
            "code": self.code,
        }
        if self.log:
            error["log"] = self.log
        if self.retry_after_s is not None:
            error["retry_after_s"] = max(1, math.ceil(self.retry_after_s))
        return {"error": error, "request_id": request_id}


def _type_of(status: int) -> str:
    """The type that OpenAI's own API gives to an error of this status."""
    if status >= _SERVER_ERROR:
        return "server_error"
    return "rate_limit_error" if status == _RATE_LIMITED else "invalid_request_error"


def event_of(body: bytes, status: int, request_id: str) -> bytes:
    """An engine's answer that is no stream, as an event of the stream that was begun for it."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if isinstance(found, dict) and (status < _CLIENT_ERROR or "error" in found):
        return b"data: %b\n\n" % msgspec.json.encode(found)
    text = body.decode(errors="replace").strip()[:_MAX_TEXT]
    return Refusal(status, "engine_error", text or f"The engine answered with {status}.").event(request_id)
