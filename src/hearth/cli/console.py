# SPDX-License-Identifier: Apache-2.0
"""A change of engines at a terminal: how it goes on, and what Ctrl-C, a kill and a lost connection do to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from hearth.cli import standing

if TYPE_CHECKING:
    from hearth.switching.progress import Progress

# On anything but a terminal, how often the same phase is told of again.
EVERY_S = 5.0
INTERRUPTED = 130
_CLEAR = "\r\x1b[K"
# Of a terminal that does not tell, as a serial console.
_COLUMNS = 80


class Watcher:
    """Tells of progress on ``stream``: on a terminal one line that is rewritten, else a line a phase.

    Where the stream is gone, as after a lost connection, it is silent: nothing that only tells may end a change.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        columns: int | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._stream = stream
        self._every_s = every_s
        self._clock = clock
        self._columns = columns or _columns(stream)
        self._phase = ("", "")
        self._told_at = -every_s
        self._line_is_open = False

    def __call__(self, progress: Progress) -> None:
        if self._columns:
            self._write(_CLEAR + progress.words[: self._columns - 1])
            self._line_is_open = True
            return
        phase, now = (progress.phase, progress.engine), self._clock()
        if phase != self._phase or now - self._told_at >= self._every_s:
            self._phase, self._told_at = phase, now
            self._write(progress.words + "\n")

    def say(self, words: str) -> None:
        """Tell of something that is no phase."""
        self._write(f"{words}\n")

    def close(self) -> None:
        """Leave no half line behind."""
        if self._line_is_open:
            self._write(_CLEAR)
            self._line_is_open = False

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def _columns(stream: TextIO) -> int:
    """The width of the terminal; 0 where the stream is none."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns or _COLUMNS) if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


def interruption(run: Path) -> str:
    """What it means that this process ends now, in the middle of a change."""
    pending = standing.pending(run)
    if pending is None or not pending.at or not pending.holder.startswith(f"pid {os.getpid()},"):
        return "interrupted: nothing was stopped or started"
    return (
        f"interrupted: the change to {pending.target} is half done; the next hearth switch, start or stop finishes or "
        "undoes it, and hearth status tells how things stand"
    )


@contextmanager
def uninterrupted(watcher: Watcher, say: Callable[[str], None], run: Path) -> Iterator[None]:
    """While it lasts, a lost connection (SIGHUP) changes nothing, and Ctrl-C or SIGTERM end the process at once.

    At once, because a thread may be in the middle of a question of minutes, and because a change may be killed
    anywhere: its journal tells the next one what to finish or undo.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        # The signal may have come in the middle of a line that is being written.
        with suppress(OSError, ValueError, RuntimeError):
            watcher.close()
            say(interruption(run))
        os._exit(INTERRUPTED)

    wanted: dict[signal.Signals, Callable[[int, FrameType | None], None] | signal.Handlers] = {
        signal.SIGINT: end,
        signal.SIGTERM: end,
        signal.SIGHUP: signal.SIG_IGN,
    }
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        watcher.close()
        for number, handler in before.items():
            signal.signal(number, handler)
