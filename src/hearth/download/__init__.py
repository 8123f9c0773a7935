# SPDX-License-Identifier: Apache-2.0
"""Bringing one model to its folder: resumable, verified, and never half of it in place.

Beside the folder ``<name>`` lies the staging folder ``.<name>.partial`` while something is under way: what came is kept
there by its hash until all is there and verified; then the whole folder is put in place at once. What is in place is
recorded in ``<name>/.hearth.json``. huggingface_hub is imported only where the hub is really asked.

A model of Ollama's registry goes into the store that all of Ollama's engines share: ``ollama``, ``pull``, ``serving``.
"""

from __future__ import annotations

from hearth.download.held import Held, held
from hearth.download.manifest import Manifest, read
from hearth.download.meter import Progress, Tell, say_nothing
from hearth.download.present import foretell, present, settled, verify
from hearth.download.remove import absent, prune
from hearth.download.request import ExtraFile, Patience, Request, Result

__all__ = [
    "ExtraFile",
    "Held",
    "Manifest",
    "Patience",
    "Progress",
    "Request",
    "Result",
    "Tell",
    "absent",
    "foretell",
    "held",
    "present",
    "prune",
    "read",
    "say_nothing",
    "settled",
    "verify",
]
