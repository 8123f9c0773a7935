# SPDX-License-Identifier: Apache-2.0
"""Fetching files: several at once, each tried again where it was cut, each verified before it counts."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

from hearth.download.errors import CancelledError, DownloadError, TransientError, of_disk
from hearth.download.meter import Meter, Tell
from hearth.download.part import Part
from hearth.download.plan import File
from hearth.download.request import Patience

# How often whoever waits is told how far it is, in seconds.
_TELL_EVERY_S = 0.5


class Reader(Protocol):
    """Where bytes come from. Raises DownloadError, or TransientError where it is worth another try."""

    def read(self, file: File, part: Part) -> Iterator[list[bytes]]: ...


def at_once(tasks: Sequence[Callable[[threading.Event], Any]], workers: int, meter: Meter, tell: Tell) -> list[Any]:
    """Carry out tasks, ``workers`` at a time, and tell how far they are. The first error ends all, and is raised.

    A task gets an event that is set when it should give up.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="fetch")
    try:
        left: set[Future[Any]] = set()
        futures = [pool.submit(task, stop) for task in tasks]
        left.update(futures)
        while left:
            done, left = wait(left, timeout=_TELL_EVERY_S, return_when=FIRST_EXCEPTION)
            tell(meter.progress())
            for future in done:
                future.result()
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def fetch(file: File, blob: Path, reader: Reader, meter: Meter, patience: Patience, stop: threading.Event) -> str:
    """Bring one file to ``blob``, verified; returns its digest. Goes on where an earlier call was cut off.

    Raises DownloadError, and CancelledError when ``stop`` is set.
    """
    missing, found = file.size, ""
    try:
        with Part(blob, file, meter) as part:
            for last in (False, True):
                _fill(file, part, reader, meter, patience, stop)
                found = part.verify()
                if not file.digest or found == file.digest:
                    part.finish()
                    meter.file_done()
                    return found
                # What an earlier run left may be damaged, or a proxy was: once more, from its beginning.
                missing = file.size - part.size
                part.restart()
                if last:
                    break
                meter.note(f"{file.path} came damaged and is fetched again")
    except OSError as error:
        raise of_disk(error, blob, max(0, missing)) from None
    raise DownloadError(
        f"{file.path} came damaged twice: its hash is {found}, the list of files says {file.digest}; nothing was put "
        "in place; ask again later, or take another revision or mirror"
    )


def _fill(file: File, part: Part, reader: Reader, meter: Meter, patience: Patience, stop: threading.Event) -> None:
    """Read until all is there. A try that brought something does not count."""
    tries = 0
    while not part.is_complete:
        before = part.size
        try:
            for pieces in reader.read(file, part):
                part.write(pieces)
                if stop.is_set():
                    raise CancelledError
            if part.total < 0:
                part.ended()
            elif not part.is_complete:
                raise TransientError(f"{file.path} ended after {part.size} of {part.total} bytes")
        except TransientError as trouble:
            tries = tries + 1 if part.size <= before else 0
            if tries >= patience.tries:
                raise DownloadError(
                    f"{file.path} could not be fetched in {tries} tries: {trouble}; ask again later, what came is kept"
                ) from None
            _pause(trouble, tries, meter, patience, stop)


def _pause(trouble: TransientError, tries: int, meter: Meter, patience: Patience, stop: threading.Event) -> None:
    # Spread: eight files that were cut at once should not come back at once.
    backoff = min(patience.backoff_max_s, patience.backoff_s * 2**tries) * random.uniform(0.5, 1.0)  # noqa: S311
    seconds = max(trouble.wait_s, backoff)
    meter.note(f"{trouble}; goes on in {seconds:.0f} s" if seconds >= 1 else str(trouble))
    if stop.wait(seconds):
        raise CancelledError
    meter.note("")


def patiently(call: Callable[[], Any], meter: Meter, tell: Tell, patience: Patience) -> Any:
    """A question to the hub, asked again while its trouble may go by. Raises DownloadError."""
    never = threading.Event()
    for tries in range(1, patience.tries + 1):
        try:
            return call()
        except TransientError as trouble:
            if tries == patience.tries:
                raise DownloadError(f"{trouble}, {tries} times: ask again later") from None
            meter.note(f"{trouble}; asked again")
            tell(meter.progress())
            _pause(trouble, tries - 1, meter, patience, never)
    raise AssertionError("not reached")
