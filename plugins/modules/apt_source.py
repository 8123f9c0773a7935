#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have an apt repository, with its key checked and its packages pinned."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Have an apt repository, with its key checked and its packages pinned to one version
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Writes the repository's key, C(/etc/apt/keyrings/NAME.asc), its line, C(/etc/apt/sources.list.d/NAME.list), which
    trusts that key and no other, and a pin of its packages, C(/etc/apt/preferences.d/NAME).
  - A key is taken only with the fingerprint that was asked for, and only where no other key comes with it. Where the
    box has it already, nothing is fetched.
  - What was written is tried at once, with this repository alone. Where that fails, all three files are again what they
    were.
options:
  name:
    description: The name of its files.
    type: str
    required: true
  repository:
    description: >-
      Its address and suite, as in sources.list(5). C($(ARCH)) is apt's own word for the box's architecture.
    type: str
    required: true
  key:
    description: The text of its key.
    type: str
    default: ""
  key_url:
    description: Where its key is fetched from, where O(key) has none.
    type: str
    default: ""
  fingerprint:
    description: The fingerprint of its key, in hexadecimal. Required with O(key_url).
    type: str
    default: ""
  packages:
    description: Its packages that are wanted.
    type: list
    elements: str
    required: true
  version:
    description: The version that they are pinned to; empty for none. Nothing that is newer on the box is taken back.
    type: str
    default: ""
  fresh:
    description: Fetch its list of packages, and look at that, also where nothing is to be written.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another package manager's run to end.
    type: float
    default: 600
extends_documentation_fragment:
  - hearth.spark.attributes.debian
attributes:
  check_mode:
    description: Says what would be written. A key that the box does not have is not fetched.
    support: full
  diff_mode:
    description: One diff a file.
    support: full
"""

EXAMPLES = r"""
- name: Have the repository of the NVIDIA container toolkit
  hearth.spark.apt_source:
    name: nvidia-container-toolkit
    repository: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /
    key_url: https://nvidia.github.io/libnvidia-container/gpgkey
    fingerprint: C95B321B61E88C1809C4F759DDCAE044F796ECB0
    packages: [nvidia-container-toolkit, nvidia-container-toolkit-base]
    version: 1.20.1-1
"""

RETURN = r"""
paths:
  description: The files that were written, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/apt/keyrings/nvidia-container-toolkit.asc]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.hearth.spark.plugins.module_utils import _apt

_FETCH_S = 30
# A file of keys is a few kilobytes.
_LONGEST = 1_000_000


def _fetch(url: str) -> bytes:
    with open_url(url, timeout=_FETCH_S, http_agent="hearth") as answer:
        content: bytes = answer.read(_LONGEST)
        return content


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "repository": {"type": "str", "required": True},
            # A public one.
            "key": {"type": "str", "default": "", "no_log": False},
            "key_url": {"type": "str", "default": "", "no_log": False},
            "fingerprint": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "fresh": {"type": "bool", "default": False},
            "lock_timeout": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    if not given["key"] and not (given["key_url"] and given["fingerprint"]):
        module.fail_json(msg="the repository's key is missing: give its text, or its address and its fingerprint.")
    wanted = ("name", "repository", "key", "key_url", "fingerprint", "packages", "version")
    source = _apt.Source(**{name: given[name] for name in wanted})
    try:
        result = _apt.ensure(
            _apt.Apt(_fetch),
            source,
            fresh=given["fresh"],
            lock_timeout_s=given["lock_timeout"],
            check=module.check_mode,
        )
    except _apt.SourceError as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    module.exit_json(changed=bool(result.changed), paths=result.changed, diff=result.diff)


if __name__ == "__main__":
    main()
