# SPDX-License-Identifier: Apache-2.0
"""Renders the templates of the set on the controller; the module on the box sees contents only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template


class ActionModule(ActionBase):
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments["entries"] = [self._rendered(entry, task_vars) for entry in arguments.get("entries") or []]
        result.update(
            self._execute_module(module_name="hearth.spark.files", module_args=arguments, task_vars=task_vars)
        )
        return result

    def _rendered(self, entry: Any, task_vars: dict[str, Any]) -> Any:
        if not isinstance(entry, dict) or "template" not in entry:
            return entry
        plain = {name: value for name, value in entry.items() if name not in ("template", "vars")}
        try:
            source = Path(self._find_needle("templates", entry["template"]))
        except AnsibleError as error:
            raise AnsibleActionFail(f"template {entry['template']}: {error}") from error
        templar = self._templar.copy_with_new_env(
            searchpath=[str(source.parent)],
            available_variables={**task_vars, **(entry.get("vars") or {})},
        )
        text = trust_as_template(source.read_text(encoding="utf-8"))
        plain["content"] = templar.template(
            text, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": True}
        )
        return plain
