# SPDX-License-Identifier: Apache-2.0
"""What the looks at the box share: what the hub was asked, who runs, and what a folder has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

MODELS = "/home/spark/ai/models/tiny"


@pytest.fixture
def asked(host: Host) -> list[dict[str, Any]]:
    """Return what the hub was asked since its record was last begun, in order."""
    seen: list[dict[str, Any]] = json.loads(host.check_output("curl -sSf http://127.0.0.1:9400/_hub/seen"))
    return seen


@pytest.fixture
def units(host: Host) -> dict[str, str]:
    """Return the state of each engine's unit, by engine."""
    engines = json.loads(host.file("/etc/hearth/engines.json").content_string)["engines"]
    return {one["name"]: host.run(f"systemctl is-active {one['unit']}").stdout.strip() for one in engines}


@pytest.fixture
def files(host: Host) -> Callable[[str], list[str]]:
    """Name the files of a model's folder, after those that should be whole were compared with the hub's."""

    def look(name: str, repo: str) -> list[str]:
        names = host.check_output(f"cd {MODELS}/{name} && ls -A").split()
        for one in names:
            if one != ".hearth.json":
                assert host.run(f"cmp {MODELS}/{name}/{one} /srv/hub/lab/{repo}/{one}").rc == 0, one
        return sorted(names)

    return look
