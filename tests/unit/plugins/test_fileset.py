# SPDX-License-Identifier: Apache-2.0
"""_fileset: a set becomes what it should be, says what it did, and then has nothing to do."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _fileset


def entry(path: Path, **options: Any) -> _fileset.Entry:
    """An entry as the module gets it: every option is there, most of them empty."""
    empty = dict.fromkeys(("content", "template", "vars", "generate", "mode", "owner", "group"))
    return _fileset.entry_from(
        {"path": str(path), "state": "file", "adopt": False, "secret": False, **empty, **options}
    )


def folder(path: Path, **options: Any) -> _fileset.Entry:
    return entry(path, state="directory", **options)


def apply(*entries: _fileset.Entry, purges: list[_fileset.Purge] | None = None, check: bool = False) -> _fileset.Result:
    return _fileset.apply(list(entries), purges or [], check)


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def snapshot(root: Path) -> dict[str, tuple[str, str]]:
    """Everything below ``root``: kind and mode, and the text of files."""
    return {
        str(path.relative_to(root)): (stat.filemode(path.lstat().st_mode), path.read_text() if path.is_file() else "")
        for path in sorted(root.rglob("*"))
    }


def test_a_file_gets_its_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"

    result = apply(entry(path, content="a = 1\n", mode="0640"))

    assert path.read_text() == "a = 1\n"
    assert mode(path) == "0640"
    assert result.changed == [str(path)]
    assert result.diff == [
        {"before_header": str(path), "after_header": str(path), "before": "", "after": "a = 1\n"},
    ]


def test_modes_are_those_of_a_readable_file_and_folder_unless_given(tmp_path: Path) -> None:
    apply(folder(tmp_path / "d"), entry(tmp_path / "d" / "f"))

    assert (mode(tmp_path / "d"), mode(tmp_path / "d" / "f")) == ("0755", "0644")


def test_folders_are_made_before_what_is_in_them_whatever_the_order(tmp_path: Path) -> None:
    deep = tmp_path / "x" / "y"

    result = apply(entry(deep / "f", content="1"), folder(deep), folder(tmp_path / "x"))

    assert (deep / "f").read_text() == "1"
    assert result.changed == [str(tmp_path / "x"), str(deep), str(deep / "f")]


def test_new_folders_share_one_diff(tmp_path: Path) -> None:
    result = apply(entry(tmp_path / "a" / "f", content="1"), folder(tmp_path / "a"), folder(tmp_path / "b"))

    assert [one["after_header"] for one in result.diff] == ["folders", str(tmp_path / "a" / "f")]
    assert result.diff[0]["after"].splitlines() == [
        f"{tmp_path / name} (mode 0755, owner {os.geteuid()}:{os.getegid()})" for name in ("a", "b")
    ]


def test_another_content_is_shown_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("a = 1\n")

    result = apply(entry(path, content="a = 2\n"))

    assert path.read_text() == "a = 2\n"
    assert (result.diff[0]["before"], result.diff[0]["after"]) == ("a = 1\n", "a = 2\n")


@pytest.mark.parametrize("state", ["file", "directory"])
def test_a_mode_that_drifted_is_mended_and_shown(tmp_path: Path, state: str) -> None:
    path = tmp_path / "it"
    wanted = entry(path, state=state, mode="0750")
    apply(wanted)
    path.chmod(0o777)

    result = apply(wanted)

    assert mode(path) == "0750"
    owner = f"owner {os.geteuid()}:{os.getegid()}"
    assert result.diff == [
        {
            "before_header": str(path),
            "after_header": str(path),
            "before": f"mode 0777, {owner}\n",
            "after": f"mode 0750, {owner}\n",
        }
    ]


def test_an_owner_that_drifted_is_mended_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it"
    path.write_text("")
    path.chmod(0o644)
    somebody = pwd.struct_passwd(("spark", "x", 4242, 4343, "", "/home/spark", "/bin/sh"))
    asked: list[tuple[Path, int, int]] = []
    # Giving files away is root's; that it is asked for can be seen without.
    monkeypatch.setattr(pwd, "getpwnam", lambda name: somebody)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, follow_symlinks: asked.append((path, uid, gid)))

    result = apply(entry(path, owner="spark"))

    assert asked == [(path, 4242, 4343)]
    assert result.diff[0]["before"] == f"mode 0644, owner {os.geteuid()}:{os.getegid()}\n"
    assert result.diff[0]["after"] == "mode 0644, owner 4242:4343\n"


def test_a_file_that_should_be_absent_is_removed_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "old.conf"
    path.write_text("old\n")

    result = apply(entry(path, state="absent"))

    assert not path.exists()
    assert (result.diff[0]["before"], result.diff[0]["after"]) == ("old\n", "")


def test_what_is_absent_already_is_no_change(tmp_path: Path) -> None:
    assert apply(entry(tmp_path / "old.conf", state="absent")).changed == []


def test_purge_removes_matching_files_of_its_folder_that_are_no_entry(tmp_path: Path) -> None:
    for name in ("hearth-engine-a.service", "hearth-engine-old.service", "hearth.slice", "ssh.service"):
        (tmp_path / name).write_text("[Unit]\n")
    (tmp_path / "hearth-engine-a.service.d").mkdir()
    (tmp_path / "hearth-engine-x.service").mkdir()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "hearth-engine-b.service").touch()
    kept = entry(tmp_path / "hearth-engine-a.service", content="[Unit]\n")
    before = set(snapshot(tmp_path))

    result = apply(kept, purges=[_fileset.Purge(folder=tmp_path, pattern="hearth-engine-*.service")])

    assert before - set(snapshot(tmp_path)) == {"hearth-engine-old.service"}
    assert result.changed == [str(tmp_path / "hearth-engine-old.service")]


def test_purge_removes_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("precious")
    (tmp_path / "old.service").symlink_to(tmp_path / "kept")

    apply(purges=[_fileset.Purge(folder=tmp_path, pattern="*.service")])

    assert not (tmp_path / "old.service").is_symlink()
    assert (tmp_path / "kept").read_text() == "precious"


def test_purge_of_a_folder_that_is_not_there_is_no_change(tmp_path: Path) -> None:
    assert apply(purges=[_fileset.Purge(folder=tmp_path / "none", pattern="*")]).changed == []


def test_a_generated_file_is_made_once_and_then_kept(tmp_path: Path) -> None:
    wanted = entry(tmp_path / "engine.env", generate="KEY={token}\n", secret=True, mode="0600")

    apply(wanted)
    first = (tmp_path / "engine.env").read_text()
    second = apply(wanted)

    assert first.startswith("KEY=")
    assert len(first) >= len("KEY=\n") + 43
    assert second.changed == []
    assert (tmp_path / "engine.env").read_text() == first


def test_no_two_generated_files_are_the_same(tmp_path: Path) -> None:
    apply(entry(tmp_path / "a", generate="{token}"), entry(tmp_path / "b", generate="{token}"))

    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


# A set with all that can be asked for, over a tree with all that can be found.
NAMES = ["a", "b", "c"]
OPTIONS = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["file", "directory", "absent"]),
        "content": st.text("ab\r\n\tü", max_size=8),
        "mode": st.sampled_from([None, "0600", "0755"]),
        "adopt": st.booleans(),
        "secret": st.booleans(),
    }
)
FOUND = st.dictionaries(st.sampled_from([*NAMES, "old.x"]), st.sampled_from(["file", "folder", "link"]))
SETS = st.dictionaries(st.sampled_from(NAMES), OPTIONS)


def arrange(root: Path, found: dict[str, str]) -> None:
    root.mkdir()
    for name, kind in found.items():
        if kind == "folder":
            (root / name).mkdir()
        elif kind == "link":
            (root / name).symlink_to(root)
        else:
            (root / name).write_text("found\n")


def outcome(root: Path, wanted: dict[str, dict[str, Any]], check: bool) -> _fileset.Result | str:
    """What was done, or the sentence."""
    entries = [entry(root / name, **options) for name, options in wanted.items()]
    try:
        return apply(*entries, purges=[_fileset.Purge(folder=root, pattern="*.x")], check=check)
    except _fileset.FileSetError as error:
        return str(error)


@given(found=FOUND, wanted=SETS)
def test_check_mode_foretells_the_real_run_and_touches_nothing(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, str], wanted: dict[str, dict[str, Any]]
) -> None:
    root = tmp_path_factory.mktemp("set") / "root"
    arrange(root, found)
    before = snapshot(root)

    foretold = outcome(root, wanted, check=True)

    assert snapshot(root) == before
    assert foretold == outcome(root, wanted, check=False)


@given(found=FOUND, wanted=SETS)
def test_the_second_run_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, str], wanted: dict[str, dict[str, Any]]
) -> None:
    root = tmp_path_factory.mktemp("set") / "root"
    arrange(root, found)

    if isinstance(outcome(root, wanted, check=False), _fileset.Result):
        assert outcome(root, wanted, check=False) == _fileset.Result()


@given(found=FOUND, wanted=SETS)
def test_what_is_shown_as_changed_has_a_diff_and_the_other_way_round(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, str], wanted: dict[str, dict[str, Any]]
) -> None:
    root = tmp_path_factory.mktemp("set") / "root"
    arrange(root, found)

    result = outcome(root, wanted, check=False)

    if isinstance(result, _fileset.Result):
        shown = "".join(one["after_header"] + one["after"] for one in result.diff)
        assert all(path in shown for path in result.changed)
        assert bool(result.changed) == bool(result.diff)
