# SPDX-License-Identifier: Apache-2.0
"""_upgrade and the module package_update, with apt, dpkg and systemd played; tests/e2e/test_update.py has real ones."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hearth.spark.plugins.module_utils import _updates, _upgrade
from ansible_collections.hearth.spark.plugins.modules import package_update


NATIVE = "arm64"


def architecture(name: str) -> str:
    """Of a package, by its name as apt has it."""
    return name.partition(":")[2] or NATIVE


class Played:
    """What apt and dpkg would do: versions that are installed, newer ones, and the words that were said to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installed = {"curl": "1", "vim": "1", "linux-image": "1"}
        self.newer = {"curl": "2", "linux-image": "2"}
        self.in_sources = {("curl", "1")}
        self.failed: list[str] = []
        # Words of a command that fails, and what it says.
        self.fails: dict[str, str] = {}
        self.said: list[str] = []
        self.at_work: Callable[[], None] = lambda: None

    def __call__(self, *command: str, timeout_s: float = 0) -> subprocess.CompletedProcess[str]:
        words = " ".join(command)
        out, code = "", 0
        if command[0] == "systemd-run":
            program = next(place for place, word in enumerate(command) if place and not word.startswith("-"))
            return self._work(" ".join([Path(command[program]).name, *command[program + 1 :]]))
        if command[:2] == ("apt-get", "--simulate"):
            out = "".join(self._inst(name) for name in self.newer if not self._held(name, words))
        elif command[0] == "dpkg-query":
            out = "".join(self._listed(name) for name in self.installed)
        elif command[0] == "dpkg":
            out = f"{NATIVE}\n"
        elif command[:2] == ("apt-cache", "show"):
            out = "\n\n".join(
                f"Package: {_updates.plain(n)}\nArchitecture: {architecture(n)}\nVersion: {v}\nFilename: pool/{n}.deb"
                for n, v in self.in_sources
            )
        elif command[:2] == ("apt-mark", "showauto"):
            out = "curl\n"
        elif command[0] == "systemctl":
            out = "".join(f"{unit} loaded failed failed\n" for unit in self.failed)
            code = 3 if "is-active" in words else 0
            if command[1] == "start":
                self.failed = [unit for unit in self.failed if unit not in command]
            self.said.append(words)
        else:
            self.said.append(words)
        return subprocess.CompletedProcess(command, code, out, "")

    def _listed(self, name: str) -> str:
        """A line of dpkg-query's; dpkg wants the architecture where there are several of a package."""
        several = sum(_updates.plain(other) == _updates.plain(name) for other in self.installed) > 1
        unique = f"{_updates.plain(name)}:{architecture(name)}" if several else name
        return f"{_updates.plain(name)} {architecture(name)} {unique} {self.installed[name]} installed\n"

    def _inst(self, name: str) -> str:
        old = f" [{self.installed[name]}]" if name in self.installed else ""
        return f"Inst {name}{old} ({self.newer[name]} Debian:13/stable [all])\n"

    def _held(self, name: str, words: str) -> bool:
        if self.newer[name] == self.installed.get(name):
            return True
        pins = re.search(r"-oDir::Etc::Preferences=(\S+)", words)
        return pins is not None and _updates.matches(name, Path(pins[1]).read_text().partition("\n")[0].split()[1:])

    def _work(self, words: str) -> subprocess.CompletedProcess[str]:
        self.said.append(words)
        for part, complaint in self.fails.items():
            if part in words:
                return subprocess.CompletedProcess(words, 100, "", complaint)
        if words.startswith("apt-get upgrade"):
            self.at_work()
            self.installed |= {name: newer for name, newer in self.newer.items() if not self._held(name, words)}
        elif words.startswith(("apt-get download", "dpkg-repack")):
            for word in words.split()[1:]:
                if word != "download":
                    name = word.partition("=")[0]
                    (self.folder / f"{_updates.plain(name)}_1_{architecture(name)}.deb").touch()
        elif words.startswith("apt-get install"):
            for word in words.split():
                if word.endswith(".deb"):
                    package, version, built_for = Path(word).stem.split("_")
                    self.installed[_updates.named(package, built_for, NATIVE)] = version
                elif word.endswith("-"):
                    self.installed.pop(word[:-1])
        return subprocess.CompletedProcess(words, 0, "", "")

    def did(self, *beginnings: str) -> list[str]:
        """The beginnings of what was done, in its order."""
        return [start for words in self.said for start in beginnings if words.startswith(start)]


WORK = ("apt-get --download-only", "apt-get download", "dpkg-repack", "apt-get upgrade", "apt-get install")


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setattr(_upgrade, "_SETTLED_S", 0.0)
    monkeypatch.setattr(_upgrade.shutil, "which", lambda name, path: f"/usr/bin/{name}")
    return Played(tmp_path / "system")


@pytest.fixture
def step(played: Played) -> _upgrade.Step:
    return _upgrade.Step("system", ["linux-*"], [], 60.0, folder=played.folder.parent, run=played)


def book(step: _upgrade.Step) -> _updates.Book:
    found = step.book()
    assert found is not None
    return found


def test_what_is_held_is_told_and_not_planned(step: _upgrade.Step) -> None:
    plan = step.plan()

    assert [one.words for one in plan.changes] == ["curl 1 → 2"]
    assert [one.name for one in plan.held] == ["linux-image"]


def test_nothing_is_installed_before_all_is_fetched_and_there_is_a_way_back(
    step: _upgrade.Step, played: Played
) -> None:
    played.at_work = lambda: played.said.append(f"with {book(step).state}")

    assert step.install(step.plan()) == ""
    assert played.did(*WORK, "with begun") == [
        "apt-get --download-only",
        "apt-get download",
        "apt-get upgrade",
        "with begun",
    ]
    assert book(step).state == _updates.INSTALLED


def test_what_the_sources_do_not_have_any_more_is_packed_again(step: _upgrade.Step, played: Played) -> None:
    played.in_sources = set()

    step.install(step.plan())

    assert "dpkg-repack curl" in played.said


@pytest.mark.parametrize("in_sources", [set(), {("curl", "1")}, {("curl", "1"), ("curl:armhf", "1")}])
def test_a_package_of_two_architectures_has_two_ways_back(
    step: _upgrade.Step, played: Played, in_sources: set[tuple[str, str]]
) -> None:
    played.installed["curl:armhf"], played.newer["curl:armhf"], played.in_sources = "1", "2", in_sources
    step.install(step.plan())

    step.revert(book(step))

    assert (played.installed["curl"], played.installed["curl:armhf"]) == ("1", "1")


def test_a_package_of_two_architectures_is_packed_again_by_its_whole_name(step: _upgrade.Step, played: Played) -> None:
    played.installed["curl:armhf"], played.in_sources = "1", set()

    step.install(step.plan())

    assert "dpkg-repack curl:arm64" in played.said


def test_without_a_way_back_nothing_is_installed(step: _upgrade.Step, played: Played) -> None:
    played.in_sources = set()
    played.fails = {"dpkg-repack": "dpkg: no room"}

    with pytest.raises(_upgrade.UpgradeError, match=r"no way back for curl .*nothing was changed"):
        step.install(step.plan())
    assert played.installed["curl"] == "1"
    assert step.book() is None


def test_what_cannot_be_fetched_is_told_in_apts_words(step: _upgrade.Step, played: Played) -> None:
    played.fails = {"--download-only": "E: Failed to fetch http://x  404\nE: and more"}

    with pytest.raises(_upgrade.UpgradeError, match=r"not be fetched \(Failed to fetch http://x  404; and more\)"):
        step.install(step.plan())
    assert played.did("apt-get upgrade") == []


def test_an_installation_that_fails_stays_open(step: _upgrade.Step, played: Played) -> None:
    played.fails = {"apt-get upgrade": "E: Sub-process /usr/bin/dpkg returned an error code (1)"}

    assert "Sub-process /usr/bin/dpkg returned an error code (1); curl is 1 and not 2" in step.install(step.plan())
    assert book(step).state == _updates.BEGUN


def test_a_unit_that_failed_since_then_is_named_and_one_from_before_is_not(step: _upgrade.Step, played: Played) -> None:
    played.failed = ["old.service"]
    played.at_work = lambda: played.failed.append("new.service")

    assert step.install(step.plan()) == "new.service failed since then"


def test_a_step_that_was_cut_off_goes_on_and_remembers_the_versions_of_before(
    step: _upgrade.Step, played: Played
) -> None:
    played.fails = {"apt-get upgrade": "E: killed"}
    step.install(step.plan())
    played.fails = {}
    played.newer["curl"] = "3"
    played.said.clear()

    step.recover()
    assert step.install(step.plan()) == ""
    assert played.did("dpkg --force", "apt-get download") == ["dpkg --force"]
    assert [one.words for one in book(step).changes] == ["curl 1 → 3"]


def test_going_back_installs_the_files_and_removes_what_came_along(step: _upgrade.Step, played: Played) -> None:
    played.newer["libnew"] = "1"
    step.install(step.plan())

    step.revert(book(step))

    assert played.installed == {"curl": "1", "vim": "1", "linux-image": "1"}
    assert book(step).state == _updates.REVERTED
    assert "apt-mark auto curl" in played.said


def test_going_back_starts_what_failed_since_then(step: _upgrade.Step, played: Played) -> None:
    played.failed = ["old.service"]
    played.at_work = lambda: played.failed.append("docker.service")
    step.install(step.plan())

    step.revert(book(step))

    assert played.failed == ["old.service"]
    assert played.did("systemctl reset-failed docker", "systemctl start docker") == [
        "systemctl reset-failed docker",
        "systemctl start docker",
    ]


def test_engines_that_ran_before_a_step_run_again_when_it_is_taken_back(step: _upgrade.Step, played: Played) -> None:
    played.failed = ["hearth-engine-up.service"]

    step.install(step.plan(), engines=["down", "up"])

    assert step.start_engines(book(step)) == ""
    assert played.did("hearth start") == ["hearth start"]
    assert "hearth start down" in played.said


def test_without_the_files_of_before_the_box_stays_as_it_is(step: _upgrade.Step, played: Played) -> None:
    step.install(step.plan())
    step.forget()

    with pytest.raises(_upgrade.UpgradeError, match="has no package of before for curl"):
        step.revert(book(step))
    assert played.installed["curl"] == "2"


def test_a_new_update_forgets_the_files_of_the_one_before(step: _upgrade.Step, played: Played) -> None:
    step.install(step.plan())
    step.write(_updates.Book(**{**vars(book(step)), "state": _updates.CONFIRMED}))
    played.newer, played.in_sources = {"vim": "2"}, {("vim", "1")}

    step.install(step.plan())

    assert [path.name for path in step.folder.glob("*.deb")] == ["vim_1_arm64.deb"]


@pytest.fixture
def call(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run the module, and give what it answers."""
    real = _upgrade.Step
    monkeypatch.setattr(_upgrade, "FOLDER", played.folder.parent)

    def made(*words: Any, **more: Any) -> _upgrade.Step:
        return real(*words, **more, folder=played.folder.parent, run=played)

    monkeypatch.setattr(_upgrade, "Step", made)

    def run(**arguments: Any) -> dict[str, Any]:
        with patch_module_args({"step": "system", "hold": ["linux-*"], **arguments}), pytest.raises(SystemExit):
            package_update.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


def test_check_mode_foretells_and_writes_nothing(call: Callable[..., dict[str, Any]], played: Played) -> None:
    folder = played.folder
    answer = call(_ansible_check_mode=True)

    assert (answer["changed"], answer["lines"]) == (True, ["curl 1 → 2"])
    assert answer["diff"] == {"before": "curl 1\n", "after": "curl 2\n"}
    assert not folder.exists()
    assert played.did(*WORK) == []


def test_an_update_is_open_until_it_is_confirmed(call: Callable[..., dict[str, Any]]) -> None:
    assert call()["open"]
    assert call(state="confirmed")["changed"]
    again = call()
    assert (again["changed"], again["open"]) == (False, False)


def test_an_update_that_nobody_confirmed_is_looked_at_again(
    call: Callable[..., dict[str, Any]], played: Played
) -> None:
    call()
    played.failed = ["late.service"]

    again = call()

    assert (again["changed"], again["open"], again["trouble"]) == (False, True, "late.service failed since then")
    assert again["lines"] == ["curl 1 → 2"]


def test_taken_back_twice_changes_once(call: Callable[..., dict[str, Any]], played: Played) -> None:
    call()

    assert call(state="reverted")["lines"] == ["curl 2 → 1"]
    assert not call(state="reverted")["changed"]
    assert played.installed["curl"] == "1"


def test_where_nothing_was_installed_the_update_before_stays(
    call: Callable[..., dict[str, Any]], played: Played
) -> None:
    call()
    call(state="confirmed")

    assert not call(state="reverted", unconfirmed=True)["changed"]
    assert played.installed["curl"] == "2"


def test_with_no_update_there_is_nothing_to_take_back(call: Callable[..., dict[str, Any]]) -> None:
    assert not call(state="reverted")["changed"]


def test_two_updates_at_once_are_one_and_a_sentence(call: Callable[..., dict[str, Any]], played: Played) -> None:
    played.folder.parent.mkdir(parents=True, exist_ok=True)
    with (played.folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert call()["msg"] == "another update of this box is under way: wait for its end."
