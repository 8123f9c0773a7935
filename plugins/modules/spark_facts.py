#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Read, in one run, everything the roles need to know of a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: spark_facts
short_description: Read everything the roles need to know of a box, in one run
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Reads operating system, DGX release, memory, Docker, CDI devices, the user who owns the models, listening ports and
    engine units. Nothing is required to exist, so it works on any Linux host.
  - The serial number that C(/etc/dgx-release) holds is never read into the facts.
options:
  user:
    description: The user who owns C(~/ai). Its home resolves C(~) in O(paths).
    type: str
    default: ""
  paths:
    description: Paths to look at. A leading C(~/) is the home of O(user).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Reads only, so check mode is the same.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Read the box
  hearth.spark.spark_facts:
    user: spark
    paths: [~/ai/models/tiny/tiny-a/tiny-a.gguf]
"""

RETURN = r"""
ansible_facts:
  description: The facts, below the one key C(spark).
  returned: always
  type: dict
  contains:
    spark:
      description: >-
        C(os), C(dgx), C(arch), C(kernel), C(python), C(memory), C(systemd), C(docker), C(cdi), C(user), C(paths),
        C(listening) and C(units).
      type: dict
"""

import importlib.util
import pwd
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _facts


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    user = None
    if module.params["user"]:
        try:
            entry = pwd.getpwnam(module.params["user"])
        except KeyError:
            pass
        else:
            user = {"name": entry.pw_name, "uid": entry.pw_uid, "gid": entry.pw_gid, "home": entry.pw_dir}
    module.exit_json(
        changed=False,
        ansible_facts={
            "spark": {
                **_facts.read(Path("/")),
                "python": {
                    "executable": sys.executable,
                    "version": sys.version.split()[0],
                    "venv": importlib.util.find_spec("ensurepip") is not None,
                },
                "user": user or {},
                "paths": {path: _facts.look_at(path, user) for path in module.params["paths"]},
            }
        },
    )


if __name__ == "__main__":
    main()
