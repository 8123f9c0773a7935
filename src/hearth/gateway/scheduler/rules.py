# SPDX-License-Identifier: Apache-2.0
"""Who has to go so that another fits: pure, from how things stand to a choice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from hearth.gateway.scheduler.spec import MemoryView
from hearth.gateway.scheduler.standing import Standing

# Sums of tenths are not exact; a kilobyte decides nothing.
_TINY_GIB = 1e-6

# now: it fits once the victims have stopped. later: memory is on its way, back or to one that loads, so wait and see.
# never: it does not fit even if all stop that may.
Fit = Literal["now", "later", "never"]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """``spare_gib`` is what is left above the floor once the victims have stopped and the engine has all it needs."""

    fit: Fit
    victims: tuple[Standing, ...] = ()
    spare_gib: float = 0.0


def choose(target: Standing, engines: Iterable[Standing], memory: MemoryView, now: float, *, settled: bool) -> Choice:
    """Who goes for ``target``: the cheapest first, and nobody without whom it fits as well.

    Those whose door is shut already come first, so that a choice stays what it was while it is waited for. What engines
    that load may yet take counts as taken. ``settled``: memory of engines that stopped has had its time to come back;
    before that nobody is chosen, for then fewer may have to go.
    """
    # Nobody says any more how those stand that are not configured.
    known = [one for one in engines if not one.removed]
    room = memory.available_gib - memory.floor_gib - target.spec.need_gib + _TINY_GIB
    room -= sum(one.spec.need_gib for one in known if one.phase == "starting")
    candidates = sorted((one for one in known if one.evictable), key=lambda one: (one.closing is None, one.cost(now)))
    chosen: list[Standing] = []
    for one in candidates:
        if room >= 0 and not target.sweep:
            break
        chosen.append(one)
        room += one.held_gib
    if not target.sweep:
        for one in reversed(chosen.copy()):
            if room - one.held_gib >= 0:
                chosen.remove(one)
                room -= one.held_gib
    in_motion = any(one.phase == "stopping" for one in known) or not settled
    if chosen and in_motion:
        return Choice(fit="later")
    if room < 0:
        loading = any(one.phase == "starting" for one in known)
        return Choice(fit="later" if in_motion or loading else "never")
    return Choice(fit="now", victims=tuple(chosen), spare_gib=room)
