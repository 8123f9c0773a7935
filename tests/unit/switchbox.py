# SPDX-License-Identifier: Apache-2.0
"""A box of 20 GiB for tests of the switch. 4 of them are the host's, and engines have the rest.

In the main lane ``old`` and ``new`` need 10 GiB each, so that only one of them fits, and ``small`` 5; in the utility
lane ``embed`` needs 1. ``old`` and ``embed`` run and start at boot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from fakes import FakeMemory, FakeSystemd

from hearth.admission import admit
from hearth.contract import Contract, Engine
from hearth.switching import switch
from hearth.switching.change import Change
from hearth.switching.progress import Progress
from hearth.switching.switch import Outcome

NEEDS = {"old": 10.0, "new": 10.0, "small": 5.0, "embed": 1.0}
FLOOR_GIB = 4.0


class Box:
    """The box, with all that is asked of it and all that it says."""

    def __init__(
        self, contract: Contract, systemd: FakeSystemd, host: admit.Host, memory: FakeMemory, models: Path
    ) -> None:
        self.contract = contract
        self.systemd = systemd
        self.host = host
        self.memory = memory
        self.models = models
        self.told: list[Progress] = []
        # Units whose start admission is expected to refuse.
        self.refusals: list[str] = []
        self.lock = host.run / "switch.lock"
        self.journal = host.run / "switch.json"

    def engine(self, name: str) -> Engine:
        return self.contract.find(name)

    def unit(self, name: str) -> str:
        return self.engine(name).unit

    def change_engine(self, name: str, **fields: Any) -> None:
        engines = tuple(
            msgspec.structs.replace(engine, **fields) if engine.name == name else engine
            for engine in self.contract.engines
        )
        self.contract = msgspec.structs.replace(self.contract, engines=engines)
        self.systemd.plays(self.engine(name))

    def answers(self, name: str, path: str, status: int, body: Any) -> None:
        """What an engine answers from its next start on."""
        self.systemd.scripts.setdefault(self.unit(name), {})[path] = [(status, body)]

    async def run(self, name: str | None = "new", *, dry: bool = False, **fields: Any) -> Outcome:
        """One change, with a limit for requests under way that no test has to wait for."""
        asked = Change(name=name, **{"drain_s": 0.0, **fields})
        return await self.carry_out(asked, dry=dry)

    async def carry_out(self, change: Change, *, dry: bool = False, lock_timeout_s: float = 0.0) -> Outcome:
        return await switch.switch(
            self.contract,
            change,
            dry=dry,
            lock_timeout_s=lock_timeout_s,
            tell=self.told.append,
            host=self.host,
        )

    @property
    def calls(self) -> list[str]:
        """What was asked of systemd, as "stop old"."""
        return [f"{verb} {self._name(unit)}".strip() for verb, unit in self.systemd.calls]

    def _name(self, unit: str) -> str:
        return unit.removeprefix("hearth-engine-").removesuffix(".service")

    def _names(self, units: Sequence[str]) -> set[str]:
        return {self._name(unit) for unit in units}

    @property
    def up(self) -> set[str]:
        """What runs, or holds memory at least."""
        return self._names(self.systemd.up)

    @property
    def at_boot(self) -> set[str]:
        return self._names(self.systemd.at_boot)

    @property
    def states(self) -> Mapping[str, tuple[str, bool]]:
        return {self._name(unit): (state.active, state.enabled) for unit, state in self.systemd.table.items()}


MakeBox = Callable[..., Box]
