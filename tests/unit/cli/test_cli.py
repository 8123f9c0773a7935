# SPDX-License-Identifier: Apache-2.0
"""hearth.cli.app: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import commands
import msgspec
import pytest
from commands import Run

from hearth import contract, state
from hearth.cli import app, standing
from hearth.errors import BusyError
from hearth.switching import journal, switch
from hearth.switching.journal import Journal

if TYPE_CHECKING:
    from fakes import ScriptedServer
    from ollama_server import OllamaServer
    from switchbox import Box


@pytest.fixture
def run(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return commands.runner(box, monkeypatch, capsys)


class TestStatus:
    def test_is_a_table(self, run: Run, box: Box) -> None:
        code, out, err = run("status")

        assert (code, err) == (0, "")
        table, below = out.split("\n\n")
        assert [line.split()[:5] for line in table.splitlines()] == [
            ["MODEL", "STATE", "SINCE", "BOOT", "LANE"],
            ["old", "active", "-", "yes", "main"],
            ["new", "inactive", "-", "-", "main"],
            ["small", "inactive", "-", "-", "main"],
            ["embed", "active", "-", "yes", "utility"],
        ]
        assert f"{box.engine('old').base_url}  10.0 GiB" in table
        assert below == "memory: 9.0 of 20.0 GiB available, of which 4.0 GiB stay with the host\n"

    def test_its_columns_stand_below_each_other(self, run: Run) -> None:
        _, out, _ = run("status")

        header, *rows = out.split("\n\n")[0].splitlines()
        assert {row.index("http://") for row in rows} == {header.index("ADDRESS")}
        assert all(line == line.rstrip() for line in out.splitlines())

    def test_names_a_measured_need_as_measured(self, run: Run, box: Box) -> None:
        engine = box.engine("old")
        box.host.units.mkdir()
        (box.host.units / engine.unit).write_text("[Service]\n")
        box.host.ledger.record(engine, 7.3, 60.0, "2026-11-21T05:00:00Z")

        assert "  7.3 GiB (measured)\n" in run("status")[1]

    def test_for_programs_is_json(self, run: Run, box: Box) -> None:
        box.systemd.set(box.unit("old"), started_us=1_763_701_200_000_000)

        code, out, _ = run("status", "--json")

        found = json.loads(out)
        assert code == 0
        assert found["engines"][0] == {
            "name": "old",
            "state": "active",
            "result": "success",
            "boot": True,
            "lane": "main",
            "engine": "llama.cpp",
            "url": box.engine("old").base_url,
            "need_gib": 10.0,
            "need_source": "catalog",
            "since": "2025-11-21T05:00:00Z",
            "fetching": "",
        }
        assert found["memory"] == {"total_gib": 20.0, "available_gib": 9.0, "free_gib": 9.0, "cached_gib": 0.0}
        assert (found["floor_gib"], found["change"]) == (4.0, None)

    def test_tells_of_a_change_that_was_cut_off_and_what_to_do(self, run: Run, box: Box) -> None:
        journal.write(Journal(target="new", previous=("old",), at="2026-11-21T05:00:00Z"), box.journal)

        assert run("status")[1].splitlines()[-1] == (
            "a change to new that began at 2026-11-21T05:00:00Z was cut off (before it, old ran): the next hearth "
            "switch, start or stop finishes or undoes it, for example hearth switch new"
        )

    def test_tells_of_a_change_under_way_and_who_is_at_it(
        self, run: Run, box: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal.write(Journal(target="new", previous=("old",), at="2026-11-21T05:00:00Z"), box.journal)
        monkeypatch.setattr(standing, "_doing", lambda _: "loading new, 5 of about 60 s")

        with state.locked(box.lock, 0, BusyError):
            _, out, _ = run("status")

        last = out.splitlines()[-1]
        assert last.startswith(f"a change to new is under way (pid {os.getpid()}, since ")
        assert last.endswith("): loading new, 5 of about 60 s")

    def test_looks_at_the_lock_that_changes_hold(self) -> None:
        assert state.RUN / standing.LOCK == switch.LOCK


class TestLogs:
    @pytest.mark.parametrize(
        ("words", "command"),
        [
            (("new",), ("--unit=hearth-engine-new.service", "--lines=100")),
            (("new", "-f", "-n", "5"), ("--unit=hearth-engine-new.service", "--lines=5", "--follow")),
        ],
    )
    def test_become_journalctl(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], command: tuple[str, ...]
    ) -> None:
        seen: list[Any] = []
        monkeypatch.setattr(os, "execvp", lambda *call: seen.append(call))

        run("logs", *words)

        assert seen == [("journalctl", ["journalctl", *command])]

    def test_without_journalctl_say_so(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")

        code, _, err = run("logs", "new")

        assert code == 1
        assert err.startswith("hearth: journalctl cannot be run (No such file or directory)")


class TestAdmit:
    def test_says_nothing_where_nothing_is_wrong(self, run: Run) -> None:
        assert run("admit", "small") == (0, "", "")

    def test_refuses_with_1(self, run: Run, box: Box) -> None:
        Path(box.engine("small").model_path).unlink()

        code, _, err = run("admit", "small")

        assert code == 1
        assert "is missing; put it there" in err

    def test_explained_has_figures_and_holders(self, run: Run) -> None:
        code, out, err = run("admit", "--explain", "new")

        assert (code, err) == (1, "")
        sentence, _, *figures = out.splitlines()
        assert sentence.startswith("engine new needs 10.0 GiB, but of the 9.0 GiB available 4.0 GiB stay with the host")
        assert [line.split("  ")[0] for line in figures] == [
            "needs",
            "available",
            "stays with the host",
            "missing",
            "held",
            "held",
        ]
        assert "old holds 10.0 GiB" in figures[4]

    def test_explained_ends_with_0_where_it_may_start(self, run: Run) -> None:
        assert run("admit", "--explain", "small")[0] == 0

    def test_for_programs_is_json(self, run: Run) -> None:
        code, out, _ = run("admit", "new", "--json")

        found = json.loads(out)
        assert (code, found["admitted"], found["missing_gib"]) == (1, False, 5.0)


def test_without_a_contract_everything_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "engines.json"

    assert app.main(["--engines", str(missing), "status"]) == 1
    assert capsys.readouterr().err == f"hearth: {missing} is missing: run site.yml against this box first\n"


@pytest.mark.parametrize("verb", ["switch", "start", "stop", "admit", "ready", "logs"])
def test_an_unknown_model_ends_with_2(run: Run, verb: str) -> None:
    code, out, err = run(verb, "smal")

    assert (code, out) == (2, "")
    assert err == "hearth: unknown model 'smal': did you mean 'small'? known: embed, new, old, small\n"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="no verb"),
        pytest.param(("dance",), id="an unknown verb"),
        pytest.param(("switch",), id="no model"),
        pytest.param(("ready", "scout", "--pid", "x"), id="a pid that is none"),
        pytest.param(("status", "--yaml"), id="an unknown option"),
        pytest.param(("switch", "scout", "--drain", "-1"), id="less than no time"),
        pytest.param(("switch", "scout", "--wait", "nan"), id="a time that is none"),
        pytest.param(("logs", "scout", "-n", "-5"), id="less than no lines"),
        pytest.param(("completion", "fish"), id="an unknown shell"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)

    assert caught.value.code == 2
    assert "usage: hearth" in capsys.readouterr().err


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.main(["--help"])

    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.split("exit codes:\n")[1].splitlines()] == ["0", "1", "2", "3", "130"]


def test_control_c_ends_with_130_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> contract.Contract:
        raise KeyboardInterrupt

    monkeypatch.setattr(contract, "load", interrupted)

    assert run("status") == (130, "", "")


def test_a_reader_that_goes_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "hearth.cli.app", "completion", "bash"]
    with subprocess.Popen(
        command, stdout=write, stderr=subprocess.PIPE, text=True, env=commands.ENVIRONMENT
    ) as process:
        os.close(write)
        _, err = process.communicate()

    assert (process.returncode, err) == (1, "")


def test_a_box_without_systemd_is_told_in_one_sentence(
    tmp_path: Path,
    make_contract: Callable[..., contract.Contract],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "engines.json"
    path.write_bytes(msgspec.json.encode(make_contract()))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")

    code = app.main(["--engines", str(path), "status"])

    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "")
    assert captured.err.startswith("hearth: systemd cannot be reached over D-Bus (")
    assert captured.err.count("\n") == 1


class TestReady:
    """``hearth ready``, which a unit runs after its engine's start."""

    def test_says_how_long_the_engine_took(self, run: Run, box: Box, server: ScriptedServer) -> None:
        box.change_engine("new", port=server.port)
        server.serves("new")

        code, out, _ = run("ready", "new")

        assert code == 0
        assert out == f"hearth: new is ready after 0.0 s on http://127.0.0.1:{server.port}\n"

    def test_ends_with_1_when_the_engine_has_ended(self, run: Run) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()

        assert run("ready", "new", "--pid", str(ended.pid)) == (
            1,
            "",
            "hearth: engine new ended while it was loading: see its log\n",
        )

    def test_of_an_ollama_loads_its_model(
        self,
        qwen: contract.Engine,
        ollama: OllamaServer,
        make_contract: Callable[..., contract.Contract],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        ollama.store["qwen3:0.6b"] = "d1"
        path = tmp_path / "engines.json"
        path.write_bytes(msgspec.json.encode(make_contract(qwen)))

        code = app.main(["--engines", str(path), "ready", "qwen"])

        assert code == 0
        assert capsys.readouterr().out.startswith("hearth: qwen is ready after ")
        assert ollama.loaded == ["qwen"]
