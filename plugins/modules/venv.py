#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep a virtual environment with a hash-locked set of packages and one project."""

from __future__ import annotations

DOCUMENTATION = r"""
module: venv
short_description: Keep a virtual environment with a hash-locked set of packages and one project
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Builds the environment beside the one that serves and moves a link to it when it is complete, so a run that is
    killed leaves the old one in place and the next run heals it.
  - The project is read on the controller and built on the box, without network, with the build backend of the lock.
options:
  path:
    description: Where the environment is found; a link to the folder of the current one below C(venvs) beside it.
    type: path
    required: true
  python:
    description: The interpreter to build it with.
    type: path
    default: /usr/bin/python3
  requirements:
    description: The text of the lock, a hash for each package, the build backend included.
    type: str
    required: true
  project:
    description: >-
      Folder on the controller with C(pyproject.toml) and C(src); its files are read by the action plugin and given to
      the module as O(files).
    type: str
  files:
    description: The files of the project by relative path. Filled in from O(project).
    type: dict
    default: {}
  links:
    description: Links to keep, such as a command on the PATH, to files in the environment.
    type: dict
    default: {}
  environment:
    description: Environment variables for pip, such as V(PIP_INDEX_URL).
    type: dict
    default: {}
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would be built and linked.
    support: full
  diff_mode:
    description: The steps, in words.
    support: full
  action:
    description: The project is read on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Install the box half
  hearth.spark.venv:
    path: /opt/hearth/venv
    requirements: "{{ lookup('ansible.builtin.file', 'requirements.txt') }}"
    project: "{{ role_path }}/../.."
    links:
      /usr/local/bin/hearth: bin/hearth
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
fingerprint:
  description: Names the state of packages, project and interpreter.
  returned: success
  type: str
  sample: 6fbb7c6c7e1a2c41
ready:
  description: The environment at O(path) can be used after this task; false in check mode where it would be made first.
  returned: success
  type: bool
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _venv


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "requirements": {"type": "str", "required": True},
            "project": {"type": "str"},
            "files": {"type": "dict", "default": {}},
            "links": {"type": "dict", "default": {}},
            # May hold a mirror's password.
            "environment": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    wanted = _venv.Wanted(
        path=Path(module.params["path"]),
        python=module.params["python"],
        requirements=module.params["requirements"],
        project=module.params["files"],
        links=module.params["links"],
        environment=module.params["environment"],
    )
    try:
        mark = _venv.fingerprint(wanted)
        actions = _venv.wrong(wanted, mark)
        if actions and not module.check_mode:
            _venv.build(wanted, mark)
    except (_venv.VenvError, OSError) as error:
        module.fail_json(msg=str(error), actions=[], pip=getattr(error, "output", ""))
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        fingerprint=mark,
        ready=(wanted.path / "bin/python").exists(),
        diff={"before": "", "after": "".join(f"{action}\n" for action in actions)},
    )


if __name__ == "__main__":
    main()
