# SPDX-License-Identifier: Apache-2.0
"""The action plugin of model: where its progress goes, and that nothing it shows breaks what a program reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from ansible import constants

from ansible_collections.hearth.spark.plugins.action import model
from ansible_collections.hearth.spark.plugins.plugin_utils import _turns

CLEAR = "\r\x1b[K"
DONE = {"changed": True}


def goes_on(doing: str) -> dict[str, Any]:
    return {"changed": False, "attach": "7/1", "doing": doing}


class Screen:
    """Where the plugin shows things; ``verbosity`` counts the v of ansible-playbook -v."""

    def __init__(self) -> None:
        self.out = ""
        self.err = ""
        self.logged: list[str] = []
        self.columns = 40
        self.verbosity = 0

    def display(self, text: str, *, stderr: bool = False, newline: bool = True, screen_only: bool = False) -> None:
        text += "\n" if newline else ""
        if stderr:
            self.err += text
        else:
            self.out += text
        if not screen_only:
            self.logged.append(text)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal, with Ansible's default callback."""
    made = Screen()
    monkeypatch.setattr(_turns, "_display", made)
    monkeypatch.setattr(_turns, "_TERMINAL", True)
    monkeypatch.setattr(constants, "DEFAULT_STDOUT_CALLBACK", "default")
    return made


def run(*answers: dict[str, Any], hosts: int = 1, **task: Any) -> list[float]:
    """Run the plugin, on a box that gives these answers; returns how long it was asked to wait in each turn."""
    complete = {"args": {"path": "/m"}, "async_val": 0, "check_mode": False, "no_log": False, **task}
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="x"), has_native_async=False)
    plugin = model.ActionModule(SimpleNamespace(**complete), connection, *(mock.Mock() for _ in range(4)))
    batch = [f"spark{number}" for number in range(hosts)]
    with mock.patch.object(plugin, "_execute_module", side_effect=[dict(one) for one in answers]) as executed:
        plugin.run(None, {"inventory_hostname": "spark", "ansible_play_batch": batch})
    return [call.kwargs["module_args"]["wait"] for call in executed.call_args_list]


def test_on_a_terminal_one_line_is_rewritten_and_cleared_at_the_end(screen: Screen) -> None:
    waits = run(goes_on("m: fetching 1 %"), goes_on("m: fetching 2 %"), DONE)

    assert screen.out == f"{CLEAR}[spark] m: fetching 1 %{CLEAR}[spark] m: fetching 2 %{CLEAR}"
    assert waits[1:] == [model.ActionModule.REWRITE_S] * 2
    assert screen.logged == []


def test_the_line_is_cleared_before_a_failure_is_told(screen: Screen) -> None:
    with pytest.raises(ZeroDivisionError), mock.patch.object(_turns.Turns, "_turn", side_effect=ZeroDivisionError):
        run(goes_on("m: fetching 1 %"))

    assert screen.out.endswith(CLEAR)


def test_a_line_that_is_rewritten_fits_the_terminal(screen: Screen) -> None:
    run(goes_on("m" * 100), DONE)

    assert len(screen.out.split(CLEAR)[1]) < screen.columns


def test_one_that_had_nothing_to_show_writes_nothing(screen: Screen) -> None:
    run(DONE)

    assert screen.out == ""


def test_without_a_terminal_there_are_lines(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_turns, "_TERMINAL", False)

    waits = run(goes_on("m: fetching 1 %"), goes_on("m: fetching 9 %"), DONE)

    assert screen.out == "[spark] m: fetching 1 %\n[spark] m: fetching 9 %\n"
    assert waits[1:] == [model.ActionModule.TURN_S] * 2


def test_several_hosts_have_lines_since_they_would_overwrite_each_other(screen: Screen) -> None:
    run(goes_on("m: fetching 1 %"), DONE, hosts=2)

    assert screen.out == "[spark] m: fetching 1 %\n"


def test_a_verbose_play_has_lines(screen: Screen) -> None:
    screen.verbosity = 1

    run(goes_on("m: fetching 1 %"), DONE)

    assert screen.out == "[spark] m: fetching 1 %\n"


@pytest.mark.parametrize("callback", ["ansible.posix.json", "minimal", "oneline"])
def test_other_callbacks_have_standard_output_for_themselves(
    screen: Screen, callback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_STDOUT_CALLBACK", callback)

    run(goes_on("m: fetching 1 %"), DONE)

    assert (screen.out, screen.err) == ("", "[spark] m: fetching 1 %\n")


def test_nothing_is_shown_of_a_task_with_no_log(screen: Screen) -> None:
    run(goes_on("m: fetching 1 %"), DONE, no_log=True)

    assert (screen.out, screen.err) == ("", "")
