# SPDX-License-Identifier: Apache-2.0
"""The rule of the guard: pure, from readings to who is ended.

Admission keeps an engine from starting without room, and then trusts it. The guard is for what comes after: an engine
that takes more than it was measured with, or somebody else's program. Whoever came last is ended, since those before
ran well without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

# Memory of an engine that was ended comes back within a second or two, and large allocations of a GPU later. As long as
# it goes on rising, nobody else is ended; when it has been calm for so long, it is not coming.
CALM_S = 4.0
# Less than this is no rise: on an idle host memory wanders by less.
_RISE_GIB = 0.1
# Armed again only where this much more than the floor is available, or one engine would be ended for each ripple.
_MARGIN = 1.25


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that has a process; ``started`` orders starts, whatever its unit."""

    name: str
    pinned: bool
    started: int


class Guard:
    """Its state between readings. ``floor_gib``: below this, an engine is ended."""

    def __init__(self, floor_gib: float) -> None:
        self.floor_gib = floor_gib
        self._waits = False
        self._highest_gib = 0.0
        self._calm_since_s = 0.0

    @property
    def waits(self) -> bool:
        """Whether it has ended somebody and waits for memory to come back."""
        return self._waits

    def is_near(self, available_gib: float) -> bool:
        """Whether it may have to act soon, so that it should know who runs."""
        return available_gib < 2 * self.floor_gib

    def should_act(self, now_s: float, available_gib: float) -> bool:
        """Take a reading; whether somebody has to go now. ``now_s`` is of a clock that never goes back."""
        if self._waits:
            if available_gib >= self.floor_gib * _MARGIN:
                self._waits = False
                return False
            if available_gib > self._highest_gib + _RISE_GIB:
                self._highest_gib, self._calm_since_s = available_gib, now_s
            if available_gib >= self.floor_gib or now_s - self._calm_since_s < CALM_S:
                return False
        elif available_gib >= self.floor_gib:
            return False
        self._waits, self._highest_gib, self._calm_since_s = True, available_gib, now_s
        return True


def choose(running: Sequence[Running]) -> Running | None:
    """Who goes: the newest, pinned ones last; none where nobody runs."""
    return max(running, key=lambda one: (not one.pinned, one.started), default=None)
