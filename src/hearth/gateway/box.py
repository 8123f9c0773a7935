# SPDX-License-Identifier: Apache-2.0
"""The gateway's hands: its transactions on the box, by the same procedure and under the same lock as everybody's.

They run as an unprivileged user. What that user may not do is left to the engine's unit, which is root's: Docker is not
asked, and a model's files are not looked at where they may not be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from hearth import state
from hearth.admission import admit
from hearth.contract import Contract
from hearth.engines.units import Systemd, UnitState
from hearth.errors import (
    BusyError,
    HearthError,
    OutOfMemoryError,
    RefusedError,
    SystemdGoneError,
    UnwantedError,
)
from hearth.gateway.scheduler.events import FailureKind, Loaded, LoadFailed
from hearth.gateway.scheduler.spec import Phase
from hearth.switching import switch
from hearth.switching.change import Change
from hearth.switching.progress import Tell, say_nothing
from hearth.switching.switch import Outcome

_PHASES: Mapping[str, Phase] = {
    "active": "ready",
    "reloading": "ready",
    "refreshing": "ready",
    "activating": "starting",
    "deactivating": "stopping",
    "failed": "failed",
}
_KINDS: Mapping[type[HearthError], FailureKind] = {
    OutOfMemoryError: "oom",
    RefusedError: "refused",
    UnwantedError: "cancelled",
    BusyError: "busy",
}
# Whoever only looks who holds the lock has it for a moment.
_MOMENT_S = 0.5
# The lock has no signal.
_LOCK_INTERVAL_S = 0.1
# How long until systemd is asked again where it could not be reached; twice as long each time.
_FIRST_S, _LONGEST_S = 0.1, 5.0

_log = logging.getLogger(__name__)


def phase_of(now: UnitState) -> Phase:
    """What systemd says of a unit, as the scheduler knows it. One that waits for its automatic restart is starting."""
    return _PHASES.get(now.active, "stopped")


class Box:
    """Carries out one transaction at a time. ``contract`` may be replaced: the next transaction goes by it.

    ``tell`` hears what a transaction is doing.
    """

    def __init__(self, contract: Contract, *, tell: Tell = say_nothing, host: admit.Host = admit.HOST) -> None:
        self.contract = contract
        self._tell = tell
        self._host = host
        self._starts = ""
        self._unwanted: asyncio.Future[None] | None = None

    async def begin(self, engine: str, evict: tuple[str, ...]) -> Loaded | LoadFailed:
        """Stop ``evict``, wait for their memory, start ``engine``, and wait until it serves its name.

        Another change that has the box is waited for, and then this is tried again by whoever decides. A connection
        to systemd that breaks is made anew. Who is cancelled leaves the engine loading.
        """
        unwanted = asyncio.get_running_loop().create_future()
        self._starts, self._unwanted = engine, unwanted
        change = Change(name=engine, beside=True, demand=True, evict=evict, boot=False, drain_s=0.0)
        try:
            outcome = await self._carry_out(change, unwanted)
        except HearthError as error:
            return LoadFailed(engine, _KINDS.get(type(error), "failed"), str(error), "\n".join(error.log))
        finally:
            self._starts, self._unwanted = "", None
        # The unit measures the whole load; where another had begun it, only the rest of it was waited for here.
        measured = self._host.ledger.need(self.contract.find(engine))
        return Loaded(engine, measured.load_s if measured.source == "measured" else outcome.load_s)

    async def cancel(self, engine: str) -> None:
        """Have the start of ``engine`` that is under way end soon, with the engine stopped."""
        if engine == self._starts and self._unwanted is not None and not self._unwanted.done():
            self._unwanted.set_result(None)

    async def stop(self, engine: str) -> None:
        """Stop an engine. Raises HearthError: BusyError once another change that had the box has ended."""
        change = Change(name=engine, stop=True, demand=True, boot=False, drain_s=0.0)
        await self._carry_out(change, asyncio.get_running_loop().create_future())

    async def phases(self, engines: Iterable[str]) -> Mapping[str, Phase]:
        """What systemd says of these engines now. Raises HearthError."""
        units = {self.contract.find(engine).unit: engine for engine in engines}
        async with Systemd() as systemd:
            return {units[now.unit]: phase_of(now) for now in (await systemd.states(list(units))).values()}

    async def _carry_out(self, change: Change, unwanted: asyncio.Future[None]) -> Outcome:
        """Raises HearthError."""
        wait_s = _FIRST_S
        while True:
            try:
                return await switch.switch(
                    self.contract,
                    change,
                    lock_timeout_s=_MOMENT_S,
                    tell=self._tell,
                    unwanted=unwanted,
                    host=self._host,
                )
            except BusyError:
                while state.holder(self._host.run / switch.LOCK.name):
                    await self._pause(change, unwanted, _LOCK_INTERVAL_S)
                raise
            except SystemdGoneError as error:
                # What it was asked for goes on. Once it can be asked again, this transaction finds it where it is then.
                _log.warning("%s; trying again in %.1f s", error, wait_s)
                await self._pause(change, unwanted, wait_s)
                wait_s = min(2 * wait_s, _LONGEST_S)

    async def _pause(self, change: Change, unwanted: asyncio.Future[None], seconds: float) -> None:
        """Raises UnwantedError."""
        done, _ = await asyncio.wait({unwanted}, timeout=seconds)
        if done:
            raise UnwantedError(f"the start of {change.name} was given up: nobody waits for it any more")
