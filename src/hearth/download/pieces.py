# SPDX-License-Identifier: Apache-2.0
"""Bytes as they come from a network, gathered so that each write is worth its call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import httpx2

# What is handed on at once: large enough that writing costs little, small enough that eight files fit in the memory.
PIECE = 1 << 20
# One call writes no more pieces (IOV_MAX is 1024), and a slow line's bytes are not held back longer, in seconds.
_PIECES = 512
_HOLD_S = 0.5


def gathered(stream: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The pieces of a body, in lists; also those that came before it was cut off. Raises httpx2.TransportError."""
    pieces: list[bytes] = []
    size = 0
    try:
        due = time.monotonic() + _HOLD_S
        for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size >= PIECE or len(pieces) >= _PIECES or time.monotonic() >= due:
                yield pieces
                pieces, size, due = [], 0, time.monotonic() + _HOLD_S
    except httpx2.TransportError:
        # What came before the cut counts.
        yield pieces
        raise
    yield pieces
