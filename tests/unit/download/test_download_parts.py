# SPDX-License-Identifier: Apache-2.0
"""hearth.download: hashing behind a writer, counting, the manifest, and an old tree given up for a new one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.download import Progress, Request, digest, manifest
from hearth.download.manifest import Kept, Manifest
from hearth.download.meter import Meter
from hearth.download.place import drop_files, settle


def test_a_small_file_has_the_hash_that_git_gives_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"some words\n")
    # git hash-object file
    assert digest.of_file(file, "git") == "git:a2c97f8f9682c16214bd0e5ff67c771bc9fe05c5"


def test_a_file_is_hashed_in_steps_that_add_up(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(3 * digest.BLOCK + 5))
    steps: list[int] = []

    assert digest.of_file(file, "sha256", steps.append).startswith("sha256:")
    assert sum(steps) == 3 * digest.BLOCK + 5
    assert len(steps) == 4


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=3000), st.none()), max_size=12))
def test_whatever_is_written_and_given_up_the_last_content_is_hashed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | None]
) -> None:
    path = tmp_path_factory.getbasetemp() / "followed"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        follower = digest.Follower(descriptor, "sha256", -1)
        follower.start()
        content = b""
        for step in steps:
            if step is None:
                follower.restart()
                os.ftruncate(descriptor, 0)
                content = b""
            else:
                os.pwrite(descriptor, step, len(content))
                content += step
                follower.wrote(len(content))
        assert follower.end() == f"sha256:{hashlib.sha256(content).hexdigest()}"
    finally:
        os.close(descriptor)


def test_a_follower_can_be_told_to_let_go(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    follower = digest.Follower(descriptor, "sha256", 100)
    follower.start()

    follower.stop()

    assert not follower.is_alive()
    os.close(descriptor)


def test_rate_and_time_to_go_are_of_the_last_seconds_only() -> None:
    meter = Meter("fetching", total=10_000, files=1)
    meter.progress(now=0.0)
    meter.move(100)
    for second in range(1, 30):
        meter.progress(now=float(second))
    meter.move(900)

    progress = meter.progress(now=30.0)

    assert progress.rate == pytest.approx(90.0)
    assert progress.eta_s == pytest.approx(100.0)


def test_what_was_there_counts_as_done_and_not_as_fetched() -> None:
    meter = Meter("fetching", total=100)
    meter.have(40)
    meter.move(10)

    assert (meter.progress(now=1.0).bytes_done, meter.moved) == (50, 10)


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(phase="asking"), "asking for the list of files"),
        (
            Progress(phase="fetching", bytes_done=12_300_000_000, bytes_total=41_200_000_000, rate=310e6, eta_s=93.2),
            "fetching 12.3 of 41.2 GB, 29 %, 310 MB/s, 2 min to go",
        ),
        (
            Progress(phase="fetching", bytes_total=2_000_000_000, note="HTTP 503"),
            "fetching 0.00 of 2.00 GB, 0 % (HTTP 503)",
        ),
    ],
)
def test_progress_has_words_for_a_person(progress: Progress, words: str) -> None:
    assert progress.words == words


def put(folder: Path, **files: str) -> Path:
    """A folder with these files, all of them Hearth's."""
    folder.mkdir(parents=True)
    kept = {}
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        status = path.stat()
        kept[str(path.relative_to(folder))] = Kept(size=status.st_size, digest="", mtime_ns=status.st_mtime_ns)
    manifest.write(folder, manifest.make(Request(folder=str(folder), repo="a/b"), "c" * 40, kept))
    return folder


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", a="1", sub__b="22")

    known = manifest.read(folder)

    assert known is not None
    assert (known.commit, known.asked.repo, known.bytes_total) == ("c" * 40, "a/b", 3)
    assert manifest.is_intact(folder, known)


@pytest.mark.parametrize("how", ["longer", "later", "gone"])
def test_a_file_that_changed_is_noticed_without_reading_it(tmp_path: Path, how: str) -> None:
    folder = put(tmp_path / "m", a="1")
    known = manifest.read(folder)
    assert known is not None
    if how == "longer":
        (folder / "a").write_text("11")
    elif how == "later":
        os.utime(folder / "a", ns=(1, 1))
    else:
        (folder / "a").unlink()

    assert not manifest.is_intact(folder, known)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd"])
def test_a_manifest_that_leads_out_of_its_folder_is_none(tmp_path: Path, path: str) -> None:
    folder = put(tmp_path / "m", a="1")
    known = manifest.read(folder)
    assert known is not None
    forged = msgspec.structs.replace(known, files={path: known.files["a"]})
    (folder / ".hearth.json").write_bytes(msgspec.json.encode(forged))

    assert manifest.read(folder) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"schema": 9}'])
def test_a_manifest_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".hearth.json").write_bytes(content)

    assert manifest.read(tmp_path) is None


def test_an_old_tree_gives_up_what_was_hearths_and_what_was_not_moves(tmp_path: Path) -> None:
    old, new = put(tmp_path / "old", a="old", sub__gone="x"), put(tmp_path / "new", a="new")
    (old / "sub" / "mine").write_text("mine")
    (old / "empty").mkdir()
    outside = put(tmp_path / "outside", x="x")
    (old / "door").symlink_to(outside)

    settle(old, new)

    assert not old.exists()
    assert (new / "a").read_text() == "new"
    assert (new / "sub" / "mine").read_text() == "mine"
    assert not (new / "sub" / "gone").exists()
    assert (new / "empty").is_dir()
    assert (new / "door").is_symlink()
    assert (outside / "x").exists()


def test_removing_goes_through_no_link(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside", x="x")
    folder = put(tmp_path / "m", a="1")
    (folder / "sub").symlink_to(outside)

    drop_files(folder, iter(["sub/x", "a"]))

    assert (outside / "x").exists()
    assert not (folder / "a").exists()


def test_the_manifest_type_has_no_place_for_a_token() -> None:
    names = {field.name for field in msgspec.structs.fields(Manifest)} | {
        field.name for field in msgspec.structs.fields(manifest.Asked)
    }

    assert not [name for name in names if "token" in name]
