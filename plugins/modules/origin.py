#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write down what a box has before Hearth changes it, and take packages and folders back to that."""

from __future__ import annotations

DOCUMENTATION = r"""
module: origin
short_description: Write down what a box has before Hearth, and take packages and folders back to that
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - With O(state=recorded), the packages that are installed, and which of O(paths) are there, are written to
    C(/var/lib/hearth/origin.json), once. Whatever is there already stays as it is.
  - With O(state=restored), folders that were not there then are removed as far as nothing lies in them, and with
    O(purge) the packages of O(packages) that were not there then, with what apt brought along for them.
  - A package stays that one from before Hearth needs, or one that somebody asked for since; so does everything where
    nothing was written down. It is said why.
options:
  state:
    description: Whether to write it down, or to go back to it.
    type: str
    choices: [recorded, restored]
    default: recorded
  paths:
    description: Paths to look at, with O(state=recorded).
    type: list
    elements: path
    default: []
  packages:
    description: What Hearth may have installed. A version behind the name, C(=1.2-3), is left out of account.
    type: list
    elements: str
    default: []
  purge:
    description: Purge these; without it they are named only.
    type: bool
    default: false
  files:
    description: >-
      Files that belong to O(packages), such as an apt source of theirs, and go with them where they were not there.
    type: list
    elements: path
    default: []
  folders:
    description: Remove the folders that are empty.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another package manager's run to end.
    type: float
    default: 600
extends_documentation_fragment:
  - hearth.spark.attributes.debian
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: A line for everything that goes.
    support: full
"""

EXAMPLES = r"""
- name: Write down what is here
  hearth.spark.origin:
    paths: [/home/spark/ai]

- name: Have the packages gone that were not there
  hearth.spark.origin:
    state: restored
    packages: [docker.io, polkitd]
    purge: true
"""

RETURN = r"""
removed:
  description: What went, or would go in check mode.
  returned: success
  type: list
  elements: str
  sample: [purge docker.io, remove /home/spark/ai/logs]
kept:
  description: The packages that Hearth brought, and that stay since O(purge) was not asked for.
  returned: success
  type: list
  elements: str
  sample: [docker.io]
told:
  description: Sentences on what stays although it was to go.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _origin


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["recorded", "restored"], "default": "recorded"},
            "paths": {"type": "list", "elements": "path", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "purge": {"type": "bool", "default": False},
            "files": {"type": "list", "elements": "path", "default": []},
            "folders": {"type": "bool", "default": False},
            "lock_timeout": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        origin = _origin.load()
        if module.params["state"] == "recorded":
            _record(module, origin)
        else:
            _restore(module, origin)
    except _origin.OriginError as error:
        module.fail_json(msg=f"{error}.")


def _record(module: AnsibleModule, origin: _origin.Origin | None) -> None:
    if origin is None and not module.check_mode:
        paths = {path: Path(path).exists() for path in module.params["paths"]}
        _origin.save(_origin.Origin(packages=_origin.installed(), paths=paths))
    module.exit_json(changed=origin is None, removed=[], kept=[], told=[])


def _restore(module: AnsibleModule, origin: _origin.Origin | None) -> None:
    given = module.params
    if origin is None:
        said = f"{_origin.RECORD} is not there, so nobody knows which packages and folders Hearth brought: all stay"
        module.exit_json(changed=False, removed=[], kept=[], told=[said])
        return
    ours = _origin.ours(origin, given["packages"], _origin.installed())
    going: list[str] = []
    told: list[str] = []
    if given["purge"] and ours:
        held, told = _origin.kept_by_docker(ours)
        wanted = [name for name in ours if name not in held]
        going, more = _origin.plan(
            origin,
            wanted,
            manual=_origin.manual_packages(),
            needs=_origin.needed(wanted),
            simulate=_origin.simulate,
        )
        told += more
    files = [path for path in given["files"] if origin.paths.get(path) is False and Path(path).is_file()]
    files = files if given["purge"] and not told else []
    folders = _origin.empty_folders(origin) if given["folders"] else []
    if not module.check_mode:
        _origin.purge(going, given["lock_timeout"])
        for path in files:
            Path(path).unlink(missing_ok=True)
        _origin.remove_folders(folders)
    removed = [*(f"purge {name}" for name in going), *(f"remove {path}" for path in [*files, *folders])]
    module.exit_json(
        changed=bool(removed),
        removed=removed,
        kept=[] if given["purge"] else ours,
        told=told,
        diff={"before": "".join(f"{line}\n" for line in removed), "after": ""},
    )


if __name__ == "__main__":
    main()
