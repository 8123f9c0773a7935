# SPDX-License-Identifier: Apache-2.0
"""What a change of engines says while it goes on, to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

Phase = Literal["fetching", "waiting", "draining", "stopping", "memory", "loading", "verifying", "restoring"]

_WORDS: dict[Phase, str] = {
    "fetching": "bringing the files of {engine}",
    "waiting": "waiting for {engine} to finish stopping",
    "draining": "waiting for requests of {engine} to end",
    "stopping": "stopping {engine}",
    "memory": "waiting for memory to come back for {engine}",
    "loading": "loading {engine}",
    "verifying": "asking {engine} a first question",
    "restoring": "bringing {engine} back",
}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of a change. ``elapsed_s`` is of this phase; ``expected_s``, how long it took last (0: unknown).

    ``note`` says how far it is, where the phase tells that.
    """

    phase: Phase
    engine: str
    elapsed_s: float = 0.0
    expected_s: float = 0.0
    note: str = ""

    @property
    def words(self) -> str:
        """For a person: what happens, since when, and how long it is expected to take."""
        said = _WORDS[self.phase].format(engine=self.engine)
        if self.note:
            return f"{said}: {self.note}"
        if self.elapsed_s < 1:
            return said
        if self.expected_s < 1:
            return f"{said}, {self.elapsed_s:.0f} s"
        if self.elapsed_s > self.expected_s:
            return f"{said}, {self.elapsed_s:.0f} s; {self.expected_s:.0f} s were expected"
        return f"{said}, {self.elapsed_s:.0f} of about {self.expected_s:.0f} s"


Tell = Callable[[Progress], None]


def say_nothing(_: Progress) -> None:
    """For callers whom nobody watches."""
