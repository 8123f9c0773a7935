# SPDX-License-Identifier: Apache-2.0
"""The listener: a socket and all its connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as tls
import sys

from hearth.gateway.replies import Refusal
from hearth.gateway.wire.connection import Connection
from hearth.gateway.wire.exchange import Handler
from hearth.gateway.wire.hangup import Hangups
from hearth.gateway.wire.limits import Limits

_BACKLOG = 1024


class Listener:
    """A socket that is served. ``exchanges`` are the requests under way."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.hangups = Hangups(self.loop)
        self.closing = False
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._server: asyncio.Server | None = None
        times = (limits.head_s, limits.body_s, limits.idle_s, limits.stall_s, limits.linger_s)
        self._tick_s = min(1.0, min(times) / 4)
        self._tick = self.loop.call_later(self._tick_s, self._check)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [one.getsockname()[:2] for one in self._server.sockets] if self._server is not None else []

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def open(self, server: asyncio.Server) -> None:
        """Serve what this server accepts."""
        self._server = server

    def joined(self, connection: Connection) -> None:
        """A client has connected."""
        self._connections.add(connection)
        self._empty.clear()

    def left(self, connection: Connection, fd: int) -> None:
        """A client's connection is over."""
        if not self.hangups.closed:
            self.hangups.forget(fd)
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def is_full(self) -> bool:
        """Whether this connection is one too many."""
        return len(self._connections) > self.limits.max_connections

    async def close(self, deadline_s: float) -> None:
        """Accept nobody more, let answers under way end within ``deadline_s`` seconds, then cut them visibly."""
        self.closing = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.finish()
        try:
            await asyncio.wait_for(self._empty.wait(), deadline_s)
        except TimeoutError:
            refusal = Refusal(503, "gateway_stopping", "The gateway is stopping. Ask again.", retry_after_s=1)
            for connection in list(self._connections):
                connection.cut(refusal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self.limits.linger_s)
        for connection in list(self._connections):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), self.limits.linger_s)
        self._tick.cancel()
        self.hangups.close()

    def _check(self) -> None:
        self._tick = self.loop.call_later(self._tick_s, self._check)
        now = self.loop.time()
        for connection in list(self._connections):
            connection.check(now)


async def serve(
    handler: Handler,
    *,
    sock: socket.socket | None = None,
    host: str | None = None,
    port: int | None = None,
    path: str | None = None,
    limits: Limits | None = None,
    ssl: tls.SSLContext | None = None,
) -> Listener:
    """Serve a socket that listens already, a host and port, or a Unix socket's path. Raises OSError."""
    listener = Listener(handler, limits or Limits())

    def connection() -> Connection:
        return Connection(listener)

    loop = listener.loop
    if path is not None or (sock is not None and sock.family == socket.AF_UNIX):
        # A socket that systemd made stays systemd's: from Python 3.13 on its file would go with the server.
        more = {"cleanup_socket": False} if sock is not None and sys.version_info >= (3, 13) else {}
        server = await loop.create_unix_server(connection, path, sock=sock, ssl=ssl, backlog=_BACKLOG, **more)
    else:
        server = (
            await loop.create_server(connection, sock=sock, ssl=ssl, backlog=_BACKLOG)
            if sock is not None
            else await loop.create_server(connection, host, port or 0, ssl=ssl, backlog=_BACKLOG)
        )
    listener.open(server)
    return listener
