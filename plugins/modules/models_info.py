#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Tell which models are on the box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: models_info
short_description: Tell which models are on the box
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Lists the folders of models below a folder, where models are at C(family/name), and the models in Ollama's store,
    with what M(hearth.spark.model) knows of them. Reads no content and asks no hub.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  path:
    description: The folder of all models.
    type: path
    required: true
extends_documentation_fragment:
  - hearth.spark.attributes
  - hearth.spark.attributes.info
seealso:
  - module: hearth.spark.model
"""

EXAMPLES = r"""
- name: What is on the box
  hearth.spark.models_info:
    path: /home/spark/ai/models
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
models:
  description:
    - One for each folder, sorted by C(path), and one for each model in Ollama's store that M(hearth.spark.model)
      brought, with C(ollama), its tag; one more, without a tag, is for all else in that store.
    - C(repo), C(revision), C(commit) and C(files) of what M(hearth.spark.model) brought, empty for what came by hand;
      C(bytes_total) on the disk; C(partial), bytes of a download that did not end; C(whole), whether every file is
      there as it was verified; C(engines), the models of the box whose files these are, and C(running), those that run.
    - C(asked) is what M(hearth.spark.model) was asked for, as one of its O(hearth.spark.model#module:models).
  returned: success
  type: list
  elements: dict
  sample:
    - path: /home/spark/ai/models/qwen/qwen3-8b
      ollama: ""
      repo: Qwen/Qwen3-8B
      revision: main
      commit: b968826d9c46dd6066d109eabc6255188de91218
      files: 14
      bytes_total: 16397393416
      partial: 0
      whole: true
      engines: [qwen3-8b]
      running: [qwen3-8b]
"""

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth

if TYPE_CHECKING:
    from hearth.contract import Engine
    from hearth.download import Held


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    _hearth.require(module)
    from hearth import contract
    from hearth.download import held
    from hearth.engines.units import read_states
    from hearth.errors import HearthError

    try:
        engines = contract.load(contract.PATH).engines if contract.PATH.exists() else ()
        states = read_states([engine.unit for engine in engines]) if engines else {}
    except HearthError as error:
        module.fail_json(msg=str(error))
    up = {engine.name for engine in engines if states[engine.unit].is_alive}
    module.exit_json(changed=False, models=[_said(one, engines, up) for one in held(module.params["path"])])


def _said(one: Held, engines: tuple[Engine, ...], up: set[str]) -> dict[str, Any]:
    import msgspec

    from hearth.engines import uses

    known = one.manifest
    of_store_alone = one.is_store and known is None
    users = [] if of_store_alone else [engine.name for engine in uses.among(engines, one.folder, one.ollama)]
    asked = {"path": one.folder, **msgspec.to_builtins(known.asked)} if known else {}
    if one.ollama:
        asked["image"] = uses.image_of(engines, one.folder, one.ollama)
    return {
        "path": one.folder,
        "ollama": one.ollama,
        "repo": known.asked.repo if known else "",
        "revision": known.asked.revision if known else "",
        "commit": known.commit if known else "",
        "files": len(known.files) if known else 0,
        "bytes_total": one.size,
        "partial": one.partial,
        "whole": one.whole,
        "engines": users,
        "running": [name for name in users if name in up],
        "asked": asked,
    }


if __name__ == "__main__":
    main()
