# SPDX-License-Identifier: Apache-2.0
"""Proves by logins from here that the change locks nobody out; the module does the rest on the box."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.hearth.spark.plugins.plugin_utils import _login

_display = Display()
# sshd takes a moment to read its files; meanwhile it refuses nobody, but its socket may be new.
_TRIES, _BETWEEN_S = 3, 1.0
_BY_SSH = ("ssh", "paramiko_ssh", "paramiko")


class ActionModule(ActionBase):
    """See the module's documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        login, admin = None, ""
        if self._task.args.get("state", "present") == "present":
            login, admin = self._login()
        plan = self._step("plan", task_vars, admin)
        if plan.get("failed") or not plan.get("changed") or self._task.args.get("state") == "absent":
            return {**result, **plan}
        refused = _refusal(login)
        if login and not refused and (why := _login.why_not(login, plan["machine"])):
            refused = (
                f"No login by key as {login} from this controller: {why}. Give that user a key first, with ssh-copy-id"
            )
        if refused:
            return {**result, "failed": True, "msg": f"{refused}. Nothing was changed."}
        if self._task.check_mode or login is None:
            return {**result, **plan}
        made = self._step("apply", task_vars, admin)
        if made.get("failed"):
            return {**result, **made}
        _say(task_vars, f"changed; a new login as {login} has to confirm it, or it is undone")
        why = ""
        for attempt in range(_TRIES):
            time.sleep(_BETWEEN_S if attempt else 0)
            if not (why := _login.why_not(login, plan["machine"])):
                break
        done = self._step("undo" if why else "confirm", task_vars, admin)
        if why or done.get("failed"):
            after = done.get("msg", "What was before is back.")
            reason = (
                f"After the change {login} could not log in by key any more: {why}." if why else "It was not confirmed."
            )
            return {**result, "failed": True, "msg": f"{reason} {after}"}
        return {**result, **made}

    def _step(self, step: str, task_vars: dict[str, Any], admin: str) -> dict[str, Any]:
        arguments = {**self._task.args, "step": step, "admin": admin}
        answer: dict[str, Any] = self._execute_module(
            module_name="hearth.spark.guarded_files", module_args=arguments, task_vars=task_vars
        )
        return answer

    def _login(self) -> tuple[_login.Login | None, str]:
        """Who is to come in, and who must be asked on the box whether he may become root there."""
        named = self._task.args.get("login") or {}
        host, user, key = (str(named.get(name) or "") for name in ("host", "user", "key"))
        port, more = int(named.get("port") or 0), _login.words(str(named.get("arguments") or ""))
        connection = self._connection
        if connection.transport not in _BY_SSH:
            return (_login.Login(host=host, user=user, port=port, key=key, words=more) if host and user else None), user
        mine = connection.get_option("remote_user") or self._play_context.remote_user or ""
        strict = connection.get_option("host_key_checking")
        more += [] if strict else ["-o", "StrictHostKeyChecking=no"]
        program = "ssh"
        if connection.transport == "ssh":
            program = connection.get_option("ssh_executable") or program
            for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
                more += _login.words(connection.get_option(name) or "")
        login = _login.Login(
            host=host or connection.get_option("host") or connection.get_option("remote_addr"),
            user=user or mine,
            port=port or int(connection.get_option("port") or 0),
            key=key or connection.get_option("private_key_file") or "",
            words=more,
            program=program,
        )
        # Who runs this play became root to do so.
        return login, "" if login.user == mine else login.user


def _refusal(login: _login.Login | None) -> str:
    if login is None:
        return (
            "This play does not come by SSH, so nothing proves that you can still log in: set hardening_login "
            "(host, user, and key where it is no usual one), or run the play over SSH"
        )
    if login.user == "root":
        return "root may not log in any more after this: come as an administrator who uses sudo"
    if not login.user:
        return "It is not said as whom to log in: set ansible_user, or user in hardening_login"
    return ""


def _say(task_vars: dict[str, Any], words: str) -> None:
    _display.display(f"[{task_vars.get('inventory_hostname', 'box')}] {words}")
