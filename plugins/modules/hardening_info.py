#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Read what the role hardening needs to know of a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hardening_info
short_description: Read where sshd listens, what is installed, and who may read the secrets of a box
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Asks sshd for its effective configuration, and looks at owners and modes of secrets. Reads no secret's content into
    its result, and changes nothing.
options:
  programs:
    description: Files of which it says whether they are there.
    type: list
    elements: path
    default: []
  user:
    description: Whose home is looked at for logins and tokens, beside root's.
    type: str
    default: ""
  tunnel_user:
    description: The name that the user is to have who may forward to the gateway.
    type: str
    default: tunnel
extends_documentation_fragment:
  - hearth.spark.attributes
  - hearth.spark.attributes.info
"""

EXAMPLES = r"""
- name: Read where sshd listens
  hearth.spark.hardening_info:
  register: box
"""

RETURN = r"""
ssh:
  description: C(installed), and C(ports), by sshd's own word and by its socket's.
  returned: success
  type: dict
  sample: {"installed": true, "ports": [22]}
missing:
  description: Those of O(programs) that are not there.
  returned: success
  type: list
  elements: str
bridges:
  description: Bridges whose names begin as those of Docker's networks do, and are not Docker's.
  returned: success
  type: list
  elements: str
tunnel_users:
  description: The users that the role made for forwarding.
  returned: success
  type: list
  elements: str
taken:
  description: Whether O(tunnel_user) is the name of somebody else.
  returned: success
  type: bool
secrets:
  description: Verdicts on files with secrets; C(level) is V(ok) or V(warning), C(says) and C(todo) are sentences.
  returned: success
  type: list
  elements: dict
lines:
  description: These verdicts, a line each.
  returned: success
  type: list
  elements: str
"""

import pwd
import re
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _program, _secrets, _sshd

# By this comment the role knows its own users.
_TUNNEL = "Hearth tunnel"
# libnetwork calls a bridge br- and the first twelve digits of the network's id.
_DOCKERS = re.compile(r"br-[0-9a-f]{12}")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "programs": {"type": "list", "elements": "path", "default": []},
            "user": {"type": "str", "default": ""},
            "tunnel_user": {"type": "str", "default": "tunnel"},
        },
        supports_check_mode=True,
    )
    installed = bool(_sshd.program())
    ports: list[int] = []
    if installed:
        try:
            said = _sshd.run("-T")
        except _sshd.SshdError as error:
            module.fail_json(msg=f"{error}.")
        if said.returncode:
            module.fail_json(
                msg=f"sshd refuses its present configuration: {said.stderr.strip()}. Mend that first (sshd -t)."
            )
        ports = _sshd.ports(_sshd.effective(said.stdout), _socket())
    home = None
    with suppress(KeyError):
        home = Path(pwd.getpwnam(module.params["user"]).pw_dir) if module.params["user"] else None
    net = Path("/sys/class/net")
    tunnel_users = sorted(user.pw_name for user in pwd.getpwall() if user.pw_gecos == _TUNNEL)
    name = module.params["tunnel_user"]
    secrets = _secrets.look(Path("/"), home)
    module.exit_json(
        changed=False,
        ssh={"installed": installed, "ports": ports},
        missing=[path for path in module.params["programs"] if not Path(path).exists()],
        bridges=sorted(path.name for path in net.glob("br-*") if not _DOCKERS.fullmatch(path.name)),
        tunnel_users=tunnel_users,
        taken=name not in tunnel_users and any(user.pw_name == name for user in pwd.getpwall()),
        secrets=secrets,
        lines=[f"{one['level']}: {one['says']}" + (f" ({one['todo']})" if one["todo"] else "") for one in secrets],
    )


def _socket() -> str:
    """Where systemd listens for sshd; empty where it does not."""
    said = _program.run("systemctl", "show", "ssh.socket", "--property=ActiveState,Listen", timeout_s=20).stdout
    return said if "ActiveState=active" in said else ""


if __name__ == "__main__":
    main()
