# SPDX-License-Identifier: Apache-2.0
"""What becomes of a request: its key, and whether it is for an engine, for the administrator, or for neither."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from hearth.contract import Engine
from hearth.errors import KeysError
from hearth.gateway import keys
from hearth.gateway.call import Call
from hearth.gateway.conductor import Conductor
from hearth.gateway.engines import Engines
from hearth.gateway.keys import Key, Keyring
from hearth.gateway.limits import Limiter
from hearth.gateway.metrics import Metrics
from hearth.gateway.replies import JSON, Refusal
from hearth.gateway.settings import Settings
from hearth.gateway.wire import Exchange, Pool
from hearth.gateway.wire.head import Head

# Who comes by the box's own socket, whose rights are those of its file, and everybody where no key is asked for.
LOCAL = Key(name="local", sha256="0" * 64, scopes=("models", "admin"))
NOBODY = Key(name="anonymous", sha256="0" * 64, scopes=("models",))
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
        self.limiter = Limiter()
        self.loop = asyncio.get_running_loop()
        # Only engines that are told a key check one; the others ignore it.
        self.auth = ((b"authorization", b"Bearer " + engines_key.encode()),) if engines_key else ()
        self.admin: Callable[[Exchange, Key], Coroutine[Any, Any, None]] | None = None
        # Those that wait for an engine or are at one, by request.
        self.under_way: dict[str, Call] = {}
        self._keyring = keyring

    # The two ways in

    def lan(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """A request from the network: nothing happens before its key is looked at."""
        return self._serve(exchange, None)

    def local(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """A request by the box's own socket."""
        return self._serve(exchange, LOCAL)

    def _serve(self, exchange: Exchange, key: Key | None) -> Coroutine[Any, Any, None] | None:
        said = exchange.head.once(_said)
        if said.place == "health":
            exchange.respond(200, (JSON,), b'{"status":"ok"}')
            return None
        if key is None:
            key = self._key(said.sha256)
        if said.place == "engines":
            demand(key, "models")
            return Call(self, exchange, key).begin()
        return self.admin(exchange, key) if self.admin is not None else None

    def _key(self, sha256: bytes) -> Key:
        if self.settings.open:
            return NOBODY
        try:
            key = self._keyring.of(sha256) if sha256 else None
        except KeysError:
            raise Refusal(
                503, "keys_unreadable", "The gateway cannot read its keys, so it lets nobody in: its journal says why."
            ) from None
        if key is None:
            sentence = "This key is not known here." if sha256 else "A key is needed: Authorization: Bearer <key>."
            raise Refusal(401, "invalid_api_key", sentence, headers=((b"www-authenticate", b"Bearer"),))
        return key

    async def engine_metrics(self, engine: Engine) -> str:
        """The metrics of an engine that is ready, as it tells them; empty where it does not."""
        return await page_of(engine.port, "/metrics", self.auth)


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


class _Said(msgspec.Struct, frozen=True):
    """What a head says by itself: for whom it is, and the SHA-256 of its secret, empty where it has none."""

    place: Literal["health", "engines", "admin"]
    sha256: bytes


def _said(head: Head) -> _Said:
    path = head.path
    if path == "/health":
        return _Said("health", b"")
    secret = keys.secret_in(head.headers.get)
    sha256 = hashlib.sha256(secret).digest() if secret else b""
    lists_models = path == "/v1/models" or path.startswith("/v1/models/")
    is_engines = not lists_models and (path.startswith("/v1/") or path in _BARE)
    return _Said("engines" if is_engines else "admin", sha256)


def demand(key: Key, scope: keys.Scope) -> None:
    """Raises Refusal where the key was not made for this."""
    if not key.may(scope):
        raise Refusal(403, "key_scope", f"The key {key.name!r} is not for this: it has no scope {scope}.")
