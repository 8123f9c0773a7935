# SPDX-License-Identifier: Apache-2.0
"""What the guard did, for ``hearth status``, ``hearth doctor`` and whoever asks why a model is gone."""

from __future__ import annotations

import calendar
import time
from pathlib import Path

import msgspec

from hearth import state

NAME = "guard.json"
# Held while a guard watches; it dies with it. In a folder below /run that its unit has to itself.
FOLDER = "hearth-guard"
LOCK = "lock"
_KEPT = 20
_RECENT_S = 86_400


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """One engine that was ended: when (ISO 8601, UTC), and with how much available, in GiB."""

    at: str
    engine: str
    available_gib: float
    floor_gib: float

    @property
    def words(self) -> str:
        return (
            f"the guard ended {self.engine} at {self.at}: {self.available_gib:.1f} GiB were available, below its floor "
            f"of {self.floor_gib:.1f} GiB"
        )


def read(path: Path) -> tuple[Ended, ...]:
    """What was ended, oldest first; nothing where the file is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Ended, ...])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return ()


def recent(path: Path, now_s: float) -> Ended | None:
    """The last engine that was ended, where that was within a day."""
    last = next(reversed(read(path)), None)
    if last is None:
        return None
    try:
        ended_s = calendar.timegm(time.strptime(last.at, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return None
    return last if now_s - ended_s < _RECENT_S else None


def add(path: Path, ended: Ended) -> None:
    """Keep it, with those before it. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode((*read(path), ended)[-_KEPT:]))
    state.replace(path, text + b"\n")
