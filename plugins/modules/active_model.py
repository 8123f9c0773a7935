#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Make one model the one that runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: active_model
short_description: Make one model the one that runs in its lane
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Stops the other engines of the lane, starts the one asked for, waits until it answers, checks that it serves its
    name, and has it started at boot.
  - Does nothing where that is so already; restarts an engine that runs but is sick, or whose unit file is newer than
    its start.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  name:
    description: Name or alias of the model; V(none) stops the lane.
    type: str
    required: true
  lane:
    description: The lane that V(none) stops. A model has its own lane.
    type: str
    choices: [main, utility]
    default: main
  boot:
    description: Move the start at boot along.
    type: bool
    default: true
  keep:
    description: >-
      Leave an engine alone that was chosen for the lane earlier, and take O(name) only where none was. The engine that
      stays is started where it is down, and restarted where it is sick.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another switch to end.
    type: float
    default: 60
attributes:
  check_mode:
    description: Plans the switch and tells its steps.
    support: full
  diff_mode:
    description: The active model before and after.
    support: full
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Switch to Scout
  hearth.spark.active_model:
    name: scout
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
active:
  description: The model that runs in the lane now; V(none) where none does.
  returned: success
  type: str
  sample: scout
before:
  description: The models that ran in the lane before.
  returned: success
  type: list
  elements: str
actions:
  description: The steps that were taken, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [stop qwen3-32b, start scout, start scout at boot]
seconds:
  description: How long stopping and starting took, in seconds. Starting includes loading.
  returned: success
  type: dict
  sample: {stop: 1.2, start: 84.5}
log:
  description: The last lines of the engine's log.
  returned: failure
  type: list
  elements: str
"""

import asyncio

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "lane": {"type": "str", "choices": ["main", "utility"], "default": "main"},
            "boot": {"type": "bool", "default": True},
            "keep": {"type": "bool", "default": False},
            "lock_timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth import contract, errors
    from hearth.switch import switch

    name = module.params["name"]
    try:
        outcome = asyncio.run(
            switch(
                contract.load(),
                None if name == "none" else name,
                lane=module.params["lane"],
                boot=module.params["boot"],
                keep=module.params["keep"],
                dry=module.check_mode,
                lock_timeout_s=module.params["lock_timeout"],
            )
        )
    except errors.HearthError as error:
        module.fail_json(msg=str(error), log=list(error.log))
    plan = outcome.plan
    active = outcome.active or "none"
    module.exit_json(
        changed=plan.changes,
        active=active,
        before=list(plan.before),
        actions=plan.sentences(),
        seconds={"stop": round(outcome.stop_s, 3), "start": round(outcome.start_s, 3)},
        diff={"before": f"active: {', '.join(plan.before) or 'none'}\n", "after": f"active: {active}\n"},
    )


if __name__ == "__main__":
    main()
