#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have Docker run, with settings that are merged into its file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon
short_description: Have Docker run, with settings that are merged into daemon.json
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Lays settings over what C(/etc/docker/daemon.json) says, and changes nothing else in it. Only what differs is in the
    diff.
  - Before the file is written, C(dockerd --validate) looks at it, and the old one is copied beside it.
  - Restarts Docker only where it would not read the settings otherwise, also where an earlier run wrote them and was
    cut off; starts it, now and at boot, where it does not run. A restart ends all containers, and starts again those
    whose restart policy says so.
  - Where the package C(hearth) is there, requests under way end before a restart, those that come meanwhile wait, and
    the engines that ran before run again after it.
  - Where Docker does not come up with the new settings, the old file is put back, and Docker started with that.
options:
  state:
    description: >-
      V(absent) takes back what this module wrote, where nobody has changed it since, and removes the copies that it
      left beside the file. Docker reads the file again; where that takes a restart and containers run, it is left to
      its next start.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description: What the file is to say, in its own words.
    type: dict
    default: {}
  defaults:
    description: >-
      What the file is to say where it says nothing itself. C(log-opts) are left out where it names a log driver that
      does not rotate.
    type: dict
    default: {}
  since:
    description: >-
      Files that Docker looks for only when it starts. It is restarted where one of these is newer than its start.
    type: list
    elements: path
    default: []
  drain:
    description: Seconds that requests under way may take to end before Docker is restarted.
    type: float
    default: 30
  lock_timeout:
    description: Seconds to wait for a change of engines to end.
    type: float
    default: 60
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would be done; the settings are validated as well.
    support: full
  diff_mode:
    description: The settings that differ.
    support: full
"""

EXAMPLES = r"""
- name: Have Docker rotate logs, and give containers CDI devices
  hearth.spark.docker_daemon:
    settings:
      features:
        cdi: true
    defaults:
      log-opts:
        max-size: 50m
        max-file: "3"
  vars:
    # With that one engines are out of the way meanwhile.
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: ["set features", "restart Docker, for features changed"]
told:
  description: With O(state=absent), sentences on what stays, or counts later.
  returned: success
  type: list
  elements: str
drained:
  description: How many requests under way were waited for.
  returned: success
  type: int
  sample: 1
restored:
  description: The engines that run again.
  returned: success
  type: list
  elements: str
  sample: [scout]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _aside, _daemon, _dockerd, _dockerd_back


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "settings": {"type": "dict", "default": {}},
            "defaults": {"type": "dict", "default": {}},
            "since": {"type": "list", "elements": "path", "default": []},
            "drain": {"type": "float", "default": 30},
            "lock_timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    dockerd = _dockerd.Dockerd()
    given = module.params
    if given["state"] == "absent":
        _take_back(module, dockerd)
        return
    features = given["settings"].get("features")
    cdi = isinstance(features, dict) and features.get("cdi") is True
    engines = _aside.Engines(module, _dockerd.DockerError, drain_s=given["drain"], lock_timeout_s=given["lock_timeout"])
    try:
        merged = _daemon.merge(dockerd.text(), given["settings"], given["defaults"])
        if merged.changed:
            dockerd.validate(merged.text)
        todo = _dockerd.step(dockerd, merged, cdi=cdi, since=[Path(path) for path in given["since"]])
        if not module.check_mode:
            _dockerd.carry_out(dockerd, merged, todo, cdi=cdi, around=engines)
    except _daemon.SettingsError as error:
        module.fail_json(msg=f"{_dockerd.SETTINGS} {error}, and run this again. Docker was left as it is.")
    except _dockerd.DockerError as error:
        module.fail_json(msg=f"{error}.")
    changes = [f"set {key}" for key in merged.keys]
    module.exit_json(
        changed=bool(changes or todo.verb),
        actions=[*changes, *([todo.words] if todo.verb else [])],
        drained=engines.drained,
        restored=engines.restored,
        told=[],
        diff=[
            {
                "before_header": str(_dockerd.SETTINGS),
                "after_header": str(_dockerd.SETTINGS),
                "before": merged.before,
                "after": merged.after,
            }
        ]
        if merged.changed
        else [],
    )


def _take_back(module: AnsibleModule, dockerd: _dockerd.Dockerd) -> None:
    """Have the settings without what Hearth wrote."""
    try:
        back = _dockerd_back.plan(dockerd)
        if not module.check_mode:
            _dockerd_back.carry_out(dockerd, back)
    except _dockerd.DockerError as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(
        changed=bool(back.actions),
        actions=list(back.actions),
        drained=0,
        restored=[],
        told=list(back.told),
        diff=back.diff,
    )


if __name__ == "__main__":
    main()
