# SPDX-License-Identifier: Apache-2.0
"""What an engine needs: what the contract says, until a good load on this box was measured."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from hearth import state
from hearth.contract import Engine

PATH = state.LEARNED / "measured.json"
UNITS = Path("/etc/systemd/system")

Source = Literal["catalog", "measured"]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One good load: ``gib`` it took, ``load_s`` seconds it lasted, ``at`` it was over (ISO 8601, UTC).

    ``fingerprint`` is of the unit that was started; another unit's figures say nothing.
    """

    fingerprint: str
    gib: _NotNegative
    load_s: _NotNegative
    at: str


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a start takes: ``gib``, and the seconds ``load_s`` that it is expected to last (0: unknown)."""

    gib: float
    source: Source
    load_s: float


class Ledger:
    """The measurements of this box. A file that is missing or damaged is as if nothing was measured."""

    def __init__(self, path: Path = PATH, units: Path = UNITS) -> None:
        self._path = path
        self._units = units
        self._known = self._read()

    def _read(self) -> dict[str, Measured]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Measured])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return {}

    def _fingerprint(self, engine: Engine) -> str:
        """The SHA-256 of the unit file; empty where there is none, which matches nothing."""
        try:
            return hashlib.sha256((self._units / engine.unit).read_bytes()).hexdigest()
        except OSError:
            return ""

    def need(self, engine: Engine) -> Need:
        """What ``engine`` needs.

        A measurement counts while the unit is the one that was measured, and never for less than half of what the
        contract says: something else may have given memory back meanwhile.
        """
        known = self._known.get(engine.name)
        if known is None or not known.fingerprint or known.fingerprint != self._fingerprint(engine):
            return Need(gib=engine.memory_gib, source="catalog", load_s=engine.load_s)
        return Need(gib=max(known.gib, engine.memory_gib / 2), source="measured", load_s=known.load_s)

    def held_gib(self, engine: Engine) -> float:
        """What an engine that is up holds: what its last load took, also where its unit was changed since.

        As for ``need``, never less than half of what the contract says: a restart begins before the memory of the run
        before is back, and would seem to take nothing.
        """
        known = self._known.get(engine.name)
        return max(known.gib, engine.memory_gib / 2) if known is not None else engine.memory_gib

    def record(self, engine: Engine, gib: float, load_s: float, at: str) -> None:
        """Keep what a good load took, rounded up to 0.1 GiB. Raises OSError.

        The caller holds the lock of starts, so no other measurement is lost.
        """
        fingerprint = self._fingerprint(engine)
        if not fingerprint:
            return
        measured = Measured(
            fingerprint=fingerprint, gib=max(0.0, math.ceil(gib * 10) / 10), load_s=round(max(0.0, load_s), 1), at=at
        )
        self._known = {**self._read(), engine.name: measured}
        text = msgspec.json.format(msgspec.json.encode(self._known, order="sorted"))
        state.replace(self._path, text + b"\n")
