# SPDX-License-Identifier: Apache-2.0
"""The module api_key, run as Ansible runs it, and its action plugin, which makes and shows secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase

from ansible_collections.hearth.spark.plugins.action import api_key as action
from ansible_collections.hearth.spark.plugins.modules import api_key
from hearth.gateway import keys

Run = Callable[..., dict[str, Any]]
HASH = keys.digest("x")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "keys.json"
    made.write_text('{"schema": 1, "keys": []}')
    monkeypatch.setattr(keys.read, "__defaults__", (made,))
    monkeypatch.setattr(keys.change.__wrapped__, "__defaults__", (made,))  # type: ignore[attr-defined]
    return made


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
        with (
            patch_module_args({**arguments, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            api_key.main()
        said: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return said

    return call


class TestModule:
    def test_makes_a_key_of_the_hash_that_it_is_given(self, run: Run, path: Path) -> None:
        said = run(name="laptop", concurrency=4, sha256=HASH)

        assert (said["changed"], said["made"]) == (True, True)
        made = keys.read(path)["laptop"]
        assert (made.sha256, made.scopes, made.concurrency) == (HASH, ("models",), 4)

    def test_check_mode_foretells_the_real_run_and_the_second_one_changes_nothing(self, run: Run, path: Path) -> None:
        before = path.read_bytes()

        foretold = run(name="laptop", sha256=HASH, check=True)
        assert path.read_bytes() == before
        real = run(name="laptop", sha256=HASH)
        again = run(name="laptop", sha256=keys.digest("another"))

        assert (foretold["changed"], foretold["made"]) == (real["changed"], real["made"]) == (True, True)
        assert (again["changed"], again["made"]) == (False, False)
        assert keys.read(path)["laptop"].sha256 == HASH

    def test_changes_what_a_key_may_and_keeps_its_secret(self, run: Run, path: Path) -> None:
        run(name="laptop", scopes=["models", "admin"], per_minute=60, sha256=HASH)

        said = run(name="laptop", per_minute=30, sha256=keys.digest("another"))

        assert (said["changed"], said["made"]) == (True, False)
        now = keys.read(path)["laptop"]
        assert (now.sha256, now.scopes, now.per_minute) == (HASH, ("models", "admin"), 30)

    def test_makes_a_first_key_only_where_there_is_none(self, run: Run, path: Path) -> None:
        assert run(name="default", first=True, sha256=HASH)["made"]
        assert not run(name="other", first=True, sha256=HASH)["changed"]
        assert set(keys.read(path)) == {"default"}

    def test_revokes(self, run: Run, path: Path) -> None:
        run(name="laptop", sha256=HASH)

        assert run(name="laptop", state="absent")["changed"]
        assert keys.read(path) == {}

    def test_to_revoke_an_unknown_key_is_an_error_with_the_closest_name(self, run: Run) -> None:
        run(name="laptop", sha256=HASH)

        said = run(name="labtop", state="absent")

        assert said["failed"]
        assert said["msg"] == "there is no key 'labtop': did you mean 'laptop'? known: laptop"

    def test_lists_without_hashes(self, run: Run) -> None:
        run(name="laptop", sha256=HASH)

        said = run()

        assert not said["changed"]
        assert [one["name"] for one in said["keys"]] == ["laptop"]
        assert HASH not in json.dumps({name: said[name] for name in ("keys", "lines", "diff")})

    def test_without_a_hash_there_is_no_key(self, run: Run, path: Path) -> None:
        assert run(name="laptop")["failed"]
        assert keys.read(path) == {}


class FakeTask:
    def __init__(self, *, check_mode: bool, **args: Any) -> None:
        self.args = args
        self.check_mode = check_mode


class TestAction:
    """The plugin on a box that answers as it is told."""

    @pytest.fixture
    def play(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Any], list[Any], dict[str, Any]]]:
        def call(answer: dict[str, Any], *, check_mode: bool = False, **args: Any) -> Any:
            shown: list[Any] = []
            told: dict[str, Any] = {}

            def execute(_: object, **asked: Any) -> dict[str, Any]:
                told.update(asked["module_args"])
                return answer

            monkeypatch.setattr(ActionBase, "run", lambda *_: {})
            monkeypatch.setattr(ActionBase, "_execute_module", execute)
            monkeypatch.setattr(action._display, "display", lambda words, **how: shown.append((words, how)))
            plugin = action.ActionModule.__new__(action.ActionModule)
            plugin._task = FakeTask(check_mode=check_mode, **args)
            return plugin.run(None, {"inventory_hostname": "spark"}), shown, told

        return call

    def test_tells_the_box_a_hash_and_shows_the_secret_on_the_screen_only(self, play: Callable[..., Any]) -> None:
        result, shown, told = play({"made": True}, name="laptop")

        ((words, how),) = shown
        secret = words.split()[-1]
        assert words.startswith("[spark] the key laptop, which is shown only now: hearth_")
        assert how["screen_only"] is True
        assert told == {"name": "laptop", "sha256": keys.digest(secret)}
        assert secret not in json.dumps(result)

    def test_shows_nothing_where_no_key_was_made(self, play: Callable[..., Any]) -> None:
        assert play({"made": False}, name="laptop")[1] == []

    def test_shows_nothing_in_check_mode(self, play: Callable[..., Any]) -> None:
        assert play({"made": True}, check_mode=True, name="laptop")[1] == []

    def test_shows_nothing_where_the_box_failed(self, play: Callable[..., Any]) -> None:
        assert play({"failed": True, "msg": "no"}, name="laptop")[1] == []

    def test_leaves_a_hash_of_the_caller_as_it_is(self, play: Callable[..., Any]) -> None:
        _, shown, told = play({"made": True}, name="laptop", sha256=HASH)

        assert (shown, told["sha256"]) == ([], HASH)

    def test_makes_secrets_as_the_package_does(self) -> None:
        assert (action.PREFIX, action.SECRET_BYTES) == (keys.PREFIX, keys._SECRET_BYTES)
