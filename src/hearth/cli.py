# SPDX-License-Identifier: Apache-2.0
"""``hearth`` on the box: the shell face of the package.

Exit codes: 0 done · 1 failed, with one sentence on stderr · 2 wrong usage or unknown model · 3 another switch runs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from hearth import __version__, contract, errors
from hearth.units import Systemd, UnitState


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hearth", description="Engines of this box.")
    parser.add_argument("--version", action="version", version=f"hearth {__version__}")
    parser.add_argument(
        "--engines", type=Path, default=contract.PATH, help="the contract to read (default: %(default)s)"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    status = verbs.add_parser("status", help="what runs, and where")
    status.add_argument("--json", action="store_true", help="for programs")
    switch = verbs.add_parser("switch", help="make one model the one that runs")
    switch.add_argument("model", help="name or alias; 'none' stops the lane")
    admit = verbs.add_parser("admit", help="may this engine be started now? (its unit asks this)")
    admit.add_argument("model")
    ready = verbs.add_parser("ready", help="wait until an engine answers (its unit asks this)")
    ready.add_argument("model")
    ready.add_argument("--pid", type=int, help="give up at once when this process ends")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except errors.HearthError as error:
        for line in error.log:
            print(f"  | {line}", file=sys.stderr)
        print(f"hearth: {error}", file=sys.stderr)
        return {errors.UnknownModelError: 2, errors.BusyError: 3}.get(type(error), 1)
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    known = contract.load(options.engines)
    # Imported where needed: the unit runs `ready` at every start, and each import costs it time.
    if options.verb == "status":
        return _status(known, as_json=options.json)
    if options.verb == "switch":
        return _switch(known, options.model)
    engine = known.find(options.model)
    if options.verb == "admit":
        from hearth.transition import admit

        admit(engine)
        return 0
    if engine.engine == "ollama":
        from hearth.ollama import make_ready

        # At once, or the journal would get the whole of a pull when it is over.
        seconds = make_ready(engine, options.pid, lambda line: print(f"hearth: {line}", flush=True))
    else:
        from hearth.probe import wait_ready

        seconds = wait_ready(engine, engine.start_timeout_s, options.pid)
    print(f"hearth: {engine.name} is ready after {seconds:.1f} s on {engine.base_url}")
    return 0


def _switch(known: contract.Contract, name: str) -> int:
    from hearth.switch import switch

    outcome = asyncio.run(switch(known, None if name == "none" else name))
    steps = "; ".join(outcome.plan.sentences()) or "nothing to do"
    print(f"active: {outcome.active or 'none'} ({steps}; stop {outcome.stop_s:.1f} s, start {outcome.start_s:.1f} s)")
    return 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One engine in ``hearth status``."""

    name: str
    state: str
    boot: bool
    lane: str
    engine: str
    url: str
    memory_gib: float


def _status(known: contract.Contract, *, as_json: bool) -> int:
    states = asyncio.run(_states(known))
    rows = [
        Row(
            name=engine.name,
            state=states[engine.unit].active,
            boot=states[engine.unit].enabled,
            lane=engine.lane,
            engine=engine.engine,
            url=engine.base_url,
            memory_gib=engine.memory_gib,
        )
        for engine in known.engines
    ]
    if as_json:
        print(msgspec.json.encode(rows).decode())
        return 0
    table = [("MODEL", "STATE", "BOOT", "LANE", "ENGINE", "ADDRESS", "NEEDS")]
    table += [
        (row.name, row.state, "yes" if row.boot else "-", row.lane, row.engine, row.url, f"{row.memory_gib:g} GiB")
        for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


async def _states(known: contract.Contract) -> dict[str, UnitState]:
    async with Systemd() as systemd:
        return await systemd.states([engine.unit for engine in known.engines])


if __name__ == "__main__":
    sys.exit(main())
