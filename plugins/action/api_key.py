# SPDX-License-Identifier: Apache-2.0
"""Makes the secret of a new key here, tells the box its hash only, and shows it once."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# As hearth.gateway.keys has them (tested); that package is on the box only.
PREFIX = "hearth_"
SECRET_BYTES = 32

_display = Display()


class ActionModule(ActionBase):
    """See the module's documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        secret = "" if self._task.args.get("sha256") else PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        arguments = dict(self._task.args)
        if secret:
            arguments["sha256"] = hashlib.sha256(secret.encode()).hexdigest()
        answer: dict[str, Any] = self._execute_module(
            module_name="hearth.spark.api_key", module_args=arguments, task_vars=task_vars
        )
        if secret and answer.get("made") and not self._task.check_mode:
            host = task_vars.get("inventory_hostname", "box")
            words = f"[{host}] the key {self._task.args['name']}, which is shown only now: "
            # On the screen only: Ansible keeps what else it displays in its log file, where one is set.
            _display.display(words + secret, color=constants.COLOR_HIGHLIGHT, screen_only=True)
        result.update(answer)
        return result
