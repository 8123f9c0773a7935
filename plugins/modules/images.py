#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have the images of engines on the box: brought, tried out, taken back, carried, or gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: images
short_description: Have the images of engines on the box
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Brings images from their registries by digest, or builds them from recipes. What was cut off goes on where it was.
  - Before an engine may run from an image it is tried out; it has to tell its version, and to know the flags that the
    engine is run with.
  - Every image gets a name of Hearth's, which units run; nothing is asked of a registry where that is there.
  - Long work is a job of systemd on the box. It goes on when the play is interrupted or the connection is lost; the
    same task run again waits for it and ends as it does. While it lasts, its progress is shown.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  state:
    description:
      - V(present) has O(images) there, and remembers which engines run from them, and from what before.
      - V(rolled_back) has engines run from what they ran from before, and stay there until they are released by
        P(hearth.spark.resolve_engines#filter). It changes what is known, and no unit.
      - V(pruned) removes images that were brought by Hearth and that no engine runs from or could go back to.
      - V(saved) writes the images that engines run from to O(folder); V(loaded) takes in what is there.
    type: str
    choices: [present, rolled_back, pruned, saved, loaded]
    default: present
  images:
    description: >-
      The images, as C(images) of what P(hearth.spark.resolve_engines#filter) gives.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called on the box; empty for a tag that was never asked for.
        type: str
        default: ''
      repository:
        description: What it is called on the box, without its digest.
        type: str
        default: ''
      source:
        description: The reference to pull; empty where it is built.
        type: str
        default: ''
      digest:
        description: Its digest; empty where the tag of O(images[].source) says which it is.
        type: str
        default: ''
      engine:
        description: The engine in it.
        type: str
        required: true
      keep_entrypoint:
        description: Its own entrypoint runs first.
        type: bool
        default: false
      build:
        description: The recipe that makes it; its name in the collection, or the path of a folder on the controller.
        type: str
        default: ''
      recipe:
        description: The recipe's own name; the action plugin reads it.
        type: str
        default: ''
      fingerprint:
        description: The recipe's fingerprint; the action plugin reads it.
        type: str
        default: ''
      users:
        description: The engines that run from it.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The engine's name.
            type: str
            required: true
          flags:
            description: The flags that it is run with, and that the image has to know.
            type: list
            elements: str
            default: []
      version:
        description: A command that tells its version, with C({image}) for its name.
        type: list
        elements: str
        default: []
      help:
        description: Commands that tell its flags; the first that does counts.
        type: list
        elements: list
        default: []
  registries:
    description:
      - Who logs in where. Without an entry, what root is logged in with on the box counts.
      - They go to the registry alone, and into no file that lasts.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The registry, as references name it; C(docker.io) for those that name none.
        type: str
        required: true
      user:
        description: The user; of C(nvcr.io) it is C($oauthtoken).
        type: str
        required: true
      password:
        description: The password, or a token in its place.
        type: str
        required: true
  pull:
    description: Bring what is missing; else that is an error.
    type: bool
    default: true
  smoke:
    description: Try images out before engines may run from them.
    type: bool
    default: true
  refresh:
    description: Ask registries whether tags moved, for images without a digest.
    type: bool
    default: false
  reserve_gib:
    description: What stays free on each disk, in GiB.
    type: float
    default: 10
  models:
    description: Engines to take back; without any, all that can be.
    type: list
    elements: str
    default: []
  folder:
    description: A folder of the box, for V(saved) and V(loaded) of O(state).
    type: path
  recipes:
    description: A folder of the controller, from which relative paths in O(images[].build) count.
    type: str
  contexts:
    description: Recipes that the box has not got; the action plugin sends them.
    type: list
    elements: dict
    default: []
    suboptions:
      recipe:
        description: Its name.
        type: str
        required: true
      fingerprint:
        description: Its fingerprint.
        type: str
        required: true
      files:
        description: Its files, by path.
        type: dict
        required: true
  wait:
    description:
      - Seconds to wait for the work to end; without it, until it has ended.
      - For the module's action plugin, which shows progress between two waits.
    type: float
  attach:
    description:
      - The work to wait for, as the RV(attach) of an earlier run.
      - For the module's action plugin, which shows progress between two waits.
    type: str
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: Says what would be brought and for whom, without a byte of it.
    support: full
  diff_mode:
    description: What engines run from before and after, and what would be brought.
    support: full
  action:
    description: Recipes are read on the controller, and progress is shown there.
    support: full
seealso:
  - module: hearth.spark.images_info
"""

EXAMPLES = r"""
- name: Have what the engines run from
  hearth.spark.images:
    images: "{{ resolved.images }}"
    registries:
      - {host: nvcr.io, user: $oauthtoken, password: "{{ ngc_key }}"}
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Write the images to a disk, for a box without a network
  hearth.spark.images:
    state: saved
    folder: /mnt/usb/images
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
images:
  description: >-
    What became of each image; C(name) on the box, C(image) as the inventory says it, C(done) in words and empty where
    nothing was, and C(bytes_fetched).
  returned: when the module itself ran to its end
  type: list
  elements: dict
  sample:
    - name: localhost/hearth/vllm:557747337846
      image: nvcr.io/nvidia/vllm@sha256:557747337846eecf34486866f3d992383c6f8af869fdb0e365b5093fcaee02c2
      done: 8.9 GB came in 94 s, 95 MB/s, unpacked in 120 s
      bytes_fetched: 8931250712
switches:
  description: The engines that get another image; C(model), C(before) (empty for new ones) and C(after).
  returned: success, with O(state=present)
  type: list
  elements: dict
changes:
  description: What was brought, or would be, and which engines get another image by that, in sentences.
  returned: success
  type: list
  elements: str
lines:
  description: What happened to each, in sentences.
  returned: success
  type: list
  elements: str
bytes_fetched:
  description: Bytes that came over the network.
  returned: success
  type: int
freed:
  description: Bytes of the disk that were given back.
  returned: success
  type: int
known:
  description: What the box knows of images now, for P(hearth.spark.resolve_engines#filter).
  returned: success
  type: dict
lacking:
  description: Recipes that the box has to be sent; for the action plugin.
  returned: when there are any
  type: list
  elements: str
attach:
  description: The work that goes on, for the option of this name.
  returned: when it has not ended within O(wait)
  type: str
doing:
  description: What goes on just now, in words.
  returned: when it has not ended within O(wait)
  type: str
"""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth, _image_set

if TYPE_CHECKING:
    from hearth.images.job import Job


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["present", "rolled_back", "pruned", "saved", "loaded"],
                "default": "present",
            },
            "images": {"type": "list", "elements": "dict", "default": [], "options": _image_set.IMAGE},
            "registries": {"type": "list", "elements": "dict", "default": [], "options": _image_set.REGISTRY},
            "pull": {"type": "bool", "default": True},
            "smoke": {"type": "bool", "default": True},
            "refresh": {"type": "bool", "default": False},
            "reserve_gib": {"type": "float", "default": 10},
            "models": {"type": "list", "elements": "str", "default": []},
            "folder": {"type": "path"},
            "recipes": {"type": "str"},
            "contexts": {"type": "list", "elements": "dict", "default": [], "options": _image_set.FILES},
            "wait": {"type": "float"},
            "attach": {"type": "str"},
        },
        required_if=[("state", "saved", ["folder"]), ("state", "loaded", ["folder"])],
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth.errors import HearthError

    try:
        _run(module)
    except HearthError as error:
        module.fail_json(msg=str(error), log=list(error.log))


def _run(module: AnsibleModule) -> NoReturn:
    """Do what is asked, and exit. Raises HearthError."""
    params = module.params
    state = params["state"]
    if params["attach"]:
        from hearth.images import job

        ident, *step = params["attach"].split("/")
        known = int(step[0]) if step and step[0].isdigit() else -1
        _exit_as(module, job.follow(ident, step=known, timeout_s=params["wait"]))
    if state in ("rolled_back", "pruned"):
        _image_set.change(module)
    if state == "present":
        _present(module)
    _carry(module, Path(params["folder"]))


def _present(module: AnsibleModule) -> NoReturn:
    from hearth.images import book, have, job, plan
    from hearth.images.dockerd import Docker

    params = module.params
    asked, terms, docker = _image_set.wants(params), _image_set.terms(params), Docker()
    _image_set.put_contexts(params["contexts"])
    before = book.read()
    steps = plan.plan(asked, before, docker, terms)
    missing = [step for step in steps if step.way == "missing"]
    if missing:
        raise plan.missing(missing)
    if module.check_mode:
        work = have.Work(terms, _image_set.credentials(params), lambda *_: None, docker)
        outcomes = [work.foretell(want) for want in asked]
        _image_set.exit_json(module, outcomes, before, before.with_uses(_image_set.uses(asked, outcomes)))
    if all(step.is_done for step in steps) and not terms.refresh:
        _image_set.settle(module, asked, [have.Outcome(words=one.want.words, name=one.name) for one in steps])
    lacking = [step.want.build for step in steps if step.way == "build" and not Path(step.want.folder).is_dir()]
    if lacking:
        module.exit_json(changed=False, lacking=lacking)
    begun = job.begin("present", images=asked, terms=terms, credentials=_image_set.credentials(params))
    _exit_as(module, job.follow(begun.id, timeout_s=params["wait"]))


def _carry(module: AnsibleModule, folder: Path) -> NoReturn:
    from hearth.images import book, carry, job

    known = book.read()
    names = sorted({use.image for use in known.models.values()} & set(known.images))
    state = module.params["state"]
    if module.check_mode:
        _image_set.exit_json(module, carry.foretell(state, names, folder, known), known, known)
    begun = job.begin(state, names=names, where=str(folder), terms=_image_set.terms(module.params))
    _exit_as(module, job.follow(begun.id, timeout_s=module.params["wait"]))


def _exit_as(module: AnsibleModule, done: Job) -> NoReturn:
    """Say what became of a job, or how to go on waiting for it."""
    from hearth.images import book

    if done.is_running:
        module.exit_json(changed=False, attach=f"{done.id}/{done.step}", doing=done.words)
    if done.failure is not None:
        known = book.read()
        log = list(done.failure.log)
        _image_set.exit_json(module, done.outcomes, known, known, failure=done.failure.sentence, log=log)
    if done.do == "present":
        _image_set.settle(module, done.images, done.outcomes)
    known = book.read()
    _image_set.exit_json(module, done.outcomes, known, known)


if __name__ == "__main__":
    main()
