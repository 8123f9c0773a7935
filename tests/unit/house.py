# SPDX-License-Identifier: Apache-2.0
"""A whole gateway in one process: its own parts, with engines that follow scripts, and a box that is played.

The box has 20 GiB, 4 of them the host's. ``scout`` and ``sage`` need 10 GiB each, so that only one of them fits;
``mini`` needs 4 and ``embed``, in the utility lane, 1. All start on demand, and nothing runs at first.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from played import EVENT_END, FLOOR_GIB, Box, Played
from wires import PATIENCE_S, Answer, Client, connected, request

from hearth import contract
from hearth.admission.ledger import Ledger
from hearth.gateway import engines as known_engines
from hearth.gateway import keys, process
from hearth.gateway.process import Gateway
from hearth.gateway.scheduler.spec import Policy
from hearth.gateway.settings import Settings
from hearth.gateway.wire import Limits, Listener, serve

NEEDS = {"scout": 10.0, "sage": 10.0, "mini": 4.0, "embed": 1.0}
# Of the models' and of the administrator's key.
SECRET, ADMIN = "hearth_for-the-models", "hearth_for-the-administrator"
ENGINES_SECRET = "of-the-engines"
# As the real one, but for a test's patience: whoever has been there long enough is a matter of its own tests.
QUICK = Policy(
    min_residency_s=0.0,
    calm_s=0.0,
    max_wait_s=0.4,
    drain_s=10.0,
    idle_stop_s=0.0,
    settle_s=0.0,
    breaker_open_s=0.3,
    promise_s=0.2,
    busy_retry_s=0.02,
)


class ProperEndError(Exception):
    """A stream came to its end, and said so."""


class Stream:
    """A streamed answer as it comes: events, or comments, without the empty line after each."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._buffer = b""
        self._over = False

    async def head(self) -> Answer:
        return await self.client.answer(of_head=True)

    async def next(self) -> bytes:
        """The next event. Raises ProperEndError, and as ``Client.answer`` where the stream breaks off."""
        reader = self.client.reader
        while EVENT_END not in self._buffer:
            if self._over:
                assert not self._buffer, self._buffer
                raise ProperEndError
            size = int(await reader.readuntil(b"\r\n"), 16)
            self._buffer += (await reader.readexactly(size + 2))[:-2]
            self._over = not size
        event, _, self._buffer = self._buffer.partition(EVENT_END)
        return event

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with suppress(ProperEndError):
            while True:
                yield await self.next()

    async def rest(self) -> list[bytes]:
        """All that still comes, to a proper end."""
        async with asyncio.timeout(PATIENCE_S):
            return [event async for event in self]


async def broken(stream: Stream) -> bytes:
    """The last event of a stream that must not end as a whole one does."""
    last = b""
    try:
        async for event in stream:
            last = event
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return last
    raise AssertionError(f"the stream came to a proper end: {last!r}")


class House:
    """The gateway, its listener on loopback, its box, and clients."""

    def __init__(self, gateway: Gateway, listener: Listener, local: Path, box: Box, keys_file: Path) -> None:
        self.gateway = gateway
        self.listener = listener
        self.local = local
        self.box = box
        self.keys_file = keys_file
        self._clients = AsyncExitStack()

    def engine(self, name: str) -> Played:
        return self.box.engines[name]

    @property
    def up(self) -> set[str]:
        return {name for name, one in self.box.engines.items() if one.phase == "ready"}

    @property
    def starts(self) -> Counter[str]:
        """How often each was started; those that never were are not in it."""
        return Counter({name: one.starts for name, one in self.box.engines.items() if one.starts})

    async def connect(self, *, receive_buffer: int | None = None) -> Client:
        """A client; closed with the house."""
        return await self._clients.enter_async_context(connected(self.listener, receive_buffer=receive_buffer))

    async def connect_local(self) -> Client:
        """A client of the box's own socket."""
        client = Client(*await asyncio.open_unix_connection(self.local))
        self._clients.push_async_callback(client.close)
        return client

    async def send(
        self,
        model: Any = "scout",
        *headers: bytes,
        path: str = "/v1/chat/completions",
        secret: str | None = SECRET,
        **fields: Any,
    ) -> Client:
        """A question on a connection of its own; its answer is still to come."""
        client = await self.connect()
        named = {} if model is None else {"model": model}
        body = json.dumps({**named, "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()
        key = () if secret is None else (b"Authorization: Bearer " + secret.encode(),)
        client.send(request("POST", path, body, b"Content-Type: application/json", *key, *headers))
        return client

    async def ask(self, model: Any = "scout", *headers: bytes, **fields: Any) -> Answer:
        """A question and its whole answer."""
        client = await self.send(model, *headers, **fields)
        answer = await client.answer()
        await client.close()
        return answer

    async def stream(self, model: str = "scout", *headers: bytes, **fields: Any) -> Stream:
        """A question that is answered as a stream."""
        return Stream(await self.send(model, *headers, stream=True, **fields))

    async def admin(self, method: str, path: str, body: Any = None, secret: str | None = ADMIN) -> Answer:
        """A question of an administrator."""
        client = await self.connect()
        key = () if secret is None else (b"Authorization: Bearer " + secret.encode(),)
        client.send(request(method, path, None if body is None else json.dumps(body).encode(), *key))
        answer = await client.answer(of_head=method == "HEAD")
        await client.close()
        return answer

    async def close(self) -> None:
        """Every client hangs up."""
        await self._clients.aclose()


def error(answer: Answer) -> dict[str, Any]:
    """An answer's error, which has OpenAI's shape, and names the request as the head does."""
    told = json.loads(answer.body)
    assert told["request_id"] == (answer.get(b"x-request-id") or b"").decode()
    found: dict[str, Any] = told["error"]
    assert {"message", "type", "param", "code"} <= found.keys()
    return found


def error_in(event: bytes) -> dict[str, Any]:
    """The error that an event of a stream is."""
    found: dict[str, Any] = json.loads(event.removeprefix(b"data: "))["error"]
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, turn by turn of the loop."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is anywhere in the gateway
            await asyncio.sleep(0.002)


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenHouse:
    """Make a house; ``engines`` changes fields of some, by name; ``policy`` and ``settings`` replace what is usual."""
    units = tmp_path / "units"
    units.mkdir()
    monkeypatch.setattr(known_engines, "Ledger", lambda: Ledger(tmp_path / "measured.json", units))
    monkeypatch.setattr(known_engines, "UNITS", units)
    monkeypatch.setattr(keys, "LOOK_EVERY_S", 0.0)
    monkeypatch.setenv("HEARTH_MEMINFO", str(tmp_path / "meminfo"))
    (tmp_path / "engine.env").write_text(f"LLAMA_API_KEY={ENGINES_SECRET}\n", encoding="utf-8")

    @asynccontextmanager
    async def make(
        *,
        up: Iterable[str] = (),
        engines: Mapping[str, Mapping[str, Any]] | None = None,
        policy: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        patience_s: float | None = 60.0,
        **settings: Any,
    ) -> AsyncIterator[House]:
        loop = asyncio.get_running_loop()
        played = {name: Played(name, gib) for name, gib in NEEDS.items()}
        servers = []
        for one in played.values():
            servers.append(await loop.create_server(one.connection, "127.0.0.1", 0))
            one.port = servers[-1].sockets[0].getsockname()[1]
            one.phase = "ready" if one.name in up else "stopped"
        box = Box(played, tmp_path / "meminfo")
        monkeypatch.setattr(process, "Box", lambda known, **_: _given(box, known))
        monkeypatch.setattr(process, "Watch", box.watch)
        configure(tmp_path, played, engines or {})
        if not (tmp_path / "keys.json").exists():
            write_keys(tmp_path / "keys.json")
        complete: dict[str, Any] = {
            "engines": str(tmp_path / "engines.json"),
            "keys": str(tmp_path / "keys.json"),
            "listen": ("127.0.0.1", 8009),
            "keepalive_s": 0.02,
            "scheduling": msgspec.structs.replace(QUICK, **(policy or {})),
        }
        gateway = Gateway(Settings(**{**complete, **settings}))
        await gateway.start()
        quick = limits or Limits(linger_s=0.4)
        listener = await serve(gateway.app.lan, host="127.0.0.1", port=0, limits=quick)
        local = await serve(gateway.app.local, path=str(tmp_path / "gateway.sock"), limits=quick)
        house = House(gateway, listener, tmp_path / "gateway.sock", box, tmp_path / "keys.json")
        try:
            async with asyncio.timeout(patience_s):
                yield house
        finally:
            await house.close()
            for one in played.values():
                one.may_load.set()
            await listener.close(0)
            await local.close(0)
            gateway.conductor.close()
            gateway.app.pool.close()
            for server in servers:
                server.close()
            for one in played.values():
                one.close()
        # What no gateway may ever do, whatever was asked of it.
        assert box.lowest_gib >= FLOOR_GIB
        assert box.most_at_once <= 1
        assert [one.name for one in played.values() if one.strays] == []
        assert [one.name for one in played.values() if one.interrupted] == []

    return make


def _given(box: Box, known: contract.Contract) -> Box:
    box.contract = known
    return box


def configure(folder: Path, played: Mapping[str, Played], changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Write engines.json; an engine whose change is None is left out."""
    listed = []
    for one in played.values():
        fields: dict[str, Any] = {
            "name": one.name,
            "engine": "llama.cpp",
            "unit": f"hearth-engine-{one.name}.service",
            "container": f"hearth-{one.name}",
            "image": "registry.example/llama.cpp@sha256:0",
            "model_path": f"/home/spark/ai/models/{one.name}.gguf",
            "tag": "",
            "port": one.port,
            "served_name": one.name,
            "lane": "utility" if one.name == "embed" else "main",
            "start": "demand",
            "pinned": False,
            "memory_gib": one.need_gib,
            "capabilities": ("embeddings",) if one.name == "embed" else ("chat",),
            "aliases": ("llama-4-scout",) if one.name == "scout" else (),
            "start_timeout_s": 60,
            "stop_timeout_s": 5,
            "load_s": 0.0,
        }
        change = changes.get(one.name, {})
        if change is not None:
            listed.append(contract.Engine(**{**fields, **change}))
    known = contract.Contract(
        schema=contract.SCHEMA, key_file=str(folder / "engine.env"), floor_gib=FLOOR_GIB, engines=tuple(listed)
    )
    (folder / "engines.json").write_bytes(msgspec.json.encode(known))


def write_keys(path: Path, **limits: int) -> None:
    """A key for the models, called laptop, and one for administrators, called root."""
    made = [
        keys.Key(name="laptop", sha256=keys.digest(SECRET), **limits),
        keys.Key(name="root", sha256=keys.digest(ADMIN), scopes=("admin",)),
    ]
    path.write_bytes(msgspec.json.encode({"schema": 1, "keys": made}))
