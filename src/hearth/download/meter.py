# SPDX-License-Identifier: Apache-2.0
"""Counting bytes of several threads, and saying how far they are."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from hearth.words import gigabytes, span

Phase = Literal["waiting", "starting", "asking", "checking", "fetching", "placing"]

# The rate told is that of the last so many seconds: a figure over the whole run hides a line that went slow.
_WINDOW_S = 10.0
_WORDS: dict[Phase, str] = {
    "waiting": "waiting for another process to bring it",
    "starting": "starting Ollama",
    "asking": "asking for the list of files",
    "checking": "checking what is there",
    "fetching": "fetching",
    "placing": "putting it in place",
}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is. Bytes are done of total (0: not known yet); ``rate`` in bytes a second; ``eta_s`` -1: not known.

    ``note`` says what it waits for, where it does.
    """

    phase: Phase
    bytes_done: int = 0
    bytes_total: int = 0
    rate: float = 0.0
    eta_s: float = -1.0
    files_done: int = 0
    files_total: int = 0
    note: str = ""

    @property
    def percent(self) -> int:
        return 100 * self.bytes_done // self.bytes_total if self.bytes_total else 0

    @property
    def words(self) -> str:
        """For a person, on one line."""
        said = _WORDS[self.phase]
        if self.phase in ("checking", "fetching") and self.bytes_total:
            said += f" {gigabytes(self.bytes_done)} of {gigabytes(self.bytes_total)} GB, {self.percent} %"
            if self.rate > 0:
                said += f", {self.rate / 1e6:.0f} MB/s"
            if self.eta_s >= 0:
                said += f", {span(self.eta_s)} to go"
        return f"{said} ({self.note})" if self.note else said


Tell = Callable[[Progress], None]


def say_nothing(_: Progress) -> None:
    """For callers whom nobody watches."""


class Meter:
    """Bytes of a download. Its methods may be called by any thread."""

    def __init__(self, phase: Phase, total: int = 0, files: int = 0) -> None:
        self._lock = threading.Lock()
        self._phase: Phase = phase
        self._total = total
        self._done = 0
        self._moved = 0
        self._files = files
        self._files_done = 0
        self._note = ""
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def moved(self) -> int:
        """Bytes that were worked for in this run: fetched, or hashed."""
        return self._moved

    def have(self, count: int) -> None:
        """So many bytes are there already; negative where they have to come again."""
        with self._lock:
            self._done += count

    def move(self, count: int) -> None:
        """So many bytes came."""
        with self._lock:
            self._done += count
            self._moved += count

    def expect(self, count: int) -> None:
        """The size of a file became known."""
        with self._lock:
            self._total += count

    def file_done(self) -> None:
        with self._lock:
            self._files_done += 1

    def note(self, words: str) -> None:
        """What somebody waits for; empty when that is over."""
        with self._lock:
            self._note = words

    def progress(self, now: float | None = None) -> Progress:
        """As it is now; ``now`` is in seconds of the monotonic clock. Asked a few times a second, by one thread."""
        now = time.monotonic() if now is None else now
        with self._lock:
            self._seen.append((now, self._moved))
            while now - self._seen[0][0] > _WINDOW_S and len(self._seen) > 2:
                self._seen.popleft()
            since, had = self._seen[0]
            rate = (self._moved - had) / (now - since) if now > since else 0.0
            left = max(0, self._total - self._done)
            return Progress(
                phase=self._phase,
                bytes_done=self._done,
                bytes_total=self._total,
                rate=rate,
                eta_s=left / rate if rate > 0 else -1.0,
                files_done=self._files_done,
                files_total=self._files,
                note=self._note,
            )
