# SPDX-License-Identifier: Apache-2.0
"""What a client may ask of the listener: sizes in bytes, times in seconds."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one listener.

    ``head_s`` is for a whole head from its first byte, ``body_s`` for the next byte of a body, ``idle_s`` for the next
    request of a connection, ``stall_s`` for a client that reads nothing of what waits for it, ``linger_s`` for a client
    that still sends after its answer.
    """

    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    max_body_bytes: int = 100 * 1024 * 1024
    max_connections: int = 2048
    head_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 75.0
    stall_s: float = 300.0
    linger_s: float = 3.0
    # How much of a body is taken in that nobody has asked for yet, and of requests sent ahead of an answer.
    hold_bytes: int = 1024 * 1024
    ahead_bytes: int = 64 * 1024
