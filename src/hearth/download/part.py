# SPDX-License-Identifier: Apache-2.0
"""A file on its way: what came is on the disk at once, and hashed behind its back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from hearth.download import digest
from hearth.download.errors import TransientError
from hearth.download.meter import Meter
from hearth.download.plan import File

# Smaller files are hashed when they are there: a thread of their own would cost more.
_FOLLOW_FROM = 4 << 20


class Part:
    """``<blob>.part``, and what is known of the whole. One thread writes it. All methods raise OSError.

    ``size`` is what came, ``total`` what there will be (-1: not known yet). ``version`` is the strong ETag (RFC 9110,
    8.8.3) of what is there, for a file without a digest: only with it may such a file go on where it was cut.
    """

    def __init__(self, blob: Path, file: File, meter: Meter) -> None:
        self.path = blob.with_name(blob.name + ".part")
        self._blob = blob
        self._version_path = blob.with_name(blob.name + ".version")
        self._kind = digest.kind_of(file.digest)
        self._digest = file.digest
        self._meter = meter
        self.total = self._listed = file.size
        self.version = ""
        self.size = 0
        self._descriptor = -1
        self._follower: digest.Follower | None = None

    def __enter__(self) -> Self:
        # O_NOFOLLOW: the folder's owner could lead root elsewhere by a link of this name.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o644)
        self.size = os.fstat(self._descriptor).st_size
        if not self._digest:
            with suppress(OSError):
                self.version = self._version_path.read_text(encoding="utf-8")
        if (not self._digest and not self.version) or 0 <= self.total < self.size:
            os.ftruncate(self._descriptor, 0)
            self.size = 0
        os.lseek(self._descriptor, self.size, os.SEEK_SET)
        self._meter.have(self.size)
        self._follow()
        return self

    def __exit__(self, *_: object) -> None:
        if self._follower is not None:
            # Before the descriptor is somebody else's.
            self._follower.stop()
        os.close(self._descriptor)

    def _follow(self) -> None:
        if not 0 <= self.total < _FOLLOW_FROM:
            self._follower = digest.Follower(self._descriptor, self._kind, self.total)
            self._follower.start()
            self._follower.wrote(self.size)

    @property
    def is_complete(self) -> bool:
        return self.size == self.total

    def learn(self, total: int, version: str) -> None:
        """What an answer says of the whole file. Raises TransientError where it is not the file that was listed."""
        if self.total < 0 <= total:
            self.total = total
            self._meter.expect(total)
        elif 0 <= total != self.total:
            raise TransientError(f"the other side has {total} bytes of it, the list of files says {self.total}")
        if not self._digest:
            self.version = "" if version.startswith("W/") else version
            self._version_path.write_text(self.version, encoding="utf-8")

    def write(self, pieces: Sequence[bytes]) -> None:
        """What came next. Raises TransientError where that is more than there should be."""
        count = sum(map(len, pieces))
        if 0 <= self.total < self.size + count:
            self.restart()
            raise TransientError(f"more came than the {self.total} bytes that were to come")
        written = os.writev(self._descriptor, pieces) if count else 0
        if written < count:
            # A full disk takes what fits; the next call says so.
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self.size += count
        self._meter.move(count)
        if self._follower is not None:
            self._follower.wrote(self.size)

    def ended(self) -> None:
        """An answer without a length came to its end: that was all."""
        self.total = self.size

    def restart(self) -> None:
        """What came is not what was wanted: all over."""
        if self._follower is not None:
            self._follower.restart()
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._meter.have(-self.size)
        self.size = 0
        if self._listed < 0 <= self.total:
            self._meter.expect(-self.total)
            self.total = -1
        if self._follower is None:
            self._follow()

    def verify(self) -> str:
        """The digest of all that came; after this nothing is written until ``restart``."""
        if self._follower is None:
            return digest.of_file(self.path, self._kind)
        follower, self._follower = self._follower, None
        return follower.end()

    def finish(self) -> None:
        """It is verified: from now on it is the blob."""
        self.path.replace(self._blob)
        with suppress(OSError):
            self._version_path.unlink()
