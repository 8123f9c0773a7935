# SPDX-License-Identifier: Apache-2.0
"""_apt: a repository is added whole, with the right key, or not at all. apt is played by scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _apt

KEYS = Path(__file__).parent / "keys"
ONE = "F081 5033 9EE9 DD70 59BD  E0E9 AFDD 1F53 BCEF 6067"
KEY = (KEYS / "one.asc").read_text()
MADISON = 'for version in 1.20.1-1 1.19.0-1; do echo " $2 | $version | http://a/deb/arm64  Packages"; done'

Program = Callable[[str, str], None]


class Lab:
    """A host below the test's folder, and a net on which there is one key."""

    def __init__(self, root: Path) -> None:
        self.etc = root / "etc/apt"
        for folder in ("sources.list.d", "preferences.d"):
            (self.etc / folder).mkdir(parents=True)
        self.net: dict[str, bytes] = {"http://a/key": KEY.encode()}
        self.fetched: list[str] = []
        self.apt = _apt.Apt(self.fetch, root)

    def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if url not in self.net:
            raise OSError("no route")
        return self.net[url]

    def ensure(self, *, fresh: bool = False, check: bool = False, **fields: Any) -> list[str]:
        """The names of the files that were written."""
        known: dict[str, Any] = {
            "name": "toolkit",
            "repository": "http://a/deb/$(ARCH) /",
            "key": "",
            "key_url": "http://a/key",
            "fingerprint": ONE,
            "packages": ["ctk", "libctk"],
            "version": "1.20.1-1",
        }
        source = _apt.Source(**{**known, **fields})
        done = _apt.ensure(self.apt, source, fresh=fresh, lock_timeout_s=0.0, check=check)
        return [str(Path(path).relative_to(self.etc)) for path in done.changed]

    @property
    def files(self) -> dict[str, str]:
        return {str(path.relative_to(self.etc)): path.read_text() for path in self.etc.rglob("*") if path.is_file()}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def write(name: str, script: str) -> None:
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n{script}\n')
        (tmp_path / "bin" / name).chmod(0o755)

    write("apt-get", "")
    write("apt-cache", MADISON)
    return write


@pytest.fixture
def calls(tmp_path: Path, program: Program) -> Callable[[], list[str]]:
    file = tmp_path / "calls"
    return lambda: file.read_text().splitlines() if file.exists() else []


def test_a_repository_is_its_key_its_line_and_its_pin(lab: Lab, program: Program) -> None:
    written = lab.ensure()

    assert sorted(written) == [
        "keyrings",
        "keyrings/toolkit.asc",
        "preferences.d/toolkit",
        "sources.list.d/toolkit.list",
    ]
    assert lab.files == {
        "keyrings/toolkit.asc": KEY,
        "sources.list.d/toolkit.list": f"deb [signed-by={lab.etc}/keyrings/toolkit.asc] http://a/deb/$(ARCH) /\n",
        "preferences.d/toolkit": "Package: ctk libctk\nPin: version 1.20.1-1\nPin-Priority: 1000\n",
    }


def test_it_is_tried_alone_and_at_once(lab: Lab, calls: Callable[[], list[str]]) -> None:
    lab.ensure()

    assert calls()[0].startswith(f"apt-get update -o Dir::Etc::SourceList={lab.etc}/sources.list.d/toolkit.list -o ")
    assert calls()[1:] == ["apt-cache madison ctk", "apt-cache madison libctk"]


def test_what_is_there_is_left_alone_and_nobody_is_asked(lab: Lab, calls: Callable[[], list[str]]) -> None:
    lab.ensure()
    asked = len(calls())

    assert lab.ensure() == []
    assert (len(calls()), lab.fetched) == (asked, ["http://a/key"])


def test_its_packages_are_looked_at_again_where_that_is_asked_for(lab: Lab, calls: Callable[[], list[str]]) -> None:
    lab.ensure()
    asked = len(calls())

    assert lab.ensure(fresh=True) == []
    assert len(calls()) > asked


def test_without_a_version_the_pin_goes(lab: Lab, program: Program) -> None:
    lab.ensure()

    assert lab.ensure(version="") == ["preferences.d/toolkit"]


def test_check_mode_foretells_it_without_the_net(lab: Lab, calls: Callable[[], list[str]]) -> None:
    assert "keyrings/toolkit.asc" in lab.ensure(check=True)
    assert (lab.files, lab.fetched, calls()) == ({}, [], [])


def test_a_key_may_be_given_as_text(lab: Lab, program: Program) -> None:
    lab.ensure(key=KEY.rstrip("\n"), key_url="", fingerprint="")

    assert (lab.files["keyrings/toolkit.asc"], lab.fetched) == (KEY, [])


def test_another_key_that_is_asked_for_later_takes_the_first_ones_place(lab: Lab, program: Program) -> None:
    lab.ensure()
    two = (KEYS / "two.asc").read_text()
    lab.net["http://a/key"] = two.encode()

    lab.ensure(fingerprint="986E3B8E99C52026DE0420312031BC416F9A687E")

    assert lab.files["keyrings/toolkit.asc"] == two


@pytest.mark.parametrize(
    ("served", "words"),
    [
        pytest.param("two", "has the fingerprint 986E3B8E99C52026DE0420312031BC416F9A687E, and F0", id="another key"),
        pytest.param("both", "has the fingerprint F08150339EE9DD7059BDE0E9AFDD1F53BCEF6067 and 98", id="one too many"),
        pytest.param("", "what is at http://a/key has no OpenPGP key in it", id="a page"),
    ],
)
def test_a_key_that_is_not_the_one_is_refused(lab: Lab, program: Program, served: str, words: str) -> None:
    lab.net["http://a/key"] = (KEYS / f"{served}.asc").read_bytes() if served else b"<html>"

    with pytest.raises(_apt.SourceError) as error:
        lab.ensure()

    assert words in str(error.value)
    assert lab.files == {}


def test_a_key_that_cannot_be_fetched_is_told(lab: Lab, program: Program) -> None:
    with pytest.raises(_apt.SourceError, match=r"be fetched from http://a/gone \(no route\): check the box's way"):
        lab.ensure(key_url="http://a/gone")


FAILS = "echo 'W: GPG error: http://a/deb/arm64  InRelease: NO_PUBKEY 12'; echo 'E: It is not signed.' >&2; exit 100"


def test_what_apt_cannot_use_leaves_all_files_as_they_were(lab: Lab, program: Program) -> None:
    lab.ensure()
    before = lab.files
    program("apt-get", FAILS)

    with pytest.raises(_apt.SourceError) as error:
        lab.ensure(repository="http://b/deb /", version="1.21.0-1")

    assert str(error.value) == (
        "apt cannot use http://b/deb / (GPG error: http://a/deb/arm64  InRelease: NO_PUBKEY 12; It is not signed.)"
    )
    assert lab.files == before


def test_a_new_repository_that_apt_cannot_use_leaves_nothing(lab: Lab, program: Program) -> None:
    program("apt-get", FAILS)

    with pytest.raises(_apt.SourceError):
        lab.ensure()

    assert lab.files == {}


@pytest.mark.parametrize(
    ("madison", "version", "words"),
    [
        (MADISON, "9.9.9-1", "has no ctk 9.9.9-1: it has 1.20.1-1, 1.19.0-1"),
        ("", "1.20.1-1", "has no ctk 1.20.1-1: it has none at all"),
        ("", "", "has no ctk: it has none at all"),
    ],
)
def test_a_version_that_it_does_not_have_is_told_with_those_that_it_has(
    lab: Lab, program: Program, madison: str, version: str, words: str
) -> None:
    program("apt-cache", madison)

    with pytest.raises(_apt.SourceError) as error:
        lab.ensure(version=version)

    assert words in str(error.value)
    assert lab.files == {}


def test_a_source_that_is_at_odds_with_others_of_the_box_is_told_in_apts_words(lab: Lab, program: Program) -> None:
    program(
        "apt-cache", "echo 'E: Conflicting values set for option Signed-By regarding source http://a/deb' >&2; exit 100"
    )

    with pytest.raises(
        _apt.SourceError, match=r"its sources with http://a/deb/\S+ / \(Conflicting values set for option"
    ):
        lab.ensure()

    assert lab.files == {}


def test_another_package_managers_run_is_waited_for(
    lab: Lab, program: Program, calls: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_apt, "_LOCK_INTERVAL_S", 0.01)
    held = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7"
    program("apt-get", f"test -e {tmp_path}/seen || {{ touch {tmp_path}/seen; echo '{held}' >&2; exit 100; }}")

    _apt.ensure(
        lab.apt,
        _apt.Source(name="x", repository="r /", key=KEY, key_url="", fingerprint="", packages=["ctk"], version=""),
        fresh=False,
        lock_timeout_s=60.0,
        check=False,
    )

    assert [call.split()[0] for call in calls()] == ["apt-get", "apt-get", "apt-cache"]
