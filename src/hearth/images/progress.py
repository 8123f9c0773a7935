# SPDX-License-Identifier: Apache-2.0
"""How far the work on an image is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from hearth.words import gigabytes

Phase = Literal["waiting", "asking", "pulling", "extracting", "building", "smoke", "loading", "saving", "switching"]

_WORDS: dict[Phase, str] = {
    "waiting": "waiting for other work on images to end",
    "asking": "asking its registry",
    "pulling": "fetching",
    "extracting": "unpacking",
    "building": "building",
    "smoke": "trying it out",
    "loading": "handing it to Docker",
    "saving": "saving",
    "switching": "switching to it",
}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes are done of total (0: not known), and so are steps. ``words`` are what else there is to say."""

    phase: Phase
    bytes_done: int = 0
    bytes_total: int = 0
    step: int = 0
    steps: int = 0
    words: str = ""

    @property
    def line(self) -> str:
        """For a person."""
        said = _WORDS[self.phase]
        if self.steps:
            said += f", step {self.step} of {self.steps}"
        if self.bytes_total:
            percent = 100 * self.bytes_done // self.bytes_total
            said += f" {gigabytes(self.bytes_done)} of {gigabytes(self.bytes_total)} GB, {percent} %"
        return f"{said}, {self.words}" if self.words else said


Tell = Callable[[Progress], None]


def say_nothing(_: Progress) -> None:
    """For callers whom nobody watches."""
