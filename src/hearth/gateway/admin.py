# SPDX-License-Identifier: Apache-2.0
"""What is not for an engine: the list of models, metrics, and for administrators all that can be seen and changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from hearth.contract import Engine
from hearth.gateway import metrics, routing
from hearth.gateway.app import App, demand
from hearth.gateway.events import Bulletin
from hearth.gateway.keys import Key
from hearth.gateway.replies import EVENTS, JSON, Refusal
from hearth.gateway.scheduler.events import AdminUnload
from hearth.gateway.wire import Exchange

_LINES = ((b"content-type", b"application/jsonl"), (b"cache-control", b"no-cache"))
# A comment so often, so that nobody on the way takes a quiet stream for a dead one.
_QUIET_S = 15.0
# Who drains tells how it goes so often.
_TELL_S = 1.0

_CANCELLED = Refusal(503, "cancelled", "An administrator has cancelled this request.")


class _Unload(msgspec.Struct, forbid_unknown_fields=True):
    drain_s: float | None = None


class _Load(msgspec.Struct, forbid_unknown_fields=True):
    wait: bool = True


class _Switch(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    drain_s: float | None = None
    wait: bool = True


class _Hold(msgspec.Struct, forbid_unknown_fields=True):
    engines: tuple[str, ...]
    drain_s: float


Body = TypeVar("Body", _Unload, _Load, _Switch, _Hold)


class Admin:
    """The routes below /api, /v1/models and /metrics. ``reload`` reads the configuration again."""

    def __init__(self, app: App, bulletin: Bulletin, reload: Callable[[], Awaitable[list[str]]]) -> None:
        self._app = app
        self._bulletin = bulletin
        self._reload = reload
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the streams that have no end of their own."""
        self._closing.set()

    async def handle(self, exchange: Exchange, key: Key) -> None:
        """Answer. Raises Refusal."""
        path, method = exchange.path, exchange.method
        if path == "/v1/models" or path.startswith("/v1/models/"):
            self._models(exchange, method)
            return
        demand(key, "admin")
        if path == "/metrics":
            _only(method, "GET")
            exchange.respond(200, ((b"content-type", metrics.CONTENT_TYPE),), await self._metrics())
        elif path == "/api/models":
            _only(method, "GET")
            _reply(exchange, {"models": self._views()})
        elif path == "/api/events":
            _only(method, "GET")
            await self._listen(exchange)
        elif path == "/api/requests":
            _only(method, "GET")
            _reply(exchange, {"requests": self._requests()})
        elif path.startswith("/api/requests/"):
            _only(method, "DELETE")
            self._cancel(exchange, path.removeprefix("/api/requests/"))
        elif path == "/api/reload":
            _only(method, "POST")
            _reply(exchange, {"changed": await self._reload()})
        elif path == "/api/switch":
            _only(method, "POST")
            await self._switch(exchange, await _body(exchange, _Switch))
        elif path == "/api/holds":
            _only(method, "POST")
            await self._hold(exchange, await _body(exchange, _Hold))
        elif path.startswith("/api/models/"):
            await self._model(exchange, path.removeprefix("/api/models/"))
        else:
            raise Refusal(404, "not_found", f"There is nothing at {method} {path[:200]}.")

    # What is

    def _models(self, exchange: Exchange, method: str) -> None:
        _only(method, "GET", "HEAD")
        name = routing.model_asked_about(exchange.path)
        phases = self._phases()
        if name is not None:
            _reply(exchange, _listed(self._app.engines.find(name), phases))
        else:
            _reply(exchange, {"object": "list", "data": [_listed(engine, phases) for engine in self._app.engines]})

    def _phases(self) -> dict[str, str]:
        return {one.name: one.phase for one in self._app.conductor.view()}

    def _views(self) -> list[dict[str, object]]:
        return [msgspec.to_builtins(one) for one in self._app.conductor.view()]

    def _requests(self) -> list[dict[str, object]]:
        now = self._loop.time()
        return [
            {
                "id": call.exchange.id,
                "model": call.model,
                "key": call.key.name,
                "path": call.exchange.path,
                "seconds": round(now - call.exchange.begun, 3),
                "waiting": not call.exchange.source,
                "bytes_out": call.exchange.bytes_out,
            }
            for call in self._app.under_way.values()
        ]

    async def _metrics(self) -> bytes:
        app = self._app
        for one in app.conductor.view():
            app.metrics.in_flight.labels(one.name).set(one.in_flight)
            app.metrics.waiting.labels(one.name).set(one.waiting)
            app.metrics.up.labels(one.name).set(one.phase == "ready")
        app.metrics.available.set(app.engines.memory().available_gib * 2**30)
        phases = self._phases()
        ready = [engine for engine in app.engines if phases.get(engine.name) == "ready"]
        pages = await asyncio.gather(*(app.engine_metrics(engine) for engine in ready))
        return app.metrics.page({engine.name: page for engine, page in zip(ready, pages, strict=True) if page})

    async def _listen(self, exchange: Exchange) -> None:
        """State changes as they happen, for as long as the client listens; the first event is how things are."""
        exchange.start(200, EVENTS)
        exchange.write(_event("models", {"models": self._views()}))
        with self._bulletin.subscribed() as news:
            closing = self._loop.create_task(self._closing.wait())
            try:
                while not closing.done():
                    item = self._loop.create_task(news.get())
                    await asyncio.wait({item, closing}, timeout=_QUIET_S, return_when=asyncio.FIRST_COMPLETED)
                    if item.done():
                        exchange.write(_event(*item.result()))
                    else:
                        item.cancel()
                        exchange.write(b": still here\n\n")
                    await exchange.drain()
            finally:
                closing.cancel()
        exchange.end()

    # What changes

    def _cancel(self, exchange: Exchange, request: str) -> None:
        found = self._app.under_way.get(request)
        if found is None:
            sentence = f"No request {request[:100]} is under way: GET /api/requests lists all."
            raise Refusal(404, "request_not_found", sentence)
        found.exchange.cut(_CANCELLED)
        _reply(exchange, {"cancelled": request})

    async def _model(self, exchange: Exchange, rest: str) -> None:
        name, _, action = rest.partition("/")
        engine = self._app.engines.find(unquote(name))
        if not action:
            _only(exchange.method, "GET")
            _reply(exchange, next(view for view in self._views() if view["name"] == engine.name))
        elif action == "load":
            _only(exchange.method, "POST")
            await self._load(exchange, engine, wait=(await _body(exchange, _Load)).wait)
        elif action == "unload":
            _only(exchange.method, "POST")
            asked = await _body(exchange, _Unload)
            self._unload(engine, asked.drain_s)
            _reply(exchange, {"unloading": engine.name}, 202)
        else:
            raise Refusal(404, "not_found", f"There is no {action[:100]!r} for a model: load and unload are.")

    async def _load(self, exchange: Exchange, engine: Engine, *, wait: bool) -> None:
        if wait:
            await self._app.conductor.load(exchange.id, engine.name)
        else:
            self._app.conductor.wish(exchange.id, engine.name)
        _reply(exchange, {"loaded" if wait else "loading": engine.name}, 200 if wait else 202)

    def _unload(self, engine: Engine, drain_s: float | None) -> None:
        drain_s = self._app.settings.scheduling.drain_s if drain_s is None else drain_s
        self._app.conductor.tell(AdminUnload(engine.name, drain_s))

    async def _switch(self, exchange: Exchange, asked: _Switch) -> None:
        """Have this model run, and no other of the main lane that is not pinned; the start at boot is not moved."""
        engine = self._app.engines.find(asked.model)
        for other in self._app.engines:
            if other is not engine and other.lane == engine.lane == "main" and not other.pinned:
                self._unload(other, asked.drain_s)
        await self._load(exchange, engine, wait=asked.wait)

    async def _hold(self, exchange: Exchange, asked: _Hold) -> None:
        """Let nobody new to these engines for as long as this connection lives: lines say how the draining goes.

        For another process that changes engines: should it die, its connection goes, and all is as before.
        """
        names = tuple(dict.fromkeys(self._app.engines.find(name).name for name in asked.engines))
        conductor = self._app.conductor
        drained = self._loop.create_task(conductor.hold(exchange.id, names, max(0.0, asked.drain_s)))
        try:
            exchange.start(200, _LINES)
            while not drained.done():
                left = sum(one.in_flight for one in conductor.view() if one.name in names)
                exchange.write(msgspec.json.encode({"in_flight": left}) + b"\n")
                await exchange.drain()
                await asyncio.wait({drained}, timeout=_TELL_S)
            exchange.write(msgspec.json.encode({"drained": True, "left": drained.result()}) + b"\n")
            # The end of it is the client's to make.
            await self._closing.wait()
            exchange.end()
        finally:
            drained.cancel()
            conductor.let_go(exchange.id)


def _listed(engine: Engine, phases: Mapping[str, str]) -> dict[str, object]:
    """A model as OpenAI's API lists one, with what that leaves out."""
    return {
        "id": engine.name,
        "object": "model",
        "created": 0,
        "owned_by": "hearth",
        "aliases": engine.aliases,
        "capabilities": engine.capabilities,
        "state": phases.get(engine.name, "stopped"),
    }


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        names = ", ".join(allowed)
        raise Refusal(405, "method_not_allowed", f"Here it is {names}.", headers=((b"allow", names.encode()),))


def _reply(exchange: Exchange, value: object, status: int = 200) -> None:
    exchange.respond(status, (JSON,), msgspec.json.encode(value))


def _event(kind: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(data))


async def _body(exchange: Exchange, kind: type[Body]) -> Body:
    """The request's JSON. Raises Refusal."""
    try:
        return msgspec.json.decode(await exchange.read() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid_request", f"The request's body is not what is wanted here: {error}.") from None
