# SPDX-License-Identifier: Apache-2.0
"""The gateway is asked to keep requests away from engines that are about to stop, and to let those under way end.

``POST /api/holds`` on its own socket, which answers with lines of JSON for as long as the connection lives:
``{"in_flight": n}`` at once and then at least every other second, and ``{"drained": true, "left": n}`` when the last
request has ended, or at the deadline, which cut ``n``. Whoever holds lets go by closing the connection, so one that is
killed lets go as well. A box without a gateway, or with one that hangs, is drained by what its engines tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from hearth import state

SOCKET = state.RUN / "gateway.sock"
# A gateway that works answers within milliseconds.
_ANSWER_S = 1.0
# How long it may say nothing while it drains, and how long after its deadline it may need to cut what is left.
_SILENCE_S = 5.0

_log = logging.getLogger(__name__)


class _Line(msgspec.Struct):
    in_flight: int = 0
    drained: bool = False
    left: int = 0


@asynccontextmanager
async def held(
    engines: Sequence[str], drain_s: float, path: Path = SOCKET, tell: Callable[[int], None] = lambda _: None
) -> AsyncIterator[int]:
    """Until the end of the block the gateway lets nobody new to ``engines``; gives how many requests ended first.

    ``tell`` hears how many are left. Raises nothing: without a gateway nothing was held, and nothing ended.
    """
    async with AsyncExitStack() as stack:
        ended = 0
        try:
            if engines:
                ended = await _hold(stack, engines, drain_s, path, tell)
        except (FileNotFoundError, ConnectionRefusedError):
            # No gateway on this box, or not now.
            pass
        except (OSError, EOFError, ValueError) as error:
            _log.warning("the gateway does not hold %s (%r): only the engines are asked", ", ".join(engines), error)
        yield ended


async def _hold(
    stack: AsyncExitStack, engines: Sequence[str], drain_s: float, path: Path, tell: Callable[[int], None]
) -> int:
    """The connection lasts as long as ``stack``. Raises OSError, EOFError, ValueError."""
    async with asyncio.timeout(_ANSWER_S):
        reader, writer = await asyncio.open_unix_connection(path)
        stack.callback(writer.close)
        lines = await _asked(reader, writer, engines, drain_s)
    async with asyncio.timeout(drain_s + _SILENCE_S), aclosing(lines):
        return await _drained(lines, tell)


async def _asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, engines: Sequence[str], drain_s: float
) -> AsyncGenerator[bytes, None]:
    """The lines of the answer. Raises OSError, EOFError, and ValueError where it is no answer to that."""
    body = msgspec.json.encode({"engines": engines, "drain_s": drain_s})
    head = f"POST /api/holds HTTP/1.1\r\nHost: hearth\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\n\r\n".encode() + body)
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().splitlines()
    if status.split(" ")[1:2] != ["200"]:
        raise ValueError(status)
    chunked = any(field.replace(" ", "") == "transfer-encoding:chunked" for field in fields)
    return _lines(reader, chunked=chunked)


async def _lines(reader: asyncio.StreamReader, *, chunked: bool) -> AsyncGenerator[bytes, None]:
    """The lines of a body (RFC 9112, 7.1). Raises OSError, EOFError, ValueError, and TimeoutError after a silence."""
    rest = b""
    while True:
        async with asyncio.timeout(_SILENCE_S):
            if chunked:
                size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
                data = (await reader.readexactly(size + 2))[:size]
            else:
                data = await reader.read(4096)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


async def _drained(lines: AsyncIterator[bytes], tell: Callable[[int], None]) -> int:
    """How many requests ended until the gateway says that all have. Raises EOFError where it stops before."""
    first: int | None = None
    async for text in lines:
        line = msgspec.json.decode(text, type=_Line)
        if line.drained:
            return max(0, (first or 0) - line.left)
        first = line.in_flight if first is None else first
        tell(line.in_flight)
    raise EOFError("it closed the connection")
