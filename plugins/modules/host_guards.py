#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have a host's guards run, and its kernel's settings be what they should."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_guards
short_description: Have the guards of a host run from what is on its disk
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Starts units, and restarts those of which a file is newer than their start; stops those that are not wanted.
  - Sets what the kernel is to have, and sets it back when it is no longer wanted; the same for what the box boots to.
    What was there before is kept in C(/var/lib/hearth/host.json).
  - Files are not its work; M(hearth.spark.files) writes them before.
options:
  units:
    description: Units that are to run, now and at boot.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      files:
        description: Where one of these is newer than its start, it is restarted.
        type: list
        elements: path
        default: []
  gone:
    description: Units that are not to run.
    type: list
    elements: str
    default: []
  read:
    description: Other units whose files systemd is to have read.
    type: list
    elements: str
    default: []
  sysctl:
    description: Settings of the kernel, by their names.
    type: dict
    default: {}
  headless:
    description: Whether the box boots without a desktop.
    type: bool
    default: false
  watchdog:
    description: Seconds of the hardware's watchdog, which systemd has from its own settings; 0 for no wish.
    type: int
    default: 0
  manager:
    description: Whether systemd's own settings were changed, so that it has to read them again.
    type: bool
    default: false
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: The actions.
    support: full
"""

EXAMPLES = r"""
- name: Have the guard run
  hearth.spark.host_guards:
    units:
      - name: hearth-guard.service
        files: [/etc/systemd/system/hearth-guard.service]
    sysctl:
      vm.swappiness: 10
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [start hearth-guard.service]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _guards


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "default": []},
                },
            },
            "gone": {"type": "list", "elements": "str", "default": []},
            "read": {"type": "list", "elements": "str", "default": []},
            "sysctl": {"type": "dict", "default": {}},
            "headless": {"type": "bool", "default": False},
            "watchdog": {"type": "int", "default": 0},
            "manager": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    asked = module.params
    refused, todo = _guards.wrong(asked["sysctl"])
    if refused:
        module.fail_json(msg=f"{refused}; {todo}.", actions=[])
    wanted = _guards.Wanted(
        units=tuple(_guards.Unit(one["name"], tuple(one["files"])) for one in asked["units"]),
        gone=tuple(asked["gone"]),
        read=tuple(asked["read"]),
        sysctl={name: str(value) for name, value in asked["sysctl"].items()},
        headless=asked["headless"],
        watchdog_s=asked["watchdog"],
        manager=asked["manager"],
    )
    try:
        actions = _guards.bring(wanted, _guards.Host(), check=module.check_mode)
    except _guards.GuardsError as error:
        module.fail_json(msg=f"{error}.", actions=[])
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        diff={"before": "", "after": "".join(f"{action}\n" for action in actions)},
    )


if __name__ == "__main__":
    main()
