#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Assert that an engine is ready, serves its name, and answers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_health
short_description: Assert that engines are ready, serve their names, and answer
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Waits until an engine says that it is healthy, and asserts that C(/v1/models) has exactly the model's name.
  - Asks a real chat or embedding question where told to.
  - With O(expected) does so for every engine of the box that should run, at the same time. These are the engines that
    run or are on their way up, and those that start at boot. Where one of the main lane runs, the others of that lane
    may be down, unless they are pinned.
  - Starts nothing. Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  name:
    description: Name or alias of the model. Either this or O(expected) is needed.
    type: str
  expected:
    description: Check every engine that should run.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for the engine to become healthy, and for each answer.
    type: float
    default: 60
  chat:
    description: A question to ask. The answer must not be empty. With O(expected) those are asked that can chat.
    type: str
  max_tokens:
    description: Longest answer to O(chat), in tokens.
    type: int
    default: 16
  embedding:
    description: >-
      A text to embed. The answer must be a vector of numbers. With O(expected) those are asked that make embeddings.
    type: str
extends_documentation_fragment:
  - hearth.spark.attributes
  - hearth.spark.attributes.info
"""

EXAMPLES = r"""
- name: Scout answers
  hearth.spark.engine_health:
    name: scout
    chat: Say hello.
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Everything that should run answers
  hearth.spark.engine_health:
    expected: true
    chat: Say hello.
    embedding: hello
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
name:
  description: The model's name.
  returned: success, without O(expected)
  type: str
url:
  description: The engine's address on the box.
  returned: success, without O(expected)
  type: str
  sample: http://127.0.0.1:8080
answer:
  description: The text of the answer; empty where O(chat) was not given.
  returned: success, without O(expected)
  type: str
dimensions:
  description: Length of the embedding; 0 where O(embedding) was not given.
  returned: success, without O(expected)
  type: int
seconds:
  description: How long each step took, in seconds; 0 for one that was not asked for.
  returned: success, without O(expected)
  type: dict
  sample: {ready: 0.004, models: 0.002, chat: 0.31, embedding: 0.0}
log:
  description: The last lines of the engine's log.
  returned: failure, without O(expected)
  type: list
  elements: str
lines:
  description: >-
    A table of the engines that should run, a line each: model, address, what was well, seconds, verdict. One sentence
    where none should run.
  returned: with O(expected), also on failure of an engine
  type: list
  elements: str
engines:
  description: The engines that should run.
  returned: with O(expected), also on failure of an engine
  type: list
  elements: dict
  contains:
    name:
      description: The model's name.
      type: str
    url:
      description: The engine's address on the box.
      type: str
    unit:
      description: The engine's unit.
      type: str
    lane:
      description: The engine's lane.
      type: str
    checked:
      description: What was well, in the order in which it was looked at.
      type: list
      elements: str
      sample: [health, model id, chat]
    seconds:
      description: How long each step took, in seconds; empty for an engine that is down.
      type: dict
    answer:
      description: The text of the answer to O(chat).
      type: str
    dimensions:
      description: Length of the embedding.
      type: int
    failed:
      description: What was not well; empty where all was.
      type: str
      sample: model id
    failure:
      description: Why, in a sentence.
      type: str
    log:
      description: The last lines of the engine's log where it failed.
      type: list
      elements: str
"""

import asyncio

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "expected": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 60},
            "chat": {"type": "str"},
            "max_tokens": {"type": "int", "default": 16, "no_log": False},
            "embedding": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth import contract, errors
    from hearth.engines import verify

    options = module.params
    if options["expected"] == bool(options["name"]):
        module.fail_json(msg="engine_health wants the name of one model, or expected: true for all that should run")
    questions = verify.Questions(
        chat=options["chat"] or "",
        embedding=options["embedding"] or "",
        max_tokens=options["max_tokens"],
        timeout_s=options["timeout"],
    )
    try:
        known = contract.load()
        if options["expected"]:
            found = asyncio.run(verify.check_all(known, questions))
        else:
            found = [verify.check(known.find(options["name"]), contract.read_key(known), questions)]
    except errors.HearthError as error:
        module.fail_json(msg=str(error), log=[])
    if options["expected"]:
        said = {"lines": verify.table(found), "engines": [verify.as_dict(one) for one in found]}
        sentence = verify.complaint(found)
        if sentence:
            module.fail_json(msg=sentence, **said)
        module.exit_json(changed=False, **said)
    one = found[0]
    if one.failed:
        module.fail_json(msg=one.failure, log=list(one.log))
    module.exit_json(
        changed=False,
        name=one.name,
        url=one.url,
        answer=one.answer,
        dimensions=one.dimensions,
        seconds=one.seconds,
    )


if __name__ == "__main__":
    main()
