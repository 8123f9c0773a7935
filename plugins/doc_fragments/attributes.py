# SPDX-License-Identifier: Apache-2.0
"""What modules say of themselves alike."""

from __future__ import annotations


class ModuleDocFragment:
    """``hearth.spark.attributes``: it runs on any box; ``.debian``: where apt is; ``.info``: it changes nothing."""

    DOCUMENTATION = r"""
options: {}
attributes:
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

    DEBIAN = r"""
options: {}
attributes:
  platform:
    description: Where it runs.
    support: full
    platforms: debian
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""
