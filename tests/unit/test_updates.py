# SPDX-License-Identifier: Apache-2.0
"""_updates: what an update takes forward, and what is written down of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _updates
from ansible_collections.hearth.spark.plugins.module_utils._updates import Book, Change

# apt 3.0.3 on Debian 13.
SAID = """Reading package lists...
Inst libc6:i386 [2.41-12] (2.41-12+deb13u1 Debian:13.2/stable [i386]) []
Inst base-files [13.8+deb13u1] (13.8+deb13u2 Debian:13.2/stable [arm64])
Inst libnew (1:1.0-1 Debian:13.2/stable [all])
Conf base-files (13.8+deb13u2 Debian:13.2/stable [arm64])
"""
ONE = Change(name="curl", before="1", after="2")
NAMES = st.text("abc", min_size=1, max_size=3)
CHANGES = st.lists(
    st.builds(Change, name=NAMES, before=st.sampled_from(["", "1", "2"]), after=st.sampled_from(["3", "4"])),
    unique_by=lambda change: change.name,
)


def book(state: str, *changes: Change) -> Book:
    return Book(state=state, at="2026-11-28T12:00:00+00:00", changes=changes)


def test_changes_are_read_from_what_apt_simulates() -> None:
    assert _updates.simulated(SAID) == [
        Change(name="libc6:i386", before="2.41-12", after="2.41-12+deb13u1"),
        Change(name="base-files", before="13.8+deb13u1", after="13.8+deb13u2"),
        Change(name="libnew", before="", after="1:1.0-1"),
    ]


def test_a_pattern_names_packages_of_any_architecture() -> None:
    assert _updates.matches("libnvidia-compute-580:i386", ["libnvidia-*"])
    assert not _updates.matches("my-libnvidia-1", ["libnvidia-*"])


def test_where_only_some_are_wanted_all_others_are_kept_by_name() -> None:
    assert _updates.kept(["curl", "docker-ce", "libc6:i386"], ["linux-*"], ["docker*"]) == ["linux-*", "curl", "libc6"]


def test_where_all_are_wanted_the_patterns_are_kept() -> None:
    assert _updates.kept(["curl"], ["linux-*"], []) == ["linux-*"]


def test_what_the_owner_pins_counts_behind_what_is_held() -> None:
    # The first record that names a package counts (apt_preferences(5)).
    said = _updates.pins(["linux-*", "curl"], "Package: vim\nPin: version 9*\nPin-Priority: 1001\n")

    assert said == (
        "Package: linux-* curl\nPin: release *\nPin-Priority: -1\n\nPackage: vim\nPin: version 9*\nPin-Priority: 1001\n"
    )


def test_with_nothing_held_there_is_no_record() -> None:
    assert _updates.pins([], "") == ""


@given(CHANGES, CHANGES)
def test_a_step_that_goes_on_remembers_what_was_there_before_it(earlier: list[Change], later: list[Change]) -> None:
    merged = {one.name: one for one in _updates.merged(book(_updates.BEGUN, *earlier), later)}

    for one in earlier:
        assert merged[one.name].before == one.before
    for one in later:
        assert merged[one.name].after == one.after
    assert len(merged) == len({one.name for one in [*earlier, *later]})


@given(CHANGES)
def test_a_step_that_ended_says_nothing_of_the_next_one(later: list[Change]) -> None:
    assert list(_updates.merged(book(_updates.CONFIRMED, ONE), later)) == later


def test_what_has_another_version_is_told() -> None:
    assert _updates.unlike(
        {"curl": "1", "new": "1", "vim": "9"}, {"curl": "2", "gone": "3", "new": "", "vim": "9"}
    ) == [
        "curl is 1 and not 2",
        "gone is missing and not 3",
        "new is 1 and not gone",
    ]


def test_only_what_has_a_file_name_can_be_fetched() -> None:
    shown = (
        "Package: a\nArchitecture: all\nVersion: 1\nFilename: pool/a.deb\n\n"
        "Package: b\nArchitecture: all\nStatus: install ok installed\nVersion: 2\n\n"
        "Package: c\nArchitecture: armhf\nVersion: 3\nFilename: pool/c.deb\n"
    )

    assert _updates.downloadable(shown, "arm64") == {("a", "1"), ("c:armhf", "3")}


def test_what_is_written_down_is_read_again() -> None:
    one = Book(state="begun", at="now", changes=(ONE,), auto=("curl",), failed=("a.service",))

    assert _updates.as_book(json.loads(json.dumps(_updates.as_data(one))), "book.json") == one


@pytest.mark.parametrize("content", [[], {}, {"schema": 1}, {"schema": 1, "state": "begun", "changes": 3}])
def test_a_damaged_book_is_named(content: object) -> None:
    with pytest.raises(_updates.BookError, match=r"^book\.json cannot be read: remove it"):
        _updates.as_book(content, "book.json")


def test_a_book_of_a_newer_hearth_is_refused() -> None:
    with pytest.raises(_updates.BookError, match=r"another version of Hearth \(2\)"):
        _updates.as_book({"schema": 2}, "book.json")


def test_a_change_is_told_in_words() -> None:
    assert [one.words for one in (ONE, Change(name="new", before="", after="3"))] == ["curl 1 → 2", "new 3, new"]
