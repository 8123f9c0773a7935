# SPDX-License-Identifier: Apache-2.0
"""hearth.cli: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth import cli, contract, switch

if TYPE_CHECKING:
    from ollama_server import OllamaServer
    from tests.unit.conftest import FakeSystemd, MakeEngine, MakeState, ScriptedServer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def engines(make_engine: MakeEngine, free_port: int, tmp_path: Path) -> tuple[contract.Engine, contract.Engine]:
    model = tmp_path / "scout.gguf"
    model.touch()
    scout = make_engine("scout", port=free_port, model_path=str(model), aliases=("vision",))
    return scout, make_engine("embed-small", port=8085, lane="utility", memory_gib=0.5)


@pytest.fixture
def run(
    engines: tuple[contract.Engine, ...],
    make_contract: Callable[..., contract.Contract],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    path = tmp_path / "engines.json"
    path.write_bytes(msgspec.json.encode(make_contract(*engines)))

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["--engines", str(path), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def systemd(
    engines: tuple[contract.Engine, contract.Engine],
    make_state: MakeState,
    fake_systemd: Callable[..., FakeSystemd],
) -> FakeSystemd:
    """Scout is down, embed-small is up."""
    scout, embed = engines
    fake = fake_systemd(make_state(scout, enabled=True), make_state(embed, "active"))
    fake.plays(scout)
    return fake


def test_status_is_a_table(run: Run, systemd: FakeSystemd, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"

    code, out, err = run("status")

    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["MODEL", "STATE", "BOOT", "LANE", "ENGINE", "ADDRESS", "NEEDS"],
        ["scout", "inactive", "yes", "main", "llama.cpp", url, "1", "GiB"],
        ["embed-small", "active", "-", "utility", "llama.cpp", "http://127.0.0.1:8085", "0.5", "GiB"],
    ]


def test_the_columns_of_status_stand_below_each_other(run: Run, systemd: FakeSystemd) -> None:
    _, out, _ = run("status")

    header, *rows = out.splitlines()
    assert {row.index("http://") for row in rows} == {header.index("ADDRESS")}
    assert all(line == line.rstrip() for line in out.splitlines())


def test_status_for_programs_is_json(run: Run, systemd: FakeSystemd, free_port: int) -> None:
    code, out, _ = run("status", "--json")

    assert code == 0
    assert json.loads(out) == [
        {
            "name": "scout",
            "state": "inactive",
            "boot": True,
            "lane": "main",
            "engine": "llama.cpp",
            "url": f"http://127.0.0.1:{free_port}",
            "memory_gib": 1.0,
        },
        {
            "name": "embed-small",
            "state": "active",
            "boot": False,
            "lane": "utility",
            "engine": "llama.cpp",
            "url": "http://127.0.0.1:8085",
            "memory_gib": 0.5,
        },
    ]


def test_a_switch_says_what_it_did(run: Run, systemd: FakeSystemd) -> None:
    code, out, err = run("switch", "vision")

    assert (code, err) == (0, "")
    assert out.startswith("active: scout (start scout; stop 0.0 s, start ")


def test_a_switch_to_what_runs_says_that_there_was_nothing_to_do(run: Run, systemd: FakeSystemd) -> None:
    run("switch", "scout")

    code, out, _ = run("switch", "scout")

    assert (code, out) == (0, "active: scout (nothing to do; stop 0.0 s, start 0.0 s)\n")


def test_none_stops_the_main_lane(run: Run, systemd: FakeSystemd, engines: tuple[contract.Engine, ...]) -> None:
    run("switch", "scout")

    code, out, _ = run("switch", "none")

    assert code == 0
    assert out.startswith("active: none (stop scout; no longer start scout at boot; ")
    assert systemd.up == [engines[1].unit]


def test_a_failed_switch_ends_with_1_and_the_engines_log_before_the_sentence(
    run: Run, systemd: FakeSystemd, engines: tuple[contract.Engine, ...]
) -> None:
    systemd.start_ends[engines[0].unit] = ("failed", "exit-code")

    assert run("switch", "scout") == (
        1,
        "",
        "  | last words of hearth-engine-scout.service\nhearth: engine scout failed to start\n",
    )


def test_without_a_contract_everything_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "engines.json"

    assert cli.main(["--engines", str(missing), "status"]) == 1
    assert capsys.readouterr().err == f"hearth: {missing} is missing: run site.yml against this box first\n"


@pytest.mark.parametrize("verb", ["switch", "admit", "ready"])
def test_an_unknown_model_ends_with_2(run: Run, systemd: FakeSystemd, verb: str) -> None:
    code, out, err = run(verb, "scuot")

    assert (code, out) == (2, "")
    assert err == "hearth: unknown model 'scuot': did you mean 'scout'? known: embed-small, scout, vision\n"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="no verb"),
        pytest.param(("dance",), id="an unknown verb"),
        pytest.param(("switch",), id="no model"),
        pytest.param(("ready", "scout", "--pid", "x"), id="a pid that is none"),
        pytest.param(("status", "--yaml"), id="an unknown option"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)

    assert caught.value.code == 2
    assert "usage: hearth" in capsys.readouterr().err


def test_a_second_switch_ends_with_3_and_names_the_first(run: Run, systemd: FakeSystemd) -> None:
    with switch.box_lock(0):
        code, out, err = run("switch", "scout")

    assert (code, out) == (3, "")
    assert err.startswith("hearth: a switch is under way (pid ")


def test_control_c_ends_with_130_and_no_traceback(
    run: Run, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Path) -> contract.Contract:
        raise KeyboardInterrupt

    monkeypatch.setattr(contract, "load", interrupted)

    assert run("status") == (130, "", "")


def test_a_box_without_systemd_is_told_in_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")

    code, out, err = run("status")

    assert (code, out) == (1, "")
    assert err.startswith("hearth: systemd cannot be reached over D-Bus (")
    assert err.count("\n") == 1


def test_admit_says_nothing_where_nothing_is_wrong(run: Run) -> None:
    assert run("admit", "scout") == (0, "", "")


def test_admit_refuses_with_1(run: Run, engines: tuple[contract.Engine, ...]) -> None:
    Path(engines[0].model_path).unlink()

    code, _, err = run("admit", "vision")

    assert code == 1
    assert "is missing; put it there" in err


class TestReady:
    """``hearth ready``, which a unit runs after its engine's start."""

    @pytest.fixture
    def free_port(self, server: ScriptedServer) -> int:
        return server.port

    def test_says_how_long_the_engine_took(self, run: Run, server: ScriptedServer) -> None:
        server.serves("scout")

        code, out, _ = run("ready", "scout")

        assert code == 0
        assert out == f"hearth: scout is ready after 0.0 s on http://127.0.0.1:{server.port}\n"

    def test_ends_with_1_when_the_engine_has_ended(self, run: Run, server: ScriptedServer) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()

        assert run("ready", "scout", "--pid", str(ended.pid)) == (
            1,
            "",
            "hearth: engine scout ended while it was loading: see its log\n",
        )

    def test_of_an_ollama_prints_the_pull_and_loads(
        self,
        qwen: contract.Engine,
        ollama: OllamaServer,
        make_contract: Callable[..., contract.Contract],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = tmp_path / "engines.json"
        path.write_bytes(msgspec.json.encode(make_contract(qwen)))

        code = cli.main(["--engines", str(path), "ready", "qwen"])

        lines = capsys.readouterr().out.splitlines()
        assert code == 0
        assert lines[0] == f"hearth: pulling qwen3:0.6b from registry.ollama.ai into {tmp_path}"
        assert lines[-1].startswith("hearth: qwen is ready after ")
        assert ollama.loaded == ["qwen"]
