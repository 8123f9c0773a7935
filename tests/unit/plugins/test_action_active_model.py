# SPDX-License-Identifier: Apache-2.0
"""The action plugin of active_model: its turns, what it shows, and what it does when a connection breaks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.hearth.spark.plugins.action import active_model
from ansible_collections.hearth.spark.plugins.plugin_utils import _turns

VARIABLES = {"inventory_hostname": "spark", "ansible_python_interpreter": "/opt/hearth/venv/bin/python"}
DONE = {"changed": True, "active": "scout"}
BROKEN = {"failed": True, "msg": "MODULE FAILURE", "module_stdout": "", "module_stderr": "Traceback\nOSError: gone\n"}


def goes_on(step: int, doing: str) -> dict[str, Any]:
    return {"changed": False, "attach": f"7/{step}", "doing": doing}


class Plugin:
    """The plugin, on a connection that gives these answers, or raises them."""

    def __init__(self, *answers: dict[str, Any] | Exception, **task: Any) -> None:
        self.answers = list(answers)
        self.executed: list[dict[str, Any]] = []
        self.shown: list[str] = []
        complete = {"args": {"name": "scout"}, "async_val": 0, "check_mode": False, "no_log": False, **task}
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="x"), has_native_async=False)
        unused = (mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        self.plugin = active_model.ActionModule(SimpleNamespace(**complete), connection, *unused)

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.executed.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def display(self, line: str, *, stderr: bool) -> None:
        assert not stderr, "the default callback's lines are for people"
        self.shown.append(line)

    def run(self) -> dict[str, Any]:
        with (
            mock.patch.object(self.plugin, "_execute_module", self._execute_module),
            mock.patch.object(_turns, "_display", self),
        ):
            result: dict[str, Any] = self.plugin.run(None, dict(VARIABLES))
        assert self.answers == []
        return result

    @property
    def arguments(self) -> list[dict[str, Any]]:
        return [call["module_args"] for call in self.executed]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(_turns.time, "sleep", slept.append)
    return slept


def test_a_quick_change_is_one_execution_and_shows_nothing() -> None:
    plugin = Plugin(DONE)

    assert plugin.run() == DONE
    assert plugin.arguments == [{"name": "scout", "wait": _turns.FIRST_TURN_S}]
    assert plugin.shown == []


def test_a_long_one_is_waited_for_in_turns_with_a_line_between_two() -> None:
    plugin = Plugin(goes_on(1, "stopping qwen"), goes_on(2, "loading scout, 5 of about 80 s"), DONE)

    assert plugin.run() == DONE
    assert plugin.shown == ["[spark] stopping qwen", "[spark] loading scout, 5 of about 80 s"]
    assert plugin.arguments[1:] == [
        {"name": "scout", "attach": "7/1", "wait": active_model.ActionModule.TURN_S},
        {"name": "scout", "attach": "7/2", "wait": active_model.ActionModule.TURN_S},
    ]


def test_every_turn_has_the_variables_of_the_task() -> None:
    plugin = Plugin(goes_on(1, "loading scout"), DONE)

    plugin.run()

    assert [call["task_vars"] for call in plugin.executed] == [VARIABLES, VARIABLES]


def test_the_invocation_is_what_the_task_said() -> None:
    first, last = {"module_args": {"name": "scout"}}, {"module_args": {"name": "scout", "attach": "7/1"}}
    plugin = Plugin({**goes_on(1, "loading scout"), "invocation": first}, {**DONE, "invocation": last})

    assert plugin.run()["invocation"] == first


def test_nothing_is_shown_of_a_task_with_no_log() -> None:
    plugin = Plugin(goes_on(1, "loading scout"), DONE, no_log=True)

    assert plugin.run() == DONE
    assert plugin.shown == []


def test_a_failure_is_given_back_as_it_is() -> None:
    failure = {"failed": True, "msg": "engine scout failed to start; qwen serves again", "log": ["no memory"]}

    assert Plugin(goes_on(1, "loading scout"), failure).run() == failure


@pytest.mark.parametrize("broken", [AnsibleConnectionFailure("broken pipe"), BROKEN], ids=["raised", "no answer"])
class TestConnection:
    def test_one_that_breaks_while_it_is_waited_is_tried_again(self, broken: Any, pauses: list[float]) -> None:
        plugin = Plugin(goes_on(1, "loading scout"), broken, DONE)

        assert plugin.run() == DONE
        assert plugin.shown[-1] == "[spark] the connection was lost, and is tried again"
        assert plugin.arguments[1] == plugin.arguments[2]
        assert pauses == [_turns.PAUSE_S]

    def test_one_that_stays_broken_says_that_the_change_goes_on_and_how_to_look(self, broken: Any) -> None:
        plugin = Plugin(goes_on(1, "loading scout"), broken, broken)

        with pytest.raises((AnsibleConnectionFailure, AnsibleActionFail)) as caught:
            plugin.run()

        assert str(caught.value).startswith(
            "The connection was lost while the change went on. It goes on by itself: run this again to wait for it, or "
            "look on the box with hearth status"
        )


def test_one_that_breaks_before_anything_was_begun_is_ansibles_own_to_tell() -> None:
    with pytest.raises(AnsibleConnectionFailure, match="broken pipe"):
        Plugin(AnsibleConnectionFailure("broken pipe")).run()
    assert Plugin(BROKEN).run() == BROKEN


def test_a_box_that_answers_with_no_answer_tells_its_last_words() -> None:
    plugin = Plugin(goes_on(1, "loading scout"), BROKEN, BROKEN)

    with pytest.raises(AnsibleActionFail, match="OSError: gone"):
        plugin.run()


def test_a_task_with_async_waits_for_the_end_in_one_execution() -> None:
    plugin = Plugin({"started": 1, "changed": True}, async_val=3600)

    plugin.run()

    assert plugin.arguments == [{"name": "scout"}]
    assert plugin.executed[0]["wrap_async"] is True
