# SPDX-License-Identifier: Apache-2.0
"""The filter that says whether Hearth can work on a box."""

from __future__ import annotations

DOCUMENTATION = r"""
name: verdicts
short_description: Say whether Hearth can work on a box, and what is to be done where it cannot
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Looks at what was read of the box only.
options:
  _input:
    description: What M(hearth.spark.spark_facts) read of the box.
    type: dict
    required: true
  settings:
    description: >-
      C(systems), the lowest version of each supported system; C(architectures); C(user), who is to own the models;
      C(install_docker), whether a missing Docker is installed; C(names), which names the box was to resolve.
    type: dict
    required: true
  answers:
    description: Of roles that were asked, each with C(check) and what was C(refused), empty where nothing was.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Whatever stands in the way
  ansible.builtin.debug:
    msg: "{{ (ansible_facts['spark'] | hearth.spark.verdicts(settings)).blockers }}"
"""

RETURN = r"""
_value:
  description: >-
    C(verdicts), each with C(check), C(level) (ok, warning or blocker), what it C(says) and what is C(todo); C(lines),
    which show them to a person; C(blockers) and C(warnings), the sentences of these.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _verdicts


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"verdicts": _verdicts.report}
