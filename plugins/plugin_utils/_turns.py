# SPDX-License-Identifier: Apache-2.0
"""Long work of a module, waited for in turns; between two turns its progress is shown. PRIVATE to the collection.

The work is a job of the box: the module gives back ``attach`` and ``doing`` while it goes on.
"""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Most changes on a box where models are small, and all that have nothing to do, end within one turn.
FIRST_TURN_S = 2.0
# Before the connection is tried again: long enough for a short gap in a network.
PAUSE_S = 5.0

_display = Display()
# Asked here: the process that shows imports this, the one that runs the task has no terminal any more.
_TERMINAL = sys.stdout.isatty()
# Back to the beginning of the line, and clear it (ECMA-48: CR, EL).
_REWRITE = "\r\x1b[K"


class Turns(ActionBase):
    """What the action plugins of such modules share."""

    _supports_check_mode = True
    _supports_async = True

    MODULE: ClassVar[str]
    # What goes on, and how to look at it by hand.
    WORK: ClassVar[str]
    LOOK: ClassVar[str]
    # A turn ends early when something else is being done; so there is a line at least this often, and for each phase.
    TURN_S: ClassVar[float]
    # The same for one line that is rewritten; 0: lines are never rewritten.
    REWRITE_S: ClassVar[float] = 0.0

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.async_val:
            # Ansible itself waits in turns, and nobody is there to show anything to.
            wrap = not self._connection.has_native_async
            result.update(self._module(self._task.args, task_vars, wrap_async=wrap))
            return result
        # Lines of several hosts would overwrite each other.
        alone = len(task_vars.get("ansible_play_batch", ())) < 2
        self._rewrites = bool(self.REWRITE_S) and _TERMINAL and alone and _has_room()
        self._is_open = False
        try:
            answer = self._module({**self._task.args, "wait": FIRST_TURN_S}, task_vars)
            asked = answer.get("invocation")
            while "attach" in answer:
                self._show(answer["doing"], task_vars)
                answer = self._turn(answer["attach"], task_vars)
        finally:
            self._end_line()
        if asked is not None:
            # What the task said, not what the last turn was given.
            answer["invocation"] = asked
        result.update(answer)
        return result

    def _module(
        self, arguments: dict[str, Any], task_vars: dict[str, Any], *, wrap_async: bool = False
    ) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name=self.MODULE, module_args=dict(arguments), task_vars=task_vars, wrap_async=wrap_async
        )
        return answer

    def _turn(self, attach: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """One more turn; where the connection is lost, once more. Raises AnsibleError with how to look by hand."""
        wait = self.REWRITE_S if self._rewrites else self.TURN_S
        arguments = {**self._task.args, "attach": attach, "wait": wait}
        try:
            answer = self._module(arguments, task_vars)
            if not _is_lost(answer):
                return answer
        except AnsibleConnectionFailure:
            pass
        self._show("the connection was lost, and is tried again", task_vars)
        time.sleep(PAUSE_S)
        sentence = (
            f"The connection was lost while the {self.WORK} went on. It goes on by itself: run this again to wait for "
            f"it, or look on the box with {self.LOOK}"
        )
        try:
            answer = self._module(arguments, task_vars)
        except AnsibleConnectionFailure as error:
            raise AnsibleConnectionFailure(sentence) from error
        if _is_lost(answer):
            raise AnsibleActionFail(f"{sentence} ({_last_line(answer)})")
        return answer

    def _show(self, doing: str, task_vars: dict[str, Any]) -> None:
        if self._task.no_log:
            return
        line = f"[{task_vars.get('inventory_hostname', 'box')}] {doing}"
        if self._rewrites:
            # What does not fit would begin a line that is never cleared.
            _display.display(_REWRITE + line[: _display.columns - 1], newline=False, screen_only=True)
            self._is_open = True
        else:
            # Other callbacks may write what a program reads.
            _display.display(line, stderr=not _is_for_people())

    def _end_line(self) -> None:
        if self._is_open:
            _display.display(_REWRITE, newline=False, screen_only=True)


def _is_for_people() -> bool:
    return str(constants.DEFAULT_STDOUT_CALLBACK) in ("default", "ansible.builtin.default")


def _has_room() -> bool:
    """Whether a line may be rewritten: the default callback's lines end, and -v puts others in between."""
    return _is_for_people() and not _display.verbosity


def _is_lost(answer: dict[str, Any]) -> bool:
    """Whether the module ended without an answer of its own, as it does with some connections when they break."""
    return "module_stdout" in answer


def _last_line(answer: dict[str, Any]) -> str:
    lines = f"{answer.get('module_stdout', '')}\n{answer.get('module_stderr', '')}".split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no answer")
