# SPDX-License-Identifier: Apache-2.0
"""The way back to engines that ran before: after a change that failed, and after one that was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hearth.contract import Engine
from hearth.engines.units import UnitState
from hearth.errors import HearthError, SystemdError
from hearth.switching import transition
from hearth.switching.journal import Journal
from hearth.switching.progress import Progress
from hearth.switching.transition import Hand


async def settled(hand: Hand, *, reload: bool = True) -> Mapping[str, UnitState]:
    """The states of all engines, none of them just stopping; what systemd has not read again is read first.

    Without ``reload`` it is not, which is for root to ask. Raises SystemdError.
    """
    states = await hand.states()
    if reload and any(state.outdated for state in states.values()):
        # Left by a site.yml that was killed between writing the units and telling systemd.
        await hand.systemd.reload()
        states = await hand.states()
    stopping = [engine for engine in hand.contract.engines if states[engine.unit].active == "deactivating"]
    for engine in stopping:
        await transition.settle(hand, engine)
    return await hand.states() if stopping else states


def missing(hand: Hand, left: Journal, states: Mapping[str, UnitState]) -> list[Engine]:
    """What ran before a change that was killed, and is not up now."""
    return [engine for engine in _known(hand, left.previous) if not states[engine.unit].is_up]


def _known(hand: Hand, names: Sequence[str]) -> list[Engine]:
    """The engines of these names; a contract that was written since may have lost some."""
    return [engine for name in names for engine in hand.contract.engines if engine.name == name]


async def heal(hand: Hand, left: Journal, leaving: Engine | None = None) -> list[str]:
    """Finish what a killed change had begun where its target is up or coming up, else undo it.

    Returns sentences on what was done, and on what could not be: that is no reason not to do what is asked for now.
    ``leaving`` is about to be stopped, so it is not brought up for that. Raises SystemdError.
    """
    said: list[str] = []
    states = await hand.states()
    for target in _known(hand, [left.target]):
        state = states[target.unit]
        if target == leaving and state.is_up:
            return []
        if not state.is_coming:
            continue
        try:
            if target == leaving:
                await transition.stop(hand, target)
                continue
            await transition.start(hand, target)
        except HearthError as error:
            said.append(str(error))
        else:
            boot = await _move_boot(hand, [left.target] if left.enable else [], left.disable)
            return [f"{target.name} serves now", *boot]
    back = [engine for engine in missing(hand, left, states) if engine != leaving]
    restored, failures = await restore(hand, back)
    return [*said, *(f"{name} serves again" for name in restored), *failures, *await undo_boot(hand, left)]


async def restore(hand: Hand, engines: Sequence[Engine]) -> tuple[list[str], list[str]]:
    """Have engines run that ran before. Returns the names of those that do, and a sentence for each that does not."""
    restored: list[str] = []
    failures: list[str] = []
    for engine in engines:
        hand.report(Progress(phase="restoring", engine=engine.name))
        try:
            state = await hand.systemd.state(engine.unit)
            if not state.is_alive:
                # What failed may have had a lot, and a driver may give that back only seconds after the stop.
                await transition.memory_back(hand, engine)
            if not state.is_up:
                await transition.start(hand, engine)
        except HearthError as error:
            failures.append(f"{engine.name} could not be brought back: {error}")
        else:
            restored.append(engine.name)
    return restored, failures


async def move_boot(hand: Hand, on: Sequence[str], off: Sequence[str]) -> None:
    """Have engines start at boot, and others no longer; what is so already is left alone. Raises SystemdError.

    In this order: a power cut between the two must not leave a box that starts nothing. Of two that do not fit side by
    side admission lets one start.
    """
    states = await hand.states()
    for engine in _known(hand, on):
        if not states[engine.unit].enabled:
            await hand.systemd.enable(engine.unit)
    leaving = [engine.unit for engine in _known(hand, off) if states[engine.unit].enabled]
    if leaving:
        await hand.systemd.disable(leaving)


async def undo_boot(hand: Hand, left: Journal) -> list[str]:
    """What starts at boot is again what did before that change. Returns a sentence where that cannot be."""
    return await _move_boot(hand, left.disable, [left.target] if left.enable else [])


async def _move_boot(hand: Hand, on: Sequence[str], off: Sequence[str]) -> list[str]:
    try:
        await move_boot(hand, on, off)
    except SystemdError as error:
        return [f"what starts at boot could not be put right: {error}"]
    return []
