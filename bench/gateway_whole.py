# SPDX-License-Identifier: Apache-2.0
"""`hearth serve` for `make bench-gateway`, without a box: ``gateway_whole.py PORT ENGINE FOLDER``.

All of it is the real thing, keys, limits, scheduler, metrics and wire, but for systemd, which has nothing to do while
the one engine runs: what watches units says once that it is up, and what starts them is never asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from gateway_load import KEY

from hearth import contract
from hearth.admission.ledger import Ledger
from hearth.engines.units import UnitState
from hearth.gateway import engines as known_engines
from hearth.gateway import keys, process
from hearth.gateway.settings import Settings

UNIT = "hearth-engine-bench.service"


class Up:
    """In place of what watches units: says once that the engine is up."""

    def __init__(self, units: Iterable[str], changed: Callable[[UnitState], None]) -> None:
        self._names = list(units)
        self._changed = changed

    async def start(self) -> None:
        for unit in self._names:
            state: dict[str, Any] = {"unit": unit, "load": "loaded", "active": "active", "sub": "running"}
            rest: dict[str, Any] = {"enabled": True, "result": "success", "main_pid": 1, "started_us": 0}
            self._changed(UnitState(**state, **rest, fragment="", outdated=False))

    async def units(self, units: Iterable[str]) -> None:
        self._names = list(units)
        await self.start()

    async def close(self) -> None:
        self._names = []


def write(folder: Path, engine: int) -> None:
    """The contract, the keys and the engines' own key."""
    one = contract.Engine(
        name="bench", engine="vllm", unit=UNIT, container="bench", image="bench", model_path="/", tag="", port=engine,
        served_name="bench", lane="main", start="boot", pinned=False, memory_gib=1.0, capabilities=("chat",),
        aliases=(), start_timeout_s=60, stop_timeout_s=5, load_s=0.0,
    )  # fmt: skip
    secret = folder / "engine.env"
    secret.write_text("LLAMA_API_KEY=of-the-engines\n", encoding="utf-8")
    known = contract.Contract(schema=contract.SCHEMA, key_file=str(secret), floor_gib=1.0, engines=(one,))
    (folder / "engines.json").write_bytes(msgspec.json.encode(known))
    key = keys.Key(name="bench", sha256=keys.digest(KEY))
    (folder / "keys.json").write_bytes(msgspec.json.encode({"schema": 1, "keys": [key]}))


def main(port: int, engine: int, folder: Path) -> int:
    """Serve until a signal says to stop."""
    write(folder, engine)
    setattr(known_engines, "Ledger", lambda: Ledger(folder / "measured.json", folder))  # noqa: B010 # a stand-in
    setattr(process, "Watch", Up)  # noqa: B010 # a stand-in
    listen, known = ("127.0.0.1", port), str(folder / "engines.json")
    return process.main(Settings(listen=listen, engines=known, keys=str(folder / "keys.json")))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
