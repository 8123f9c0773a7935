# SPDX-License-Identifier: Apache-2.0
"""The filter that finds misspelt variables."""

from __future__ import annotations

DOCUMENTATION = r"""
name: misspelt
short_description: Find variables whose names are nearly those of the collection
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - A name that is close to a known one and not known itself is taken for a slip.
  - Others are somebody else's and are left alone.
options:
  _input:
    description: Names of variables.
    type: list
    elements: str
    required: true
  known:
    description: Names of all variables of the collection.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse slips
  ansible.builtin.assert:
    that: "query('ansible.builtin.varnames', '^engines_') | hearth.spark.misspelt(known) | length == 0"
"""

RETURN = r"""
_value:
  description: A sentence for each.
  type: list
  elements: str
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

# By difflib, "engines_modles" scores 0.93 against "engines_models" and "layout_usr" 0.95 against "layout_user", while
# "engines_port" has 0.78 against "engines_gpu".
_SIMILAR = 0.85


def misspelt(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """See DOCUMENTATION."""
    right = set(known)
    sentences = []
    for name in sorted(set(names) - right):
        close = difflib.get_close_matches(name, right, n=1, cutoff=_SIMILAR)
        if close:
            sentences.append(f"{name}: unknown variable; did you mean {close[0]}?")
    return sentences


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"misspelt": misspelt}
