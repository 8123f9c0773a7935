# SPDX-License-Identifier: Apache-2.0
"""The modules, run as Ansible runs them, in this process."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

import hearth
from hearth import contract
from hearth.engines import units

if TYPE_CHECKING:
    from tests.unit.conftest import FakeSystemd, MakeEngine, MakeState, ScriptedServer

Run = Callable[..., dict[str, Any]]
PLUGINS = "ansible_collections.hearth.spark.plugins.modules"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module with arguments and give back what it says."""

    def call(name: str, /, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        module = importlib.import_module(f"{PLUGINS}.{name}")
        with (
            patch_module_args({**arguments, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    return call


class TestFiles:
    def test_check_mode_foretells_the_real_run_and_the_second_one_changes_nothing(
        self, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "old.service").write_text("[Unit]\n")
        (tmp_path / "b").write_text("other\n")
        wanted: dict[str, Any] = {
            "entries": [
                {"path": f"{tmp_path}/d/a", "content": "1\n", "mode": "0600"},
                {"path": f"{tmp_path}/d", "state": "directory"},
                {"path": f"{tmp_path}/b", "content": "2\n", "secret": True},
            ],
            "purge": [{"folder": str(tmp_path), "pattern": "*.service"}],
        }

        foretold = run("files", check=True, **wanted)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "old.service"]
        real = run("files", **wanted)
        again = run("files", **wanted)

        outcome = ("changed", "paths", "diff")
        assert [foretold[key] for key in outcome] == [real[key] for key in outcome]
        assert real["paths"] == [f"{tmp_path}/{name}" for name in ("d", "b", "d/a", "old.service")]
        assert [again[key] for key in outcome] == [False, [], []]

    @pytest.mark.parametrize("check", [True, False])
    def test_what_cannot_be_done_is_one_sentence(self, run: Run, tmp_path: Path, check: bool) -> None:
        (tmp_path / "d").write_text("")

        said = run("files", check=check, entries=[{"path": f"{tmp_path}/d", "state": "directory"}])

        assert said["failed"]
        assert said["msg"].startswith(f"{tmp_path}/d: is in the way")
        assert said["paths"] == []

    def test_a_secret_is_in_nothing_that_is_said(self, run: Run, tmp_path: Path) -> None:
        said = run("files", entries=[{"path": f"{tmp_path}/key", "generate": "KEY={token}\n", "secret": True}])

        token = (tmp_path / "key").read_text().strip().removeprefix("KEY=")
        # Ansible shows the arguments too; the token is made on the box, so it is in none of them.
        assert token not in json.dumps(said)

    def test_a_misspelt_option_is_named(self, run: Run) -> None:
        said = run("files", entries=[{"path": "/etc/a", "contents": "x"}])

        assert said["failed"]
        assert "contents" in said["msg"]


class TestSparkFacts:
    def test_a_user_and_what_is_in_his_home(self, run: Run) -> None:
        me = pwd.getpwuid(os.geteuid())

        said = run("spark_facts", user=me.pw_name, paths=["~/ai", "/nonexistent"])

        spark = said["ansible_facts"]["spark"]
        assert not said["changed"]
        groups = sorted(subprocess.check_output(["id", "--groups", "--name"], text=True).split())
        ids = {"name": me.pw_name, "uid": me.pw_uid, "gid": me.pw_gid}
        assert spark["user"] == {**ids, "home": me.pw_dir, "groups": groups}
        assert spark["paths"]["~/ai"]["path"] == str(Path(me.pw_dir) / "ai")
        assert spark["paths"]["/nonexistent"]["exists"] is False
        assert spark["python"]["version"] == ".".join(map(str, sys.version_info[:3]))

    @pytest.mark.parametrize("user", ["", "no-such-user"])
    def test_a_user_who_does_not_exist_is_empty(self, run: Run, user: str) -> None:
        assert run("spark_facts", user=user)["ansible_facts"]["spark"]["user"] == {}

    def test_the_space_where_the_users_tree_will_be(self, run: Run) -> None:
        me = pwd.getpwuid(os.geteuid())

        disk = run("spark_facts", user=me.pw_name, tree="~/no-such-tree/of/anybody")["ansible_facts"]["spark"]["disk"]

        assert disk["path"] == me.pw_dir
        assert disk["total_gb"] > 0

    def test_every_fact_is_documented(self, run: Run) -> None:
        returned = yaml.safe_load(importlib.import_module(f"{PLUGINS}.spark_facts").RETURN)

        facts = run("spark_facts")["ansible_facts"]["spark"]

        assert sorted(facts) == sorted(returned["ansible_facts"]["contains"]["spark"]["contains"])

    def test_check_mode_reads_as_well(self, run: Run) -> None:
        assert run("spark_facts", check=True)["ansible_facts"]["spark"]["memory"]["total_gib"] > 0


@pytest.fixture
def engine(make_engine: MakeEngine, server: ScriptedServer, tmp_path: Path) -> contract.Engine:
    model = tmp_path / "scout.gguf"
    model.touch()
    return make_engine("scout", port=server.port, model_path=str(model))


@pytest.fixture
def on_the_box(
    engine: contract.Engine,
    make_contract: Callable[..., contract.Contract],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """engines.json is where the modules read it."""
    path = tmp_path / "engines.json"
    path.write_bytes(msgspec.json.encode(make_contract(engine)))
    real = contract.load
    monkeypatch.setattr(contract, "load", lambda: real(path))


@pytest.mark.parametrize("name", ["engine_health"])
class TestModulesOnEngines:
    """What those that act on engines say where they cannot."""

    def test_a_package_of_another_version_names_the_play_to_run(
        self, run: Run, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hearth, "__version__", "9.9.9")

        assert run(name, name="scout")["msg"] == (
            "the box has hearth 9.9.9 and this collection is made for 0.1.0: run site.yml"
        )

    def test_a_package_that_is_missing_names_the_play_and_the_interpreter(
        self, run: Run, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "hearth", None)

        sentence = run(name, name="scout")["msg"]

        assert sentence.startswith(f"{sys.executable} has no package hearth (")
        assert "run site.yml against this box first" in sentence
        assert sentence.endswith("ansible_python_interpreter=/opt/hearth/venv/bin/python")

    @pytest.mark.parametrize("check", [True, False])
    @pytest.mark.usefixtures("on_the_box")
    def test_an_unknown_model_is_answered_with_the_closest_one(
        self, run: Run, name: str, check: bool, fake_systemd: Callable[..., FakeSystemd]
    ) -> None:
        fake_systemd()

        said = run(name, check=check, name="scuot")

        assert said["failed"]
        assert said["msg"] == "unknown model 'scuot': did you mean 'scout'? known: scout"
        assert said["log"] == []


@pytest.mark.usefixtures("on_the_box")
class TestEngineHealth:
    def test_an_engine_that_is_well_tells_how_long_it_took(self, run: Run, server: ScriptedServer) -> None:
        server.serves("scout")

        said = run("engine_health", name="scout")

        assert not said["changed"]
        assert (said["name"], said["url"]) == ("scout", f"http://127.0.0.1:{server.port}")
        assert (said["answer"], said["dimensions"]) == ("", 0)
        assert set(said["seconds"]) == {"ready", "models", "chat", "embedding"}

    def test_the_questions_are_asked(self, run: Run, server: ScriptedServer) -> None:
        server.serves("scout")
        server.script["/v1/chat/completions"] = [(200, {"choices": [{"message": {"content": "Hello."}}]})]
        server.script["/v1/embeddings"] = [(200, {"data": [{"embedding": [0.1, 0.2]}]})]

        said = run("engine_health", name="scout", chat="Say hello.", embedding="text", max_tokens=3)

        assert (said["answer"], said["dimensions"]) == ("Hello.", 2)
        assert [body["max_tokens"] for _, path, _, body in server.seen if "chat" in path] == [3]

    def test_an_engine_that_is_not_ready_in_time_fails_with_its_log(
        self, run: Run, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.script["/health"] = [(503, {})]
        monkeypatch.setattr(units, "log_tail", lambda unit: (f"last words of {unit}",))

        said = run("engine_health", name="scout", timeout=0.1)

        assert said["failed"]
        assert "did not become ready" in said["msg"]
        assert said["log"] == ["last words of hearth-engine-scout.service"]

    @pytest.mark.parametrize("arguments", [{}, {"name": "scout", "expected": True}, {"expected": False}, {"name": ""}])
    def test_it_wants_one_model_or_all(self, run: Run, arguments: dict[str, Any]) -> None:
        assert run("engine_health", **arguments)["msg"] == (
            "engine_health wants the name of one model, or expected: true for all that should run"
        )


@pytest.mark.usefixtures("on_the_box")
class TestEngineHealthOfAll:
    """engine_health with ``expected``; which engines these are is tested in test_verify.py."""

    @pytest.mark.parametrize("check", [True, False])
    def test_engines_that_are_well_are_a_table(
        self,
        run: Run,
        check: bool,
        engine: contract.Engine,
        server: ScriptedServer,
        make_state: MakeState,
        fake_systemd: Callable[..., FakeSystemd],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(units, "Systemd", fake_systemd(make_state(engine, "active")))
        server.serves("scout")
        server.script["/v1/chat/completions"] = [(200, {"choices": [{"message": {"content": "Hello."}}]})]

        said = run("engine_health", check=check, expected=True, chat="Say hello.", embedding="hello")

        assert not said["changed"]
        assert [one["checked"] for one in said["engines"]] == [["health", "model id", "chat"]]
        assert said["engines"][0]["answer"] == "Hello."
        assert [line.split()[0] for line in said["lines"]] == ["MODEL", "scout"]

    def test_an_engine_that_is_not_well_fails_with_the_table_and_how_to_see_its_log(
        self,
        run: Run,
        engine: contract.Engine,
        server: ScriptedServer,
        make_state: MakeState,
        fake_systemd: Callable[..., FakeSystemd],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(units, "Systemd", fake_systemd(make_state(engine, "active")))
        monkeypatch.setattr(units, "log_tail", lambda unit: (f"last words of {unit}",))
        server.serves("phi")

        said = run("engine_health", expected=True)

        assert said["failed"]
        assert said["msg"] == (
            f"Of 1 that should run, 1 is not well: engine scout on port {server.port} serves phi instead of scout: "
            "check its argv, or who else listens on that port (its log: journalctl -u hearth-engine-scout -n 50)"
        )
        assert said["lines"][1].endswith("fails at model id")
        assert said["engines"][0]["log"] == ["last words of hearth-engine-scout.service"]

    def test_where_nothing_should_run_it_says_so(
        self,
        run: Run,
        engine: contract.Engine,
        make_state: MakeState,
        fake_systemd: Callable[..., FakeSystemd],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(units, "Systemd", fake_systemd(make_state(engine)))

        said = run("engine_health", expected=True)

        assert (said["engines"], said["lines"]) == (
            [],
            ["Nothing should run: no engine is up, and none starts at boot."],
        )
