# SPDX-License-Identifier: Apache-2.0
"""Connections to engines that wait for the next request."""

from __future__ import annotations

import asyncio

from hearth.gateway.wire.answer import EngineGoneError
from hearth.gateway.wire.upstream import Upstream


class Pool:
    """The idle connections, by engine.

    Engines close idle connections after 5 s (uvicorn and cpp-httplib, their defaults): one is used again within
    ``idle_s`` seconds only.
    """

    def __init__(self, *, connect_s: float = 5.0, idle_s: float = 3.0, idle_each: int = 64) -> None:
        self.loop = asyncio.get_running_loop()
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._idle_each = idle_each
        self._idle: dict[tuple[str, int], list[Upstream]] = {}

    def take(self, host: str, port: int) -> Upstream | None:
        """A connection to an engine that waits, where there is one."""
        idle = self._idle.get((host, port))
        while idle:
            upstream = idle.pop()
            if upstream.is_open and self.loop.time() - upstream.idle_since < self._idle_s:
                return upstream
            upstream.close()
        return None

    async def connect(self, host: str, port: int) -> Upstream:
        """A fresh connection. Raises EngineGoneError."""
        try:
            async with asyncio.timeout(self._connect_s):
                _, upstream = await self.loop.create_connection(lambda: Upstream(self, (host, port)), host, port)
        except OSError as error:
            why = str(error) or "it does not answer"
            raise EngineGoneError(f"The engine at {host}:{port} cannot be reached: {why}. Ask again.") from error
        return upstream

    def give(self, upstream: Upstream) -> None:
        """Keep a connection whose answer was whole."""
        upstream.idle_since = self.loop.time()
        upstream.reused = True
        idle = self._idle.setdefault(upstream.address, [])
        if len(idle) >= self._idle_each:
            idle.pop(0).close()
        idle.append(upstream)

    def discard(self, upstream: Upstream) -> None:
        """A connection is lost."""
        idle = self._idle.get(upstream.address)
        if idle and upstream in idle:
            idle.remove(upstream)

    def close(self) -> None:
        """Close what is idle."""
        for idle in self._idle.values():
            for upstream in list(idle):
                upstream.close()
        self._idle.clear()
