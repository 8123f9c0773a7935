#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Change what lets people in, unless that would lock them out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guarded_files
short_description: Change files of sshd and of the firewall, and undo that unless a new login by key works
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Looks at the whole configuration that sshd would have (C(sshd -t), C(sshd -T)) and at the firewall's rules
    (C(nft -c)) before anything is put in place.
  - Before and after the change the controller logs in anew, by a key and by nothing else, on a connection of its own.
    Without the first login nothing is changed; without the second, what was before comes back at once.
  - A timer on the box undoes the change where nobody confirms it in time, as when the controller dies; so does a boot.
options:
  files:
    description: The files as they should be, by their paths. Where the text is empty there is to be no file.
    type: dict
    required: true
  state:
    description: >-
      With V(absent) all these files and the means of undoing go, without a proof, for nobody is locked out by that.
    type: str
    choices: [present, absent]
    default: present
  effective:
    description: What sshd must have in the end, whatever other files say; keywords and values as C(sshd -T) says them.
    type: dict
    default: {}
  seconds:
    description: So many seconds the change waits for its confirmation.
    type: int
    default: 120
  login:
    description: >-
      C(host), C(port), C(user), C(key) (a file on the controller) and C(arguments) (more words for ssh) of the login.
      Where the play itself comes by SSH, what is left out is as in its connection.
    type: dict
    default: {}
  step:
    description: For the action plugin only; what of this to do.
    type: str
    choices: [plan, apply, confirm, undo]
    default: plan
  admin:
    description: For the action plugin only; who must be allowed to become root on the box.
    type: str
    default: ""
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would change; the configuration is looked at, and the login is tried.
    support: full
  diff_mode:
    description: One diff a file.
    support: full
  action:
    description: The login is made on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Let nobody in by a password
  hearth.spark.guarded_files:
    files:
      /etc/ssh/sshd_config.d/10-hearth.conf: |
        PasswordAuthentication no
    effective:
      passwordauthentication: "no"
"""

RETURN = r"""
paths:
  description: The paths that were changed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/ssh/sshd_config.d/10-hearth.conf]
machine:
  description: The box's machine-id, by which a login knows that it is the same box.
  returned: success
  type: str
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _fileset, _guarded, _program, _sshd

Texts = dict[Path, "str | None"]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "effective": {"type": "dict", "default": {}},
            "seconds": {"type": "int", "default": 120},
            "login": {"type": "dict", "default": {}},
            "step": {"type": "str", "choices": ["plan", "apply", "confirm", "undo"], "default": "plan"},
            "admin": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="Only root may change what sshd and the firewall do: set become to true.")
    absent = module.params["state"] == "absent"
    texts: Texts = {Path(path): None if absent else str(text) or None for path, text in module.params["files"].items()}
    guarded = _guarded.Guarded()
    try:
        result = _remove(guarded, texts, module.check_mode) if absent else _step(guarded, texts, module)
    except (_guarded.GuardedError, _sshd.SshdError, _fileset.FileSetError) as error:
        # What else failed than a plan says itself what is there now.
        untouched = absent or module.params["step"] != "plan"
        module.fail_json(msg=f"{error}." if untouched else f"{error}. Nothing was changed.")
    changed = bool(result.changed)
    machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    module.exit_json(changed=changed, paths=result.changed, diff=result.diff, machine=machine)


def _of_sshd(path: Path) -> bool:
    return _sshd.SSH in path.parents


def _of_firewall(path: Path) -> bool:
    return path in (_guarded.FIREWALL, _guarded.SYSTEMD / _guarded.FIREWALL_UNIT)


def _apply(texts: Texts, *, check: bool) -> _fileset.Result:
    return _fileset.apply([_guarded.entry(path, text) for path, text in texts.items()], [], check=check)


def _step(guarded: _guarded.Guarded, texts: Texts, module: AnsibleModule) -> _fileset.Result:
    step, given = module.params["step"], module.params
    if step == "confirm":
        guarded.confirm()
        return _fileset.Result()
    if step == "undo":
        guarded.undo()
        return _fileset.Result()
    if guarded.waits and not module.check_mode:
        # Of a run that ended half way.
        guarded.undo()
    rules = texts.get(_guarded.FIREWALL)
    plan = _apply(texts, check=True)
    if rules and not plan.changed and not _guarded.firewall_loaded():
        plan.add(_guarded.FIREWALL, "not loaded\n", "loaded\n")
    if not plan.changed:
        return plan
    _sshd.check(texts, {str(word): str(value) for word, value in given["effective"].items()})
    if rules and (not module.check_mode or Path("/usr/sbin/nft").exists()):
        _guarded.check_firewall(rules)
    if given["admin"]:
        _may_become_root(given["admin"])
    if step == "apply" and not module.check_mode:
        _make(guarded, texts, given["seconds"], plan)
    return plan


def _make(guarded: _guarded.Guarded, texts: Texts, seconds: int, plan: _fileset.Result) -> None:
    changed = [Path(path) for path in plan.changed]
    guarded.prepare(seconds)
    guarded.save(list(texts))
    try:
        for path in texts:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _apply(texts, check=False)
        _guarded.reload(
            sshd=any(map(_of_sshd, changed)),
            firewall=any(map(_of_firewall, changed)),
            wanted=bool(texts.get(_guarded.FIREWALL)),
        )
    except (_guarded.GuardedError, _fileset.FileSetError, OSError) as error:
        guarded.undo()
        raise _guarded.GuardedError(f"{error}; what was before is back") from None


def _remove(guarded: _guarded.Guarded, texts: Texts, check: bool) -> _fileset.Result:
    if guarded.waits and not check:
        guarded.undo()
    result = _apply(texts, check=check)
    loaded = _guarded.firewall_loaded()
    if loaded and not result.changed:
        result.add(_guarded.FIREWALL, "loaded\n", "not loaded\n")
    if not check:
        changed = [Path(path) for path in result.changed]
        if changed:
            _guarded.reload(
                sshd=any(map(_of_sshd, changed)) and bool(_sshd.program()),
                firewall=loaded or any(map(_of_firewall, changed)),
                wanted=False,
            )
        guarded.forget()
    return result


def _may_become_root(name: str) -> None:
    """Somebody who can come in must be able to mend things there. Raises GuardedError."""
    done = _program.run("sudo", "-n", "-l", "-U", name, timeout_s=20)
    if "may run the following commands" not in done.stdout:
        raise _guarded.GuardedError(
            f"{name} may not become root on this box (sudo -l -U {name}): name an administrator"
        )


if __name__ == "__main__":
    main()
