# SPDX-License-Identifier: Apache-2.0
"""hearth.memory: what meminfo says in GiB, memory that is watched and not slept for, and page cache that is let go."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from pathlib import Path

import pytest

from hearth import memory
from hearth.errors import HearthError

GIB = 2**20  # KiB, the unit of meminfo
MIB = 2**20
LIBC = ctypes.CDLL(None, use_errno=True)


def write(path: Path, available: float, *, free: float = 1.0) -> None:
    """A meminfo of a host with 128 GiB, replaced whole, so that no reader sees half of it."""
    made = path.with_name("made")
    made.write_text(
        f"MemTotal:       {128 * GIB} kB\n"
        f"MemFree:        {round(free * GIB)} kB\n"
        f"MemAvailable:   {round(available * GIB)} kB\n"
        f"Cached:         {3 * GIB} kB\n"
        "HugePages_Total:       0\n"
    )
    made.replace(path)


class MovedClock(memory.Clock):
    """Time that passes only where somebody sleeps; ``slept`` is the record."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    write(path, 20.0)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of 8 MiB whose pages are cached."""
    path = tmp_path / "models" / "scout.gguf"
    path.parent.mkdir()
    path.write_bytes(os.urandom(8 * MIB))
    if not lets_go(path):
        pytest.skip("the test's folder is on a file system that keeps its pages (tmpfs) or does not tell of them")
    path.read_bytes()
    return path


def lets_go(path: Path) -> bool:
    """Whether the kernel can be asked, on this file system, to forget the pages of a file, and says so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return not is_cached(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def is_cached(path: Path) -> bool:
    """Whether any page of the file is in the page cache.

    Asked of mincore(2), which only looks: a read with RWF_NOWAIT has the kernel read ahead, and finds what came of it.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as pages:
        found = ctypes.create_string_buffer(-(-len(pages) // mmap.PAGESIZE))
        start = ctypes.c_char.from_buffer(pages)
        refused = LIBC.mincore(ctypes.byref(start), ctypes.c_size_t(len(pages)), found)
        # Or the mapping could not be closed.
        del start
    if refused:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return any(byte & 1 for byte in found.raw)


def test_a_reading_is_in_gib(meminfo: Path) -> None:
    write(meminfo, 20.5, free=2.25)

    assert memory.read(meminfo) == memory.Memory(total_gib=128, available_gib=20.5, free_gib=2.25, cached_gib=3)


def test_the_hosts_own_meminfo_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTH_MEMINFO", raising=False)

    here = memory.read()

    assert 0 < here.available_gib < here.total_gib


def test_a_variable_names_another_meminfo(meminfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_MEMINFO", str(meminfo))

    assert memory.read().total_gib == 128


def test_a_meminfo_that_is_missing_is_named_with_the_variable_that_may_have_named_it(tmp_path: Path) -> None:
    with pytest.raises(HearthError) as caught:
        memory.read(tmp_path / "gone")

    assert str(caught.value) == (
        f"{tmp_path}/gone cannot be read (No such file or directory): is HEARTH_MEMINFO set to it?"
    )


def test_a_meminfo_without_memavailable_says_so(meminfo: Path) -> None:
    meminfo.write_text("MemTotal: 1 kB\nMemFree: many\n")

    with pytest.raises(HearthError, match=r"meminfo does not say MemAvailable: is it a meminfo of Linux 3\.14"):
        memory.read(meminfo)


def test_enough_memory_is_not_waited_for(meminfo: Path) -> None:
    clock = MovedClock()

    found = memory.wait_for(20.0, 60, read=lambda: memory.read(meminfo), clock=clock)

    assert found.available_gib == 20
    assert clock.slept == []


def test_memory_that_comes_back_ends_the_wait(meminfo: Path) -> None:
    def change() -> None:
        write(meminfo, 10.0)
        write(meminfo, 30.0)

    changer = threading.Thread(target=change)

    def read() -> memory.Memory:
        if not changer.ident:
            changer.start()
        return memory.read(meminfo)

    found = memory.wait_for(30.0, 60, read=read)
    changer.join()

    assert found.available_gib == 30


def test_memory_is_looked_at_ten_times_a_second(meminfo: Path) -> None:
    clock = MovedClock()

    memory.wait_for(30.0, 2, read=lambda: memory.read(meminfo), clock=clock)

    assert clock.slept == pytest.approx([0.1] * len(clock.slept))
    assert len(clock.slept) >= 20


def test_memory_that_does_not_come_back_is_told_as_it_is_when_the_time_is_over(meminfo: Path) -> None:
    clock = MovedClock()

    found = memory.wait_for(30.0, 5, read=lambda: memory.read(meminfo), clock=clock)

    assert found.available_gib == 20
    assert clock.time == pytest.approx(1005, abs=0.11)


def test_a_wait_that_leads_nowhere_ends_at_once(meminfo: Path) -> None:
    clock = MovedClock()

    found = memory.wait_for(30.0, 60, still=lambda now: False, read=lambda: memory.read(meminfo), clock=clock)

    assert found.available_gib == 20
    assert clock.slept == []


def test_the_page_cache_of_a_file_is_let_go(model: Path) -> None:
    assert is_cached(model)

    memory.drop_page_cache([model])

    assert not is_cached(model)


def test_the_page_cache_of_a_file_that_was_just_written_is_let_go(model: Path) -> None:
    model.write_bytes(os.urandom(8 * MIB))

    memory.drop_page_cache([model])

    assert not is_cached(model)


def test_the_page_cache_of_a_folder_is_let_go_below_it_and_through_links_to_files(model: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "snapshots" / "main"
    hub.mkdir(parents=True)
    (hub / "scout.gguf").symlink_to(model)

    memory.drop_page_cache([tmp_path / "hub"])

    assert not is_cached(model)


def test_files_in_linked_folders_keep_their_cache(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "elsewhere").symlink_to(model.parent)

    memory.drop_page_cache([folder])

    assert is_cached(model)


def test_a_folder_that_links_to_itself_is_done_once(model: Path) -> None:
    (model.parent / "loop").symlink_to(model.parent)

    memory.drop_page_cache([model.parent])

    assert not is_cached(model)


def test_what_is_missing_or_no_file_is_passed_over(model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(model.parent / "pipe")

    memory.drop_page_cache([tmp_path / "gone", tmp_path / "pipe", model.parent])

    assert not is_cached(model)


@pytest.mark.parametrize(("after", "gained"), [(30.0, 20.0), (10.0, 0.0), (4.0, 0.0)])
def test_what_is_gained_is_what_memfree_rose_by(model: Path, meminfo: Path, after: float, gained: float) -> None:
    readings = iter([10.0, after])

    def read() -> memory.Memory:
        write(meminfo, 40.0, free=next(readings))
        return memory.read(meminfo)

    assert memory.drop_page_cache([model], read=read) == gained
