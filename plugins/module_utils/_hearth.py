# SPDX-License-Identifier: Apache-2.0
"""How a module reaches the package ``hearth`` on the box. PRIVATE to the collection."""

from __future__ import annotations

import sys
from typing import Any, NoReturn, Protocol

# The version of the package that this collection's modules were written for; galaxy.yml has the same (tested).
VERSION = "0.1.0"
PYTHON = "/opt/hearth/venv/bin/python"


class Module(Protocol):
    """What is used of AnsibleModule."""

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn: ...


def require(module: Module) -> None:
    """Fail with the play to run where the package is missing or of another version."""
    try:
        import hearth
    except ImportError as error:
        module.fail_json(
            msg=f"{sys.executable} has no package hearth ({error}): run site.yml against this box first, and run this "
            f"module with ansible_python_interpreter={PYTHON}"
        )
    if hearth.__version__ != VERSION:
        module.fail_json(
            msg=f"the box has hearth {hearth.__version__} and this collection is made for {VERSION}: run site.yml"
        )
