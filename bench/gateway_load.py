# SPDX-License-Identifier: Apache-2.0
"""The processes of `make bench-gateway` besides the gateways: an engine that answers at once, and clients.

``gateway_load.py stub PORT`` · ``ask PORT CLIENTS SECONDS BYTES`` · ``listen PORT STREAMS`` · ``wire PORT ENGINE`` ·
``bare PORT ENGINE``
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

# LiteLLM does not start without a key of this shape; the wire's handler compares the same one.
KEY = "sk-bench-4f1c8a90d2e7b635"
TOKENS = 200
TOKEN_S = 0.01

HEADERS = (
    "Host: 127.0.0.1\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\nX-Stainless-Lang: python\r\n"
    f"User-Agent: OpenAI/Python 2.8.0\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
    "X-Stainless-Runtime: CPython\r\nConnection: keep-alive\r\n"
)


# The engine


class Stub(asyncio.Protocol):
    """An engine's connection: every request is a chat."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.parts: list[bytes] = []
        self.missing = 0
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if not self.parts:
            head, _, body = data.partition(b"\r\n\r\n")
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.missing = length - len(body)
            self.parts = [data]
        else:
            self.missing -= len(data)
            self.parts.append(data)
        if self.missing <= 0:
            stream = any(b'"stream":true' in part or b'"stream": true' in part for part in self.parts[:1])
            self.parts = []
            if stream:
                self.transport.write(STREAM_HEAD % date())
                # Not all streams at the same moment.
                self.loop.call_later(TOKEN_S * (id(self) // 64 % 100) / 100, self.token, TOKENS)
            else:
                self.transport.write(next(ANSWERS) % date())

    def token(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if not left:
            self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            return
        event = EVENT % time.monotonic_ns()
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.loop.call_later(TOKEN_S, self.token, left - 1)


def answer(words: int) -> bytes:
    """A whole answer, but for its date."""
    said = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "bench",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hearth keeps the fire. " * words},
        }],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4 * words, "total_tokens": 9 + 4 * words},
    }  # fmt: skip
    body = json.dumps(said).encode()
    head = b"HTTP/1.1 200 OK\r\ndate: %%b\r\nserver: uvicorn\r\ncontent-length: %d\r\n" % len(body)
    return head + b"content-type: application/json\r\n\r\n" + body


class Clock:
    """The date, made once a second."""

    second = 0
    text = b""


def date() -> bytes:
    """The date as uvicorn sends it."""
    now = int(time.time())
    if now != Clock.second:
        Clock.second, Clock.text = now, formatdate(now, usegmt=True).encode()
    return Clock.text


# No two in a row are of the same length: nothing that knows the one knows the other.
ANSWERS = itertools.cycle([answer(words) for words in range(16, 25)])
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: %b\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,'
    b'"delta":{"content":"@%d@"},"logprobs":null,"finish_reason":null}]}\n\n'
)


# The clients


def question(*, stream: bool = False, size: int = 1000) -> bytes:
    """A chat request whose body has about ``size`` bytes."""
    text = "What keeps a house warm in winter, and why? " * (size // 44)
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "model": "bench"}
    body = json.dumps(fields | ({"stream": True} if stream else {}), separators=(",", ":")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{HEADERS}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Client(asyncio.Protocol):
    """Asks again and again on one connection until ``until`` (time.monotonic), one of the questions at a time."""

    def __init__(self, questions: list[bytes], until: float) -> None:
        self.questions = itertools.cycle(questions)
        self.until = until
        self.took: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.ask()

    def ask(self) -> None:
        self.buffer = b""
        sent = next(self.questions)
        self.begun = time.perf_counter()
        self.transport.write(sent)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else -1
        if len(body) < length or (length < 0 and not body.endswith(b"0\r\n\r\n")):
            return
        if b" 200" not in head[:13]:
            raise SystemExit(f"an answer that is none: {self.buffer[:500]!r}")
        self.took.append(time.perf_counter() - self.begun)
        if time.monotonic() < self.until:
            self.ask()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio names it
        if not self.done.done():
            self.done.set_exception(ConnectionError("an answer did not come"))


class Listener(asyncio.Protocol):
    """Takes one stream, and keeps how late each token was, in seconds."""

    def __init__(self, sent: bytes) -> None:
        self.sent = sent
        self.late: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        transport.write(self.sent)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.late += [(now - int(piece)) / 1e9 for piece in data.split(b"@")[1::2]]
        if b"[DONE]" in data:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio names it
        if not self.done.done():
            self.done.set_exception(ConnectionError("a stream ended early"))


async def ask(port: int, clients: int, seconds: float, size: int = 1000) -> list[float]:
    """The seconds of every answer, ``clients`` at a time."""
    loop = asyncio.get_running_loop()
    # As of answers, no two small ones in a row are of the same length.
    sent = [question(size=size - 44 * less) for less in range(9 if size < 100_000 else 1)]
    until = time.monotonic() + seconds
    made = [(await loop.create_connection(lambda: Client(sent, until), "127.0.0.1", port))[1] for _ in range(clients)]
    await asyncio.gather(*[client.done for client in made])
    return [took for client in made for took in client.took]


async def listen(port: int, streams: int) -> list[float]:
    """How late each token of so many streams at a time was, in seconds."""
    loop = asyncio.get_running_loop()
    sent = question(stream=True)
    made = [(await loop.create_connection(lambda: Listener(sent), "127.0.0.1", port))[1] for _ in range(streams)]
    await asyncio.gather(*[one.done for one in made])
    return [late for one in made for late in one.late]


# The gateway, and less than one


class Pipe(asyncio.Protocol):
    """One end of a relay that looks at nothing; ``write`` is the other's."""

    def __init__(self, write: Callable[[bytes], None] | None = None) -> None:
        self.write = write
        self.waiting: list[bytes] = []
        self.other: Pipe | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self.write is None:
            self.waiting.append(data)
        else:
            self.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio names it
        if self.other is not None:
            self.other.transport.close()

    async def join(self, engine: int) -> None:
        """Get the other end."""
        loop = asyncio.get_running_loop()
        _, other = await loop.create_connection(lambda: Pipe(self.transport.write), "127.0.0.1", engine)
        self.other, other.other, self.write = other, self, other.transport.write
        for data in self.waiting:
            self.write(data)


def bare(port: int, engine: int) -> None:
    """What no relay on this event loop can be without: two sockets, and one call of Python each way."""
    import uvloop

    class Client(Pipe):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.task = asyncio.get_running_loop().create_task(self.join(engine))

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    uvloop.run(run())


def wire(port: int, engine: int) -> None:
    """The gateway's wire, routing and relay behind a handler that compares a key; no scheduler."""
    import hashlib
    import hmac
    from collections.abc import Coroutine

    import uvloop

    from hearth.gateway.relay import Target, head_for, relay
    from hearth.gateway.replies import Refusal
    from hearth.gateway.routing import asked_in_whole
    from hearth.gateway.wire import Exchange, Pool, serve
    from hearth.gateway.wire.upstream import Upstream

    digest = hashlib.sha256(KEY.encode()).digest()

    async def main() -> None:
        pool = Pool()
        target = Target(engine)

        async def wait(exchange: Exchange) -> None:
            await exchange.read()
            await relay(pool, exchange, target)

        def handler(exchange: Exchange) -> Coroutine[Any, Any, None] | None:
            given = exchange.headers.get(b"authorization") or b""
            if not hmac.compare_digest(hashlib.sha256(given[7:]).digest(), digest):
                raise Refusal(401, "invalid_api_key", "No.")
            if not exchange.body.complete:
                return wait(exchange)
            if asked_in_whole(exchange).model != "bench":
                raise Refusal(404, "model_not_found", "No.")
            upstream = pool.take(target.host, target.port)
            if upstream is None:
                return wait(exchange)

            def ended(_: Upstream, whole: bool, refusal: Refusal | None) -> None:  # noqa: ARG001 # all that is told
                exchange.over()

            upstream.ask(exchange, head_for(exchange, target), ended)
            return None

        await serve(handler, host="127.0.0.1", port=port)
        await asyncio.Event().wait()

    uvloop.run(main())


def clients(words: list[str]) -> None:
    """One run of the clients; prints how many times they measured, and the median in seconds."""
    import uvloop

    if words[0] == "ask":
        port, count, seconds, size = words[1:]
        found = uvloop.run(ask(int(port), int(count), float(seconds), int(size)))
    else:
        found = uvloop.run(listen(int(words[1]), int(words[2])))
    print(len(found), statistics.median(found))


def stub(port: int) -> None:
    """The engine."""
    import uvloop

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    uvloop.run(run())


if __name__ == "__main__":
    if sys.argv[1] == "stub":
        stub(int(sys.argv[2]))
    elif sys.argv[1] == "bare":
        bare(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "wire":
        wire(int(sys.argv[2]), int(sys.argv[3]))
    else:
        clients(sys.argv[1:])
