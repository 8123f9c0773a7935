# SPDX-License-Identifier: Apache-2.0
"""_dockerd: what Docker has to do for its settings, and what becomes of them where it does not run with them.

Files are real, below the test's folder; systemd and Docker are played.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from docker_played import CDI, Docker

from ansible_collections.hearth.spark.plugins.module_utils import _aside, _daemon, _dockerd, _program
from ansible_collections.hearth.spark.plugins.modules import docker_daemon
from hearth import contract

MINE = '{"data-root": "/srv/docker"}\n'


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


@pytest.fixture
def ask(docker: Docker) -> Callable[..., str]:
    """Have Docker run with settings; gives the verb that this took. Raises DockerError."""

    def ask(
        settings: dict[str, Any] | None = None, around: _aside.Around = _aside.plain, since: Sequence[Path] = ()
    ) -> str:
        settings = settings or {}
        merged = _daemon.merge(docker.text(), settings, {})
        cdi = "features" in settings
        todo = _dockerd.step(docker, merged, cdi=cdi, since=since)
        _dockerd.carry_out(docker, merged, todo, cdi=cdi, around=around)
        return todo.verb

    return ask


def test_settings_that_are_there_and_read_need_nothing(docker: Docker, ask: Callable[..., str]) -> None:
    ask(CDI)
    docker.did.clear()

    assert ask(CDI) == ""
    assert docker.did == []


@pytest.mark.parametrize(
    ("settings", "verb"), [(CDI, "restart"), ({"mtu": 1400}, "restart"), ({"debug": True}, "reload"), ({}, "")]
)
def test_docker_is_restarted_only_where_it_would_not_read_the_settings(
    docker: Docker, ask: Callable[..., str], settings: dict[str, Any], verb: str
) -> None:
    assert ask(settings) == verb
    assert docker.did == ([verb] if verb else [])


def test_docker_that_does_not_run_is_started(docker: Docker, ask: Callable[..., str]) -> None:
    docker.runs = False

    assert ask({"debug": True}) == "start"
    assert docker.runs


def test_the_file_keeps_its_mode_and_has_a_copy_of_what_it_was_beside_it(
    docker: Docker, ask: Callable[..., str], tmp_path: Path
) -> None:
    docker.path.write_text(MINE)
    docker.path.chmod(0o600)

    ask(CDI)

    assert json.loads(docker.text()) == {"data-root": "/srv/docker", **CDI}
    (copy,) = tmp_path.glob("daemon.json.*~")
    assert copy.read_text() == MINE
    assert [oct(path.stat().st_mode)[-3:] for path in (docker.path, copy)] == ["600", "600"]


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(MINE)
    (tmp_path / "daemon.json").symlink_to("real.json")
    docker = Docker(tmp_path)

    docker.land("{}\n")

    assert (tmp_path / "daemon.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "{}\n"


def test_a_setting_that_is_on_in_the_file_and_not_in_docker_is_read(docker: Docker, ask: Callable[..., str]) -> None:
    docker.path.write_text(json.dumps(CDI))

    assert ask(CDI) == "restart"
    assert docker.has_cdi()


def test_a_file_that_is_newer_than_dockers_start_is_looked_for_again(
    docker: Docker, ask: Callable[..., str], tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text("")
    docker.started = time.time() + 60

    assert ask(since=[hook, tmp_path / "missing"]) == ""
    docker.started = time.time() - 60
    assert ask(since=[hook, tmp_path / "missing"]) == "restart"


@pytest.mark.parametrize("before", [MINE, None])
def test_settings_with_which_docker_does_not_run_are_taken_back(
    docker: Docker, ask: Callable[..., str], before: str | None
) -> None:
    if before:
        docker.path.write_text(before)
    docker.hates = "cdi"

    with pytest.raises(_dockerd.DockerError) as error:
        ask(CDI)

    assert str(error.value) == (
        "Docker did not restart with its new settings (it hates cdi); the old ones are back, and it runs"
    )
    assert (docker.runs, docker.text(), docker.record()) == (True, before or "", None)
    assert [path.name for path in docker.path.parent.glob("daemon*")] == (["daemon.json"] if before else [])


def test_that_docker_does_not_run_with_the_old_ones_either_is_told(docker: Docker, ask: Callable[..., str]) -> None:
    docker.path.write_text(MINE)
    docker.hates = "docker"

    with pytest.raises(
        _dockerd.DockerError, match=r"nor does it with the old ones, which are back \(it hates docker\)"
    ):
        ask(CDI)

    assert docker.text() == MINE


def test_cdi_that_stays_off_is_told(docker: Docker, ask: Callable[..., str]) -> None:
    docker.knows_cdi = False

    with pytest.raises(_dockerd.DockerError, match="its CDI is still off: look at cdi-spec-dirs"):
        ask(CDI)

    assert docker.runs


def test_docker_that_does_not_start_is_told_and_its_file_left_alone(docker: Docker, ask: Callable[..., str]) -> None:
    docker.path.write_text(MINE)
    docker.runs, docker.hates = False, "srv"

    with pytest.raises(_dockerd.DockerError, match=r"^Docker does not start \(it hates srv\): mend that, and run this"):
        ask()

    assert docker.text() == MINE


class KilledError(Exception):
    """The module was killed."""


def killed_at(docker: Docker, verb: str, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., str]) -> None:
    def act(now: str) -> str:
        if now == verb:
            raise KilledError
        return Docker.act(docker, now)

    with monkeypatch.context() as patch:
        patch.setattr(docker, "act", act)
        with pytest.raises(KilledError):
            ask(CDI)


def test_a_run_that_was_killed_before_the_restart_is_finished_by_the_next(
    docker: Docker, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.path.write_text(MINE)
    # A setting that cannot be asked of a running Docker: only what was remembered tells.
    monkeypatch.setattr(docker, "has_cdi", lambda: True)
    killed_at(docker, "restart", monkeypatch, ask)

    assert ask(CDI) == "restart"
    assert (docker.read, docker.record()) == ({"data-root": "/srv/docker", **CDI}, None)
    assert ask(CDI) == ""


def test_a_run_that_was_killed_and_a_boot_after_it_leave_nothing_to_do(
    docker: Docker, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(docker, "restart", monkeypatch, ask)
    docker.act("start")
    docker.did.clear()

    assert ask(CDI) == ""
    assert (docker.did, docker.record()) == ([], None)


def test_a_box_that_does_not_come_up_with_settings_of_a_run_that_was_killed_gets_the_old_ones_back(
    docker: Docker, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.path.write_text(MINE)
    killed_at(docker, "restart", monkeypatch, ask)
    docker.runs, docker.hates, docker.run = False, "cdi", 7

    with pytest.raises(_dockerd.DockerError, match="the old ones are back, and it runs"):
        ask(CDI)

    assert (docker.runs, docker.text()) == (True, MINE)


def test_engines_that_do_not_come_back_are_told_beside_what_was_done(docker: Docker, ask: Callable[..., str]) -> None:
    def around(work: Callable[[], str]) -> tuple[str, Sequence[str]]:
        return work(), ("scout could not be brought back: it ran out of memory",)

    with pytest.raises(_dockerd.DockerError, match=r"^scout could not be brought back: it ran out of memory$"):
        ask(CDI, around)

    assert docker.has_cdi()


def test_where_engines_may_not_be_disturbed_nothing_is_written(docker: Docker, ask: Callable[..., str]) -> None:
    docker.path.write_text(MINE)

    def around(work: Callable[[], str]) -> tuple[str, Sequence[str]]:
        raise _dockerd.DockerError("a switch is under way")

    with pytest.raises(_dockerd.DockerError, match="a switch is under way"):
        ask(CDI, around)

    assert (docker.text(), docker.did, docker.record()) == (MINE, [], None)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe{}", r"is no text in UTF-8 \(byte 0\)"), (None, "cannot be read")],
    ids=["no text", "a folder"],
)
def test_a_file_that_cannot_be_read_is_told(docker: Docker, content: bytes | None, words: str) -> None:
    if content is None:
        docker.path.mkdir()
    else:
        docker.path.write_bytes(content)

    with pytest.raises(_dockerd.DockerError, match=words):
        docker.text()


def test_a_mark_before_the_text_is_no_part_of_it(docker: Docker) -> None:
    docker.path.write_bytes(b"\xef\xbb\xbf" + MINE.encode())

    assert docker.text() == MINE


@pytest.fixture(autouse=True)
def _no_docker_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(_program, "PROGRAMS", "/nonexistent")


@pytest.mark.parametrize("code", [0, 1])
def test_dockerd_looks_at_the_settings_before_they_land(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: Docker, code: int
) -> None:
    program = tmp_path / "dockerd"
    program.write_text(f'#!/bin/sh\ngrep -q mtu "${{2#--config-file=}}" && echo "bad: $2" >&2\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    if not code:
        docker.validate('{"mtu": 1}')
        return
    with pytest.raises(
        _dockerd.DockerError, match=r"daemon\.json as it was to be \(bad: --config-file=\S+daemon\.json\)"
    ):
        docker.validate('{"mtu": 1}')


def test_a_dockerd_that_cannot_look_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: Docker
) -> None:
    program = tmp_path / "dockerd"
    # As Docker 20.10 answers.
    program.write_text("#!/bin/sh\necho 'unknown flag: --validate' >&2\nexit 125\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    docker.validate('{"mtu": 1}')


class TestModule:
    """The module docker_daemon, run as Ansible runs it, in this process."""

    @pytest.fixture
    def run(
        self, docker: Docker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., dict[str, Any]]:
        monkeypatch.setattr(_dockerd, "Dockerd", lambda: docker)
        monkeypatch.setattr(contract, "PATH", docker.path.with_name("engines.json"))

        def run(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
            with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
                docker_daemon.main()
            said: dict[str, Any] = json.loads(capsys.readouterr().out)
            return said

        return run

    def test_check_mode_foretells_the_real_run_and_the_second_one_changes_nothing(
        self, docker: Docker, run: Callable[..., dict[str, Any]]
    ) -> None:
        foretold = run(check=True, settings=CDI)
        assert (docker.text(), docker.did) == ("", [])
        real, again = run(settings=CDI), run(settings=CDI)

        outcome = ("changed", "actions", "diff")
        assert [foretold[key] for key in outcome] == [real[key] for key in outcome]
        assert real["actions"] == ["set features", "restart Docker, for features changed"]
        assert [again[key] for key in outcome] == [False, [], []]

    @pytest.mark.parametrize("check", [True, False])
    def test_a_broken_file_is_one_sentence(
        self, docker: Docker, run: Callable[..., dict[str, Any]], check: bool
    ) -> None:
        docker.path.write_text("{,}")

        said = run(check=check, settings=CDI)

        assert said["failed"]
        assert said["msg"] == (
            "/etc/docker/daemon.json is no JSON: line 1, column 2: Expecting property name enclosed in double quotes; "
            "mend that line, or move the file away, and run this again. Docker was left as it is."
        )

    def test_a_contract_of_another_version_does_not_keep_docker_from_being_restarted(
        self, docker: Docker, run: Callable[..., dict[str, Any]]
    ) -> None:
        contract.PATH.write_text('{"schema": 0}')

        assert run(settings=CDI)["changed"]
        assert docker.did == ["restart"]
