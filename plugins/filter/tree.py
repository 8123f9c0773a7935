# SPDX-License-Identifier: Apache-2.0
"""The filter that makes entries of folders."""

from __future__ import annotations

DOCUMENTATION = r"""
name: tree
short_description: Make entries for hearth.spark.files from folders of a user's tree
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Names every folder on the way too, so that each is made by its owner.
options:
  _input:
    description: Folders, relative to the tree.
    type: list
    elements: str
    required: true
  root:
    description: The tree; C(~) is the user's home.
    type: str
    required: true
  user:
    description: The user as M(hearth.spark.spark_facts) tells, with C(name) and C(home).
    type: dict
    required: true
  mode:
    description: Octal mode of folders that are made.
    type: str
    default: "0755"
"""

EXAMPLES = r"""
- name: Make the tree
  hearth.spark.files:
    entries: "{{ ['models/qwen3'] | hearth.spark.tree('~/ai', ansible_facts['spark']['user']) }}"
"""

RETURN = r"""
_value:
  description: The entries, parents first.
  type: list
  elements: dict
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def tree(folders: Iterable[str], root: str, user: Mapping[str, Any], mode: str = "0755") -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    top = posixpath.normpath(re.sub(r"^~(?=/|$)", lambda _: user["home"], root))
    paths = {top}
    for folder in folders:
        path = posixpath.normpath(posixpath.join(top, folder))
        while path != top and path not in paths:
            paths.add(path)
            path = posixpath.dirname(path)
    return [
        {"path": path, "state": "directory", "owner": user["name"], "mode": mode, "adopt": True}
        for path in sorted(paths)
    ]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"tree": tree}
