# SPDX-License-Identifier: Apache-2.0
"""The filter that turns models of the inventory into complete engines."""

from __future__ import annotations

DOCUMENTATION = r"""
name: resolve_engines
short_description: Turn the models of the inventory into complete engines
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Checks every model, gives it a port, and renders its container's command line.
  - Everything that could not run is refused with one sentence that names the variable, the model and the field. It is
    returned, not raised, so that a task can show it without a template's trace around it.
options:
  _input:
    description: The models, by name. The fields are those of C(engines_models) of the role C(hearth.spark.engines).
    type: dict
    required: true
  catalog:
    description: What P(hearth.spark.catalog#lookup) gives.
    type: dict
    required: true
  facts:
    description: What M(hearth.spark.spark_facts) read of the box, with its user.
    type: dict
    required: true
  root:
    description: Absolute path of the tree on the box that holds C(models) and C(cache).
    type: str
    required: true
  gpu:
    description: CDI name of the GPU, V(gpus=all) for a Docker without CDI, or V(none).
    type: str
    required: true
  images:
    description: Images beside or over those of the catalog, by name.
    type: dict
    default: {}
  ulimits:
    description: Limits that containers with a GPU get, as C(docker run --ulimit) takes them.
    type: list
    elements: str
    default: []
  floor_gib:
    description: What has to stay free for the host itself, in GiB; 0 for what fits its size.
    type: float
    default: 0
  recipes:
    description: The folder from which paths of recipes in O(images) count, where they are relative.
    type: str
    default: ''
  known:
    description:
      - What the box knows of images, as C(images) of M(hearth.spark.spark_facts) has it. What a tag meant when it was
        asked for last, it means still; a model that was taken back to an earlier image runs from that.
    type: dict
    default: {}
  release:
    description: Take models forward again that were taken back.
    type: bool
    default: false
  hub:
    description:
      - Where the box fetches models that have C(download=first_start). C(endpoint), C(token_file) (a path on the box),
        C(offline) and C(reserve_gib), as M(hearth.spark.model) has them.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Resolve the engines of this host
  ansible.builtin.set_fact:
    resolved: "{{ {'qwen3-32b-nvfp4': {'start': 'boot'}} | hearth.spark.resolve_engines(
      catalog=lookup('hearth.spark.catalog'), facts=ansible_facts['spark'], root='/home/spark/ai', gpu='none') }}"
"""

RETURN = r"""
_value:
  description: >-
    C(refused), the sentence that says what could not run, and where that is empty C(engines), the list of complete
    engines; C(entries), their units and caches for M(hearth.spark.files); C(downloads), what is
    to be downloaded now, for M(hearth.spark.model); C(images), what is to be on the box, for
    M(hearth.spark.images); C(held), a sentence for each model that was taken back; C(contract), the text of
    engines.json;
    C(default), the engine of the main lane that starts at boot, or an empty string; C(beside), the other engines that
    start at boot.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import (
    _catalog,
    _complete,
    _docker,
    _downloads,
    _images,
    _recipes,
    _resolve,
)


def resolve_engines(
    models: Mapping[str, Any] | None,
    catalog: Mapping[str, Any],
    facts: Mapping[str, Any],
    root: str,
    gpu: str,
    images: Mapping[str, Any] | None = None,
    ulimits: Sequence[str] = (),
    floor_gib: float = 0,
    hub: Mapping[str, Any] | None = None,
    recipes: str = "",
    known: Mapping[str, Any] | None = None,
    release: bool = False,
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    user, total = facts["user"], float(facts["memory"]["total_gib"])
    floor = float(floor_gib) or _catalog.floor_gib(total)
    card = facts.get("gpu", {})
    machine = _complete.Machine(
        total_gib=total,
        floor_gib=floor,
        arch=facts["arch"],
        gpu=gpu != "none",
        gpu_name=card.get("name", ""),
        driver=card.get("driver", ""),
    )
    place = _docker.Place(
        root=root, uid=int(user["uid"]), gid=int(user["gid"]), user=user["name"], gpu=gpu, ulimits=ulimits
    )
    try:
        resolved = _resolve.resolve(
            models or {},
            images or {},
            _catalog.Catalog(**catalog),
            machine,
            place,
            hub=_downloads.Hub(**(hub or {})),
            recipes=_recipes.refs(images or {}, recipes),
            known=_images.Known.of(known, holds=not release),
        )
    except (_complete.ResolveError, _recipes.RecipeError) as error:
        return {"refused": str(error), "engines": []}
    engines = _resolve.as_dicts(resolved)
    # Whoever brings a model's files makes its folder. Ollama's store has to be there also for what comes by hand.
    stores = {engine["model_path"] for engine in engines if engine["engine"] == "ollama"}
    folders = sorted({engine["cache_dir"] for engine in engines} | stores)
    at_boot = [engine for engine in engines if engine["start"] == "boot"]
    return {
        "refused": "",
        "engines": engines,
        "entries": [
            *({"path": path, "state": "directory", "owner": user["name"], "adopt": True} for path in folders),
            *(
                {
                    "path": f"/etc/systemd/system/{engine['unit']}",
                    "template": "engine.service.j2",
                    "vars": {"engine": engine},
                }
                for engine in engines
            ),
        ],
        "downloads": _resolve.downloads(resolved),
        "images": _resolve.images(resolved, place),
        "held": _resolve.held(resolved),
        "contract": _resolve.contract_json(resolved, floor),
        "default": next(
            (engine["name"] for engine in at_boot if engine["lane"] == "main" and not engine["pinned"]), ""
        ),
        "beside": [engine["name"] for engine in at_boot if engine["lane"] != "main" or engine["pinned"]],
    }


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"resolve_engines": resolve_engines}
