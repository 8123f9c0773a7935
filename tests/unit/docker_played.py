# SPDX-License-Identifier: Apache-2.0
"""A Docker whose settings matter, played, for tests of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _dockerd

CDI = {"features": {"cdi": True}}


class Docker(_dockerd.Dockerd):
    """Runs, with CDI where the file that it was started with says so, and not with what ``hates`` names."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "daemon.json", root / "docker.sock", root / "var/docker.json")
        self.did: list[str] = []
        self.runs, self.run = True, 1
        self.hates = ""
        # Whether CDI can be had at all.
        self.knows_cdi = True
        self.read: dict[str, Any] = {}
        self.started = time.time()

    def answers(self) -> bool:
        return self.runs

    def has_cdi(self) -> bool:
        return self.runs and self.knows_cdi and bool(self.read.get("features", {}).get("cdi"))

    def property(self, name: str) -> str:
        assert name == "InvocationID"
        return f"run {self.run}"

    def started_s(self) -> float:
        return self.started

    def act(self, verb: str) -> str:
        self.did.append(verb)
        text = self.text()
        if self.hates and self.hates in text:
            self.runs = False
            return f"it hates {self.hates}"
        if verb != "reload":
            self.run += 1
            self.started = time.time()
            self.read = json.loads(text or "{}")
        self.runs = True
        return ""
