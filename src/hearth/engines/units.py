# SPDX-License-Identifier: Apache-2.0
"""systemd over D-Bus: states of units, and jobs that are waited for by signal, never by polling."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec
from dbus_fast import AuthError, BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus

from hearth.errors import SystemdError, SystemdGoneError

_SERVICE = "org.freedesktop.systemd1"
_ROOT = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
# systemd answers within milliseconds, and within seconds where it reads its units again.
_ANSWER_S = 60.0
# What the bus answers for systemd while that is not on it, as after a restart of the bus (D-Bus specification,
# Message Bus Messages).
_ABSENT = {f"org.freedesktop.DBus.Error.{name}" for name in ("ServiceUnknown", "NameHasNoOwner", "NoReply")}


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """What systemd says of a unit. ``started_us`` is microseconds since the epoch, 0 if never started.

    ``outdated``: the unit's file was changed, and systemd has not read it again. ``invocation`` is the id of its newest
    run, as hexadecimal. ``exit_status`` is of its last main process. ``stopped_us``: when it last stopped, in
    microseconds of CLOCK_MONOTONIC; 0 where it never did, and where systemd has forgotten it, as it does with units
    that stopped and start not at boot.
    """

    unit: str
    load: str
    active: str
    sub: str
    enabled: bool
    result: str
    main_pid: int
    started_us: int
    fragment: str
    outdated: bool
    invocation: str = ""
    stopped_us: int = 0
    exit_status: int = 0

    @property
    def is_up(self) -> bool:
        """Ready: start-up finished and not on its way down."""
        return self.active == "active"

    @property
    def is_starting(self) -> bool:
        """Between its first ExecStartPre and the end of its last ExecStartPost.

        A unit that waits for its automatic restart is "activating" too, and has the invocation of the run that ended.
        """
        return self.active == "activating" and not self.sub.startswith("auto-restart")

    @property
    def holds_memory(self) -> bool:
        """Alive, and not only waiting for its automatic restart."""
        return self.is_alive and (self.active != "activating" or self.is_starting)

    @property
    def is_coming(self) -> bool:
        """Ready, or on its way up."""
        return self.active in ("active", "activating", "reloading")

    @property
    def is_alive(self) -> bool:
        """Holding memory, or about to: everything but stopped and failed."""
        return self.active not in ("inactive", "failed")


class Systemd:
    """A connection to the system's service manager; use it as an async context manager.

    Every method raises SystemdError with systemd's own words, and SystemdGoneError where the connection breaks.
    """

    def __init__(self) -> None:
        self._bus: MessageBus | None = None
        self._gone: asyncio.Future[None] | None = None
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._asking = 0
        self._finished: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(_ANSWER_S):
                self._bus = await bus.connect()
        except (OSError, DBusError, EOFError, AuthError) as error:
            raise SystemdGoneError(
                f"systemd cannot be reached over D-Bus ({error}): is this a systemd host, and are you root?"
            ) from None
        self._gone = asyncio.ensure_future(self._bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
        self._gone.add_done_callback(self._on_gone)
        try:
            self.hear(self._on_message)
            await self.match(f"interface='{_MANAGER}',member='JobRemoved'")
            await self._call("Subscribe")
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

    def hear(self, handler: Callable[[Message], object]) -> None:
        """Have ``handler`` called with all messages of this connection."""

        def handle(message: Message) -> bool:
            handler(message)
            return False

        if self._bus is not None:
            self._bus.add_message_handler(handle)

    async def match(self, rule: str) -> None:
        """Have systemd's signals that match ``rule`` (D-Bus specification, Match Rules) sent to this connection."""
        await self._request(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="AddMatch",
                signature="s",
                body=[f"type='signal',sender='{_SERVICE}',{rule}"],
            )
        )

    async def until_gone(self) -> None:
        """Wait until the connection breaks."""
        if self._gone is not None:
            await asyncio.wait({self._gone})

    def _on_gone(self, gone: asyncio.Future[None]) -> None:
        # Retrieved, or asyncio complains: the words are those of whoever waits.
        error = gone.exception() if not gone.cancelled() else None
        for future in self._jobs.values():
            if not future.done():
                future.set_exception(_broken(error))

    def _on_message(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.member == "JobRemoved":
            _, path, _, result = message.body
            future = self._jobs.pop(path, None)
            if future is None:
                # The signal may overtake the answer to the call that made the job; most are of somebody else's.
                if self._asking:
                    self._finished[path] = result
            elif not future.done():
                future.set_result(result)

    async def _request(self, message: Message) -> list[Any]:
        if self._bus is None or (self._gone is not None and self._gone.done()):
            raise SystemdGoneError("not connected to systemd: try again")
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._bus.call(message)
        except TimeoutError:
            raise SystemdGoneError(f"systemd gave no answer to {message.member} within {_ANSWER_S:g} s") from None
        except (OSError, EOFError) as error:
            raise _broken(error) from None
        if answer is None:
            raise _broken(None)
        if answer.message_type is MessageType.ERROR:
            words = answer.body[0] if answer.body else answer.error_name
            if answer.error_name in _ABSENT:
                raise SystemdGoneError(f"systemd is not there to be asked for {message.member} ({words}): try again")
            raise SystemdError(f"systemd refused {message.member}: {words}")
        body: list[Any] = answer.body
        return body

    async def _call(self, member: str, signature: str = "", *body: object) -> list[Any]:
        return await self._request(
            Message(
                destination=_SERVICE,
                path=_ROOT,
                interface=_MANAGER,
                member=member,
                signature=signature,
                body=list(body),
            )
        )

    async def _properties(self, path: str, interface: str) -> dict[str, Any]:
        answer = await self._request(
            Message(
                destination=_SERVICE,
                path=path,
                interface="org.freedesktop.DBus.Properties",
                member="GetAll",
                signature="s",
                body=[interface],
            )
        )
        return {name: variant.value for name, variant in answer[0].items()}

    async def state(self, unit: str) -> UnitState:
        """The state of one unit, loaded or not."""
        path = (await self._call("LoadUnit", "s", unit))[0]
        general = await self._properties(path, "org.freedesktop.systemd1.Unit")
        service = await self._properties(path, "org.freedesktop.systemd1.Service")
        return UnitState(
            unit=unit,
            load=general["LoadState"],
            active=general["ActiveState"],
            sub=general["SubState"],
            enabled=general["UnitFileState"] in ("enabled", "enabled-runtime"),
            result=service["Result"],
            main_pid=service["MainPID"],
            started_us=service["ExecMainStartTimestamp"],
            fragment=general["FragmentPath"],
            outdated=general["NeedDaemonReload"],
            invocation=bytes(general["InvocationID"]).hex(),
            stopped_us=general["InactiveEnterTimestampMonotonic"],
            exit_status=service["ExecMainStatus"],
        )

    async def states(self, units: list[str]) -> dict[str, UnitState]:
        """The states of several units, asked for at the same time."""
        answers = await asyncio.gather(*(self.state(unit) for unit in units))
        return {state.unit: state for state in answers}

    async def start(self, unit: str, timeout_s: float) -> str:
        """Start a unit and wait for its job. Returns systemd's word for how it ended ("done", "failed", …).

        Earlier starts are forgiven first, or the unit's start limit, meant for crash loops, would refuse this one.
        """
        await self.forgive(unit)
        return await self._job("StartUnit", unit, timeout_s)

    async def forgive(self, unit: str) -> None:
        """Forget that the unit failed, and how often it was started."""
        # A unit that systemd has not loaded has nothing to forgive, and says so.
        with suppress(SystemdError):
            await self._call("ResetFailedUnit", "s", unit)

    async def stop(self, unit: str, timeout_s: float) -> str:
        """Stop a unit and wait for its job. Returns systemd's word for how it ended."""
        return await self._job("StopUnit", unit, timeout_s)

    async def end_again(self, unit: str) -> None:
        """Send the unit's main process the signal that ends it, once more."""
        await self._call("KillUnit", "ssi", unit, "main", signal.SIGTERM.value)

    async def _job(self, member: str, unit: str, timeout_s: float) -> str:
        self._asking += 1
        try:
            path = (await self._call(member, "ss", unit, "replace"))[0]
            if path in self._finished:
                return self._finished.pop(path)
        finally:
            self._asking -= 1
            if not self._asking:
                self._finished.clear()
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._jobs[path] = future
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise SystemdError(
                f"systemd did not finish {member} of {unit} within {timeout_s:g} s: see systemctl status {unit}"
            ) from None
        finally:
            self._jobs.pop(path, None)

    async def reload(self) -> None:
        """Have systemd read all unit files again."""
        await self._call("Reload")

    async def enable(self, unit: str) -> None:
        """Have the unit started at boot."""
        await self._call("EnableUnitFiles", "asbb", [unit], False, False)
        await self.reload()

    async def disable(self, units: list[str]) -> None:
        """No longer have the units started at boot. Running ones go on running."""
        await self._call("DisableUnitFiles", "asb", units, False)
        await self.reload()


def _broken(error: BaseException | None) -> SystemdGoneError:
    return SystemdGoneError(f"the connection to systemd broke{f' ({error})' if str(error or '') else ''}: try again")


def read_states(units: list[str]) -> dict[str, UnitState]:
    """The states of units, for callers without a loop. Raises SystemdError."""

    async def ask() -> dict[str, UnitState]:
        async with Systemd() as systemd:
            return await systemd.states(units)

    return asyncio.run(ask())


def log_tail(unit: str, lines: int = 20) -> tuple[str, ...]:
    """The last lines of the unit's journal, of its newest run; empty where the journal says nothing."""
    invocation = _output("systemctl", "show", "--value", "--property=InvocationID", unit).strip()
    which = f"_SYSTEMD_INVOCATION_ID={invocation}" if invocation else f"--unit={unit}"
    text = _output("journalctl", "--no-pager", "--output=cat", f"--lines={lines}", which)
    return tuple(line for line in text.splitlines() if line.strip())


def _output(*command: str) -> str:
    """What a program prints; nothing where it cannot: a log is a help, its absence no reason to fail."""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
