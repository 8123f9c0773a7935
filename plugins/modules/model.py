#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have models on the box: whole and verified, checked again, or gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model
short_description: Have models on the box, whole and verified, or gone
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Brings models from a Hugging Face hub or a mirror, from plain URLs, from a folder of the box, or from Ollama's
    registry. What was cut off goes on where it was, every file is verified, and a folder is put in place only when all
    of it is there.
  - What is in Ollama's registry is pulled and removed by Ollama itself, which runs for that long in a container,
    without a GPU and on the box's loopback.
  - Does nothing where that is so already. That costs no request where O(revision) is a commit, and one where it is a
    branch or a tag; no file is read. Ollama is not asked about a tag that is there, but with O(refresh).
  - The download is a job of systemd on the box. It goes on when the play is interrupted or the connection is lost; the
    same task run again, by whomever, waits for it and ends as it does. While it lasts, its progress is shown.
  - Of several models, one that fails does not keep the others from being brought.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options:
  state:
    description:
      - V(present) has the models there.
      - V(verified) does that as well, but reads and hashes every file again, and brings anew what is damaged.
      - V(absent) removes what this module brought to the folder; what others put there stays. It refuses while an
        engine that runs uses the folder. Of Ollama's store it removes the tag, whoever pulled it, and what no other
        needs.
      - V(pruned) removes what downloads that were cut off left below O(path), which is then the folder of all models,
        with the models at C(family/name), and in Ollama's store also what no model needs any more. A download under way
        is left alone.
    type: str
    choices: [present, verified, absent, pruned]
    default: present
  path:
    description: The model's folder, absolute; with O(ollama), Ollama's store. Either this or O(models) is needed.
    type: path
  repo:
    description: The repository on the hub, as V(owner/name).
    type: str
    default: ""
  revision:
    description: Branch, tag or commit of the repository. A commit needs no question to the hub once it is there.
    type: str
    default: main
  include:
    description: >-
      Shell patterns of the files to bring; without any, all of them. What belongs together comes together: all parts of
      a file that was split, and the shards that an index names.
    type: list
    elements: str
    default: []
  exclude:
    description: Shell patterns of files to leave out.
    type: list
    elements: str
    default: []
  extra_files:
    description: Files from plain URLs, into the same folder.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: Where it is.
        type: str
        required: true
      path:
        description: Where it belongs, below the model's folder.
        type: str
        required: true
      sha256:
        description: Its SHA-256 in hex; without it, nothing can be verified but its size.
        type: str
        default: ""
  source:
    description: A folder of the box to copy from, in place of a hub.
    type: str
    default: ""
  ollama:
    description: A tag of Ollama's registry, as V(qwen3:0.6b), in place of O(repo), O(source) and O(extra_files).
    type: str
    default: ""
  image:
    description: >-
      The image on the box to run Ollama from, with O(ollama); that of an engine on this store unless given.
    type: str
    default: ""
  names:
    description: >-
      Names that engines gave to the tag, with O(ollama). V(absent) removes those that still mean the same model.
    type: list
    elements: str
    default: []
  models:
    description:
      - Several models at once, brought one after the other by one job.
      - The options beside it that are no part of an element are for all of them; O(owner) and O(group) are where an
        element has none.
    type: list
    elements: dict
    suboptions:
      path:
        description: As O(path).
        type: path
        required: true
      repo:
        description: As O(repo).
        type: str
        default: ""
      revision:
        description: As O(revision).
        type: str
        default: main
      include:
        description: As O(include).
        type: list
        elements: str
        default: []
      exclude:
        description: As O(exclude).
        type: list
        elements: str
        default: []
      extra_files:
        description: As O(extra_files).
        type: list
        elements: dict
        default: []
        suboptions:
          url:
            description: Where it is.
            type: str
            required: true
          path:
            description: Where it belongs, below the model's folder.
            type: str
            required: true
          sha256:
            description: Its SHA-256 in hex.
            type: str
            default: ""
      source:
        description: As O(source).
        type: str
        default: ""
      ollama:
        description: As O(ollama).
        type: str
        default: ""
      image:
        description: As O(image).
        type: str
        default: ""
      names:
        description: As O(names).
        type: list
        elements: str
        default: []
      owner:
        description: As O(owner).
        type: str
      group:
        description: As O(group).
        type: str
  endpoint:
    description: The hub's address, or that of a mirror.
    type: str
    default: https://huggingface.co
  token:
    description:
      - The hub's token, for repositories that are private or gated. Keep it in Ansible Vault.
      - On the box it is in a file that only root may read, for as long as the download lasts.
    type: str
  token_file:
    description: A file of the box with the token in it, in place of O(token).
    type: path
  offline:
    description: Ask nobody. What is there is taken as it is; what is missing is a failure.
    type: bool
    default: false
  refresh:
    description: Have Ollama look whether a tag that is there moved, and bring it as it is now.
    type: bool
    default: false
  unreachable:
    description: >-
      What to do about a model that is there, whole, and whose hub cannot be asked whether there is a newer one. V(keep)
      takes it as it is, with a warning.
    type: str
    choices: [fail, keep]
    default: fail
  reserve_gib:
    description: GiB of the disk that are to stay free.
    type: float
    default: 10
  owner:
    description: Who is to own the files; root unless given.
    type: str
  group:
    description: The files' group; the owner's own unless given.
    type: str
  workers:
    description: How many files are fetched at once.
    type: int
    default: 8
  xet:
    description: Whether large files may come by Xet, the hub's own storage.
    type: bool
    default: true
  wait:
    description:
      - Seconds to wait for the download to end; without it, until it has ended.
      - For the module's action plugin, which shows progress between two waits.
    type: float
  attach:
    description:
      - The download to wait for, as the RV(attach) of an earlier run.
      - For the module's action plugin, which shows progress between two waits.
    type: str
extends_documentation_fragment:
  - hearth.spark.attributes
attributes:
  check_mode:
    description: >-
      Asks the hub what would have to come, and fails where it could not begin. No file is hashed. Ollama is not asked:
      how much would come of a tag is not said.
    support: full
  diff_mode:
    description: Commit, files and size of each model before and after.
    support: full
notes:
  - Where V(present) or V(verified) replaces files that a running engine has open, the engine goes on with the old ones
    until it is started again, and there is a warning that says so.
seealso:
  - module: hearth.spark.active_model
"""

EXAMPLES = r"""
- name: Have a model on the box
  hearth.spark.model:
    path: /home/spark/ai/models/qwen/qwen3-8b
    repo: Qwen/Qwen3-8B
    owner: spark
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Have two models, one of them gated, from a mirror
  hearth.spark.model:
    models:
      - path: /home/spark/ai/models/llama/scout
        repo: meta-llama/Llama-4-Scout-17B-16E-Instruct
        exclude: ["original/*"]
      - path: /home/spark/ai/models/qwen/qwen3-8b-gguf
        repo: Qwen/Qwen3-8B-GGUF
        include: ["*Q4_K_M.gguf"]
    endpoint: https://hub.example.org
    token: "{{ models_hf_token }}"
    owner: spark
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Have a model of Ollama's registry in the store that Ollama's engines share
  hearth.spark.model:
    path: /home/spark/ai/models/ollama
    ollama: qwen3:0.6b
    image: ollama/ollama:0.35.1
    owner: spark
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Remove a model
  hearth.spark.model:
    path: /home/spark/ai/models/qwen/qwen3-8b
    state: absent
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python

- name: Remove what downloads that were cut off left
  hearth.spark.model:
    path: /home/spark/ai/models
    state: pruned
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
models:
  description:
    - What became of each model, in the order they were given.
    - C(changed); C(commit), C(files) and C(bytes_total) of the whole model; C(bytes_fetched), C(seconds), and C(rate)
      in bytes a second, of what was fetched; C(fetched), the files that were missing or wrong; C(freed) bytes; C(kept),
      what was left although it was asked to go. C(verified) is false where a folder was taken as it is. C(msg) says why
      one failed.
    - For Ollama C(ollama) is the tag, C(commit) the digest of its manifest, and C(files) are layers; C(unnamed) counts
      those that V(pruned) removed because no model needs them.
  returned: when the module itself ran to its end
  type: list
  elements: dict
  sample:
    - path: /home/spark/ai/models/qwen/qwen3-8b
      ollama: ""
      changed: true
      commit: b968826d9c46dd6066d109eabc6255188de91218
      files: 14
      bytes_total: 16397393416
      bytes_fetched: 16397393416
      seconds: 148.2
      rate: 112310913.8
      freed: 0
      fetched: [config.json]
      kept: []
      verified: true
      unnamed: 0
      msg: ""
bytes_total:
  description: Bytes of all models together.
  returned: success
  type: int
bytes_fetched:
  description: Bytes that came, or would come in check mode.
  returned: success
  type: int
freed:
  description: Bytes of the disk that were given back.
  returned: success
  type: int
seconds:
  description: How long it took, in seconds.
  returned: success
  type: float
commit:
  description: The commit that is there, where one model was asked for.
  returned: success, with O(path)
  type: str
lines:
  description: What happened to each model, in sentences.
  returned: success
  type: list
  elements: str
attach:
  description: The download that goes on, for the option of this name.
  returned: when the download has not ended within O(wait)
  type: str
doing:
  description: What the download does just now, in words.
  returned: when the download has not ended within O(wait)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth, _model


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **_model.MODEL,
            "path": {"type": "path"},
            "state": {"type": "str", "choices": ["present", "verified", "absent", "pruned"], "default": "present"},
            "models": {"type": "list", "elements": "dict", "options": _model.MODEL},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "no_log": True},
            "token_file": {"type": "path"},
            "offline": {"type": "bool", "default": False},
            "refresh": {"type": "bool", "default": False},
            "unreachable": {"type": "str", "choices": ["fail", "keep"], "default": "fail"},
            "reserve_gib": {"type": "float", "default": 10},
            "workers": {"type": "int", "default": 8},
            "xet": {"type": "bool", "default": True},
            "wait": {"type": "float"},
            "attach": {"type": "str"},
        },
        mutually_exclusive=[("path", "models"), ("token", "token_file")],
        required_one_of=[("path", "models")],
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth.errors import HearthError

    try:
        _model.run(module)
    except HearthError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
