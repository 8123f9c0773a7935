# SPDX-License-Identifier: Apache-2.0
"""What the tests of a box share."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def engines(host: Host) -> list[dict[str, Any]]:
    """Return the engines of the box's contract."""
    contract = json.loads(host.file("/etc/hearth/engines.json").content_string)
    assert contract["schema"] == 1
    found: list[dict[str, Any]] = contract["engines"]
    return found


@pytest.fixture
def active(host: Host, engines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one engine that runs."""
    running = [engine for engine in engines if host.service(engine["unit"]).is_running]
    assert len(running) == 1, f"one engine should run, not {[engine['name'] for engine in running]}"
    return running[0]


@pytest.fixture
def api_key(host: Host) -> str:
    """Return the key that the engines want."""
    lines = host.file("/etc/hearth/secrets/engine.env").content_string.splitlines()
    values = [line.partition("=")[2] for line in lines if line.startswith("LLAMA_API_KEY=")]
    assert values, "engine.env has no LLAMA_API_KEY"
    return str(values[0]).strip('"')
