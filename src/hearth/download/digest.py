# SPDX-License-Identifier: Apache-2.0
"""Hashing: of files that are there, and of a file while it is written."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
# Written back and forgotten by the page cache in such steps, so that a download of 100 GB does not fill the memory.
_FLUSH = 64 << 20


def start(kind: str, size: int) -> Any:
    """A hash of ``kind``: sha256, or git, the SHA-1 of a blob as git-hash-object makes it."""
    if kind == "git":
        # Not for security: it is the name git gives to content.
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    return hashlib.sha256()


def kind_of(digest: str) -> str:
    """Which hash to compute to compare with ``digest``; sha256 where there is nothing to compare with."""
    return digest.partition(":")[0] or "sha256"


def of_file(path: Path, kind: str, moved: Callable[[int], None] = lambda _: None) -> str:
    """The digest of a file, as ``kind:hex``. ``moved`` gets the bytes of each step. Raises OSError."""
    block = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        found = start(kind, os.fstat(file.fileno()).st_size)
        at = dropped = 0
        while count := file.readinto(block):
            found.update(block[:count])
            moved(count)
            at += count
            if at - dropped >= _FLUSH:
                _forget(file.fileno(), dropped, at - dropped)
                dropped = at
        _forget(file.fileno(), dropped, 0)
    return f"{kind}:{found.hexdigest()}"


class Follower(threading.Thread):
    """Hashes a file behind the thread that writes it, so that hashing takes no time of its own.

    What it reads is in the page cache. It has the disk written in steps and lets the page cache go.
    """

    def __init__(self, descriptor: int, kind: str, size: int) -> None:
        super().__init__(name="hash", daemon=True)
        self._descriptor = descriptor
        self._kind = kind
        self._size = size
        self._written = 0
        self._again = False
        self._ends = False
        self._stops = False
        self._change = threading.Condition()
        self._hash = start(kind, size)
        self._error: OSError | None = None

    def wrote(self, end: int) -> None:
        """The file is written up to ``end``."""
        with self._change:
            self._written = end
            self._change.notify()

    def restart(self) -> None:
        """All that was written is void."""
        with self._change:
            self._written = 0
            self._again = True
            self._change.notify()

    def end(self) -> str:
        """Nothing more will be written: waits, and returns the digest. Raises OSError where the disk fails."""
        with self._change:
            self._ends = True
            self._change.notify()
        self.join()
        if self._error is not None:
            raise self._error
        return f"{self._kind}:{self._hash.hexdigest()}"

    def stop(self) -> None:
        """The digest is of no interest any more: waits until the thread has let go of the file."""
        with self._change:
            self._stops = self._ends = True
            self._change.notify()
        self.join()

    def run(self) -> None:
        try:
            self._follow()
        except OSError as error:
            self._error = error

    def _follow(self) -> None:
        block = memoryview(bytearray(BLOCK))
        at = flushed = 0
        while True:
            with self._change:
                while not (self._again or self._written > at or self._ends):
                    self._change.wait()
                if self._again:
                    self._again = False
                    self._hash = start(self._kind, self._size)
                    at = flushed = 0
                end = self._written
                if self._stops or (end <= at and self._ends):
                    break
            while at < end and not self._stops:
                count = os.preadv(self._descriptor, [block[: min(len(block), end - at)]], at)
                if not count:
                    if not self._again:
                        raise OSError(errno.EIO, "the file became shorter while it was written")
                    break
                self._hash.update(block[:count])
                at += count
            if at - flushed >= _FLUSH:
                self._flush(flushed, at)
                flushed = at
        if not self._stops:
            self._flush(flushed, at)

    def _flush(self, since: int, until: int) -> None:
        os.fdatasync(self._descriptor)
        _forget(self._descriptor, since, until - since)


def _forget(descriptor: int, since: int, count: int) -> None:
    """Let the page cache go of ``count`` bytes, or of all from ``since`` on where that is 0."""
    # Some filesystems do not know how to.
    with suppress(OSError):
        os.posix_fadvise(descriptor, since, count, os.POSIX_FADV_DONTNEED)
