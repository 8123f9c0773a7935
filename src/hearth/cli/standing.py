# SPDX-License-Identifier: Apache-2.0
"""How a box stands: its engines, its memory, and whether a change is under way or was cut off. Only looks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hearth import state
from hearth.contract import Contract, Engine
from hearth.engines import fetching
from hearth.errors import HearthError
from hearth.guard import record
from hearth.switching import journal

if TYPE_CHECKING:
    from hearth.admission.admit import Host
    from hearth.admission.ledger import Ledger, Source
    from hearth.engines.units import UnitState
    from hearth.guard.record import Ended
    from hearth.memory import Memory

# The lock of switching.switch (a test compares them); to import that one would take longer than all of `hearth status`.
LOCK = "switch.lock"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One engine. ``since`` is when it was started (ISO 8601, UTC), empty where it does not run.

    ``need_gib`` is what a start takes, in GiB, and ``need_source`` whether that was measured on this box. ``result`` is
    systemd's word for how the last run ended. ``fetching`` is how far the download of its files is, in words, while the
    box downloads them itself.
    """

    name: str
    state: str
    result: str
    boot: bool
    lane: str
    engine: str
    url: str
    need_gib: float
    need_source: Source
    since: str
    fetching: str = ""


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A change of engines that did not end yet: ``holder`` says who is at it, and is empty where it was cut off.

    ``target``, ``previous`` and ``at`` (ISO 8601, UTC) are of its journal; empty where it has stopped nothing yet.
    ``doing`` is what it does just now, in words, where it tells.
    """

    holder: str = ""
    doing: str = ""
    target: str = ""
    previous: tuple[str, ...] = ()
    at: str = ""

    @property
    def words(self) -> str:
        """What it is."""
        to = f" to {self.target}" if self.target else ""
        if self.holder:
            return f"a change{to} is under way ({self.holder}){': ' if self.doing else ''}{self.doing}"
        before = f" (before it, {' and '.join(self.previous)} ran)" if self.previous else ""
        return f"a change{to} that began at {self.at} was cut off{before}"

    @property
    def remedy(self) -> str:
        """What to do about it; empty where somebody is at it."""
        if self.holder:
            return ""
        return f"the next hearth switch, start or stop finishes or undoes it, for example hearth switch {self.target}"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``floor_gib`` is what no start may take from the host itself, in GiB.

    ``ended``: the engine that the guard ended last, where that was within a day.
    """

    engines: tuple[Row, ...]
    memory: Memory
    floor_gib: float
    change: Pending | None
    ended: Ended | None = None


def row(engine: Engine, now: UnitState, ledger: Ledger, run: Path = state.RUN) -> Row:
    """One engine, from what systemd says of its unit."""
    need = ledger.need(engine)
    return Row(
        name=engine.name,
        state=now.active,
        result=now.result,
        boot=now.enabled,
        lane=engine.lane,
        engine=engine.engine,
        url=engine.base_url,
        need_gib=need.gib,
        need_source=need.source,
        since=_iso(now.started_us) if now.is_alive and now.started_us else "",
        fetching=fetching.told(engine, run) if engine.fetch else "",
    )


def _iso(microseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(microseconds // 1_000_000))


def pending(run: Path = state.RUN) -> Pending | None:
    """The change that is under way or was cut off; none where all changes have ended."""
    lock, left = run / LOCK, run / journal.PATH.name
    at_it, found = state.holder(lock), journal.read(left)
    if found is not None and not at_it:
        # One that began between these two looks is not cut off: now its holder is seen.
        at_it, found = state.holder(lock), journal.read(left)
    doing = _doing(run) if at_it else ""
    if found is not None:
        return Pending(holder=at_it, doing=doing, target=found.target, previous=found.previous, at=found.at)
    return Pending(holder=at_it, doing=doing) if at_it else None


def _doing(run: Path) -> str:
    """What the job does that is at it, where it is one."""
    from hearth.switching import job

    with suppress(HearthError):
        return next((one.words for one in job.current(run / job.FOLDER.name) if not one.holder), "")
    return ""


def look(contract: Contract, states: Mapping[str, UnitState], host: Host) -> Standing:
    """How the box stands. ``states`` are systemd's, by unit. Raises HearthError where there is no meminfo."""
    ledger = host.ledger
    return Standing(
        engines=tuple(row(engine, states[engine.unit], ledger, host.run) for engine in contract.engines),
        memory=host.read_memory(),
        floor_gib=contract.floor_gib,
        change=pending(host.run),
        ended=record.recent(host.measured.with_name(record.NAME), time.time()),
    )
