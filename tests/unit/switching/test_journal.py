# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.journal: what a change was about to do, for whoever comes after it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.errors import HearthError
from hearth.switching import journal
from hearth.switching.journal import Journal

ENTRY = Journal(target="scout", previous=("qwen", "phi"), at="2026-11-21T05:00:00Z", enable=True, disable=("qwen",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "switch.json"


def test_what_was_written_is_read(path: Path) -> None:
    journal.write(ENTRY, path)

    assert journal.read(path) == ENTRY


def test_without_a_file_there_is_nothing_to_heal(path: Path) -> None:
    assert journal.read(path) is None


def test_it_is_gone_once_cleared(path: Path) -> None:
    journal.write(ENTRY, path)
    journal.clear(path)

    assert journal.read(path) is None


def test_it_may_be_cleared_where_there_is_none(path: Path) -> None:
    journal.clear(path)

    assert not path.exists()


def test_a_later_entry_takes_the_place_of_an_earlier_one(path: Path) -> None:
    journal.write(ENTRY, path)
    journal.write(Journal(target="none", previous=(), at="2026-11-21T06:00:00Z"), path)

    found = journal.read(path)
    assert found is not None
    assert (found.target, found.previous) == ("none", ())


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"target": "scout", "previous": ["qw', id="cut"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"target": "scout"}', id="half of it"),
        pytest.param(b'{"target": "scout", "previous": "qwen", "at": ""}', id="a name for a list"),
    ],
)
def test_a_damaged_one_says_nothing(path: Path, raw: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(raw)

    assert journal.read(path) is None


def test_one_that_says_nothing_of_the_start_at_boot_moved_none(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"target": "scout", "previous": ["qwen"], "at": "2026-11-21T05:00:00Z"}')

    found = journal.read(path)
    assert found is not None
    assert (found.enable, found.disable) == (False, ())


def test_one_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")

    with pytest.raises(HearthError, match=r"^.*/run/switch\.json cannot be written \(.+\): run this as root$"):
        journal.write(ENTRY, tmp_path / "run" / "switch.json")


def test_it_says_which_change_that_was() -> None:
    assert ENTRY.words == "a change to scout that began at 2026-11-21T05:00:00Z was cut off"
