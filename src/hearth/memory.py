# SPDX-License-Identifier: Apache-2.0
"""The host's memory, from /proc/meminfo, and the page cache of files.

On unified memory the GPU's allocations are part of the host's: no cgroup and no ``nvidia-smi`` total shows them, but
MemAvailable does. What is *free* matters beside it, because ``cudaMemGetInfo`` on GB10 counts page cache as used
(vllm-project/vllm issue 35313): with enough available but too little free, an engine refuses to start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from hearth.errors import HearthError

MEMINFO = Path("/proc/meminfo")
# The name of a file to read in place of /proc/meminfo: tests play a host's memory with it.
MEMINFO_VARIABLE = "HEARTH_MEMINFO"
# Memory of a stopped engine comes back within seconds; each reading costs about 0.1 ms.
INTERVAL_S = 0.1
_KIB_PER_GIB = 2**20


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """A reading, in GiB (2**30 bytes): MemTotal, MemAvailable, MemFree and Cached of proc_meminfo(5)."""

    total_gib: float
    available_gib: float
    free_gib: float
    cached_gib: float


class Clock:
    """Time that passes by itself; tests have one that they move."""

    def now(self) -> float:
        """Seconds of CLOCK_MONOTONIC, the clock of systemd's monotonic timestamps."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def utc(self) -> str:
        """The time of day in UTC, as ISO 8601 has it."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


CLOCK = Clock()


def read(path: Path | None = None) -> Memory:
    """Read the host's memory: from ``path``, else from the file that HEARTH_MEMINFO names, else from /proc/meminfo.

    Raises HearthError where that is no meminfo.
    """
    path = path or Path(os.environ.get(MEMINFO_VARIABLE) or MEMINFO)
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise HearthError(f"{path} cannot be read ({error.strerror}): is {MEMINFO_VARIABLE} set to it?") from None
    kib: dict[str, float] = {}
    for line in lines:
        name, _, value = line.partition(":")
        number = value.split()
        if number and number[0].isdecimal():
            kib[name] = float(number[0])
    try:
        return Memory(
            total_gib=kib["MemTotal"] / _KIB_PER_GIB,
            available_gib=kib["MemAvailable"] / _KIB_PER_GIB,
            free_gib=kib["MemFree"] / _KIB_PER_GIB,
            cached_gib=kib["Cached"] / _KIB_PER_GIB,
        )
    except KeyError as error:
        raise HearthError(f"{path} does not say {error.args[0]}: is it a meminfo of Linux 3.14 or newer?") from None


def wait_for(
    gib: float,
    timeout_s: float,
    *,
    still: Callable[[Memory], bool] = lambda _: True,
    read: Callable[[], Memory] = read,
    clock: Clock = CLOCK,
) -> Memory:
    """Watch MemAvailable until it is ``gib`` or more; returns the last reading, whatever it says.

    Ends earlier after ``timeout_s`` seconds, or as soon as ``still`` says of a reading that waiting leads nowhere.
    """
    deadline = clock.now() + timeout_s
    while True:
        memory = read()
        if memory.available_gib >= gib or clock.now() >= deadline or not still(memory):
            return memory
        clock.sleep(INTERVAL_S)


def drop_page_cache(paths: Iterable[Path], *, read: Callable[[], Memory] = read) -> float:
    """Have the kernel forget the cached pages of files, or of all files below folders; returns the GiB MemFree gained.

    Pages that a process has mapped stay (posix_fadvise(2)), so no running engine loses its model. What is missing or
    may not be read is passed over.
    """
    before = read().free_gib
    for path in _files(paths):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # Pages that wait to be written, as those of a fresh download, would stay.
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return max(0.0, read().free_gib - before)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The regular files of ``paths``, through links to files, but into no linked folder but those named."""
    for path in paths:
        if path.is_file():
            yield path
        for folder, _, names in os.walk(path):
            yield from (file for name in names if (file := Path(folder, name)).is_file())
