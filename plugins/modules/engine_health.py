#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Assert that an engine is ready, serves its name, and answers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_health
short_description: Assert that an engine is ready, serves its name, and answers
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Waits until the engine says that it is healthy, and asserts that C(/v1/models) has exactly the model's name.
  - Asks a real chat or embedding question where told to.
  - Starts nothing. Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  name:
    description: Name or alias of the model.
    type: str
    required: true
  timeout:
    description: Seconds to wait for the engine to become healthy, and for each answer.
    type: float
    default: 60
  chat:
    description: A question to ask. The answer must not be empty.
    type: str
  max_tokens:
    description: Longest answer to O(chat), in tokens.
    type: int
    default: 16
  embedding:
    description: A text to embed. The answer must be a vector of numbers.
    type: str
attributes:
  check_mode:
    description: Reads only, so check mode is the same.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Scout answers
  hearth.spark.engine_health:
    name: scout
    chat: Say hello.
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
name:
  description: The model's name.
  returned: success
  type: str
url:
  description: The engine's address on the box.
  returned: success
  type: str
  sample: http://127.0.0.1:8080
answer:
  description: The text of the answer; empty where O(chat) was not given.
  returned: success
  type: str
dimensions:
  description: Length of the embedding; 0 where O(embedding) was not given.
  returned: success
  type: int
seconds:
  description: How long each step took, in seconds; 0 for one that was not asked for.
  returned: success
  type: dict
  sample: {ready: 0.004, models: 0.002, chat: 0.31, embedding: 0.0}
log:
  description: The last lines of the engine's log.
  returned: failure
  type: list
  elements: str
"""

import time
from collections.abc import Callable
from typing import TypeVar

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth

T = TypeVar("T")


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    begun = time.monotonic()
    value = call()
    return value, round(time.monotonic() - begun, 4)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "timeout": {"type": "float", "default": 60},
            "chat": {"type": "str"},
            "max_tokens": {"type": "int", "default": 16, "no_log": False},
            "embedding": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth import contract, errors, probe, units

    options = module.params
    tail: list[str] = []
    try:
        known = contract.load()
        engine = known.find(options["name"])
        key = contract.read_key(known)
        try:
            ready = probe.wait_ready(engine, options["timeout"])
            models = _timed(lambda: probe.assert_serves(engine, key))[1]
            answer, chat = "", 0.0
            if options["chat"]:
                answer, chat = _timed(
                    lambda: probe.chat(engine, key, options["chat"], options["max_tokens"], options["timeout"])
                )
            dimensions, embedding = 0, 0.0
            if options["embedding"]:
                dimensions, embedding = _timed(
                    lambda: probe.embed(engine, key, options["embedding"], options["timeout"])
                )
        except errors.EngineFailedError:
            tail = list(units.log_tail(engine.unit))
            raise
    except errors.HearthError as error:
        module.fail_json(msg=str(error), log=tail)
    module.exit_json(
        changed=False,
        name=engine.name,
        url=engine.base_url,
        answer=answer,
        dimensions=dimensions,
        seconds={"ready": round(ready, 4), "models": models, "chat": chat, "embedding": embedding},
    )


if __name__ == "__main__":
    main()
