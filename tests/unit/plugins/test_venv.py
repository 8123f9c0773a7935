# SPDX-License-Identifier: Apache-2.0
"""_venv: an environment is built beside the one that serves, and takes its place when it is complete."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _venv


@pytest.fixture
def wanted(tmp_path: Path) -> _venv.Wanted:
    return _venv.Wanted(
        path=tmp_path / "opt" / "venv",
        python=sys.executable,
        requirements="requests==2.34.2 --hash=sha256:0\n",
        project={"pyproject.toml": "[project]\n", "src/hearth/__init__.py": ""},
        links={str(tmp_path / "bin" / "hearth"): "bin/hearth"},
        environment={},
    )


class Pip:
    """Stands in for the programs that a build runs: records them, makes what venv would make, fails where told to."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.fails_at: Callable[[list[str]], bool] = lambda _: False
        self.takes_s = 0.0
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self, command: list[str], wanted: _venv.Wanted, sentence: str) -> None:
        self.commands.append(command)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.takes_s)
        self.at_once -= 1
        if self.fails_at(command):
            raise _venv.VenvError(f"{sentence} (of the test)")
        if command[1:3] == ["-m", "venv"]:
            python = Path(command[3]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()

    @property
    def builds(self) -> int:
        return sum(command[1:3] == ["-m", "venv"] for command in self.commands)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pip:
    stand_in = Pip()
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(_venv, "_run", stand_in)
    monkeypatch.setattr(os, "sync", lambda: None)
    return stand_in


def home(wanted: _venv.Wanted, mark: str) -> Path:
    return wanted.path.parent / "venvs" / mark


def homes(wanted: _venv.Wanted) -> set[str]:
    return {path.name for path in (wanted.path.parent / "venvs").iterdir() if path.is_dir()}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"requirements": "requests==2.34.3\n"}, id="a package"),
        pytest.param({"project": {"pyproject.toml": "[project] \n", "src/hearth/__init__.py": ""}}, id="a file"),
        pytest.param({"project": {"pyproject.toml": "[project]\n", "src/hearth/cli.py": ""}}, id="a file's name"),
        pytest.param({"project": {"pyproject.toml": "[project]\n"}}, id="a file less"),
    ],
)
def test_the_fingerprint_changes_with_what_goes_in(wanted: _venv.Wanted, change: dict[str, Any]) -> None:
    assert _venv.fingerprint(dataclasses.replace(wanted, **change)) != _venv.fingerprint(wanted)


def test_the_fingerprint_changes_with_the_interpreter(wanted: _venv.Wanted, tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\necho 3.99.0 of the test\n")
    other.chmod(0o755)

    assert _venv.fingerprint(dataclasses.replace(wanted, python=str(other))) != _venv.fingerprint(wanted)


def test_the_fingerprint_is_the_same_from_run_to_run_and_whatever_the_order(wanted: _venv.Wanted) -> None:
    turned = dict(reversed(list(wanted.project.items())))

    assert _venv.fingerprint(dataclasses.replace(wanted, project=turned)) == _venv.fingerprint(wanted)


@pytest.mark.parametrize("python", ["/nonexistent/python3", "/bin/false"])
def test_an_interpreter_that_does_not_run_is_named_with_the_variable_to_set(wanted: _venv.Wanted, python: str) -> None:
    with pytest.raises(_venv.VenvError) as caught:
        _venv.fingerprint(dataclasses.replace(wanted, python=python))

    assert str(caught.value).startswith(f"{python} does not run on this box (")
    assert str(caught.value).endswith("): set runtime_python to one that does")


def test_on_a_fresh_box_everything_is_to_do(wanted: _venv.Wanted, tmp_path: Path) -> None:
    assert _venv.wrong(wanted, "m1") == [
        f"build {home(wanted, 'm1')}",
        f"link {wanted.path} to {home(wanted, 'm1')}",
        f"link {tmp_path}/bin/hearth to {wanted.path}/bin/hearth",
    ]


def test_after_a_build_nothing_is_to_do(wanted: _venv.Wanted, pip: Pip, tmp_path: Path) -> None:
    _venv.build(wanted, "m1")

    assert _venv.wrong(wanted, "m1") == []
    assert wanted.path.resolve() == home(wanted, "m1").resolve()
    assert (tmp_path / "bin" / "hearth").readlink() == wanted.path / "bin" / "hearth"


def test_packages_come_by_their_hashes_and_the_project_without_network(wanted: _venv.Wanted, pip: Pip) -> None:
    _venv.build(wanted, "m1")

    venv, packages, project = pip.commands
    assert venv == [sys.executable, "-m", "venv", str(home(wanted, "m1"))]
    assert {"--require-hashes", "--only-binary", ":all:"} <= set(packages)
    assert (home(wanted, "m1") / "requirements.txt").read_text() == wanted.requirements
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(project)
    assert (home(wanted, "m1") / "project" / "src" / "hearth" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("harm", "step"),
    [
        pytest.param(lambda wanted: (home(wanted, "m1") / ".complete").unlink(), "build", id="half made"),
        pytest.param(lambda wanted: (home(wanted, "m1") / "bin" / "python").unlink(), "build", id="no interpreter"),
        pytest.param(lambda wanted: wanted.path.unlink(), "link", id="no link"),
        pytest.param(lambda wanted: Path(next(iter(wanted.links))).unlink(), "link", id="no command"),
    ],
)
def test_what_was_harmed_is_told_and_mended(
    wanted: _venv.Wanted, pip: Pip, harm: Callable[[_venv.Wanted], None], step: str
) -> None:
    _venv.build(wanted, "m1")
    harm(wanted)

    steps = _venv.wrong(wanted, "m1")
    _venv.build(wanted, "m1")

    assert [one.split()[0] for one in steps] == [step]
    assert _venv.wrong(wanted, "m1") == []
    assert pip.builds == (2 if step == "build" else 1)


def test_a_half_made_folder_is_made_anew(wanted: _venv.Wanted, pip: Pip) -> None:
    left_over = home(wanted, "m1") / "lib" / "half"
    left_over.parent.mkdir(parents=True)
    left_over.touch()

    _venv.build(wanted, "m1")

    assert not left_over.exists()
    assert _venv.wrong(wanted, "m1") == []


@pytest.mark.parametrize("step", ["venv", "--require-hashes", "--no-index"])
def test_a_build_that_fails_leaves_the_old_one_serving_and_the_next_run_heals_it(
    wanted: _venv.Wanted, pip: Pip, step: str
) -> None:
    _venv.build(wanted, "m1")
    pip.fails_at = lambda command: step in command

    with pytest.raises(_venv.VenvError, match="of the test"):
        _venv.build(wanted, "m2")

    assert _venv.wrong(wanted, "m1") == []
    pip.fails_at = lambda _: False
    _venv.build(wanted, "m2")
    assert _venv.wrong(wanted, "m2") == []


def test_two_builds_at_once_wait_for_each_other_and_make_one(wanted: _venv.Wanted, pip: Pip) -> None:
    pip.takes_s = 0.02
    builders = [threading.Thread(target=_venv.build, args=(wanted, "m1")) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()

    assert pip.most_at_once == 1
    assert pip.builds == 1
    assert _venv.wrong(wanted, "m1") == []


def test_the_link_is_never_missing_while_it_is_moved(
    wanted: _venv.Wanted, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    _venv.build(wanted, "m1")
    seen: list[bool] = []
    real = Path.symlink_to

    def symlink_to(self: Path, target: str, target_is_directory: bool = False) -> None:
        seen.append(wanted.path.exists())
        real(self, target, target_is_directory)
        seen.append(wanted.path.exists())

    monkeypatch.setattr(Path, "symlink_to", symlink_to)
    _venv.build(wanted, "m2")

    assert seen
    assert all(seen)


def test_a_folder_that_somebody_else_made_is_not_replaced_by_a_link(wanted: _venv.Wanted, pip: Pip) -> None:
    wanted.path.mkdir(parents=True)
    (wanted.path / "precious").touch()

    with pytest.raises(_venv.VenvError) as caught:
        _venv.wrong(wanted, "m1")

    assert str(caught.value) == f"{wanted.path} is there and Hearth did not make it: move it away and run this again"
    assert (wanted.path / "precious").exists()


def test_a_command_that_somebody_else_installed_is_not_replaced(wanted: _venv.Wanted, pip: Pip) -> None:
    command = Path(next(iter(wanted.links)))
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text("precious")

    with pytest.raises(_venv.VenvError, match="Hearth did not make it"):
        _venv.wrong(wanted, "m1")


class TestPrune:
    """What is kept beside the current one: the one before it, which running programs may still import from."""

    def test_the_current_and_the_previous_are_kept(self, wanted: _venv.Wanted, pip: Pip) -> None:
        for mark in ("m1", "m2", "m3"):
            _venv.build(wanted, mark)

        assert homes(wanted) == {"m2", "m3"}

    def test_the_previous_is_the_one_that_served_and_not_the_newest_other(self, wanted: _venv.Wanted, pip: Pip) -> None:
        for mark in ("m1", "m2", "m1", "m3"):
            _venv.build(wanted, mark)

        assert homes(wanted) == {"m1", "m3"}

    def test_a_build_that_failed_is_no_previous_one(self, wanted: _venv.Wanted, pip: Pip) -> None:
        _venv.build(wanted, "m1")
        pip.fails_at = lambda command: "--require-hashes" in command
        with pytest.raises(_venv.VenvError):
            _venv.build(wanted, "m2")
        pip.fails_at = lambda _: False

        _venv.build(wanted, "m3")

        assert homes(wanted) == {"m1", "m3"}


class TestRun:
    """The one place where programs are started."""

    def test_a_failure_has_pips_own_words(self, wanted: _venv.Wanted) -> None:
        said = "print('ERROR: no matching distribution'); print('WARNING: retry'); raise SystemExit(1)"

        with pytest.raises(_venv.VenvError) as caught:
            _venv._run([sys.executable, "-c", said], wanted, "the packages could not be installed")

        assert str(caught.value) == "the packages could not be installed (ERROR: no matching distribution)"
        assert "WARNING: retry" in caught.value.output

    def test_a_failure_without_words_has_its_exit_code(self, wanted: _venv.Wanted) -> None:
        with pytest.raises(_venv.VenvError, match=r"^it failed \(exit code 7\)$"):
            _venv._run([sys.executable, "-c", "raise SystemExit(7)"], wanted, "it failed")

    def test_no_end_is_a_failure_that_says_so(self, wanted: _venv.Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_venv, "_PIP_TIMEOUT_S", 0.2)

        with pytest.raises(_venv.VenvError, match=r"^it failed \(no end after 0\.2 s\)$"):
            _venv._run([sys.executable, "-c", "import time; time.sleep(5)"], wanted, "it failed")

    def test_the_environment_for_pip_goes_along(self, wanted: _venv.Wanted) -> None:
        mirror = dataclasses.replace(wanted, environment={"PIP_INDEX_URL": "https://mirror.example"})
        check = "import os; raise SystemExit(os.environ['PIP_INDEX_URL'] != 'https://mirror.example')"

        _venv._run([sys.executable, "-c", check], mirror, "it failed")
