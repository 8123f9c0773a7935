# SPDX-License-Identifier: Apache-2.0
"""Both ends of the wire for tests of the gateway: a client that sends bytes, an engine that follows a script."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

from hearth.gateway.relay import Relayed, Target, relay
from hearth.gateway.wire import Exchange, Handler, Limits, Listener, Pool, serve

# Longer than anything here takes: a test that hangs fails by it.
PATIENCE_S = 20.0
QUICK = Limits(linger_s=0.4)


class Client:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        for piece in pieces:
            self.writer.write(piece)

    async def answer(self, *, of_head: bool = False) -> Answer:
        """The next answer, taken apart by its framing. Raises IncompleteReadError where it breaks off."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head[:-4].split(b"\r\n")
            fields = [tuple(line.split(b": ", 1)) for line in lines[1:]]
            status = int(lines[0].split(b" ")[1])
            found = Answer(status, [(name.lower(), value) for name, value in fields])
            if of_head or status in {100, 204, 304}:
                return found
            if found.get(b"transfer-encoding") == b"chunked":
                while True:
                    size = int(await self.reader.readuntil(b"\r\n"), 16)
                    found.body += (await self.reader.readexactly(size + 2))[:-2]
                    if not size:
                        return found
            length = found.get(b"content-length")
            found.body = await (self.reader.read() if length is None else self.reader.readexactly(int(length)))
            return found

    async def rest(self) -> bytes:
        """All that comes until the other side closes. Raises ConnectionResetError where it breaks off."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    def break_off(self) -> None:
        """Hang up with a reset, which comes even where the gateway reads nothing."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Answer:
    """An answer's status, head and body."""

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.fields = fields
        self.body = b""

    def get(self, name: bytes) -> bytes | None:
        """The value of the only field of this name."""
        values = [value for one, value in self.fields if one == name]
        assert len(values) < 2
        return values[0] if values else None


class Question:
    """A request as an engine sees it."""

    def __init__(self, line: bytes, fields: dict[bytes, bytes], body: bytes) -> None:
        self.line = line
        self.fields = fields
        self.body = body


Script = Callable[[Question, asyncio.StreamWriter], Awaitable[None]]


class Engine:
    """A server that follows a script: it gets each question, and the stream to answer on.

    ``lost`` is set when a connection ends while the script runs, which is cancelled then.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.questions: list[Question] = []
        self.connections = 0
        self.lost = asyncio.Event()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    def connection(self) -> asyncio.StreamReaderProtocol:
        """The protocol of one more connection."""
        return _Ends(asyncio.StreamReader(limit=2**20), self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        ends = cast("_Ends", writer.transport.get_protocol()).ended
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while not writer.is_closing():
                question = await _question(reader)
                self.questions.append(question)
                script = asyncio.ensure_future(self.script(question, writer))
                await asyncio.wait({script, ends}, return_when=asyncio.FIRST_COMPLETED)
                if not script.done():
                    script.cancel()
                    self.lost.set()
                    return
                script.result()
        writer.close()

    def close(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()


class _Ends(asyncio.StreamReaderProtocol):
    """Says at once when the other side is gone."""

    def __init__(self, reader: asyncio.StreamReader, serve: Callable[..., Awaitable[None]]) -> None:
        super().__init__(reader, serve)  # type: ignore[arg-type]
        self.ended = asyncio.get_running_loop().create_future()

    def eof_received(self) -> bool | None:
        self._end()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _question(reader: asyncio.StreamReader) -> Question:
    lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    fields = dict(line.split(b": ", 1) for line in lines[1:])
    body = b""
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif b"content-length" in fields:
        body = await reader.readexactly(int(fields[b"content-length"]))
    return Question(lines[0], fields, body)


def plain(body: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    """A whole answer with a length."""
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, kind, len(body), body)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def request(
    method: str = "GET", target: str = "/", body: bytes | None = None, *fields: bytes, version: bytes = b"1.1"
) -> bytes:
    """A request's bytes."""
    lines = [b"%b %b HTTP/%b" % (method.encode(), target.encode(), version), b"Host: gateway", *fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


@asynccontextmanager
async def listening(handler: Handler, limits: Limits = QUICK) -> AsyncIterator[Listener]:
    """A gateway of one handler."""
    listener = await serve(handler, host="127.0.0.1", port=0, limits=limits)
    try:
        yield listener
    finally:
        await listener.close(0)


@asynccontextmanager
async def connected(listener: Listener, *, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    """A client of it."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, listener.addresses[0])
    limit = 2**16 if receive_buffer is None else receive_buffer
    client = Client(*await asyncio.open_connection(sock=sock, limit=limit))
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def engine_of(script: Script) -> AsyncIterator[Engine]:
    """An engine that follows this script."""
    engine = Engine(script)
    server = await asyncio.get_running_loop().create_server(engine.connection, "127.0.0.1", 0)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        server.close()
        engine.close()


class Relay:
    """A handler that relays everything to one engine, and keeps what came of it."""

    def __init__(self, port: int, *, comment: bytes = b"") -> None:
        self.port = port
        self.pool = Pool()
        self.results: list[Relayed] = []
        self.exchanges: list[Exchange] = []
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self._comment = comment

    async def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.asked.set()
        try:
            if self._comment:
                exchange.start(200, [(b"content-type", b"text/event-stream")])
                exchange.write(self._comment)
            self.results.append(await relay(self.pool, exchange, Target(self.port)))
        finally:
            self.ended.set()


@asynccontextmanager
async def relaying(
    script: Script,
    limits: Limits = QUICK,
    *,
    comment: bytes = b"",
) -> AsyncIterator[tuple[Listener, Engine, Relay]]:
    """A gateway that relays to an engine of this script."""
    async with engine_of(script) as engine:
        handler = Relay(engine.port, comment=comment)
        async with listening(handler, limits) as listener:
            yield listener, engine, handler
        handler.pool.close()


async def soon(event: asyncio.Event) -> None:
    """Wait for it, but not for ever."""
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()
