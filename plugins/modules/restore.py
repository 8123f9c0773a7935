#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Put what was saved by the module backup back onto a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Put what was saved by the module backup back onto a box
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Reads all of the archive first, on the controller and on the box. One that is damaged, of a newer format, or with
    a path that is none of what Hearth saves is refused, and nothing is changed.
  - Keys, secrets and O(extra) are as they were saved. What was measured is laid beside what was measured since, and
    tags of images mean again what they meant, from the next C(site.yml) on.
  - C(engines.json) and C(gateway.json) come of the inventory, by C(site.yml), and are left alone.
  - Engines start at boot as they did, as far as the box has them. Where the key of the engines differs, the gateway and
    the engines that run are restarted, after the answers under way.
options:
  archive:
    description: The archive on the controller.
    type: path
    required: true
  extra:
    description: Files and folders that may be in the archive beside Hearth's own.
    type: list
    elements: str
    default: []
  src:
    description: The archive on the box, which the action plugin chooses and brings.
    type: path
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would be put back.
    support: full
  diff_mode:
    description: There are secrets in it; no content is shown.
    support: none
  action:
    description: Looks at the archive on the controller, and brings it.
    support: full
"""

EXAMPLES = r"""
- name: Put it back
  hearth.spark.restore:
    archive: ~/hearth-backups/spark-2026-11-28T09-00-00Z.tar.gz
"""

RETURN = r"""
restored:
  description: The files that were put back, or would be.
  returned: success
  type: list
  elements: str
  sample: [/etc/hearth/keys.json]
actions:
  description: What was done beside that.
  returned: success
  type: list
  elements: str
  sample: [restart hearth-gateway.service]
told:
  description: Sentences on what is not as it was.
  returned: success
  type: list
  elements: str
"""

from contextlib import nullcontext
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _backup, _gone, _program, _restore

_ENGINES = "hearth-engine-*.service"
_GATEWAY = "hearth-gateway.service"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "extra": {"type": "list", "elements": "str", "default": []},
            "src": {"type": "path"},
        },
        supports_check_mode=True,
    )
    if module.params["src"] is None:
        module.fail_json(msg="the action plugin of this module brings the archive; it did not run.")
    src = Path(module.params["src"])
    try:
        if not Path("/etc/hearth/engines.json").exists():
            raise _backup.BackupError("this box has no Hearth yet: run site.yml against it first")
        manifest = _backup.look(src, module.params["extra"])
        with nullcontext() if module.check_mode else _restore.alone():
            places = _restore.plan(manifest, src)
            commands, told = follow(manifest, places)
            if not module.check_mode:
                _restore.put(places, src)
        # Not while the lock is held: an engine that starts wants it.
        if not module.check_mode:
            _carry_out(commands)
    except _backup.BackupError as error:
        module.fail_json(msg=f"{error}.")
    restored = [place.saved.path for place in places]
    actions = [" ".join(command[1:]) for command in commands]
    module.exit_json(changed=bool(restored or actions), restored=restored, actions=actions, told=told)


def follow(manifest: _backup.Manifest, places: list[_restore.Place]) -> tuple[list[tuple[str, ...]], list[str]]:
    """What systemd has to do for it, and sentences on what cannot be as it was."""
    words = ("--no-legend", "--no-pager", "--full", _ENGINES)
    files = _program.run("systemctl", "list-unit-files", *words).stdout
    listed = _program.run("systemctl", "list-units", "--all", "--plain", *words).stdout
    here = {line.split()[0] for line in files.splitlines() if line.strip()}
    boot = {unit.name for unit in _gone.units("", files)}
    wanted = set(manifest.boot)
    commands: list[tuple[str, ...]] = [("systemctl", "enable", name) for name in sorted((wanted & here) - boot)]
    # Where none of them is here, what starts at boot stays as it is.
    if wanted & here or not wanted:
        commands += [("systemctl", "disable", name) for name in sorted(boot - wanted)]
    told = [f"{name} started at boot, and is none of this box's engines any more" for name in sorted(wanted - here)]
    paths = {place.saved.path for place in places}
    if _restore.ENGINE_KEY in paths:
        running = [unit.name for unit in _gone.units(listed, "") if unit.runs]
        # Its sockets hold back who comes; a stop lets answers under way end.
        commands.append(("systemctl", "stop", _GATEWAY))
        commands += [("systemctl", "restart", name) for name in running]
        commands.append(("systemctl", "start", _GATEWAY))
    if _restore.IMAGES in paths:
        told.append("Tags of images mean again what they meant: run site.yml, which brings what that takes")
    return commands, told


def _carry_out(commands: list[tuple[str, ...]]) -> None:
    failed = []
    for command in commands:
        done = _program.run(*command)
        if done.returncode:
            failed.append(f"{' '.join(command)} failed ({' '.join(done.stderr.split())})")
    if failed:
        raise _backup.BackupError(f"all files are back, and {'; '.join(failed)}: see hearth doctor on the box")


if __name__ == "__main__":
    main()
