# SPDX-License-Identifier: Apache-2.0
"""One request to a model: what it asks for, its turn, and its way to the engine and back."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from hearth.gateway import routing
from hearth.gateway.conductor import CUT, Turn
from hearth.gateway.keys import Key
from hearth.gateway.relay import Target, Usage, head_for, relay, usage_in
from hearth.gateway.replies import EVENTS, Refusal
from hearth.gateway.wire import Exchange
from hearth.gateway.wire.answer import StaleError
from hearth.gateway.wire.head import Head
from hearth.gateway.wire.upstream import Upstream

if TYPE_CHECKING:
    from hearth.gateway.app import App

# The client left before its answer was complete; nginx's number for that, seen by nobody but the metrics.
_CLIENT_LEFT = 499
_WAIT = re.compile(rb"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")


class Call:
    """One request to a model, within the limits of its key; counted however it ends.

    Where nothing has to be waited for but the engine's answer, all of it happens in the calls of the event loop that
    bring the bytes: a task and its turns cost as much as reading the request.
    """

    __slots__ = ("_app", "_streamed", "_target", "exchange", "key", "model")

    def __init__(self, app: App, exchange: Exchange, key: Key) -> None:
        self._app = app
        self.exchange = exchange
        self.key = key
        self.model = ""

    def begin(self) -> Coroutine[Any, Any, None] | None:
        """As a handler does. Raises Refusal."""
        app, exchange = self._app, self.exchange
        excess = app.limiter.take(self.key, app.loop.time())
        if excess is not None:
            app.metrics.answered("", self.key.name, 429, 0, 0)
            raise Refusal(429, "rate_limit_exceeded", f"{excess.reason}.", retry_after_s=excess.retry_after_s)
        exchange.at_end = self._end
        if not exchange.body.complete:
            return self._read()
        self._find(routing.asked_in_whole(exchange))
        if not app.conductor.enter(exchange.id, self.model, self._cut):
            return self._wait()
        app.under_way[exchange.id] = self
        upstream = app.pool.take(self._target.host, self._target.port)
        if upstream is None:
            return self._relay()
        upstream.ask(exchange, head_for(exchange, self._target), self._answered)
        return None

    def _end(self) -> None:
        app, exchange, key = self._app, self.exchange, self.key.name
        app.under_way.pop(exchange.id, None)
        app.conductor.release(exchange.id)
        app.limiter.give_back(key)
        status = _CLIENT_LEFT if exchange.gone else exchange.status
        app.metrics.answered(self.model, key, status, exchange.bytes_in, exchange.bytes_out)

    def _find(self, asked: routing.Asked) -> None:
        """The engine that is asked for, and the target to ask it for where the client's names the model.

        Raises Refusal.
        """
        app, exchange = self._app, self.exchange
        named, path = exchange.head.once(_named)
        model = named or asked.model or app.settings.default_model
        if not model:
            raise Refusal(400, "model_missing", "The request names no model: set the field model.", param="model")
        engine = app.engines.find(model)
        self.model = engine.name
        self._streamed = asked.stream
        self._target = Target(engine.port, add=app.auth, path=path)

    # At the engine

    def _answered(self, upstream: Upstream, _: bool, refusal: Refusal | None) -> None:
        if isinstance(refusal, StaleError):
            # An engine closes idle connections when it likes: the question did not reach it.
            self.exchange.run(self._relay())
            return
        if refusal is not None:
            self.exchange.fail(refusal)
        self._count(usage_in(upstream.tail()))
        self.exchange.over()

    async def _relay(self) -> None:
        relayed = await relay(self._app.pool, self.exchange, self._target)
        self._count(relayed.usage)

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self._app.metrics.used(self.model, self.key.name, usage.prompt, usage.completion)

    def _cut(self) -> None:
        self.exchange.cut(CUT)

    # Where there is something to wait for

    async def _read(self) -> None:
        self._find(await routing.asked(self.exchange))
        await self._wait()

    async def _wait(self) -> None:
        """Wait for the turn; a client that streams hears of it now and then, so that nobody on the way hangs up."""
        app, exchange = self._app, self.exchange
        turn = app.conductor.ask(exchange.id, self.model, self._cut, self._patience_s())
        app.under_way[exchange.id] = self
        if not turn.done():
            begun = app.loop.time()
            try:
                await self._told(turn)
            finally:
                app.metrics.waited(self.model, app.loop.time() - begun)
        turn.result()
        await self._relay()

    def _patience_s(self) -> float:
        """How long this client wants to wait for its model, in seconds: as it says (RFC 7240), or as is set."""
        preferred = self.exchange.headers.get(b"prefer")
        wait = _WAIT.search(preferred) if preferred is not None else None
        if wait is not None:
            return float(wait[1])
        wait_s = self._app.settings.wait_s
        return wait_s if wait_s and not self._streamed else math.inf

    async def _told(self, turn: Turn) -> None:
        if not self._streamed:
            await asyncio.wait({turn})
            return
        exchange = self.exchange
        while not turn.done():
            await asyncio.wait({turn}, timeout=self._app.settings.keepalive_s)
            if not turn.done():
                if not exchange.started:
                    exchange.start(200, EVENTS)
                exchange.write(self._comment())
                await exchange.drain()

    def _comment(self) -> bytes:
        place = self._app.conductor.scheduler.place(self.exchange.id, self._app.loop.time())
        return f": {self.model}: {place.words}\n\n".encode()


def _named(head: Head) -> tuple[str, bytes | None]:
    """The model that a path names, and the target without it."""
    named = routing.model_in_path(head.path)
    if named is None:
        return "", None
    model, path = named
    return model, path + (f"?{head.query}".encode() if head.query else b"")
