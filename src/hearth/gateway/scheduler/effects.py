# SPDX-License-Identifier: Apache-2.0
"""What the scheduler wants done, in this order."""

from __future__ import annotations

from typing import Literal

import msgspec

Code = Literal[
    "queue_full",
    "breaker_open",
    "not_on_demand",
    "does_not_fit",
    "load_failed",
    "waited_too_long",
    "unloaded",
    "removed",
    "gateway_stopping",
]
# RFC 9110 and RFC 6585: too many of the caller's own kind, gone from here, or not now.
_STATUS: dict[Code, int] = {"queue_full": 429, "removed": 404}


class Grant(msgspec.Struct, frozen=True):
    """This request has a lease: relay it, and tell Ended at its last byte."""

    request: str
    engine: str


class Refuse(msgspec.Struct, frozen=True):
    """This request is answered with an error.

    ``reason`` is a sentence for its caller, ``log`` the tail of what the engine said. ``retry_after_s`` is None where
    to come again does not help, or nobody knows when.
    """

    request: str
    engine: str
    code: Code
    reason: str
    retry_after_s: float | None = None
    log: str = ""

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return _STATUS.get(self.code, 503)


class Begin(msgspec.Struct, frozen=True):
    """One transaction: stop these, wait until their memory is back, start that one.

    Nothing is in flight on those that stop, and no request gets to any of them before the result was told. No two
    transactions are under way at a time.
    """

    engine: str
    evict: tuple[str, ...] = ()


class Stop(msgspec.Struct, frozen=True):
    """One transaction: stop this one. Nothing is in flight on it."""

    engine: str


class CancelLoad(msgspec.Struct, frozen=True):
    """Nobody wants what Begin is loading any more: stop it, and tell LoadFailed with the kind ``cancelled``."""

    engine: str


class Cut(msgspec.Struct, frozen=True):
    """The time to drain is over: end this request with an error, and tell Ended."""

    request: str


class Drained(msgspec.Struct, frozen=True):
    """What a hold waits for: nothing is in flight on its engines any more, but ``left`` that were just cut."""

    hold: str
    left: int


Effect = Grant | Refuse | Begin | Stop | CancelLoad | Cut | Drained
