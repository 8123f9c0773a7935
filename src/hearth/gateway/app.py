# SPDX-License-Identifier: Apache-2.0
"""What becomes of a request: its key, its model, its turn, and its way to the engine and back."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable

from hearth.contract import Engine
from hearth.errors import KeysError
from hearth.gateway import keys, routing
from hearth.gateway.conductor import CUT, Conductor, Turn
from hearth.gateway.engines import Engines
from hearth.gateway.keys import Key, Keyring
from hearth.gateway.limits import Limiter
from hearth.gateway.metrics import Metrics
from hearth.gateway.relay import Target, relay
from hearth.gateway.replies import JSON, Refusal
from hearth.gateway.settings import Settings
from hearth.gateway.wire import Exchange, Pool

# Who comes by the box's own socket, whose rights are those of its file, and everybody where no key is asked for.
LOCAL = Key(name="local", sha256="0" * 64, scopes=("models", "admin"))
NOBODY = Key(name="anonymous", sha256="0" * 64, scopes=("models",))
# The client left before its answer was complete; nginx's number for that, seen by nobody but the metrics.
_CLIENT_LEFT = 499
EVENTS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_WAIT = re.compile(rb"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")
_PAGE_S = 2.0
# Engines serve these beside /v1.
_BARE = frozenset({"/tokenize", "/detokenize", "/rerank", "/score", "/v2/rerank", "/pooling", "/classify"})


class App:
    """The gateway's one application; ``admin`` answers what is not for an engine."""

    def __init__(
        self,
        settings: Settings,
        engines: Engines,
        keyring: Keyring,
        conductor: Conductor,
        metrics: Metrics,
        engines_key: str,
    ) -> None:
        self.settings = settings
        self.engines = engines
        self.conductor = conductor
        self.metrics = metrics
        self.pool = Pool()
        self.admin: Callable[[Exchange, Key], Awaitable[None]] | None = None
        self._keyring = keyring
        self._limiter = Limiter()
        self._auth = ((b"authorization", b"Bearer " + engines_key.encode()),) if engines_key else ()
        self._loop = asyncio.get_running_loop()
        # The exchanges of models under way: by request, with the engine and the name of the key.
        self.under_way: dict[str, tuple[Exchange, Engine, str]] = {}

    # The two ways in

    async def lan(self, exchange: Exchange) -> None:
        """A request from the network: nothing happens before its key is looked at."""
        await self._serve(exchange, self._key)

    async def local(self, exchange: Exchange) -> None:
        """A request by the box's own socket."""
        await self._serve(exchange, lambda _: LOCAL)

    def _key(self, exchange: Exchange) -> Key:
        if self.settings.open:
            return NOBODY
        secret = keys.secret_in(exchange.headers.get)
        try:
            key = self._keyring.find(secret) if secret else None
        except KeysError:
            raise Refusal(
                503, "keys_unreadable", "The gateway cannot read its keys, so it lets nobody in: its journal says why."
            ) from None
        if key is None:
            sentence = "This key is not known here." if secret else "A key is needed: Authorization: Bearer <key>."
            raise Refusal(401, "invalid_api_key", sentence, headers=((b"www-authenticate", b"Bearer"),))
        return key

    async def _serve(self, exchange: Exchange, key_of: Callable[[Exchange], Key]) -> None:
        path = exchange.path
        if path == "/health":
            exchange.respond(200, (JSON,), b'{"status":"ok"}')
            return
        key = key_of(exchange)
        is_model_call = path.startswith("/v1/") or path in _BARE
        if is_model_call and not (path == "/v1/models" or path.startswith("/v1/models/")):
            demand(key, "models")
            await self._counted(exchange, key)
        elif self.admin is not None:
            await self.admin(exchange, key)

    # To an engine

    async def _counted(self, exchange: Exchange, key: Key) -> None:
        """One request within the limits of its key; counted however it ends."""
        excess = self._limiter.take(key, self._loop.time())
        if excess is not None:
            self.metrics.answered("", key.name, 429, 0, 0)
            raise Refusal(429, "rate_limit_exceeded", f"{excess.reason}.", retry_after_s=excess.retry_after_s)
        model = ""
        status = 0
        try:
            asked = await self._asked(exchange)
            model = asked[0].name
            await self._at_engine(exchange, asked, key)
        except asyncio.CancelledError:
            status = _CLIENT_LEFT if exchange.gone else 0
            raise
        except Refusal as refusal:
            status = exchange.status or refusal.status
            raise
        finally:
            self._limiter.give_back(key.name)
            self.metrics.answered(model, key.name, status or exchange.status, exchange.bytes_in, exchange.bytes_out)

    async def _asked(self, exchange: Exchange) -> tuple[Engine, bytes | None, bool]:
        """The engine that is asked for, the target to ask it for where the client's names the model, and for a stream.

        Raises Refusal.
        """
        named = routing.model_in_path(exchange.path)
        asked = await routing.asked(exchange)
        if named is not None:
            model, path = named
            target = path + (f"?{exchange.query}".encode() if exchange.query else b"")
            return self.engines.find(model), target, asked.stream
        model = asked.model or self.settings.default_model
        if not model:
            raise Refusal(400, "model_missing", "The request names no model: set the field model.", param="model")
        return self.engines.find(model), None, asked.stream

    async def _at_engine(self, exchange: Exchange, asked: tuple[Engine, bytes | None, bool], key: Key) -> None:
        engine, target, streamed = asked
        patience_s = self._patience_s(exchange, streamed=streamed)
        turn = self.conductor.ask(exchange.id, engine.name, lambda: exchange.cut(CUT), patience_s)
        self.under_way[exchange.id] = (exchange, engine, key.name)
        try:
            if not turn.done():
                await self._wait(exchange, engine, turn, streamed=streamed)
            turn.result()
            # Only engines that are told a key check one; the others ignore it.
            relayed = await relay(self.pool, exchange, Target(engine.port, add=self._auth, path=target))
            if relayed.usage is not None:
                self.metrics.used(engine.name, key.name, relayed.usage.prompt, relayed.usage.completion)
        finally:
            del self.under_way[exchange.id]
            self.conductor.release(exchange.id)

    async def engine_metrics(self, engine: Engine) -> str:
        """The metrics of an engine that is ready, as it tells them; empty where it does not."""
        return await page_of(engine.port, "/metrics", self._auth)

    def _patience_s(self, exchange: Exchange, *, streamed: bool) -> float:
        """How long this client wants to wait for its model, in seconds: as it says (RFC 7240), or as is set."""
        preferred = exchange.headers.get(b"prefer")
        wait = _WAIT.search(preferred) if preferred is not None else None
        if wait is not None:
            return float(wait[1])
        return self.settings.wait_s if self.settings.wait_s and not streamed else math.inf

    async def _wait(self, exchange: Exchange, engine: Engine, turn: Turn, *, streamed: bool) -> None:
        """Wait for the turn; a client that streams hears of it now and then, so that nobody on the way hangs up."""
        begun = self._loop.time()
        try:
            await self._told(exchange, engine, turn, streamed=streamed)
        finally:
            self.metrics.waited(engine.name, self._loop.time() - begun)

    async def _told(self, exchange: Exchange, engine: Engine, turn: Turn, *, streamed: bool) -> None:
        if not streamed:
            await asyncio.wait({turn})
            return
        while not turn.done():
            await asyncio.wait({turn}, timeout=self.settings.keepalive_s)
            if not turn.done():
                if not exchange.started:
                    exchange.start(200, EVENTS)
                exchange.write(self._comment(exchange, engine))
                await exchange.drain()

    def _comment(self, exchange: Exchange, engine: Engine) -> bytes:
        place = self.conductor.scheduler.place(exchange.id, self._loop.time())
        return f": {engine.name}: {place.words}\n\n".encode()


async def page_of(port: int, path: str, fields: tuple[tuple[bytes, bytes], ...]) -> str:
    """A page of an engine; empty where it has none, or does not give it within two seconds."""
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    try:
        async with asyncio.timeout(_PAGE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                # HTTP/1.0: the answer ends where the connection does.
                writer.write(b"GET %b HTTP/1.0\r\nhost: 127.0.0.1\r\n%b\r\n" % (path.encode(), head))
                answer = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return ""
    status, _, rest = answer.partition(b"\r\n")
    return rest.partition(b"\r\n\r\n")[2].decode(errors="replace") if b" 200 " in status + b" " else ""


def demand(key: Key, scope: keys.Scope) -> None:
    """Raises Refusal where the key was not made for this."""
    if not key.may(scope):
        raise Refusal(403, "key_scope", f"The key {key.name!r} is not for this: it has no scope {scope}.")
