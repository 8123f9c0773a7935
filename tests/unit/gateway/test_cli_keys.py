# SPDX-License-Identifier: Apache-2.0
"""``hearth keys`` and ``hearth serve``, as a person and a unit type them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import commands
import pytest

import hearth.gateway
from hearth.cli import app
from hearth.gateway import keys, settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys.json"
    made.write_text('{"schema": 1, "keys": []}')
    return made


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        code = app.main(["--engines", "/nonexistent/engines.json", "keys", "--file", str(path), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_add_prints_the_secret_alone_so_that_a_script_can_take_it(run: Run, path: Path) -> None:
    code, out, err = run("add", "laptop")

    assert (code, err) == (0, "hearth: this is the key laptop; nobody can show it again\n")
    found = keys.Keyring(path).find(out.strip().encode())
    assert found is not None
    assert (found.name, found.scopes) == ("laptop", ("models",))


def test_add_takes_scopes_and_limits(run: Run, path: Path) -> None:
    run("add", "desk", "--scope", "models", "--scope", "admin", "--concurrency", "4", "--per-minute", "60")

    made = keys.read(path)["desk"]
    assert (made.scopes, made.concurrency, made.per_minute) == (("models", "admin"), 4, 60)


def test_add_of_a_name_that_is_taken_ends_with_1_and_prints_no_secret(run: Run) -> None:
    run("add", "laptop")

    code, out, err = run("add", "laptop")

    assert (code, out) == (1, "")
    assert err.startswith("hearth: there is a key 'laptop', made 2")


def test_list_is_a_table_without_hashes(run: Run, path: Path) -> None:
    run("add", "laptop", "--per-minute", "60")

    code, out, _ = run("list")

    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()] == [
        ["KEY", "MAY", "AT", "A"],
        ["laptop", "models", "any", "60"],
    ]
    assert keys.read(path)["laptop"].sha256 not in out


def test_list_for_programs_is_json_without_hashes(run: Run) -> None:
    run("add", "laptop")

    (found,) = json.loads(run("list", "--json")[1])

    assert {name: found[name] for name in ("name", "scopes", "concurrency", "per_minute")} == {
        "name": "laptop",
        "scopes": ["models"],
        "concurrency": 0,
        "per_minute": 0,
    }
    assert "sha256" not in found


def test_list_of_nothing_says_what_that_means(run: Run) -> None:
    assert run("list")[1] == "there is no key: nobody is let in\n"


def test_revoke_takes_the_key_away(run: Run, path: Path) -> None:
    run("add", "laptop")

    assert run("revoke", "laptop") == (0, "", "hearth: the key laptop is good for nothing any more\n")
    assert keys.read(path) == {}


def test_revoke_of_an_unknown_key_ends_with_2(run: Run) -> None:
    run("add", "laptop")

    code, _, err = run("revoke", "labtop")

    assert (code, err) == (2, "hearth: there is no key 'labtop': did you mean 'laptop'? known: laptop\n")


def test_their_files_are_those_that_the_gateway_reads() -> None:
    options = app.arguments.parser()

    assert options.parse_args(["keys", "list"]).file == keys.PATH
    assert options.parse_args(["serve"]).settings == settings.PATH


def test_serve_is_the_gateway_with_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[settings.Settings] = []
    gateway = ModuleType("hearth.gateway.process")
    gateway.__dict__["main"] = lambda wanted: seen.append(wanted) or 0
    monkeypatch.setitem(sys.modules, "hearth.gateway.process", gateway)
    monkeypatch.setattr(hearth.gateway, "process", gateway, raising=False)
    path = tmp_path / "gateway.json"
    path.write_text('{"default_model": "scout"}')

    assert app.main(["--engines", "/elsewhere.json", "serve", "--settings", str(path)]) == 0
    assert [(one.default_model, one.engines) for one in seen] == [("scout", "/elsewhere.json")]


def test_serve_with_settings_that_cannot_be_had_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["serve", "--settings", str(tmp_path / "gateway.json")]) == 1
    assert "is missing: run site.yml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("keys",), id="nothing to do"),
        pytest.param(("keys", "add"), id="no name"),
        pytest.param(("keys", "add", "x", "--scope", "root"), id="an unknown scope"),
        pytest.param(("keys", "add", "x", "--concurrency", "-1"), id="less than nothing"),
    ],
)
def test_wrong_usage_ends_with_2(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        app.main(list(words))

    assert caught.value.code == 2


def test_what_units_ask_for_does_not_load_it() -> None:
    code = "import sys, hearth.cli.app; sys.exit(any(name.startswith('hearth.gateway') for name in sys.modules))"
    environment: dict[str, Any] = commands.ENVIRONMENT

    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
