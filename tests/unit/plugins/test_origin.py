# SPDX-License-Identifier: Apache-2.0
"""_origin and the module origin: what was there before Hearth, and what may go again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hearth.spark.plugins.module_utils import _origin, _program
from ansible_collections.hearth.spark.plugins.modules import origin as module

BEFORE = _origin.Origin(packages=frozenset({"base", "orphan", "tool"}), paths={})
# What purging each takes with it, and what nothing needs then.
USERS = {"docker": ["compose"], "base": ["tool"]}
ALONG = ["runc", "orphan", "pager"]
NEEDS = {"runc", "orphan", "compose"}


def simulate(*words: str) -> list[str]:
    names = [word for word in words if not word.startswith("-")]
    taken = [*names, *(user for name in names for user in USERS.get(name, []))]
    return [*taken, *(ALONG if "--auto-remove" in words else [])]


def plan(*wanted: str, manual: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    return _origin.plan(BEFORE, wanted, manual=frozenset(manual), needs=NEEDS, simulate=simulate)


def test_what_apt_brought_along_goes_too_and_what_was_there_before_or_came_with_something_else_stays() -> None:
    assert plan("polkitd") == (["polkitd", "runc"], [])


def test_a_package_stays_that_somebody_needs_who_came_since() -> None:
    assert plan("docker", "polkitd", manual=("compose",)) == (
        ["polkitd", "runc"],
        ["docker stays, since compose needs it"],
    )


def test_a_package_stays_that_something_from_before_needs() -> None:
    assert plan("base")[0] == []


def test_a_user_that_nobody_asked_for_is_no_reason_to_stay_and_goes_too() -> None:
    assert plan("docker")[0] == ["compose", "docker", "runc"]


def test_only_what_is_asked_for_is_here_and_was_not_before_is_ours() -> None:
    asked = ["base", "docker=1.2-3", "missing", "docker"]

    assert _origin.ours(BEFORE, asked, {"base", "docker", "editor"}) == ["docker"]


def test_names_are_read_from_a_simulation() -> None:
    said = "Reading package lists...\nPurg docker.io [26.1]\nRemv libip4tc2:arm64 [1.8]\nInst other (1 x)\n"

    assert _origin.purged(said) == ["docker.io", "libip4tc2"]


def test_folders_of_hearths_in_which_nothing_lies_go_the_deepest_first(tmp_path: Path) -> None:
    for name in ("ai/a/b", "ai/c", "mine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ai/c/file").touch()
    paths = {f"{tmp_path}/{name}": name == "mine" for name in ("ai", "ai/a", "ai/a/b", "ai/c", "ai/gone", "mine")}

    found = _origin.empty_folders(_origin.Origin(packages=frozenset(), paths=paths))

    assert found == [f"{tmp_path}/ai/a/b", f"{tmp_path}/ai/a"]


def test_a_link_to_a_bigger_disk_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")

    assert _origin.empty_folders(_origin.Origin(packages=frozenset(), paths={f"{tmp_path}/link": False})) == []


class TestDocker:
    """Purging Debian's Docker removes its data: only where there is none but Hearth's, which is gone by then."""

    @pytest.fixture
    def says(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, str]]:
        says: dict[str, tuple[int, str]] = {}

        def run(*command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
            code, words = says.get(command[1], (0, ""))
            return subprocess.CompletedProcess(command, code, words, "")

        monkeypatch.setattr(_program, "run", run)
        return says

    def test_an_empty_one_may_go(self, says: dict[str, tuple[int, str]]) -> None:
        assert _origin.kept_by_docker(["docker.io", "polkitd"]) == ([], [])

    def test_one_with_somebodys_images_and_volumes_stays(self, says: dict[str, tuple[int, str]]) -> None:
        says |= {"image": (0, "1\n1\n2\n"), "volume": (0, "data\n")}

        held, told = _origin.kept_by_docker(["docker.io", "docker-cli", "polkitd"])

        assert held == ["docker.io", "docker-cli"]
        assert told == ["docker.io, docker-cli stays, since Docker has 2 images and 1 volumes that are not Hearth's"]

    def test_one_that_does_not_answer_stays(self, says: dict[str, tuple[int, str]]) -> None:
        says["image"] = (1, "")

        assert _origin.kept_by_docker(["docker.io"])[0] == ["docker.io"]


class TestModule:
    @pytest.fixture
    def record(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        record = tmp_path / "var/origin.json"
        monkeypatch.setattr(_origin, "RECORD", record)
        for function in (_origin.load, _origin.save):
            monkeypatch.setattr(function, "__defaults__", (record,))
        monkeypatch.setattr(_origin, "installed", lambda: frozenset({"base"}))
        return record

    @pytest.fixture
    def run(self, record: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
        def run(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
            with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
                module.main()
            said: dict[str, Any] = json.loads(capsys.readouterr().out)
            return said

        return run

    def test_it_is_written_down_once(
        self, run: Callable[..., dict[str, Any]], record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        foretold = run(check=True, paths=[str(tmp_path), "/no/such"])
        assert not record.exists()
        first = run(paths=[str(tmp_path), "/no/such"])
        monkeypatch.setattr(_origin, "installed", lambda: frozenset({"base", "docker"}))
        again = run()

        assert [foretold["changed"], first["changed"], again["changed"]] == [True, True, False]
        assert _origin.load() == _origin.Origin(
            packages=frozenset({"base"}), paths={str(tmp_path): True, "/no/such": False}
        )

    def test_where_nothing_was_written_down_all_stays(self, run: Callable[..., dict[str, Any]]) -> None:
        said = run(state="restored", packages=["base"], purge=True, folders=True)

        assert (said["changed"], said["removed"]) == (False, [])
        assert "nobody knows which packages and folders Hearth brought: all stay" in said["told"][0]

    def test_what_hearth_brought_is_named_where_it_is_not_to_go(
        self, run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run()
        monkeypatch.setattr(_origin, "installed", lambda: frozenset({"base", "docker"}))

        said = run(state="restored", packages=["base", "docker", "other"])

        assert (said["changed"], said["kept"]) == (False, ["docker"])

    @pytest.mark.parametrize("content", ["{", "[]", '{"schema": 1}'])
    def test_a_record_that_cannot_be_read_is_one_sentence(
        self, run: Callable[..., dict[str, Any]], record: Path, content: str
    ) -> None:
        record.parent.mkdir()
        record.write_text(content)

        assert (
            "cannot be read: remove it, and what was there before Hearth is not known." in run(state="restored")["msg"]
        )
