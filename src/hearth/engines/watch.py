# SPDX-License-Identifier: Apache-2.0
"""The states of units as they change, by systemd's signals: whoever starts or stops one, it is known at once.

Nothing is asked again and again. A signal says that something changed, and what is then read is the whole state, so
that signals that come close together are one change. A connection that breaks is made anew, and all is read again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from contextlib import suppress

from dbus_fast import Message, MessageType

from hearth.engines.units import Systemd, UnitState
from hearth.errors import SystemdError, SystemdGoneError

# Where systemd has its units, each escaped (systemd's dbus-unit.c, unit_dbus_path: all but letters and digits as _XX).
_FOLDER = "/org/freedesktop/systemd1/unit/"
_ESCAPED = re.compile(r"_([0-9a-f]{2})")
_UNIT = "org.freedesktop.systemd1.Unit"
# How long until a broken connection is tried again; twice as long each time.
_FIRST_S, _LONGEST_S = 0.1, 5.0
# How long new units may take to be known.
_KNOWN_S = 10.0

_log = logging.getLogger(__name__)


def path_of(unit: str) -> str:
    """Where D-Bus has a unit."""
    return _FOLDER + "".join(char if char.isascii() and char.isalnum() else f"_{ord(char):02x}" for char in unit)


def _unit_at(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), path.removeprefix(_FOLDER))


class Watch:
    """Follows units, from ``start`` to ``close``. ``changed`` is called with each state that differs from the last.

    ``connect`` makes the connections; tests have their own.
    """

    def __init__(
        self, units: Iterable[str], changed: Callable[[UnitState], None], connect: Callable[[], Systemd] = Systemd
    ) -> None:
        self._units = frozenset(units)
        self._changed = changed
        self._connect = connect
        self._states: dict[str, UnitState] = {}
        self._stale: set[str] = set()
        self._woken = asyncio.Event()
        self._known = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns once all states were told. As long as there is no systemd to ask, it is tried again."""
        self._task = asyncio.create_task(self._run())
        known = asyncio.ensure_future(self._known.wait())
        try:
            await asyncio.wait({known, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            known.cancel()
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """No more of it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def units(self, units: Iterable[str]) -> None:
        """Follow these from now on; returns when those that are new were told, or when systemd cannot be asked."""
        before, self._units = self._units, frozenset(units)
        self._states = {unit: state for unit, state in self._states.items() if unit in self._units}
        if self._units <= before:
            return
        self._known.clear()
        self._mark(self._units - before)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._known.wait(), _KNOWN_S)

    async def _run(self) -> None:
        wait_s = _FIRST_S
        while True:
            try:
                async with self._connect() as systemd:
                    await self._follow(systemd)
            except SystemdError as error:
                if self._known.is_set():
                    # It worked until now.
                    self._known.clear()
                    wait_s = _FIRST_S
                _log.warning("%s; trying again in %.1f s", error, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_S)

    async def _follow(self, systemd: Systemd) -> None:
        """Raises SystemdError, sooner or later."""
        gone = asyncio.ensure_future(systemd.until_gone())
        gone.add_done_callback(lambda _: self._woken.set())
        systemd.hear(self._heard)
        matched: set[str] = set()
        self._stale = set(self._units)
        try:
            while not gone.done():
                self._woken.clear()
                stale, self._stale = self._stale & self._units, set()
                # Before it is asked for: what changes in between is then told as well.
                for unit in stale - matched:
                    await systemd.match(
                        f"interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',path='{path_of(unit)}'"
                        f",arg0='{_UNIT}'"
                    )
                    matched.add(unit)
                for state in (await systemd.states(sorted(stale))).values():
                    self._learn(state)
                if not self._stale:
                    self._known.set()
                    await self._woken.wait()
        finally:
            gone.cancel()
        raise SystemdGoneError("the connection to systemd broke")

    def _heard(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "PropertiesChanged" and message.path:
            self._mark({_unit_at(message.path)})
        elif message.member == "JobRemoved":
            self._mark({message.body[2]})

    def _mark(self, units: Iterable[str]) -> None:
        ours = self._units.intersection(units)
        if ours:
            self._stale |= ours
            self._woken.set()

    def _learn(self, state: UnitState) -> None:
        # Asked for before somebody said that it is not to be followed any more.
        if state.unit in self._units and self._states.get(state.unit) != state:
            self._states[state.unit] = state
            try:
                self._changed(state)
            except Exception:  # noqa: BLE001 - the next change is told all the same
                _log.exception("what %s is now could not be taken in", state.unit)
