# SPDX-License-Identifier: Apache-2.0
"""The lookup that reads the collection's catalog."""

from __future__ import annotations

DOCUMENTATION = r"""
name: catalog
short_description: Read the catalog of models and images
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Reads and checks the catalog of the collection. What is wrong in it is told with file and field.
options:
  _terms:
    description: Not used.
    type: list
    elements: str
    required: false
"""

EXAMPLES = r"""
- name: How many models there are
  ansible.builtin.debug:
    msg: "{{ lookup('hearth.spark.catalog').models | length }}"
"""

RETURN = r"""
_raw:
  description: One dictionary with C(models) and C(images), by name, with the defaults of all fields.
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.hearth.spark.plugins.module_utils import _recipes
from ansible_collections.hearth.spark.plugins.module_utils._catalog import check_catalog
from ansible_collections.hearth.spark.plugins.module_utils._fields import FieldError

FOLDER = Path(__file__).resolve().parents[2] / "catalog"
# The C parser reads the catalog in about a tenth of the time of the Python one.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The documents of the folder by kind and name, unchecked, and the images that its recipes make.

    Raises AnsibleError for what is no YAML or no recipe.
    """
    documents: dict[str, dict[str, Any]] = {"models": {}, "images": {}, "recipes": {}}
    for path in sorted((folder / "recipes").glob("*/Dockerfile")):
        try:
            recipe = _recipes.read(path.parent)
        except _recipes.RecipeError as error:
            raise AnsibleError(str(error)) from error
        documents["recipes"][recipe.name] = recipe.ref
    for kind in ("models", "images"):
        entries = documents[kind]
        for path in sorted((folder / kind).glob("*.yml")):
            try:
                entries[path.stem] = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - safe
            except (OSError, yaml.YAMLError) as error:
                raise AnsibleError(f"catalog/{kind}/{path.name}: {error}") from error
    return documents


class LookupModule(LookupBase):
    """What Ansible looks for."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        try:
            catalog = check_catalog(**read())
        except FieldError as error:
            raise AnsibleError(f"catalog/{error}") from error
        return [{"models": dict(catalog.models), "images": dict(catalog.images)}]
