# SPDX-License-Identifier: Apache-2.0
"""_fileset: what it never does: show a secret, half a file, a wrong guess about a user's own arrangement."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _fileset

SECRET = "hunter2"


def entry(path: Path, **options: Any) -> _fileset.Entry:
    empty = dict.fromkeys(("content", "template", "vars", "generate", "mode", "owner", "group"))
    return _fileset.entry_from(
        {"path": str(path), "state": "file", "adopt": False, "secret": False, **empty, **options}
    )


def apply(*entries: _fileset.Entry, check: bool = False) -> _fileset.Result:
    return _fileset.apply(list(entries), [], check)


def refusal(*entries: _fileset.Entry, check: bool = False) -> str:
    with pytest.raises(_fileset.FileSetError) as caught:
        apply(*entries, check=check)
    return str(caught.value)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("there", "options"),
    [
        pytest.param(None, {"content": SECRET}, id="new"),
        pytest.param("other", {"content": SECRET}, id="changed"),
        pytest.param(SECRET, {"content": "other"}, id="replaced"),
        pytest.param(SECRET, {"state": "absent"}, id="removed"),
        pytest.param(SECRET, {"content": SECRET, "mode": "0600"}, id="another mode"),
        pytest.param(None, {"generate": f"{SECRET}{{token}}"}, id="generated"),
    ],
)
def test_a_secret_is_in_no_diff(tmp_path: Path, there: str | None, options: dict[str, Any], check: bool) -> None:
    path = tmp_path / "engine.env"
    if there is not None:
        path.write_text(there)

    result = apply(entry(path, secret=True, **options), check=check)

    assert result.changed == [str(path)]
    assert SECRET not in str(result.diff)
    assert "other" not in str(result.diff)


def test_a_secret_is_never_readable_for_others_not_even_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    apply(entry(tmp_path / "engine.env", content=SECRET, secret=True, mode="0600"))

    assert seen == [0o600]


@pytest.mark.parametrize("there", ["old\n", None])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_crash_while_writing_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str | None, error: BaseException
) -> None:
    path = tmp_path / "a.conf"
    if there is not None:
        path.write_text(there)
    before = {found.name: found.read_text() for found in tmp_path.iterdir()}

    def crash(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises((_fileset.FileSetError, KeyboardInterrupt)):
        apply(entry(path, content="new\n"))

    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == before


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    assert refusal(entry(tmp_path / "a.conf", content="new\n")) == f"{tmp_path}/a.conf: No space left on device"


def test_a_file_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("old\n")

    with path.open() as reader:
        apply(entry(path, content="new\n"))

        assert reader.read() == "old\n"


def test_a_link_in_place_of_a_file_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    path = tmp_path / "a.conf"
    path.symlink_to(tmp_path / "elsewhere")

    apply(entry(path, content="new\n"))

    assert not path.is_symlink()
    assert path.read_text() == "new\n"
    assert (tmp_path / "elsewhere").read_text() == "precious"


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        pytest.param(b"a\r\nb\r\n", "a\nb\n", id="another end of line is another content"),
        pytest.param(b"a\nb\n", "a\r\nb\r\n", id="the other way round"),
        pytest.param(b"a\r", "a\n", id="a lone carriage return"),
        pytest.param(b"a\xff", "a\N{REPLACEMENT CHARACTER}", id="bytes that are no text"),
    ],
)
def test_a_file_has_exactly_its_content_byte_by_byte(tmp_path: Path, there: bytes, wanted: str) -> None:
    path = tmp_path / "a.conf"
    path.write_bytes(there)
    path.chmod(0o644)

    first = apply(entry(path, content=wanted))
    second = apply(entry(path, content=wanted))

    assert path.read_bytes() == wanted.encode()
    assert (first.changed, second.changed) == ([str(path)], [])


def test_a_link_in_place_of_a_users_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    (tmp_path / "models").symlink_to(disk)
    # Whoever the link belongs to.
    somebody = pwd.struct_passwd(("spark", "x", 4242, 4343, "", "/home/spark", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: somebody)

    result = apply(entry(tmp_path / "models", state="directory", adopt=True, owner="spark", mode="0755"))

    assert result.changed == []
    assert (tmp_path / "models").readlink() == disk
    assert stat.S_IMODE(disk.stat().st_mode) == 0o700


def test_folders_below_a_link_are_made_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")

    apply(
        entry(tmp_path / "models", state="directory", adopt=True),
        entry(tmp_path / "models" / "qwen3", state="directory", adopt=True),
    )

    assert (tmp_path / "disk" / "qwen3").is_dir()


def test_an_adopted_folder_keeps_its_mode(tmp_path: Path) -> None:
    own = tmp_path / "ai"
    own.mkdir()
    own.chmod(0o2770)

    assert apply(entry(own, state="directory", adopt=True, mode="0755")).changed == []
    assert stat.S_IMODE(own.stat().st_mode) == 0o2770


@pytest.mark.parametrize("check", [True, False])
def test_a_file_where_a_folder_should_be(tmp_path: Path, check: bool) -> None:
    path = tmp_path / "models"
    path.write_text("")

    assert refusal(entry(path, state="directory"), check=check) == (
        f"{path}: is in the way, a folder should be there: move it and run this again"
    )


@pytest.mark.parametrize("check", [True, False])
def test_a_link_to_nowhere_where_a_folder_should_be(tmp_path: Path, check: bool) -> None:
    path = tmp_path / "models"
    path.symlink_to(tmp_path / "unplugged")

    assert refusal(entry(path, state="directory", adopt=True), check=check).startswith(f"{path}: is in the way")


@pytest.mark.parametrize("check", [True, False])
def test_a_folder_where_a_file_should_be(tmp_path: Path, check: bool) -> None:
    path = tmp_path / "a.conf"
    path.mkdir()

    assert refusal(entry(path, content="x"), check=check) == (
        f"{path}: is a folder, a file should be there: move it and run this again"
    )


def test_a_folder_that_should_be_absent_is_treated_alike_in_check_mode_and_for_real(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.mkdir()
    wanted = entry(path, state="absent")
    said = []
    for check in (True, False):
        try:
            said.append(str(apply(wanted, check=check).changed))
        except _fileset.FileSetError as error:
            said.append(str(error))

    assert said[0] == said[1]


def test_a_file_in_a_folder_that_is_missing_is_told_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.conf"

    sentence = refusal(entry(path, content="x"))

    assert sentence.startswith(f"{path}: ")
    assert "No such file or directory" in sentence


def test_a_file_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")

    assert refusal(entry(tmp_path / "a" / "b", content="x")) == f"{tmp_path}/a/b: Not a directory"


@pytest.mark.parametrize(("option", "noun"), [("owner", "user"), ("group", "group")])
def test_somebody_who_does_not_exist_is_named(tmp_path: Path, option: str, noun: str) -> None:
    assert refusal(entry(tmp_path / "a", **{option: "no-such-one"})) == (
        f"{tmp_path}/a: there is no {noun} no-such-one on this box: create it first"
    )


@pytest.mark.parametrize("option", ["owner", "group"])
@pytest.mark.parametrize("state", ["file", "directory"])
def test_in_check_mode_somebody_may_be_made_later(tmp_path: Path, option: str, state: str) -> None:
    result = apply(entry(tmp_path / "a", state=state, **{option: "no-such-one"}), check=True)

    assert result.changed == [str(tmp_path / "a")]


@pytest.mark.parametrize("given", ["rw-r--r--", "0888", "-", "0x1ff", "420", "644"])
def test_a_mode_that_is_not_octal_is_told_with_its_path(tmp_path: Path, given: str) -> None:
    with pytest.raises(_fileset.FileSetError) as caught:
        entry(tmp_path / "a", mode=given)

    assert str(caught.value) == f"{tmp_path}/a: its mode must be octal and quoted, like '0644', is {given!r}"


def test_a_path_is_absolute() -> None:
    with pytest.raises(_fileset.FileSetError, match=r"^etc/a: a path of a set must be absolute$"):
        entry(Path("etc/a"))
