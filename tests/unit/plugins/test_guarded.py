# SPDX-License-Identifier: Apache-2.0
"""A change that undoes itself: the real script, with systemctl and nft played."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _guarded


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _guarded.Guarded:
    """A host with two files, of which a change replaced one and made the other."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "nft"):
        (programs / name).write_text(
            f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n'
            f'[ "$*" != "start hearth-hardening-undo.service" ] || exec sh {tmp_path}/state/undo\n'
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(_guarded, "FIREWALL", tmp_path / "firewall.nft")
    (tmp_path / "systemd").mkdir()
    guarded = _guarded.Guarded(tmp_path / "state", tmp_path / "systemd")
    (tmp_path / "old").write_text("before\n")
    (tmp_path / "old").chmod(0o640)
    guarded.prepare(60)
    guarded.save([tmp_path / "old", tmp_path / "new"])
    (tmp_path / "old").write_text("after\n")
    (tmp_path / "new").write_text("after\n")
    return guarded


def is_undone(root: Path) -> bool:
    return (root / "old").read_text() == "before\n" and not (root / "new").exists()


def test_undoing_puts_back_what_was_there_and_removes_what_was_not(guarded: _guarded.Guarded, tmp_path: Path) -> None:
    assert guarded.waits

    guarded.undo()

    assert is_undone(tmp_path)
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640
    assert not guarded.waits
    assert "systemctl --no-block try-reload-or-restart ssh.service" in (tmp_path / "calls").read_text()


def test_undoing_that_was_cut_off_ends_in_the_same_state(guarded: _guarded.Guarded, tmp_path: Path) -> None:
    # As after the first file.
    (tmp_path / "state/pending").rename(tmp_path / "state/undoing")
    (tmp_path / "old").write_text("before\n")

    guarded.undo()

    assert is_undone(tmp_path)
    assert not guarded.waits


def test_what_is_confirmed_stays_whoever_undoes_later(guarded: _guarded.Guarded, tmp_path: Path) -> None:
    guarded.confirm()
    guarded.undo()

    assert (tmp_path / "old").read_text() == "after\n"
    assert not guarded.waits


def test_what_was_undone_can_be_confirmed_no_more(guarded: _guarded.Guarded, tmp_path: Path) -> None:
    guarded.undo()

    with pytest.raises(_guarded.GuardedError, match="was undone before it was confirmed: run this again"):
        guarded.confirm()

    assert is_undone(tmp_path)


def test_the_timer_runs_before_the_change_begins_to_wait(guarded: _guarded.Guarded, tmp_path: Path) -> None:
    assert "OnActiveSec=60" in (tmp_path / "systemd/hearth-hardening-undo.timer").read_text()
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "systemctl restart hearth-hardening-undo.timer"


def test_rules_that_were_there_are_loaded_again_and_else_the_table_goes(
    guarded: _guarded.Guarded, tmp_path: Path
) -> None:
    guarded.undo()
    assert "nft delete table inet hearth" in (tmp_path / "calls").read_text()

    (tmp_path / "firewall.nft").write_text("table inet hearth {}\n")
    guarded.save([tmp_path / "old"])
    guarded.undo()
    assert f"nft -f {tmp_path}/firewall.nft" in (tmp_path / "calls").read_text()


def test_nothing_is_left_of_it_in_the_end(guarded: _guarded.Guarded, tmp_path: Path) -> None:
    guarded.confirm()
    guarded.forget()

    assert list((tmp_path / "systemd").iterdir()) == []
    assert not (tmp_path / "state").exists()
