# SPDX-License-Identifier: Apache-2.0
"""Looks at the archive here, and brings it to the box, where only the login and root may read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.hearth.spark.plugins.module_utils import _backup


class ActionModule(ActionBase):
    """See the module's documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if not arguments.get("archive"):
            raise AnsibleActionFail("archive is missing: name the archive on this machine.")
        archive = Path(arguments["archive"]).expanduser()
        try:
            _backup.look(archive, arguments.get("extra") or [])
        except _backup.BackupError as error:
            raise AnsibleActionFail(f"{error}. Nothing was changed.") from None
        there = self._make_tmp_path()
        arguments["src"] = self._connection._shell.join_path(there, "archive")  # noqa: SLF001 - as Ansible's own plugins do
        try:
            self._connection.put_file(str(archive), arguments["src"])
            result.update(
                self._execute_module(module_name="hearth.spark.restore", module_args=arguments, task_vars=task_vars)
            )
        finally:
            self._remove_tmp_path(there)
        return result
