# SPDX-License-Identifier: Apache-2.0
"""_dockerd_back and docker_daemon with state=absent: Docker's settings are again what its owner said.

Files are real, below the test's folder; systemd and Docker are played.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from docker_played import CDI, Docker

from ansible_collections.hearth.spark.plugins.module_utils import _dockerd, _dockerd_back, _program
from ansible_collections.hearth.spark.plugins.modules import docker_daemon
from hearth import contract

# In its owner's own words and spaces.
MINE = '{ "data-root":"/srv/docker" }'


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    played = Docker(tmp_path / "etc")
    (tmp_path / "etc/var").mkdir(parents=True)
    played._record = tmp_path / "var/docker.json"
    monkeypatch.setattr(_dockerd, "Dockerd", lambda: played)
    monkeypatch.setattr(_dockerd_back, "running", lambda _: False)
    monkeypatch.setattr(contract, "PATH", tmp_path / "engines.json")
    # Not this machine's own.
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(_program, "PROGRAMS", "/nowhere")
    return played


@pytest.fixture
def run(docker: Docker, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            docker_daemon.main()
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    return run


def test_the_file_is_again_what_it_was_to_the_letter_and_nothing_lies_beside_it(
    docker: Docker, run: Callable[..., dict[str, Any]]
) -> None:
    docker.path.write_text(MINE)
    run(settings=CDI)
    docker.did.clear()

    foretold = run(check=True, state="absent")
    said = run(state="absent")

    assert docker.path.read_text() == MINE
    assert foretold == said
    assert said["actions"][0] == "take features.cdi back"
    assert said["actions"][-1] == "restart Docker"
    assert docker.did == ["restart"]
    assert [path.name for path in docker.path.parent.iterdir() if path.is_file()] == ["daemon.json"]
    assert not docker.note_path().exists()
    assert not run(state="absent")["changed"]


def test_a_file_that_was_not_there_is_gone(docker: Docker, run: Callable[..., dict[str, Any]]) -> None:
    run(settings=CDI)

    run(state="absent")

    assert not docker.path.exists()


def test_what_somebody_changed_since_stays_and_is_told(docker: Docker, run: Callable[..., dict[str, Any]]) -> None:
    run(settings={**CDI, "mtu": 1400})
    docker.path.write_text(docker.path.read_text().replace("1400", "1300"))

    said = run(state="absent")

    assert json.loads(docker.path.read_text()) == {"mtu": 1300}
    assert said["told"] == ["mtu in /etc/docker/daemon.json stays, since it was changed after Hearth wrote it"]


def test_what_docker_takes_over_while_it_runs_costs_no_restart(
    docker: Docker, run: Callable[..., dict[str, Any]]
) -> None:
    run(settings={"debug": True})
    docker.did.clear()

    run(state="absent")

    assert docker.did == ["reload"]


def test_containers_that_run_are_not_stopped_for_it(
    docker: Docker, run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dockerd_back, "running", lambda _: True)
    run(settings=CDI)
    docker.did.clear()

    said = run(state="absent")

    assert docker.did == []
    assert said["told"] == ["Containers run, so Docker takes that over only when it starts the next time"]


def test_a_docker_that_does_not_run_with_them_has_what_it_ran_with(
    docker: Docker, run: Callable[..., dict[str, Any]]
) -> None:
    docker.path.write_text(MINE)
    run(settings={"features": {"cdi": True}, "data-root": "/elsewhere"})
    with_ours = docker.path.read_text()
    docker.hates = "/srv/docker"

    said = run(state="absent")

    assert "Docker did not restart without Hearth's settings (it hates /srv/docker)" in said["msg"]
    assert "what it was told before is back, and it runs" in said["msg"]
    assert (docker.path.read_text(), docker.runs) == (with_ours, True)
    assert docker.note_path().exists()


def test_where_hearth_wrote_nothing_nothing_is_done(docker: Docker, run: Callable[..., dict[str, Any]]) -> None:
    docker.path.write_text(MINE)

    assert not run(state="absent")["changed"]
    assert docker.path.read_text() == MINE


@pytest.mark.parametrize("text", ["{,}", "[]"])
def test_a_broken_file_is_one_sentence(docker: Docker, run: Callable[..., dict[str, Any]], text: str) -> None:
    docker.path.write_text(text)

    assert "is no table of settings in JSON: mend it, or move it away" in run(state="absent")["msg"]
