# SPDX-License-Identifier: Apache-2.0
"""_gone and the module absent: what is there of a wish goes, what is not there is no matter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hearth.spark.plugins.module_utils import _program
from ansible_collections.hearth.spark.plugins.modules import absent

LISTED = """\
hearth-engine-a.service loaded active running Hearth engine a
hearth-engine-b.service loaded failed failed Hearth engine b
hearth-engine-c.service loaded inactive dead Hearth engine c
hearth-gateway.socket loaded active listening Hearth gateway
hearth-gateway.service loaded activating auto-restart Hearth gateway
hearth.slice loaded active active Engines
"""
FILES = """\
hearth-engine-a.service enabled enabled
hearth-engine-c.service disabled enabled
hearth-fetch@.service static -
hearth-gateway.socket enabled enabled
"""


class Programs:
    """systemctl and docker, played: what they say, by their first words, and what they were told to do."""

    def __init__(self) -> None:
        self.says: dict[str, str] = {}
        self.fails: dict[str, str] = {}
        self.did: list[str] = []

    def __call__(self, *command: str, timeout_s: float = 0) -> subprocess.CompletedProcess[str]:
        line = " ".join(command)
        for start, words in self.fails.items():
            if line.startswith(start):
                return subprocess.CompletedProcess(command, 1, "", words)
        for start, words in self.says.items():
            if line.startswith(start):
                return subprocess.CompletedProcess(command, 0, words, "")
        self.did.append(line)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    played = Programs()
    played.says |= {"systemctl list-units": LISTED, "systemctl list-unit-files": FILES}
    monkeypatch.setattr(_program, "run", played)
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}")
    return played


@pytest.fixture
def run(programs: Programs, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            absent.main()
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    return run


def test_units_are_stopped_and_disabled_as_far_as_they_run_and_are_sockets_first_and_the_slice_last(
    run: Callable[..., dict[str, Any]], programs: Programs
) -> None:
    run(units=["hearth*"])

    assert programs.did == [
        "systemctl stop hearth-gateway.socket",
        "systemctl disable hearth-gateway.socket",
        "systemctl stop hearth-engine-a.service",
        "systemctl disable hearth-engine-a.service",
        "systemctl reset-failed hearth-engine-b.service",
        "systemctl stop hearth-gateway.service",
        "systemctl stop hearth.slice",
    ]


def test_containers_and_images_go_by_what_docker_finds(run: Callable[..., dict[str, Any]], programs: Programs) -> None:
    programs.says |= {"docker container ls": "hearth-a\n", "docker image ls": "localhost/hearth/x:1\n"}

    said = run(containers=["label=hearth.engine"], images=["localhost/hearth/*"])

    assert said["removed"] == ["remove the container hearth-a", "remove the image localhost/hearth/x:1"]
    assert programs.did == ["docker rm --force hearth-a", "docker rmi --force localhost/hearth/x:1"]


def test_a_docker_that_does_not_answer_is_told_and_no_reason_to_stop(
    run: Callable[..., dict[str, Any]], programs: Programs, tmp_path: Path
) -> None:
    programs.fails["docker"] = "Cannot connect to the Docker daemon"
    (tmp_path / "file").touch()

    said = run(images=["localhost/hearth/*"], paths=[f"{tmp_path}/file"])

    assert said["removed"] == [f"remove {tmp_path}/file"]
    assert said["told"] == ["Docker does not answer, so containers and images of Hearth that it may have stay"]


def test_folders_go_with_all_in_them_and_a_link_goes_without_what_it_leads_to(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/mine").touch()
    (tmp_path / "hearth/deep").mkdir(parents=True)
    (tmp_path / "hearth/deep/link").symlink_to(tmp_path / "disk")
    (tmp_path / "hearth-link").symlink_to(tmp_path / "disk")
    (tmp_path / "hearth-dangling").symlink_to(tmp_path / "nothing")

    (tmp_path / "command").symlink_to(tmp_path / "nothing")

    run(paths=[f"{tmp_path}/hearth*", f"{tmp_path}/command"])

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "mine"]


def test_check_mode_foretells_the_real_run_and_the_second_one_changes_nothing(
    run: Callable[..., dict[str, Any]], programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "hearth").touch()
    foretold = run(check=True, units=["hearth*"], paths=[f"{tmp_path}/hearth"])
    assert programs.did == []
    real = run(units=["hearth*"], paths=[f"{tmp_path}/hearth"])
    programs.says |= {"systemctl list-units": "", "systemctl list-unit-files": ""}

    assert foretold == real
    assert run(units=["hearth*"], paths=[f"{tmp_path}/hearth"])["removed"] == []


def test_what_went_with_what_was_stopped_before_is_gone(run: Callable[..., dict[str, Any]], programs: Programs) -> None:
    programs.says["docker container ls"] = "hearth-a\n"
    programs.fails |= {
        "docker rm": "Error response from daemon: No such container: hearth-a",
        "systemctl stop hearth-gateway.service": "Failed to stop x.service: Unit x.service not loaded.",
    }

    assert "failed" not in run(units=["hearth*"], containers=["label=hearth.engine"])


def test_a_unit_that_does_not_stop_is_one_sentence(run: Callable[..., dict[str, Any]], programs: Programs) -> None:
    programs.fails["systemctl stop hearth-engine-a"] = "Job for hearth-engine-a.service canceled.\n"

    assert run(units=["hearth*"])["msg"] == (
        "systemctl stop hearth-engine-a.service failed (Job for hearth-engine-a.service canceled.): mend that, and run "
        "this again."
    )


@pytest.mark.parametrize("path", ["/etc", "etc/hearth", "/etc/hearth/../ssh", "/*/hearth", "/etc/he*", "/"])
def test_a_pattern_that_could_take_too_much_is_refused(run: Callable[..., dict[str, Any]], path: str) -> None:
    assert run(paths=[path])["failed"]
