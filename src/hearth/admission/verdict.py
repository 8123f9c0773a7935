# SPDX-License-Identifier: Apache-2.0
"""The rule of admission: pure, from figures to a decision and its sentence.

On unified memory too much memory is no error but a frozen host, so an engine starts only where what it needs is
available beside the floor, which stays with the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from hearth.admission import ledger
from hearth.admission.holders import Holder
from hearth.admission.ledger import Need
from hearth.contract import Engine
from hearth.memory import Memory


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, its figures in GiB, and its sentence.

    ``drops_cache``: enough is available, but too little of it free for an engine that asks the GPU for memory.
    ``waits_for``: the engine that is starting now, whose readiness would be awaited first.
    """

    engine: str
    admitted: bool
    sentence: str
    need_gib: float
    source: ledger.Source
    total_gib: float
    available_gib: float
    free_gib: float
    floor_gib: float
    missing_gib: float
    drops_cache: bool = False
    waits_for: str = ""
    holders: tuple[Holder, ...] = ()


def wanted_gib(need: Need, floor_gib: float) -> float:
    """What has to be available, in GiB."""
    return need.gib + floor_gib


def decide(
    engine: Engine,
    need: Need,
    now: Memory,
    floor_gib: float,
    *,
    gpu: bool = False,
    held: Sequence[Holder] = (),
    waits_for: str = "",
) -> Admission:
    """Admit ``engine`` where what it needs, and the floor, fit into what is available.

    ``held`` says who holds memory, for a refusal; ``gpu``, whether this host has one.
    """
    admitted = wanted_gib(need, floor_gib) <= now.available_gib
    missing_gib = 0.0
    figures = f"engine {engine.name} needs {need.gib:.1f} GiB{' (measured)' if need.source == 'measured' else ''}"
    if admitted:
        turn = f" once {waits_for}, which is starting, is ready" if waits_for else ""
        sentence = (
            f"{figures}, {now.available_gib:.1f} GiB are available and {floor_gib:.1f} GiB of them stay with the host: "
            f"it may start{turn}"
        )
    else:
        # Rounded up, or a refusal could say that nothing is missing.
        missing_gib = max(0.1, math.ceil((wanted_gib(need, floor_gib) - now.available_gib) * 10) / 10)
        sentence = (
            f"{figures}, but of the {now.available_gib:.1f} GiB available {floor_gib:.1f} GiB stay with the host, "
            f"so {missing_gib:.1f} GiB are missing; {_advice(engine, need, now, floor_gib, held)}"
        )
    return Admission(
        engine=engine.name,
        admitted=admitted,
        sentence=sentence,
        need_gib=need.gib,
        source=need.source,
        total_gib=now.total_gib,
        available_gib=now.available_gib,
        free_gib=now.free_gib,
        floor_gib=floor_gib,
        missing_gib=missing_gib,
        drops_cache=admitted and gpu and now.free_gib < need.gib,
        waits_for=waits_for,
        holders=tuple(held),
    )


def _advice(engine: Engine, need: Need, now: Memory, floor_gib: float, held: Sequence[Holder]) -> str:
    """Who holds how much, and what to do."""
    planned = engine.memory_gib + floor_gib
    too_big = wanted_gib(need, floor_gib) > now.total_gib
    if too_big:
        advice = f"the host has {now.total_gib:.1f} GiB in all: choose a smaller model or a smaller context"
    elif held:
        advice = f"{', '.join(holder.words for holder in held)}: {'; '.join(holder.remedy for holder in held)}"
    else:
        advice = "nobody is seen with 1 GiB or more: look at ps -eo pid,rss,comm --sort=-rss"
    if need.source == "measured" and planned <= (now.total_gib if too_big else now.available_gib):
        # What another program took during that load was counted for it.
        advice += f"; or, if {engine.memory_gib:.1f} GiB as planned are enough after all, remove {ledger.PATH}"
    return advice
