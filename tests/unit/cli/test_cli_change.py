# SPDX-License-Identifier: Apache-2.0
"""hearth switch, start and stop: the transaction of hearth.switching.switch, asked for and told in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import commands
import pytest
from commands import Run

from hearth import state
from hearth.cli import app, arguments
from hearth.errors import BusyError
from hearth.switching import journal
from hearth.switching.change import Change
from hearth.switching.journal import Journal

if TYPE_CHECKING:
    from switchbox import Box


@pytest.fixture
def run(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return commands.runner(box, monkeypatch, capsys)


def asked(*words: str) -> Change:
    """The change that a command line asks for."""
    return app._asked(arguments.parser().parse_args(words))


def test_a_switch_says_what_it_did_and_what_serves_where(run: Run, box: Box) -> None:
    code, out, err = run("switch", "new", "--drain", "0")

    assert code == 0
    assert out.startswith("Done: stop old (10.0 GiB), start new (10.0 GiB), start new at boot, ")
    assert f"new serves on {box.engine('new').base_url} of the box (main lane)." in out
    assert "Memory: 9.0 of 20.0 GiB available" in out
    # Progress is not the result.
    assert "loading new\n" in err
    assert box.at_boot == {"new", "embed"}


def test_a_switch_to_what_runs_has_nothing_to_do(run: Run) -> None:
    code, out, _ = run("switch", "old")

    assert (code, out.splitlines()[0]) == (0, "Done: nothing to do.")


def test_a_switch_can_be_foretold(run: Run, box: Box) -> None:
    code, out, err = run("switch", "new", "--dry-run")

    assert (code, err) == (0, "")
    assert out.startswith("Would: stop old (10.0 GiB), start new (10.0 GiB), start new at boot, ")
    assert box.calls == []


def test_what_could_not_begin_fails_when_it_is_foretold_as_well(run: Run, box: Box) -> None:
    Path(box.engine("new").model_path).unlink()

    code, out, err = run("switch", "new", "--dry-run")

    assert (code, out) == (1, "")
    assert "its model" in err


def test_a_start_leaves_what_runs_and_what_starts_at_boot(run: Run, box: Box) -> None:
    assert run("start", "small")[0] == 0

    assert (box.up, box.at_boot) == ({"old", "small", "embed"}, {"old", "embed"})


def test_a_stop_stops_one_and_takes_it_from_boot(run: Run, box: Box) -> None:
    assert run("stop", "embed", "--drain", "0")[0] == 0

    assert (box.up, box.at_boot) == ({"old"}, {"old"})


def test_what_an_earlier_change_left_is_told(run: Run, box: Box) -> None:
    journal.write(Journal(target="new", previous=("old",), at="2026-11-21T05:00:00Z"), box.journal)

    _, out, _ = run("switch", "old")

    assert "Before that: a change to new that began at 2026-11-21T05:00:00Z was cut off" in out


def test_for_programs_is_json(run: Run) -> None:
    code, out, _ = run("start", "small", "--json")

    found = json.loads(out)
    assert (code, found["active"], found["changed"]) == (0, "small", True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("switch scout", Change(name="scout")),
        ("switch none", Change(name=None)),
        ("switch none --lane utility", Change(name=None, lane="utility")),
        ("switch scout --no-boot --force", Change(name="scout", boot=False, force=True)),
        ("switch scout --drain 5 --timeout 600", Change(name="scout", drain_s=5.0, timeout_s=600.0)),
        ("start scout", Change(name="scout", beside=True, boot=False)),
        ("start scout --boot --force", Change(name="scout", beside=True, boot=True, force=True)),
        ("stop scout", Change(name="scout", stop=True)),
        ("stop scout --no-boot --drain 5", Change(name="scout", stop=True, boot=False, drain_s=5.0)),
    ],
)
def test_options_are_the_fields_of_the_change(words: str, wanted: Change) -> None:
    assert asked(*words.split()) == wanted


def test_a_failure_ends_with_1_and_the_engines_log_before_the_sentence(run: Run, box: Box) -> None:
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

    code, out, err = run("switch", "new", "--drain", "0")

    assert (code, out) == (1, "")
    *_, log, sentence = err.splitlines()
    assert log == "  | last words of hearth-engine-new.service"
    assert sentence.startswith("hearth: engine new failed to start")


def test_a_second_change_waits_as_long_as_it_is_told_then_ends_with_3(run: Run, box: Box) -> None:
    with state.locked(box.lock, 0, BusyError):
        code, out, err = run("switch", "new", "--wait", "0.1")

    assert (code, out) == (3, "")
    waiting, sentence = err.splitlines()
    assert waiting.startswith("a change is under way (pid ")
    assert waiting.endswith("; waiting up to 0.1 s for it to end")
    assert sentence.startswith("hearth: a switch is under way (pid ")
