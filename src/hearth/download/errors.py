# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on the way to a hub: what may go by, and the sentence for what does not."""

from __future__ import annotations

import errno
from pathlib import Path

from hearth.errors import HearthError
from hearth.words import gigabytes


class DownloadError(HearthError):
    """A model could not be brought, and trying again at once would not help. What came so far is kept."""


class UncheckedError(DownloadError):
    """The model in place is whole, but its hub cannot be asked whether it is still the one asked for: ``reason``."""

    def __init__(self, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class TransientError(HearthError):
    """May go by. ``wait_s`` is what the other side asks for, 0 where it says nothing."""

    def __init__(self, sentence: str, wait_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.wait_s = wait_s


class CancelledError(Exception):
    """Another file failed, or whoever waits went away."""


def of_disk(error: OSError, path: Path, missing: int = 0) -> DownloadError:
    """What a failed write means. ``missing`` bytes were still to come."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(
            f"the disk below {path.parent} is full with {gigabytes(missing)} GB still to come: make room "
            f"(df -h {path.parent}), then ask again; what came is kept"
        )
    if error.errno == errno.EROFS:
        return DownloadError(f"the disk below {path.parent} is read-only: dmesg may say why it became so")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DownloadError(f"{error.filename or path} may not be written ({error.strerror}): run this as root")
    return DownloadError(f"{error.filename or path} failed ({error.strerror}): see dmesg for trouble with the disk")


def no_room(folder: Path, missing: int, reserve: int, free: int, became: str = "nothing was fetched") -> DownloadError:
    return DownloadError(
        f"{gigabytes(missing)} GB are to come below {folder} and {gigabytes(reserve)} GB are to stay free, but only "
        f"{gigabytes(free)} GB are free: remove a model you do not need, or take another disk; {became}"
    )
