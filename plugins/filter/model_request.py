# SPDX-License-Identifier: Apache-2.0
"""The filter that says what to download for one model."""

from __future__ import annotations

DOCUMENTATION = r"""
name: model_request
short_description: Say what to download for one model
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - For a model of the inventory or of the catalog, by name or alias, whether or not it is to run on the box.
  - What is wrong is returned, not raised, so that a task can show it without a template's trace around it.
options:
  _input:
    description: The models of the inventory, as in C(engines_models).
    type: dict
    required: true
  catalog:
    description: What P(hearth.spark.catalog#lookup) gives.
    type: dict
    required: true
  root:
    description: Absolute path of the tree on the box that holds C(models).
    type: str
    required: true
  name:
    description: The model.
    type: str
    required: true
  images:
    description: Images beside or over those of the catalog, by name; one of them is what Ollama is run from.
    type: dict
    default: {}
  known:
    description: What the box knows of images, as C(images) of M(hearth.spark.spark_facts) has it.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: What to download for a model
  ansible.builtin.debug:
    msg: "{{ {} | hearth.spark.model_request(lookup('hearth.spark.catalog'), '/home/spark/ai', 'gemma-2-2b') }}"
"""

RETURN = r"""
_value:
  description: >-
    C(refused), the sentence that says what is wrong, and where that is empty C(name), the model's own name, and
    C(request), one of the models of M(hearth.spark.model).
  type: dict
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _complete, _downloads, _images


def model_request(
    models: Any,
    catalog: Mapping[str, Any],
    root: str,
    name: str,
    images: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    said = {**dict.fromkeys(catalog["models"]), **(models or {})}
    try:
        given = _catalog.Catalog(**catalog)
        fields = _complete.laid_over(said, given)
        names = {alias: own for own, model in fields.items() for alias in (*model["aliases"], own)}
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else "docs/models.md has the catalog's."
            return {"refused": f"model: there is no {name!r} in engines_models or in the catalog; {hint}"}
        own = names[name]
        shared = {one: model for one, model in fields.items() if one == own or one in (models or {})}
        refs = {}
        # Nothing but Ollama has to run for its models to be brought.
        if fields[own]["engine"] == "ollama":
            model = _complete.with_image(own, fields[own], images or {}, given)
            refs = {own: _images.placed({own: model}, _images.Known.of(known))[own].image["ref"]}
        return {"refused": "", "name": own, "request": _downloads.plan_one(shared, root, own, refs).request()}
    except (_complete.ResolveError, _downloads.DownloadError) as error:
        return {"refused": f"{error}."}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"model_request": model_request}
