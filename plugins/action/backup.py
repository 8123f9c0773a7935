# SPDX-License-Identifier: Apache-2.0
"""Fetches the archive that the module makes on the box, and looks at it here before it gets its name."""

from __future__ import annotations

import hashlib
import os
import tempfile
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
        if not arguments.get("folder"):
            raise AnsibleActionFail("folder is missing: name a folder on this machine for the archive.")
        folder = Path(arguments["folder"]).expanduser()
        # The login's own, for it alone: who logs in may become root, and nobody else gets in.
        there = self._make_tmp_path()
        arguments["dest"] = self._connection._shell.join_path(there, "archive")  # noqa: SLF001 - as Ansible's own plugins do
        try:
            answer = self._execute_module(module_name="hearth.spark.backup", module_args=arguments, task_vars=task_vars)
            result.update(answer)
            if not answer.get("failed") and not self._task.check_mode:
                name = f"{task_vars['inventory_hostname']}-{answer.pop('made').replace(':', '-')}.tar.gz"
                result["archive"] = str(self._fetched(arguments, folder / name, answer["sha256"]))
                result.pop("made", None)
        finally:
            self._remove_tmp_path(there)
        return result

    def _fetched(self, arguments: dict[str, Any], archive: Path, sha256: str) -> Path:
        before = os.umask(0o077)
        try:
            archive.parent.mkdir(parents=True, exist_ok=True)
            # In a folder of its own: a connection may fetch by way of a file that is called as on the box.
            with tempfile.TemporaryDirectory(prefix=".hearth-", dir=archive.parent) as folder:
                part = Path(folder, "part")
                self._connection.fetch_file(arguments["dest"], str(part))
                part.chmod(0o600)
                with part.open("rb") as handle:
                    if hashlib.file_digest(handle, "sha256").hexdigest() != sha256:
                        raise AnsibleActionFail(
                            "the archive arrived damaged: check the disk of this machine, and try again."
                        )
                _backup.look(part, arguments.get("extra") or [])
                part.replace(archive)
        except OSError as error:
            raise AnsibleActionFail(f"{archive} cannot be written ({error.strerror}).") from None
        except _backup.BackupError as error:
            raise AnsibleActionFail(f"{error}.") from None
        finally:
            os.umask(before)
        return archive
