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
  - Waits until requests under way have ended, stops the other engines of the lane, starts the one asked for, waits
    until it is ready, checks that it serves its name and answers, and has it started at boot. Where one of these steps
    fails, what ran before is started again.
  - Does nothing where that is so already; restarts an engine that runs but is sick, or whose unit file is newer than
    its start.
  - The change is a job of systemd on the box. It goes on when the play is interrupted or the connection is lost; the
    same task run again waits for it, and ends as it does. While it lasts, its progress is shown.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  name:
    description: Name or alias of the model; V(none) stops the lane.
    type: str
    required: true
  also:
    description:
      - Models that are to run beside O(name), and are started after it, in this order, as with O(beside).
      - One of them that fails does not keep the others from being started.
    type: list
    elements: str
    default: []
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
  beside:
    description: >-
      Have the model run beside what runs. Others of the main lane stop only where its memory is needed, least recently
      used first.
    type: bool
    default: false
  force:
    description: >-
      Begin although the model is not expected to fit into memory. When it starts, memory is looked at again, and that
      look decides.
    type: bool
    default: false
  drain:
    description: Seconds that requests under way may take to end before their engine is stopped.
    type: float
    default: 30
  timeout:
    description: >-
      Seconds that the model may take to be ready, where its own limit is not to count. V(0) is for its own limit.
    type: float
    default: 0
  lock_timeout:
    description: Seconds to wait for another change on the box to end.
    type: float
    default: 60
  wait:
    description:
      - Seconds to wait for the change to end; without it, until it has ended.
      - For the module's action plugin, which shows progress between two waits.
    type: float
  attach:
    description:
      - The change to wait for, as the RV(attach) of an earlier run.
      - For the module's action plugin, which shows progress between two waits.
    type: str
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Plans the change, tells its steps, and fails where it could not begin.
    support: full
  diff_mode:
    description: What runs in the lane before and after, and what starts at boot where that changes.
    support: full
seealso:
  - module: hearth.spark.engine_health
"""

EXAMPLES = r"""
- name: Switch to Scout, with a minute for requests under way
  hearth.spark.active_model:
    name: scout
    drain: 60
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Have a model for embeddings run beside it
  hearth.spark.active_model:
    name: scout
    also: [bge-m3]
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Stop what runs
  hearth.spark.active_model:
    name: none
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
active:
  description: The model that runs now as O(name), or in its place; V(none) where none does.
  returned: success
  type: str
  sample: scout
before:
  description: The models that ran in its lane before.
  returned: success
  type: list
  elements: str
  sample: [qwen3-32b]
actions:
  description: The steps that were taken, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [stop qwen3-32b (32.0 GiB), start scout (65.0 GiB), 40.0 GiB available after, start scout at boot]
healed:
  description: What an earlier change had left undone, because it was cut off, and what became of it.
  returned: success
  type: list
  elements: str
drained:
  description: How many requests under way were waited for.
  returned: success
  type: int
  sample: 2
seconds:
  description: >-
    How long each part took, in seconds: for files to be brought, for requests to end, for engines to stop, for memory
    to come back, for the model to be ready, for its first answer. With O(also), together.
  returned: success
  type: dict
  sample: {fetch: 0.0, drain: 3.2, stop: 1.2, memory: 0.4, load: 84.5, first: 0.9}
memory:
  description: >-
    Memory of the box in GiB: all of it, what is available after the change, and what no model may take from the host.
  returned: success
  type: dict
  sample: {total: 119.7, available: 40.0, floor: 10.0}
serving:
  description: The models that are up on the box after the change, or would be.
  returned: success
  type: list
  elements: dict
  sample: [{name: scout, url: "http://127.0.0.1:8000", lane: main}]
lines:
  description: What happened and what serves where, in sentences.
  returned: success
  type: list
  elements: str
attach:
  description: The change that goes on, for the option of this name.
  returned: when the change has not ended within O(wait)
  type: str
doing:
  description: What the change does just now, in words.
  returned: when the change has not ended within O(wait)
  type: str
log:
  description: The last lines of the engine's log.
  returned: failure
  type: list
  elements: str
"""

import asyncio
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth

if TYPE_CHECKING:
    from hearth.switching.change import Change
    from hearth.switching.job import Job, Result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "also": {"type": "list", "elements": "str", "default": []},
            "lane": {"type": "str", "choices": ["main", "utility"], "default": "main"},
            "boot": {"type": "bool", "default": True},
            "keep": {"type": "bool", "default": False},
            "beside": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "drain": {"type": "float", "default": 30},
            "timeout": {"type": "float", "default": 0},
            "lock_timeout": {"type": "float", "default": 60},
            "wait": {"type": "float"},
            "attach": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth.errors import HearthError

    try:
        if module.check_mode:
            module.exit_json(**_said(_foretold(_changes(module.params)), foretold=True))
        job = _waited(module)
    except HearthError as error:
        module.fail_json(msg=str(error), log=list(error.log))
    if job.failure is not None:
        module.fail_json(msg=job.failure.sentence, log=list(job.failure.log))
    if job.result is not None:
        module.exit_json(**_said(job.result, foretold=False))
    module.exit_json(changed=False, attach=f"{job.id}/{job.step}", doing=job.words)


def _changes(params: dict[str, Any]) -> list[Change]:
    """What is asked for, in the order in which it is to be done."""
    from hearth.switching.change import Change

    name = params["name"]
    # Each name once: the plan for a second time would see an engine that is up already.
    also = tuple(other for other in dict.fromkeys(params["also"]) if other != name)
    more = {
        "boot": params["boot"],
        "force": params["force"],
        "drain_s": params["drain"],
        "timeout_s": params["timeout"],
    }
    first = Change(
        name=None if name == "none" else name,
        lane=params["lane"],
        keep=params["keep"],
        beside=params["beside"],
        spare=also,
        **more,
    )
    return [first, *(Change(name=other, beside=True, **more) for other in also)]


def _foretold(changes: list[Change]) -> Result:
    from hearth import contract
    from hearth.switching.jobrun import foretell

    return asyncio.run(foretell(contract.load(), changes))


def _waited(module: AnsibleModule) -> Job:
    from hearth.switching import job

    attach = module.params["attach"]
    if attach:
        ident, *step = attach.split("/")
        known = int(step[0]) if step and step[0].isdigit() else -1
        return job.follow(ident, step=known, timeout_s=module.params["wait"])
    begun = job.begin(_changes(module.params), lock_timeout_s=module.params["lock_timeout"])
    return job.follow(begun.id, timeout_s=module.params["wait"])


def _said(result: Result, *, foretold: bool) -> dict[str, Any]:
    return {
        "changed": result.changed,
        "active": result.active,
        "before": list(result.before),
        "actions": list(result.actions),
        "healed": list(result.healed),
        "drained": result.drained,
        "seconds": result.seconds,
        "memory": result.memory,
        "serving": [{"name": one.name, "url": one.url, "lane": one.lane} for one in result.serving],
        "lines": result.lines(foretold=foretold),
        "diff": {"before": result.old, "after": result.new},
    }


if __name__ == "__main__":
    main()
