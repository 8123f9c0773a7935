# SPDX-License-Identifier: Apache-2.0
"""Starts one after the other: at most one engine of the box is between its admission and its readiness.

vLLM measures the GPU's memory while it loads and fails when another process changes it meanwhile; and two engines that
were each admitted against the same free memory would freeze the host. An admitted start leaves a file; it counts only
while systemd says that this very run of the unit is starting. So whoever crashes or is killed leaves nothing to clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hearth import state
from hearth.errors import EngineFailedError, HearthError

if TYPE_CHECKING:
    from hearth.engines.units import UnitState

# The lock is held while files and systemd are read, never while anything is waited for.
_LOCK_TIMEOUT_S = 30.0


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A start that was admitted: of which run of which unit, for how many GiB, of how many that were available.

    ``at`` is ISO 8601, UTC.
    """

    engine: str
    unit: str
    invocation: str
    need_gib: float
    available_before_gib: float
    at: str

    def is_run_of(self, now: UnitState) -> bool:
        """Whether ``now`` says of the start's unit that this very run is still starting."""
        return now.is_starting and now.invocation == self.invocation


class Starts:
    """The box's one start in the making. ``ask`` gives systemd's states of units."""

    def __init__(self, run: Path, ask: Callable[[list[str]], Mapping[str, UnitState]]) -> None:
        self._file = run / "starting.json"
        self._lock = run / "start.lock"
        self._ask = ask

    def lock(self) -> AbstractContextManager[None]:
        """To be held by whoever decides on a start or ends one. Raises HearthError after 30 s."""
        return state.locked(self._lock, _LOCK_TIMEOUT_S, _lock_is_busy)

    def last(self) -> Start | None:
        """The newest start that was admitted and not settled, whatever became of it."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Start)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            # Written whole or not at all: what cannot be read is of nobody.
            return None

    def is_under_way(self, start: Start) -> bool:
        """Whether systemd says that it is. Raises SystemdError."""
        return start.is_run_of(self._ask([start.unit])[start.unit])

    def other(self, unit: str) -> Start | None:
        """The start under way of another unit than ``unit``. Raises SystemdError."""
        start = self.last()
        # A unit cannot be started twice at a time: what is left of its own is of an earlier run.
        if start is None or start.unit == unit or not self.is_under_way(start):
            return None
        return start

    def begin(self, start: Start) -> None:
        """From now on ``start`` is under way. The caller holds the lock. Raises HearthError."""
        try:
            state.replace(self._file, msgspec.json.encode(start))
        except OSError as error:
            raise HearthError(f"{self._file} cannot be written ({error.strerror}): run this as root") from None

    def end(self) -> None:
        """Nothing is under way any more. The caller holds the lock."""
        self._file.unlink(missing_ok=True)


def _lock_is_busy(holder: str) -> HearthError:
    return EngineFailedError(f"another start is being admitted ({holder}): wait for it, or end that process")
