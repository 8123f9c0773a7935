# SPDX-License-Identifier: Apache-2.0
"""Whether files that are there are what they should be."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

from hearth.download import digest
from hearth.download.errors import CancelledError
from hearth.download.fetch import at_once
from hearth.download.manifest import Manifest
from hearth.download.meter import Meter, Tell
from hearth.download.plan import File
from hearth.download.request import Request


def wrong_files(folder: Path, known: Manifest, request: Request, tell: Tell) -> list[str]:
    """The files of the manifest that are damaged or gone; all are read."""
    meter = Meter("checking", known.bytes_total, len(known.files))
    files = [File(path=path, size=kept.size, digest=kept.digest) for path, kept in known.files.items()]
    tasks = [functools.partial(check_file, folder, file, meter) for file in files]
    return [
        file.path for file, right in zip(files, at_once(tasks, request.workers, meter, tell), strict=True) if not right
    ]


def check_file(folder: Path, file: File, meter: Meter, stop: threading.Event) -> bool:
    """Whether the file has its digest. Raises CancelledError when ``stop`` is set."""

    def moved(count: int) -> None:
        if stop.is_set():
            raise CancelledError
        meter.move(count)

    try:
        found = digest.of_file(folder / file.path, digest.kind_of(file.digest), moved)
    except OSError:
        return False
    meter.file_done()
    return found == file.digest
