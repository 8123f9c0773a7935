# SPDX-License-Identifier: Apache-2.0
"""The process of the gateway: its sockets, its parts put together, its signals, and its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import uvloop

from hearth import contract
from hearth.engines import service
from hearth.engines.units import UnitState
from hearth.engines.watch import Watch
from hearth.errors import HearthError, SettingsError
from hearth.gateway import settings as configured
from hearth.gateway.admin import Admin
from hearth.gateway.app import App
from hearth.gateway.box import Box, phase_of
from hearth.gateway.conductor import Conductor
from hearth.gateway.engines import Engines
from hearth.gateway.events import Bulletin
from hearth.gateway.keys import Keyring
from hearth.gateway.metrics import Metrics
from hearth.gateway.scheduler.events import Configured, UnitChanged
from hearth.gateway.scheduler.scheduler import Scheduler
from hearth.gateway.scheduler.spec import MemoryView
from hearth.gateway.settings import Settings
from hearth.gateway.wire import Limits, Listener, serve

_log = logging.getLogger(__name__)

# The names of the sockets in their units.
LAN, ADMIN = "lan", "admin"


class Gateway:
    """All of it. ``reload`` reads the contract again; what did not change in it is not touched."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engines = Engines(contract.load(Path(settings.engines)))
        key = contract.read_key(self._engines.contract)
        self._keyring = Keyring(Path(settings.keys))
        if self._keyring.trouble and not settings.open:
            raise SettingsError(f"{self._keyring.trouble}; without keys nobody could be let in, so it does not start")
        self._metrics = Metrics()
        self._bulletin = Bulletin(self._metrics)
        self._box = Box(self._engines.contract)
        specs = self._engines.specs()
        self._versions = {spec.name: spec.version for spec in specs}
        scheduler = Scheduler(specs, settings.scheduling, self._memory)
        self.conductor = Conductor(scheduler, self._box, self._bulletin.hear)
        self.app = App(settings, self._engines, self._keyring, self.conductor, self._metrics, key)
        self._admin = Admin(self.app, self._bulletin, self.reload)
        self.app.admin = self._admin.handle
        self._watch = Watch([engine.unit for engine in self._engines], self._changed)

    async def start(self) -> None:
        """Learn how things stand. Returns once every engine's state is known."""
        await self._watch.start()

    def _memory(self) -> MemoryView:
        return self._engines.memory()

    def _changed(self, state: UnitState) -> None:
        name = self._engines.units.get(state.unit)
        if name is None:
            return
        phase = phase_of(state)
        self.conductor.tell(UnitChanged(name, phase))
        if phase == "ready":
            # Its load was just measured, whoever began it. That is read after those who waited were let through.
            self.conductor.tell(Configured(self._engines.specs()))

    async def reload(self) -> list[str]:
        """Take over the contract as it is now; returns the names of the engines that are new, other, or gone.

        Raises ContractError; then all is as it was.
        """
        engines = Engines(contract.load(Path(self._settings.engines)))
        specs = engines.specs()
        versions = {spec.name: spec.version for spec in specs}
        names = sorted(versions.keys() | self._versions.keys())
        changed = [name for name in names if versions.get(name) != self._versions.get(name)]
        self._versions = versions
        self._engines = self.app.engines = engines
        self._box.contract = engines.contract
        self.conductor.tell(Configured(specs))
        await self._watch.units([engine.unit for engine in engines])
        _log.info("the configuration was read again; changed: %s", ", ".join(changed) or "nothing")
        return changed

    @property
    def engines(self) -> Engines:
        """The engines as they are configured now."""
        return self._engines

    async def close(self, listeners: list[Listener]) -> None:
        """Let answers under way end, also of those who wait, as long as is set; engines are left as they are."""
        self._admin.close()
        await asyncio.gather(*(listener.close(self._settings.stop_s) for listener in listeners))
        self.conductor.close()
        self.app.pool.close()
        with suppress(HearthError):
            await self._watch.close()


async def _run(settings: Settings) -> None:
    gateway = Gateway(settings)
    await gateway.start()
    given = service.sockets()
    limits = Limits(max_body_bytes=settings.max_body_bytes)
    host, port = settings.listen
    lan = given.get(LAN)
    listeners = [
        await serve(
            gateway.app.lan,
            sock=lan,
            host=None if lan else host,
            port=None if lan else port,
            limits=limits,
            ssl=_tls(settings) if settings.is_tls else None,
        )
    ]
    if ADMIN in given:
        listeners.append(await serve(gateway.app.local, sock=given[ADMIN], limits=limits))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def hang_up() -> None:
        task = loop.create_task(_reloaded(gateway))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    service.notify(f"READY=1\nSTATUS=serving {len(gateway.engines.contract.engines)} models")
    _log.info("serving on %s", ", ".join(f"{at}:{number}" for at, number in listeners[0].addresses))
    await stop.wait()
    service.notify("STOPPING=1\nSTATUS=waiting for answers under way to end")
    await gateway.close(listeners)


async def _reloaded(gateway: Gateway) -> None:
    try:
        await gateway.reload()
    except HearthError as error:
        _log.error("nothing was changed: %s", error)


def _tls(settings: Settings) -> ssl.SSLContext:
    """Raises SettingsError where certificate and key cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate, key = configured.file(settings.tls_cert), configured.file(settings.tls_key)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"{certificate} and {key} are no certificate with its key ({error}): replace them"
        ) from None
    return context


def main(settings: Settings) -> int:
    """Serve until a signal says to stop. Raises HearthError where that cannot begin."""
    logging.basicConfig(level=logging.INFO, format="hearth: %(message)s", stream=sys.stderr)
    try:
        uvloop.run(_run(settings))
    except OSError as error:
        host, port = settings.listen
        raise SettingsError(
            f"{host}:{port} cannot be listened on ({error.strerror}): free it, or set another"
        ) from None
    return 0
