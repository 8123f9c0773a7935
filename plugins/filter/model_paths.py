# SPDX-License-Identifier: Apache-2.0
"""The filter that lists where model files should be."""

from __future__ import annotations

DOCUMENTATION = r"""
name: model_paths
short_description: List where the files of models should be on the box
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Leaves out what is not well formed; P(hearth.spark.resolve_engines#filter) tells what is wrong with it.
options:
  _input:
    description: The models, by name, as in C(engines_models).
    type: dict
    required: true
  root:
    description: The tree they are in, such as V(~/ai).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Where the models should be
  ansible.builtin.debug:
    msg: "{{ engines_models | hearth.spark.model_paths('~/ai') }}"
"""

RETURN = r"""
_value:
  description: The paths, sorted, each once.
  type: list
  elements: str
"""

import posixpath
from collections.abc import Callable, Mapping
from typing import Any


def model_paths(models: Any, root: str) -> list[str]:
    """See DOCUMENTATION."""
    if not isinstance(models, Mapping):
        return []
    named = [model.get("file") for model in models.values() if isinstance(model, Mapping)]
    files = {file for file in named if isinstance(file, str) and file}
    return sorted(posixpath.join(root, "models", file) for file in files)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"model_paths": model_paths}
