# SPDX-License-Identifier: Apache-2.0
"""The filter that says which models fit a host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fit_table
short_description: Say which models of the catalog fit a host
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - One line a model, what fits first, with its need, its engine, and a note where it is broken, validated, or needs
    several Sparks.
options:
  _input:
    description: The models, from P(hearth.spark.catalog#lookup).
    type: dict
    required: true
  total_gib:
    description: The host's memory in GiB.
    type: float
    required: true
  floor_gib:
    description: What has to stay free for the host itself, in GiB; 0 for what fits its size.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: What fits
  ansible.builtin.debug:
    msg: "{{ lookup('hearth.spark.catalog').models | hearth.spark.fit_table(119.7) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils._catalog import floor_gib as default_floor_gib
from ansible_collections.hearth.spark.plugins.module_utils._catalog import need_gib, refusal


def fit_table(models: Mapping[str, Mapping[str, Any]], total_gib: float, floor_gib: float = 0) -> list[str]:
    """See DOCUMENTATION."""
    fits: list[str] = []
    does_not: list[str] = []
    floor = float(floor_gib) or default_floor_gib(float(total_gib))
    for name, model in sorted(models.items()):
        no = refusal(model, float(total_gib), floor) is not None
        notes = [] if model["status"]["is"] == "experimental" else [model["status"]["is"]]
        notes += [f"{model['nodes']} Sparks"] if model["nodes"] > 1 else []
        # Short enough for a terminal: Ansible would break a longer line in two.
        said = f"{'no' if no else 'yes':<4}{need_gib(model):>4.0f} GiB  {model['engine']:<10}{name}"
        (does_not if no else fits).append(said + (f" ({', '.join(notes)})" if notes else ""))
    return fits + does_not


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fit_table": fit_table}
