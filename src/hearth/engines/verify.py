# SPDX-License-Identifier: Apache-2.0
"""Is the box well: does every engine that should run answer as it should? Only asks, changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from hearth.contract import Contract, Engine, read_key
from hearth.engines import probe, units
from hearth.errors import EngineFailedError


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an engine beside its health and its name; an empty text is not asked.

    ``max_tokens`` bounds the answer to ``chat``; ``timeout_s`` is how long each answer may take, in seconds.
    """

    chat: str = ""
    embedding: str = ""
    max_tokens: int = 16
    timeout_s: float = 60.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What came of checking one engine.

    ``checked`` names what was well, in order; ``failed`` what was not, and ``failure`` is the sentence for it: both are
    empty when all was well. ``seconds`` has how long each step took, 0 for one that was not reached or not asked for.
    ``log`` is the tail of the engine's own log where something failed.
    """

    name: str
    url: str
    unit: str
    lane: str
    checked: tuple[str, ...]
    seconds: dict[str, float]
    answer: str
    dimensions: int
    failed: str
    failure: str
    log: tuple[str, ...]

    @property
    def log_command(self) -> str:
        """What a person types to see the engine's log."""
        return f"journalctl -u {self.unit.removesuffix('.service')} -n 50"


def should_run(
    engines: Sequence[Engine], states: Mapping[str, units.UnitState]
) -> tuple[tuple[Engine, ...], tuple[Engine, ...]]:
    """The engines that run, or are on their way up, and those that should and do not.

    These are the ones that start at boot. In the main lane, where one gives way to another unless it is pinned, one
    that runs is enough.
    """
    running = tuple(engine for engine in engines if states[engine.unit].is_coming)
    main = any(engine.lane == "main" for engine in running)

    def gave_way(engine: Engine) -> bool:
        return main and engine.lane == "main" and not engine.pinned

    missing = tuple(
        engine for engine in engines if states[engine.unit].enabled and engine not in running and not gave_way(engine)
    )
    return running, missing


def check(engine: Engine, key: str, questions: Questions) -> Health:
    """Is the engine ready, does it serve exactly its name, does it answer? Ends at the first that fails."""
    limit_s = questions.timeout_s
    steps: list[tuple[str, str, Callable[[], Any]]] = [
        ("ready", "health", lambda: probe.wait_ready(engine, limit_s)),
        ("models", "model id", lambda: probe.assert_serves(engine, key)),
    ]
    if questions.chat:
        ask = questions.chat, questions.max_tokens
        steps.append(("chat", "chat", lambda: probe.chat(engine, key, *ask, limit_s)))
    if questions.embedding:
        steps.append(("embedding", "embedding", lambda: probe.embed(engine, key, questions.embedding, limit_s)))
    gave: dict[str, Any] = {}
    checked: list[str] = []
    seconds = dict.fromkeys(("ready", "models", "chat", "embedding"), 0.0)
    failed, failure = "", ""
    for field, what, step in steps:
        begun = time.monotonic()
        try:
            gave[field] = step()
        except EngineFailedError as error:
            failed, failure = what, str(error)
        seconds[field] = round(time.monotonic() - begun, 4)
        if failed:
            break
        checked.append(what)
    return Health(
        name=engine.name,
        url=engine.base_url,
        unit=engine.unit,
        lane=engine.lane,
        checked=tuple(checked),
        seconds=seconds,
        answer=gave.get("chat", ""),
        dimensions=gave.get("embedding", 0),
        failed=failed,
        failure=failure,
        log=units.log_tail(engine.unit) if failed else (),
    )


async def check_all(contract: Contract, questions: Questions) -> list[Health]:
    """Check all engines that should run, at the same time, each with the questions that it can answer.

    Raises ContractError, SystemdError.
    """
    key = read_key(contract)
    async with units.Systemd() as systemd:
        states = await systemd.states([engine.unit for engine in contract.engines])
    running, missing = should_run(contract.engines, states)
    found = await asyncio.gather(
        *(asyncio.to_thread(check, engine, key, _suited(questions, engine)) for engine in running)
    )
    return [*found, *(_absent(engine, states[engine.unit]) for engine in missing)]


def _suited(questions: Questions, engine: Engine) -> Questions:
    return msgspec.structs.replace(
        questions,
        chat=questions.chat if "chat" in engine.capabilities else "",
        embedding=questions.embedding if "embeddings" in engine.capabilities else "",
    )


def _absent(engine: Engine, state: units.UnitState) -> Health:
    unit = engine.unit.removesuffix(".service")
    return Health(
        name=engine.name,
        url=engine.base_url,
        unit=engine.unit,
        lane=engine.lane,
        checked=(),
        seconds={},
        answer="",
        dimensions=0,
        failed="running",
        failure=f"engine {engine.name} starts at boot and is {state.active} now: start it with systemctl start {unit}",
        log=units.log_tail(engine.unit),
    )


def as_dict(one: Health) -> dict[str, Any]:
    """The fields, of the kinds that JSON knows."""
    fields: dict[str, Any] = msgspec.to_builtins(one)
    return fields


def table(found: Sequence[Health]) -> list[str]:
    """A line for each engine, below a line of titles; a sentence where there is none."""
    if not found:
        return ["Nothing should run: no engine is up, and none starts at boot."]
    rows = [("MODEL", "ADDRESS", "CHECKED", "SECONDS", "VERDICT")]
    for one in found:
        passed = [f"{what} ({one.dimensions} dimensions)" if what == "embedding" else what for what in one.checked]
        verdict = {"": "well", "running": "down"}.get(one.failed, f"fails at {one.failed}")
        rows.append((one.name, one.url, ", ".join(passed) or "-", f"{sum(one.seconds.values()):.2f}", verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def complaint(found: Sequence[Health]) -> str:
    """One sentence that names each engine that is not well, why, and how to see its log; empty when all are."""
    sick = [one for one in found if one.failed]
    if not sick:
        return ""
    reasons = "; ".join(f"{one.failure} (its log: {one.log_command})" for one in sick)
    return f"Of {len(found)} that should run, {len(sick)} {'is' if len(sick) == 1 else 'are'} not well: {reasons}"
