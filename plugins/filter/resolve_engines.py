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
  - Everything that could not run is refused with one sentence that names the variable, the model and the field.
options:
  _input:
    description: The models, by name. The fields are those of C(engines_models) of the role C(hearth.spark.engines).
    type: dict
    required: true
  models_dir:
    description: Absolute path of the models folder on the box.
    type: str
    required: true
  cache_dir:
    description: Absolute path of the cache folder on the box.
    type: str
    required: true
  user:
    description: Whom the containers run as, from M(hearth.spark.spark_facts) with C(name), C(uid) and C(gid).
    type: dict
    required: true
  gpu:
    description: CDI name of the GPU, or V(none).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Resolve the engines of this host
  ansible.builtin.set_fact:
    resolved: "{{ engines_models | hearth.spark.resolve_engines(
      models_dir='/home/spark/ai/models', cache_dir='/home/spark/ai/cache',
      user=ansible_facts['spark']['user'], gpu='none') }}"
"""

RETURN = r"""
_value:
  description: >-
    C(engines), the list of complete engines; C(entries), their units and caches for M(hearth.spark.files); C(contract),
    the text of engines.json; C(default), the engine of the main lane that starts at boot, or an empty string;
    C(utility), the engines of the utility lane that start at boot.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.hearth.spark.plugins.module_utils import _resolve


def resolve_engines(
    models: Mapping[str, Any], models_dir: str, cache_dir: str, user: Mapping[str, Any], gpu: str
) -> dict[str, Any]:
    """See DOCUMENTATION. Raises AnsibleFilterError with one sentence."""
    host = _resolve.Host(
        models_dir=models_dir, cache_dir=cache_dir, uid=int(user["uid"]), gid=int(user["gid"]), gpu=gpu
    )
    try:
        resolved = _resolve.resolve(models, host)
    except _resolve.ResolveError as error:
        raise AnsibleFilterError(str(error)) from error
    engines = _resolve.as_dicts(resolved)
    caches = sorted({engine["cache_dir"] for engine in engines})
    at_boot = [engine for engine in engines if engine["start"] == "boot"]
    return {
        "engines": engines,
        "entries": [
            *({"path": path, "state": "directory", "owner": user["name"], "adopt": True} for path in caches),
            *(
                {
                    "path": f"/etc/systemd/system/{engine['unit']}",
                    "template": "engine.service.j2",
                    "vars": {"engine": engine},
                }
                for engine in engines
            ),
        ],
        "contract": _resolve.contract_json(resolved),
        "default": next((engine["name"] for engine in at_boot if engine["lane"] == "main"), ""),
        "utility": [engine["name"] for engine in at_boot if engine["lane"] == "utility"],
    }


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"resolve_engines": resolve_engines}
