#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have units, containers, images and files gone, in one go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: absent
short_description: Have units, containers, images and files gone, in one go
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Stops and disables units first, then removes containers, images, files and folders, in this order.
  - What is not there is as it should be, so a removal that was cut off is finished by the next one.
  - A folder goes with all that is in it. A symbolic link goes, and what it leads to stays.
  - Needs the box's Python alone, not the package C(hearth).
options:
  units:
    description: Shell patterns of units to stop and to disable. Their files belong into O(paths).
    type: list
    elements: str
    default: []
  containers:
    description: Containers to remove, each a filter of C(docker container ls).
    type: list
    elements: str
    default: []
  images:
    description: Names of images to remove, each a pattern of the filter C(reference) of C(docker image ls).
    type: list
    elements: str
    default: []
  paths:
    description: >-
      Shell patterns of files and folders to remove. Absolute, at least two folders deep, and without a pattern's signs
      in the names of these two.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would go.
    support: full
  diff_mode:
    description: A line for everything that goes, without its content.
    support: full
"""

EXAMPLES = r"""
- name: Have no engine
  hearth.spark.absent:
    units: [hearth-engine-*.service]
    containers: [label=hearth.engine]
    paths: [/etc/systemd/system/hearth-engine-*.service]
"""

RETURN = r"""
removed:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: ["stop and disable hearth-gateway.service", "remove /etc/hearth"]
told:
  description: Sentences on what could not be looked at.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _gone


def main() -> None:
    """Entry point."""
    kinds = ("units", "containers", "images", "paths")
    module = AnsibleModule(
        argument_spec={kind: {"type": "list", "elements": "str", "default": []} for kind in kinds},
        supports_check_mode=True,
    )
    refused = _gone.refused(module.params["paths"])
    if refused:
        module.fail_json(msg=f"paths: {refused}.")
    steps, told = _gone.find(_gone.Wish(**{kind: module.params[kind] for kind in kinds}))
    if not module.check_mode:
        try:
            _gone.remove(steps)
        except _gone.GoneError as error:
            module.fail_json(msg=f"{error}: mend that, and run this again.")
    for sentence in told:
        module.warn(f"{sentence}.")
    removed = [step.words for step in steps]
    diff = {"before": "".join(f"{line}\n" for line in removed), "after": ""}
    module.exit_json(changed=bool(steps), removed=removed, told=told, diff=diff)


if __name__ == "__main__":
    main()
