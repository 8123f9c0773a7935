# SPDX-License-Identifier: Apache-2.0
"""Small state on disk: a lock that dies with its holder, and files that are replaced whole."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hearth.errors import HearthError

RUN = Path("/run/hearth")
LEARNED = Path("/var/lib/hearth")

_LOCK_INTERVAL_S = 0.05


@contextmanager
def locked(path: Path, timeout_s: float, busy: Callable[[str], HearthError]) -> Iterator[None]:
    """Hold the lock ``path``; the kernel gives it back when the holder dies, however it dies.

    After ``timeout_s`` seconds raises what ``busy`` makes of the holder's own words, "pid …, since …".
    Raises HearthError where the file cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Others may write beside it, as the gateway's user may: what is written here must not get where a link leads.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HearthError(f"{path} cannot be made ({error.strerror}): run this as root") from None
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise busy(
                        os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                    ) from None
                time.sleep(_LOCK_INTERVAL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()}, since {time.strftime('%H:%M:%S')}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(path: Path) -> str:
    """Who holds the lock ``path`` now, in the holder's own words; empty where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # Shared, so that two who ask do not take each other for a holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
    else:
        return ""
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, mode: int = 0o644, group: int = -1) -> None:
    """Put ``data`` in place of the file, whole or not at all, also across a power cut. Raises OSError.

    ``group`` is the id of its group; -1: that of the process.
    Two writers at once are kept apart by a lock of theirs: the file in the making has one name.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    made = path.with_name(path.name + ".new")
    # Made anew: a killed writer may have left one, and whoever else may write here a link.
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # The umask has no say in it.
            os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    except OSError:
        with suppress(OSError):
            made.unlink()
        raise
