# SPDX-License-Identifier: Apache-2.0
"""hearth.updates.changes: what an update takes forward, and what is written down of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.updates import changes
from hearth.updates.changes import Book, Change, State, UpdateError

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


def book(state: State, *among: Change) -> Book:
    return Book(state=state, at="2026-11-28T12:00:00+00:00", changes=among)


def test_changes_are_read_from_what_apt_simulates() -> None:
    assert changes.simulated(SAID) == [
        Change(name="libc6:i386", before="2.41-12", after="2.41-12+deb13u1"),
        Change(name="base-files", before="13.8+deb13u1", after="13.8+deb13u2"),
        Change(name="libnew", before="", after="1:1.0-1"),
    ]


def test_a_pattern_names_packages_of_any_architecture() -> None:
    assert changes.matches("libnvidia-compute-580:i386", ["libnvidia-*"])
    assert not changes.matches("my-libnvidia-1", ["libnvidia-*"])


def test_where_only_some_are_wanted_all_others_are_kept_by_name() -> None:
    assert changes.kept(["curl", "docker-ce", "libc6:i386"], ["linux-*"], ["docker*"]) == ["linux-*", "curl", "libc6"]


def test_where_all_are_wanted_the_patterns_are_kept() -> None:
    assert changes.kept(["curl"], ["linux-*"], []) == ["linux-*"]


def test_what_the_owner_pins_counts_behind_what_is_held() -> None:
    # The first record that names a package counts (apt_preferences(5)).
    said = changes.pins(["linux-*", "curl"], "Package: vim\nPin: version 9*\nPin-Priority: 1001\n")

    assert said == (
        "Package: linux-* curl\nPin: release *\nPin-Priority: -1\n\nPackage: vim\nPin: version 9*\nPin-Priority: 1001\n"
    )


def test_with_nothing_held_there_is_no_record() -> None:
    assert changes.pins([], "") == ""


@given(CHANGES, CHANGES)
def test_a_step_that_goes_on_remembers_what_was_there_before_it(earlier: list[Change], later: list[Change]) -> None:
    merged = {one.name: one for one in changes.merged(book("begun", *earlier), later)}

    for one in earlier:
        assert merged[one.name].before == one.before
    for one in later:
        assert merged[one.name].after == one.after
    assert len(merged) == len({one.name for one in [*earlier, *later]})


@given(CHANGES)
def test_a_step_that_ended_says_nothing_of_the_next_one(later: list[Change]) -> None:
    assert list(changes.merged(book("confirmed", ONE), later)) == later


def test_what_has_another_version_is_told() -> None:
    assert changes.unlike({"curl": "1", "new": "1", "vim": "9"}, {"curl": "2", "gone": "3", "new": "", "vim": "9"}) == [
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

    assert changes.downloadable(shown, "arm64") == {("a", "1"), ("c:armhf", "3")}


def test_a_file_is_told_from_others_without_its_epoch() -> None:
    # apt-get download names the first one, dpkg-deb the second one.
    assert changes.file_of("vim_2%3a9.1_arm64", "arm64") == changes.filed("vim", "2:9.1")
    assert changes.file_of("vim_9.1_arm64", "arm64") == changes.filed("vim", "2:9.1")
    assert changes.file_of("libc6_2.41-12_armhf", "arm64") == changes.filed("libc6:armhf", "2.41-12")
    assert changes.file_of("lab_1_all", "arm64") == changes.filed("lab", "1")


def test_how_far_apt_is_follows_from_what_it_said() -> None:
    said = "Reading package lists...\n"
    assert changes.at_work(said, 2) == ""

    said += "Get:1 http://deb.debian.org/debian trixie/main arm64 curl arm64 8.14 [269 kB]\n"
    assert changes.at_work(said, 2) == "1 of 2 fetched"

    said += "Preparing to unpack .../curl_8.14_arm64.deb ...\nUnpacking curl (8.14) over (8.13) ...\n"
    assert changes.at_work(said, 2) == "1 of 2 unpacked, curl"

    said += "Unpacking libc6:armhf (2.41) over (2.40) ...\nSetting up libc6:armhf (2.41) ...\n"
    assert changes.at_work(said, 2) == "1 of 2 set up, libc6:armhf"


def test_what_comes_along_does_not_make_more_of_it_than_there_is() -> None:
    assert changes.at_work("Setting up a (1) ...\nSetting up b (1) ...\n", 1) == "1 of 1 set up, b"


def test_what_is_written_down_is_read_again() -> None:
    one = Book(state="begun", at="now", changes=(ONE,), auto=("curl",), failed=("a.service",))

    assert changes.as_book(msgspec.json.encode(one), "book.json") == one


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1}', '{"schema": 1, "state": "begun", "at": "now", "changes": 3}', "\xff"]
)
def test_a_damaged_book_is_named(content: str) -> None:
    with pytest.raises(UpdateError, match=r"^book\.json cannot be read: remove it"):
        changes.as_book(content.encode("latin-1"), "book.json")


def test_a_book_of_a_newer_hearth_is_refused() -> None:
    with pytest.raises(UpdateError, match=r"another version of Hearth \(2\)"):
        changes.as_book(b'{"schema": 2}', "book.json")


def test_a_change_is_told_in_words() -> None:
    gone = Change(name="new", before="", after="3").back
    assert [one.words for one in (ONE, gone.back, gone)] == ["curl 1 → 2", "new 3, new", "new 3, gone"]
