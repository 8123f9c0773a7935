# SPDX-License-Identifier: Apache-2.0
"""Reads the project on the controller; the module on the box gets its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        project = arguments.pop("project", None)
        if project:
            arguments["files"] = _project_files(Path(project))
        result.update(self._execute_module(module_name="hearth.spark.venv", module_args=arguments, task_vars=task_vars))
        return result


def _project_files(project: Path) -> dict[str, str]:
    """pyproject.toml and the Python files below src, by relative path."""
    files = [project / "pyproject.toml", *sorted((project / "src").rglob("*.py"))]
    try:
        return {str(path.relative_to(project)): path.read_text(encoding="utf-8") for path in files}
    except OSError as error:
        raise AnsibleActionFail(
            f"{error.filename}: {error.strerror}; the collection is incomplete: install it again"
        ) from error
