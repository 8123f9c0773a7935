# SPDX-License-Identifier: Apache-2.0
"""The filter that says how a box's engines get its GPU."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gpu_plan
short_description: Say how the engines of a box get its GPU, and what is missing for that
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Looks at what was read of the box only.
options:
  _input:
    description: What M(hearth.spark.spark_facts) read of the box, with its user.
    type: dict
    required: true
  gpu:
    description: Whether there is a GPU of NVIDIA's. V(auto) is for where there is its driver.
    type: str
    choices: [auto, nvidia, none]
    default: auto
  install:
    description: Whether what is missing may be installed. On DGX OS it never is.
    type: bool
    default: true
  version:
    description: The version of the toolkit that is wanted; empty for any.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: How engines get the GPU
  ansible.builtin.debug:
    msg: "{{ (ansible_facts['spark'] | hearth.spark.gpu_plan).way }}"
"""

RETURN = r"""
_value:
  description: >-
    C(nvidia), whether there is to be a GPU; C(managed), whether the toolkit is the role's to install; C(pin), its
    version as apt has it; C(packages), what apt is to install of it; C(refused), why it cannot be; C(way), the value
    for C(engines_gpu); C(spec), the file for its CDI specification; C(missing), sentences on what is not as it should
    be, each with what to do; C(versions), what there is, in words.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _gpu


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gpu_plan": _gpu.plan}
