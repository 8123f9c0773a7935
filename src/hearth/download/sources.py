# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a model come from: a hub, a plain URL, a folder of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hearth.download.errors import DownloadError, of_disk
from hearth.download.part import Part
from hearth.download.plan import MANIFEST, File, safe
from hearth.download.request import Request

if TYPE_CHECKING:
    from hearth.download.hub import Hub
    from hearth.download.xet import Xet

_BLOCK = 1 << 20


class Sources:
    """Reads the files of one request. The hub's library is imported when something is asked of it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._hub: Hub | None = None
        self._xet: Xet | None = None
        self._lock = threading.Lock()
        self.commit = ""

    @property
    def hub(self) -> Hub:
        with self._lock:
            if self._hub is None:
                from hearth.download.hub import Hub

                self._hub = Hub(self._request)
        return self._hub

    @property
    def xet(self) -> Xet:
        with self._lock:
            if self._xet is None:
                from hearth.download.xet import Xet

                self._xet = Xet(self._request.patience.xet_stall_s)
                if not self._request.xet:
                    self._xet.off = "it is not wanted"
        return self._xet

    def read(self, file: File, part: Part) -> Iterator[list[bytes]]:
        if file.url.startswith("/"):
            return _copy(file, part)
        return self._by_hub(file, part)

    def _by_hub(self, file: File, part: Part) -> Iterator[list[bytes]]:
        if self.xet.claim(file):
            yield from self.xet.read(self.hub, file, self.commit, part)
        if not part.is_complete:
            yield from self.hub.read(file, self.commit, part)


def local_files(source: str) -> list[File]:
    """The files of a folder of this machine. Raises DownloadError."""
    root = Path(source)
    files = []
    try:
        for folder, _, names in os.walk(root, onerror=_raise):
            for name in names:
                path = Path(folder, name)
                relative = str(path.relative_to(root))
                if relative == MANIFEST or not path.is_file():
                    continue
                status = path.stat()
                origin = f"{status.st_mtime_ns}:{status.st_size}"
                files.append(File(path=safe(relative), size=status.st_size, url=str(path.absolute()), origin=origin))
    except OSError as error:
        raise DownloadError(
            f"the folder {source} cannot be read ({error.strerror}): correct the model's source"
        ) from None
    return files


def _raise(error: OSError) -> None:
    raise error


def _copy(file: File, part: Part) -> Iterator[list[bytes]]:
    """The file from where the part ends, of the same version as what the part has."""
    if part.size and part.version != file.origin:
        part.restart()
    part.learn(file.size, file.origin)
    try:
        with Path(file.url).open("rb", buffering=0) as source:
            source.seek(part.size)
            while block := source.read(_BLOCK):
                yield [block]
    except OSError as error:
        raise of_disk(error, Path(file.url)) from None
