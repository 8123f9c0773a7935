#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have the gateway run, from what is on disk now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway
short_description: Have the gateway run, from what is on disk now
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Has C(hearth-gateway.service) and its sockets start at boot and run now.
  - Restarts the gateway where its files are newer than its start, also where an earlier run wrote them and was cut off.
    Requests under way end first; who comes meanwhile waits. Engines are not touched.
  - Has it read the engines again where it need not be restarted, which disturbs nobody.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  files:
    description: What the gateway runs from, beside its environment.
    type: list
    elements: path
    required: true
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: What is done, in words.
    support: full
seealso:
  - module: hearth.spark.api_key
"""

EXAMPLES = r"""
- name: Have the gateway run
  hearth.spark.gateway:
    files: [/etc/hearth/gateway.json, /etc/systemd/system/hearth-gateway.service]
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [start at boot, start]
log:
  description: The last lines of its log.
  returned: failure
  type: list
  elements: str
"""

import asyncio
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "path", "required": True}},
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth.engines.units import Systemd
    from hearth.errors import HearthError
    from hearth.gateway import settings, upkeep

    async def work(stop_s: float) -> tuple[str, ...]:
        files = [*(Path(path) for path in module.params["files"]), upkeep.VENV]
        async with Systemd() as systemd:
            return await upkeep.run(systemd, files, stop_s=stop_s, check=module.check_mode)

    try:
        wanted = settings.load()
        actions = asyncio.run(work(wanted.stop_s))
        if not (actions or module.check_mode):
            actions = tuple(f"take over {name} as it is now" for name in upkeep.reload(Path(wanted.admin_socket)))
    except HearthError as error:
        module.fail_json(msg=str(error), log=list(error.log))
    module.exit_json(
        changed=bool(actions),
        actions=list(actions),
        diff={"before": "", "after": "".join(f"{action}\n" for action in actions)},
    )


if __name__ == "__main__":
    main()
