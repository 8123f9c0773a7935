#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Tell the images of engines that are on the box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: images_info
short_description: Tell which images of engines are on the box, and what for
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Asks Docker and what Hearth knows of images; no registry.
  - Runs with the interpreter of C(/opt/hearth/venv), which the role C(hearth.spark.runtime) makes.
options: {}
extends_documentation_fragment:
  - hearth.spark.attributes
  - hearth.spark.attributes.info
seealso:
  - module: hearth.spark.images
"""

EXAMPLES = r"""
- name: See what is there
  hearth.spark.images_info:
  register: found
  vars:
    ansible_python_interpreter: /opt/hearth/venv/bin/python
"""

RETURN = r"""
images:
  description:
    - Each image; C(name), C(source), C(digest), C(id), C(how) it came, since when (C(at)), C(engine), its C(version),
      C(size) in bytes (0 where Docker does not have it), and names of engines in C(used_by), C(previous_of),
      C(next_of) and C(held_by).
    - C(smoke) is V(ok), V(not tried), V(missing), or V(replaced) where Docker has something else under its name.
  returned: success
  type: list
  elements: dict
lines:
  description: The same as a table.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    _hearth.require(module)
    import msgspec

    from hearth.cli import tables
    from hearth.errors import HearthError
    from hearth.images import book, listing
    from hearth.images.dockerd import Docker

    try:
        rows = listing.look(book.read(), Docker())
    except HearthError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, images=msgspec.to_builtins(rows), lines=tables.images(rows))


if __name__ == "__main__":
    main()
