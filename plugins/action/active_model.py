# SPDX-License-Identifier: Apache-2.0
"""Shows how a change of engines goes on: the module waits for it in turns, and between two turns a line is shown."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "hearth.spark.active_model"
# Most changes on a box where models are small, and all that have nothing to do, end within one turn.
FIRST_TURN_S = 2.0
# A turn ends early when something else is being done; so there is a line at least this often, and for each phase.
TURN_S = 5.0
# Before the connection is tried again: long enough for a short gap in a network.
PAUSE_S = 5.0

_display = Display()


class ActionModule(ActionBase):
    """See the module's documentation."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.async_val:
            # Ansible itself waits in turns, and nobody is there to show anything to.
            wrap = not self._connection.has_native_async
            result.update(self._module(self._task.args, task_vars, wrap_async=wrap))
            return result
        answer = self._module({**self._task.args, "wait": FIRST_TURN_S}, task_vars)
        asked = answer.get("invocation")
        while "attach" in answer:
            self._show(answer["doing"], task_vars)
            answer = self._turn(answer["attach"], task_vars)
        if asked is not None:
            # What the task said, not what the last turn was given.
            answer["invocation"] = asked
        result.update(answer)
        return result

    def _module(
        self, arguments: dict[str, Any], task_vars: dict[str, Any], *, wrap_async: bool = False
    ) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args=dict(arguments), task_vars=task_vars, wrap_async=wrap_async
        )
        return answer

    def _turn(self, attach: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """One more turn; where the connection is lost, once more. Raises AnsibleError with how to look by hand."""
        arguments = {**self._task.args, "attach": attach, "wait": TURN_S}
        try:
            answer = self._module(arguments, task_vars)
            if not _is_lost(answer):
                return answer
        except AnsibleConnectionFailure:
            pass
        self._show("the connection was lost, and is tried again", task_vars)
        time.sleep(PAUSE_S)
        sentence = (
            "The connection was lost while the change went on. It goes on by itself: run this again to wait for it, or "
            "look on the box with hearth status"
        )
        try:
            answer = self._module(arguments, task_vars)
        except AnsibleConnectionFailure as error:
            raise AnsibleConnectionFailure(sentence) from error
        if _is_lost(answer):
            raise AnsibleActionFail(f"{sentence} ({_last_line(answer)})")
        return answer

    def _show(self, doing: str, task_vars: dict[str, Any]) -> None:
        if not self._task.no_log:
            _display.display(f"[{task_vars.get('inventory_hostname', 'box')}] {doing}")


def _is_lost(answer: dict[str, Any]) -> bool:
    """Whether the module ended without an answer of its own, as it does with some connections when they break."""
    return "module_stdout" in answer


def _last_line(answer: dict[str, Any]) -> str:
    lines = f"{answer.get('module_stdout', '')}\n{answer.get('module_stderr', '')}".split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no answer")
