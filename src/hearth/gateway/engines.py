# SPDX-License-Identifier: Apache-2.0
"""What the gateway knows of the engines: from the contract, and from what was measured of them."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator

import msgspec

from hearth import memory
from hearth.admission.ledger import UNITS, Ledger
from hearth.contract import Contract, Engine
from hearth.gateway.replies import Refusal
from hearth.gateway.scheduler.spec import EngineSpec, MemoryView


class Engines:
    """The engines of one contract, by each of their names."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._by_name = {name: engine for engine in contract.engines for name in (engine.name, *engine.aliases)}
        self.units = {engine.unit: engine.name for engine in contract.engines}

    def __iter__(self) -> Iterator[Engine]:
        return iter(self.contract.engines)

    def find(self, model: str) -> Engine:
        """The engine that serves this name. Raises Refusal with the closest names."""
        engine = self._by_name.get(model)
        if engine is None:
            close = difflib.get_close_matches(model, self._by_name, n=3)
            hint = f"Did you mean {' or '.join(close)}?" if close else "GET /v1/models lists all."
            raise Refusal(404, "model_not_found", f"There is no model {model[:200]!r} here. {hint}", param="model")
        return engine

    def specs(self) -> tuple[EngineSpec, ...]:
        """What the scheduler is told of them; reads what was measured."""
        ledger = Ledger()
        return tuple(_spec(engine, ledger) for engine in self.contract.engines)

    def memory(self) -> MemoryView:
        """How much is available now, and what of it stays with the host."""
        return MemoryView(memory.read().available_gib, self.contract.floor_gib)


def _spec(engine: Engine, ledger: Ledger) -> EngineSpec:
    need = ledger.need(engine)
    return EngineSpec(
        name=engine.name,
        need_gib=need.gib,
        held_gib=ledger.held_gib(engine),
        lane=engine.lane,
        start=engine.start,
        pinned=engine.pinned,
        load_s=need.load_s,
        version=_version(engine),
    )


def _version(engine: Engine) -> str:
    """Another one, another way to run: of the unit's file and of what the contract says."""
    try:
        unit = (UNITS / engine.unit).read_bytes()
    except OSError:
        unit = b""
    return hashlib.sha256(unit + msgspec.json.encode(engine)).hexdigest()
