# SPDX-License-Identifier: Apache-2.0
"""The filter that says which models fit a host, and which are there."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fit_table
short_description: Say which models fit a host, and which are on it
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - One line a model, with its need, its engine, and a note where it is broken, validated, or needs several Sparks. With
    O(held) also its size on the disk, its commit, and what it is used for.
  - What is on the box comes first, then what fits.
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
  own:
    description: The models of the inventory, as in C(engines_models), laid over the catalog's.
    type: dict
    default: {}
  held:
    description: What M(hearth.spark.models_info) found on the box.
    type: list
    elements: dict
    default: []
  root:
    description: Absolute path of the tree on the box that holds C(models).
    type: str
    default: ""
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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _complete, _downloads


def fit_table(
    models: Mapping[str, Mapping[str, Any]],
    total_gib: float,
    floor_gib: float = 0,
    own: Mapping[str, Any] | None = None,
    held: Sequence[Mapping[str, Any]] = (),
    root: str = "",
) -> list[str]:
    """See DOCUMENTATION."""
    floor = float(floor_gib) or _catalog.floor_gib(float(total_gib))
    try:
        known = {**models, **_complete.laid_over(own or {}, _catalog.Catalog(models=models, images={}))}
    except _complete.ResolveError as error:
        return [f"{error}."]
    folders = {(one["path"], one["ollama"]): one for one in held}
    there: list[str] = []
    fits: list[str] = []
    does_not: list[str] = []
    named = set()
    for name, model in sorted(known.items()):
        no = _catalog.refusal(model, float(total_gib), floor) is not None
        folder = folders.get((_downloads.folder(root, name, model), _tag(model)))
        notes = [] if model["status"]["is"] == "experimental" else [model["status"]["is"]]
        notes += [f"{model['nodes']} Sparks"] if model["nodes"] > 1 else []
        notes += ["in engines_models"] if name in (own or {}) else []
        if folder:
            named.add((folder["path"], folder["ollama"]))
            notes += _notes(folder, name)
        disk = (_disk(folder) if folder else " " * 10) if held else ""
        # Short enough for a terminal: Ansible would break a longer line in two.
        said = f"{'no' if no else 'yes':<4}{_catalog.need_gib(model):>4.0f} GiB  {disk}{model['engine']:<10}{name}"
        lines = there if folder else does_not if no else fits
        lines.append(said + (f" ({', '.join(notes)})" if notes else ""))
    for key, folder in sorted(folders.items()):
        if key not in named:
            what = folder["ollama"] or "/".join(folder["path"].split("/")[-2:])
            there.append(
                f"{'':<14}{_disk(folder)}{'':<10}{what} ({', '.join([*_notes(folder, ''), 'no known model'])})"
            )
    return there + fits + does_not


def _tag(model: Mapping[str, Any]) -> str:
    return model["ollama"] if model["engine"] == "ollama" else ""


def _disk(folder: Mapping[str, Any]) -> str:
    return f"{(folder['bytes_total'] + folder['partial']) / 1e9:>5.1f} GB  "


def _notes(folder: Mapping[str, Any], name: str) -> list[str]:
    """What is there, and what for."""
    notes = [f"commit {folder['commit'][:8]}"] if folder["commit"] else ["brought by hand"] if folder["whole"] else []
    if folder["partial"]:
        notes.append("a download did not end")
    elif not folder["whole"]:
        notes += ["damaged"]
    if name in folder["running"]:
        notes.append("runs")
    return notes


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fit_table": fit_table}
