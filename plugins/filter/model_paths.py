# SPDX-License-Identifier: Apache-2.0
"""The filter that lists where model files should be."""

from __future__ import annotations

DOCUMENTATION = r"""
name: model_paths
short_description: List where the files and folders of models should be on the box
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Leaves out what is not well formed; P(hearth.spark.resolve_engines#filter) tells what is wrong with it.
options:
  _input:
    description: The models, by name, as in C(engines_models).
    type: dict
    required: true
  catalog:
    description: What P(hearth.spark.catalog#lookup) gives.
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
    msg: "{{ engines_models | hearth.spark.model_paths(lookup('hearth.spark.catalog'), '~/ai') }}"
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


def model_paths(models: Any, catalog: Mapping[str, Any], root: str) -> list[str]:
    """See DOCUMENTATION."""
    if not isinstance(models, Mapping):
        return []
    paths = set()
    for name, own in models.items():
        known = catalog["models"].get(name, {})
        said = own if isinstance(own, Mapping) else {}
        model = {field: said.get(field) or known.get(field) for field in ("engine", "family", "folder", "file")}
        words = [model["family"], model["folder"] or name, *([model["file"]] if model["engine"] == "llama.cpp" else [])]
        if model["engine"] != "ollama" and all(isinstance(word, str) and word for word in words):
            paths.add(posixpath.join(root, "models", *words))
    return sorted(paths)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"model_paths": model_paths}
