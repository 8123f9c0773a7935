# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.watch: every change of a unit is told once, by a signal, and a lost connection loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import msgspec
import pytest
from dbus_fast import Message, MessageType

from hearth.engines import watch
from hearth.engines.units import Systemd, UnitState
from hearth.engines.watch import Watch
from hearth.errors import SystemdGoneError

SCOUT = "hearth-engine-scout.service"
PHI = "hearth-engine-phi.service"


def state_of(unit: str, active: str = "inactive", **fields: Any) -> UnitState:
    complete: dict[str, Any] = {
        "load": "loaded",
        "sub": "",
        "enabled": False,
        "result": "success",
        "main_pid": 0,
        "started_us": 0,
        "fragment": "",
        "outdated": False,
    }
    return UnitState(unit=unit, active=active, **{**complete, **fields})


class World:
    """A systemd with signals, whose connections break when the test says so."""

    def __init__(self) -> None:
        self.table = {unit: state_of(unit) for unit in (SCOUT, PHI)}
        self.connections: list[Connection] = []
        self.is_there = True
        self.reads: list[str] = []
        self.tries = asyncio.Event()
        # Called in the middle of the next reading.
        self.meanwhile: Callable[[], None] = lambda: None

    def connect(self) -> Systemd:
        made = Connection(self)
        self.connections.append(made)
        return made  # type: ignore[return-value]

    def set(self, unit: str, active: str) -> None:
        """Changed, and nobody is told."""
        self.table[unit] = msgspec.structs.replace(self.table[unit], active=active)

    def change(self, unit: str, active: str) -> None:
        self.set(unit, active)
        self.signal("PropertiesChanged", watch.path_of(unit), "sa{sv}as", ["org.freedesktop.systemd1.Unit", {}, []])

    def signal(self, member: str, path: str, signature: str, body: list[Any]) -> None:
        message = Message(
            message_type=MessageType.SIGNAL, path=path, interface="a.b", member=member, signature=signature, body=body
        )
        for connection in self.connections:
            for handler in connection.handlers:
                handler(message)

    def break_down(self) -> None:
        self.is_there = False
        for connection in self.connections:
            connection.gone.set()


class Connection:
    def __init__(self, world: World) -> None:
        self.world = world
        self.handlers: list[Callable[[Message], object]] = []
        self.rules: list[str] = []
        self.gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.world.tries.set()
        if not self.world.is_there:
            raise SystemdGoneError("systemd cannot be reached")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.handlers.clear()

    def hear(self, handler: Callable[[Message], object]) -> None:
        self.handlers.append(handler)

    async def match(self, rule: str) -> None:
        self.rules.append(rule)

    async def states(self, units: list[str]) -> dict[str, UnitState]:
        self.world.reads += units
        found = {unit: self.world.table[unit] for unit in units}
        meanwhile, self.world.meanwhile = self.world.meanwhile, lambda: None
        meanwhile()
        await asyncio.sleep(0)
        return found

    async def until_gone(self) -> None:
        await self.gone.wait()


class Told:
    """What the watch told, as (unit, active)."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def __call__(self, state: UnitState) -> None:
        self.queue.put_nowait((state.unit, state.active))

    async def next(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.queue.get(), 5)

    def so_far(self) -> list[tuple[str, str]]:
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(watch, "_FIRST_S", 0.001)
    monkeypatch.setattr(watch, "_LONGEST_S", 0.002)
    return World()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def following(world: World, told: Told) -> AsyncIterator[Watch]:
    """A watch of both units that has told how they are."""
    made = Watch([SCOUT, PHI], told, world.connect)
    await made.start()
    assert sorted(told.so_far()) == [(PHI, "inactive"), (SCOUT, "inactive")]
    yield made
    await made.close()


def test_a_unit_has_its_path_as_systemd_escapes_it() -> None:
    assert watch.path_of("hearth-engine-qwen3.5.service") == (
        "/org/freedesktop/systemd1/unit/hearth_2dengine_2dqwen3_2e5_2eservice"
    )


async def test_a_change_is_told_by_its_signal_and_only_that_unit_is_read(
    following: Watch, world: World, told: Told
) -> None:
    world.reads.clear()

    world.change(SCOUT, "activating")

    assert await told.next() == (SCOUT, "activating")
    assert world.reads == [SCOUT]


async def test_the_end_of_a_job_is_a_signal_too(following: Watch, world: World, told: Told) -> None:
    world.set(SCOUT, "failed")

    world.signal("JobRemoved", "/org/freedesktop/systemd1", "uoss", [7, "/job/7", SCOUT, "failed"])

    assert await told.next() == (SCOUT, "failed")


async def test_other_units_of_the_box_are_nothing_to_read(following: Watch, world: World, told: Told) -> None:
    world.reads.clear()

    world.signal("JobRemoved", "/org/freedesktop/systemd1", "uoss", [7, "/job/7", "cron.service", "done"])
    world.change(PHI, "active")

    assert await told.next() == (PHI, "active")
    assert world.reads == [PHI]


async def test_a_signal_that_changes_nothing_is_told_to_nobody(following: Watch, world: World, told: Told) -> None:
    world.change(SCOUT, "inactive")
    world.change(PHI, "active")

    assert await told.next() == (PHI, "active")
    assert told.so_far() == []


async def test_what_changes_while_it_is_read_is_read_again(following: Watch, world: World, told: Told) -> None:
    world.meanwhile = lambda: world.change(SCOUT, "active")

    world.change(SCOUT, "activating")

    assert [await told.next(), await told.next()] == [(SCOUT, "activating"), (SCOUT, "active")]


async def test_signals_are_asked_for_before_the_first_reading(world: World, told: Told) -> None:
    world.meanwhile = lambda: world.change(SCOUT, "active")
    made = Watch([SCOUT], told, world.connect)

    await made.start()

    assert told.so_far() == [(SCOUT, "inactive"), (SCOUT, "active")]
    assert all(watch.path_of(SCOUT) in rule for rule in world.connections[0].rules)
    await made.close()


async def test_what_changed_while_the_connection_was_lost_is_told_once_it_is_back(
    following: Watch, world: World, told: Told
) -> None:
    world.break_down()
    world.tries.clear()
    await asyncio.wait_for(world.tries.wait(), 5)
    world.set(SCOUT, "active")
    world.is_there = True

    assert await told.next() == (SCOUT, "active")
    world.change(PHI, "activating")
    assert await told.next() == (PHI, "activating")


async def test_a_start_without_a_systemd_waits_for_it(world: World, told: Told) -> None:
    world.is_there = False
    made = Watch([SCOUT], told, world.connect)
    starting = asyncio.ensure_future(made.start())
    await asyncio.wait_for(world.tries.wait(), 5)
    assert not starting.done()

    world.is_there = True
    await asyncio.wait_for(starting, 5)

    assert told.so_far() == [(SCOUT, "inactive")]
    await made.close()


async def test_a_listener_that_fails_does_not_end_the_watch(world: World, told: Told) -> None:
    def listen(state: UnitState) -> None:
        if state.active == "activating":
            raise ZeroDivisionError
        told(state)

    made = Watch([SCOUT], listen, world.connect)
    await made.start()
    told.so_far()

    world.meanwhile = lambda: world.change(SCOUT, "active")
    world.change(SCOUT, "activating")

    assert await told.next() == (SCOUT, "active")
    await made.close()


async def test_a_unit_that_is_added_is_told_and_followed_and_the_others_are_not_read(world: World, told: Told) -> None:
    made = Watch([SCOUT], told, world.connect)
    await made.start()
    told.so_far()
    world.reads.clear()

    await made.units([SCOUT, PHI])

    assert told.so_far() == [(PHI, "inactive")]
    assert world.reads == [PHI]
    world.change(PHI, "active")
    assert await told.next() == (PHI, "active")
    await made.close()


async def test_a_unit_that_is_taken_out_is_told_no_more(following: Watch, world: World, told: Told) -> None:
    await following.units([PHI])

    world.change(SCOUT, "active")
    world.change(PHI, "active")

    assert await told.next() == (PHI, "active")
    assert told.so_far() == []


async def test_new_units_do_not_wait_for_a_systemd_that_is_gone(
    following: Watch, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_KNOWN_S", 0.05)
    world.break_down()

    await following.units([SCOUT, PHI, "hearth-engine-new.service"])


async def test_after_its_end_nothing_is_told(following: Watch, world: World, told: Told) -> None:
    await following.close()

    world.change(SCOUT, "active")

    await asyncio.sleep(0)
    assert told.so_far() == []
