# SPDX-License-Identifier: Apache-2.0
"""The module restore: what systemd has to do after the files are back."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _backup, _program, _restore
from ansible_collections.hearth.spark.plugins.modules import restore

A, B = "hearth-engine-a.service", "hearth-engine-b.service"


@pytest.fixture(autouse=True)
def _systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine a starts at boot and runs, b does neither."""

    def run(*command: str, timeout_s: float = 0) -> subprocess.CompletedProcess[str]:
        said = {
            "list-unit-files": f"{A} enabled enabled\n{B} disabled enabled\n",
            "list-units": f"{A} loaded active running Hearth engine a\n",
        }
        return subprocess.CompletedProcess(command, 0, said[command[1]], "")

    monkeypatch.setattr(_program, "run", run)


def follow(boot: list[str], *paths: str) -> tuple[list[str], list[str]]:
    manifest = _backup.Manifest(format=1, hearth="0.1.0", host="spark", made="", boot=boot, files=[])
    saved = [_backup.Saved(path=path, mode="0600", owner="root", group="root", size=0, sha256="") for path in paths]
    places = [_restore.Place(saved=one, uid=0, gid=0) for one in saved]
    commands, told = restore.follow(manifest, places)
    return [" ".join(command[1:]) for command in commands], told


def test_engines_start_at_boot_as_they_did() -> None:
    assert follow([B]) == ([f"enable {B}", f"disable {A}"], [])


def test_nothing_is_to_be_done_where_all_is_as_it_was() -> None:
    assert follow([A]) == ([], [])


def test_a_box_that_started_none_starts_none() -> None:
    assert follow([]) == ([f"disable {A}"], [])


def test_an_engine_that_the_box_has_no_more_is_told_and_its_place_taken_by_nothing() -> None:
    gone = "hearth-engine-gone.service"

    assert follow([gone]) == ([], [f"{gone} started at boot, and is none of this box's engines any more"])


def test_another_key_of_the_engines_restarts_those_that_run_while_the_gateway_is_down() -> None:
    assert follow([A], _restore.ENGINE_KEY)[0] == [
        "stop hearth-gateway.service",
        f"restart {A}",
        "start hearth-gateway.service",
    ]


@pytest.mark.parametrize("path", ["/etc/hearth/keys.json", _restore.MEASURED])
def test_what_is_looked_at_while_all_runs_restarts_nothing(path: str) -> None:
    assert follow([A], path) == ([], [])


def test_tags_that_mean_something_else_want_site() -> None:
    assert "run site.yml" in follow([A], _restore.IMAGES)[1][0]
