#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring a set of files and folders to what it should be, in one run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Bring a set of files and folders to what it should be, in one run
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Compares every entry first and writes only what differs; each file is replaced atomically.
  - One run for sixty files costs about what one run of M(ansible.builtin.template) does, and gives one diff of all.
options:
  entries:
    description: The set.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path on the box.
        type: path
        required: true
      state:
        description: What should be there.
        type: str
        choices: [file, directory, absent]
        default: file
      content:
        description: The text of the file.
        type: str
      template:
        description: Name of a template of the role, rendered on the controller; its result is O(entries[].content).
        type: str
      vars:
        description: Variables for O(entries[].template), beside those of the task.
        type: dict
      generate:
        description: >-
          Text to write where the file is missing, with C({token}) replaced by a fresh random token of 256 bits.
          An existing file keeps its content.
        type: str
      mode:
        description: Octal mode; V(0644) for a file and V(0755) for a folder unless given.
        type: str
      owner:
        description: Owner's name; the user of the task unless given.
        type: str
      group:
        description: Group's name; the owner's own group unless given.
        type: str
      adopt:
        description: >-
          For a folder of a user. It is made as that user; an existing one keeps its mode and group, and a symbolic link
          to a folder is left alone.
        type: bool
        default: false
      secret:
        description: Content is never shown in a diff.
        type: bool
        default: false
  purge:
    description: Files to remove that are in none of the entries.
    type: list
    elements: dict
    default: []
    suboptions:
      folder:
        description: Where to look; folders below it are not entered.
        type: path
        required: true
      pattern:
        description: Shell pattern of the names to remove.
        type: str
        required: true
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: One diff a path; secrets are left out.
    support: full
  action:
    description: Templates are rendered on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Write the units
  hearth.spark.files:
    entries:
      - path: /etc/hearth
        state: directory
      - path: /etc/systemd/system/hearth-engine-scout.service
        template: engine.service.j2
        vars:
          engine: "{{ scout }}"
    purge:
      - folder: /etc/systemd/system
        pattern: hearth-engine-*.service
"""

RETURN = r"""
paths:
  description: The paths that were changed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/hearth/engines.json]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _fileset

ENTRY_OPTIONS = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
    "content": {"type": "str"},
    "template": {"type": "str"},
    "vars": {"type": "dict"},
    "generate": {"type": "str"},
    "mode": {"type": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "adopt": {"type": "bool", "default": False},
    "secret": {"type": "bool", "default": False, "no_log": False},
}
PURGE_OPTIONS = {
    "folder": {"type": "path", "required": True},
    "pattern": {"type": "str", "required": True},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "entries": {"type": "list", "elements": "dict", "required": True, "options": ENTRY_OPTIONS},
            "purge": {"type": "list", "elements": "dict", "default": [], "options": PURGE_OPTIONS},
        },
        supports_check_mode=True,
    )
    try:
        result = _fileset.apply(
            [_fileset.entry_from(entry) for entry in module.params["entries"]],
            [
                _fileset.Purge(folder=Path(purge["folder"]), pattern=purge["pattern"])
                for purge in module.params["purge"]
            ],
            module.check_mode,
        )
    except _fileset.FileSetError as error:
        module.fail_json(msg=str(error), paths=[])
    module.exit_json(changed=bool(result.changed), paths=result.changed, diff=result.diff)


if __name__ == "__main__":
    main()
