#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Save what cannot be downloaded again of a box into one archive on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Save what cannot be downloaded again of a box
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Saves C(/etc/hearth) with keys and secrets, what was measured and learned of models and images, which engines start
    at boot, and O(extra), as one archive in a folder of the controller.
  - The archive is readable for its owner alone, on the box and on the controller. Nothing of it is in a result, on a
    command line or in a log.
  - The archive is read again when it has arrived, and has its name only when all is as it was saved.
options:
  folder:
    description: The folder on the controller. It is made, for its owner alone, where it is missing.
    type: path
  extra:
    description: Files and folders of the box to save as well, such as the data of Open WebUI.
    type: list
    elements: str
    default: []
  dest:
    description: The archive on the box, which the action plugin chooses and fetches.
    type: path
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would be saved; nothing is written.
    support: full
  diff_mode:
    description: There is nothing to compare with.
    support: none
  action:
    description: Fetches the archive and looks at it on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Save it
  hearth.spark.backup:
    folder: ~/hearth-backups
    extra: [/var/lib/docker/volumes/open-webui/_data]
"""

RETURN = r"""
archive:
  description: The archive on the controller.
  returned: success, not in check mode
  type: str
  sample: ~/hearth-backups/spark-2026-11-28T09-00-00Z.tar.gz
sha256:
  description: Its SHA-256.
  returned: success, not in check mode
  type: str
files:
  description: The paths that were saved.
  returned: success
  type: list
  elements: str
  sample: [/etc/hearth/keys.json]
told:
  description: Sentences on what was left out.
  returned: success
  type: list
  elements: str
"""

import hashlib
import socket
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _backup, _gone, _hearth, _program


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path"},
            "extra": {"type": "list", "elements": "str", "default": []},
            "dest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    dest = module.params["dest"]
    if dest is None and not module.check_mode:
        module.fail_json(msg="the action plugin of this module says where the archive is made; it did not run.")
    try:
        if not Path("/etc/hearth/engines.json").exists():
            raise _backup.BackupError("this box has no Hearth that could be saved: run site.yml against it first")
        paths, told = _backup.collect(module.params["extra"])
        if module.check_mode:
            module.exit_json(changed=True, files=paths, told=told)
        head = {
            "hearth": _hearth.VERSION,
            "host": socket.gethostname(),
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "boot": boot_units(),
        }
        _backup.write(Path(dest), paths, head)
    except _backup.BackupError as error:
        module.fail_json(msg=f"{error}.")
    with Path(dest).open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    module.exit_json(changed=True, files=paths, told=told, sha256=digest, made=head["made"])


def boot_units() -> list[str]:
    """The units of engines that start at boot."""
    words = ("--no-legend", "--no-pager", "--full", "hearth-engine-*.service")
    return sorted(unit.name for unit in _gone.units("", _program.run("systemctl", "list-unit-files", *words).stdout))


if __name__ == "__main__":
    main()
