#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Make, change, revoke or list the keys of the gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: api_key
short_description: Make, change, revoke or list the keys of the gateway
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - A key that is not there is made. Its secret is shown once on the screen of whoever runs the play. It is in no
    result, no fact and no log, and never gets to the box, which is told its SHA-256 only.
  - A key that is there keeps its secret. Its scopes and limits are changed where others are given.
  - A change counts within a second, without a restart of the gateway.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  name:
    description: The key's name, of letters, digits and C(.), C(_), C(-). Without it the keys are listed only.
    type: str
  state:
    description: Whether the key should be there. To revoke one that is not there is an error, for it may be a slip.
    type: str
    choices: [present, absent]
    default: present
  scopes:
    description: >-
      What it may: ask C(models), or load, unload and switch them (C(admin)). A new key gets C(models) unless told.
    type: list
    elements: str
    choices: [models, admin]
  concurrency:
    description: How many of its requests may be under way at a time. V(0) for any number, as new keys have it.
    type: int
  per_minute:
    description: How many requests it may make in a minute. V(0) for any number, as new keys have it.
    type: int
  first:
    description: Make the key only where there is none at all.
    type: bool
    default: false
  sha256:
    description: The SHA-256 of a new key's secret, as hexadecimal. The action plugin makes a secret, and gives this.
    type: str
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would change. No secret is shown.
    support: full
  diff_mode:
    description: The list of keys before and after.
    support: full
  action:
    description: The secret is made and shown on the controller.
    support: full
"""

EXAMPLES = r"""
- name: A key for the laptop, for four requests at a time
  hearth.spark.api_key:
    name: laptop
    concurrency: 4
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: The laptop was lost
  hearth.spark.api_key:
    name: laptop
    state: absent
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
made:
  description: Whether the key was made, or would be in check mode.
  returned: success
  type: bool
keys:
  description: All keys after the change, without their hashes.
  returned: success
  type: list
  elements: dict
  sample: [{name: laptop, scopes: [models], concurrency: 4, per_minute: 0, made: "2026-11-21T05:00:00Z"}]
lines:
  description: The same as a table.
  returned: success
  type: list
  elements: str
"""

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth

if TYPE_CHECKING:
    from hearth.gateway.keys import Key


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "scopes": {"type": "list", "elements": "str", "choices": ["models", "admin"]},
            "concurrency": {"type": "int"},
            "per_minute": {"type": "int"},
            "first": {"type": "bool", "default": False},
            "sha256": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth.cli import tables
    from hearth.errors import HearthError
    from hearth.gateway import keys

    params = module.params
    try:
        before = keys.read()
        after = dict(before)
        if params["name"] and not (params["first"] and before):
            if module.check_mode:
                _ask(after, params)
            else:
                with keys.change() as after:
                    before = dict(after)
                    _ask(after, params)
    except HearthError as error:
        module.fail_json(msg=str(error))
    lines = [tables.keys(list(known.values())) for known in (before, after)]
    module.exit_json(
        changed=before != after,
        made=len(after) > len(before),
        keys=[keys.shown(key) for key in after.values()],
        lines=lines[1],
        diff={"before": "\n".join([*lines[0], ""]), "after": "\n".join([*lines[1], ""])},
    )


def _ask(known: dict[str, Key], params: dict[str, Any]) -> None:
    """Change ``known`` as the options ask for."""
    import msgspec

    from hearth.errors import KeysError
    from hearth.gateway import keys

    name = params["name"]
    if params["state"] == "absent":
        keys.revoke(known, name)
        return
    wanted = {field: params[field] for field in ("scopes", "concurrency", "per_minute") if params[field] is not None}
    if "scopes" in wanted:
        wanted["scopes"] = tuple(wanted["scopes"])
    if name in known:
        known[name] = msgspec.structs.replace(known[name], **wanted)
        return
    if not params["sha256"]:
        raise KeysError(f"the new key {name!r} has no secret: the option sha256 is missing")
    keys.add(known, keys.Key(name=name, sha256=params["sha256"], made=keys.now(), **wanted))


if __name__ == "__main__":
    main()
