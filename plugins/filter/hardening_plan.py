# SPDX-License-Identifier: Apache-2.0
"""The filter that checks what is asked of the role hardening."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hardening_plan
short_description: Check what is asked of the role hardening, and turn it into lines of files
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Wrong input is refused with a sentence that names the variable.
  - Pure; reads nothing of the box.
options:
  _input:
    description: Public keys of who may forward to the gateway, each as in a C(.pub) file.
    type: list
    elements: str
    required: true
  user:
    description: The name of their user.
    type: str
    required: true
  port:
    description: The gateway's port.
    type: int
    required: true
  allow:
    description: What else may come in; each C(port), C(from), or both, and C(proto).
    type: list
    elements: dict
    required: true
  inside:
    description: Names of interfaces from which everything may come in.
    type: list
    elements: str
    required: true
  settings:
    description: More settings of sshd.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What is wrong
  ansible.builtin.debug:
    msg: >-
      {{ (hardening_tunnel_keys | hearth.spark.hardening_plan(user='tunnel', port=8009, allow=[], inside=[],
         settings={})).refused }}
"""

RETURN = r"""
_value:
  description: >-
    C(refused), sentences on what is wrong; C(keys), lines of an authorized_keys file; C(allow), rules of nftables.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _hardening


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"hardening_plan": _hardening.plan}
