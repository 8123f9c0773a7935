# SPDX-License-Identifier: Apache-2.0
"""What the looks at the box share: what is known of its images, and what the engine that runs is made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def known(host: Host) -> dict[str, Any]:
    """Return what the box knows of its images."""
    found: dict[str, Any] = json.loads(host.file("/var/lib/hearth/images.json").content_string)
    return found


@pytest.fixture
def rows(host: Host) -> dict[str, dict[str, Any]]:
    """Return what ``hearth images`` tells, by the images' names."""
    return {row["name"]: row for row in json.loads(host.check_output("hearth images --json"))}


@pytest.fixture
def container(host: Host) -> dict[str, Any]:
    """Return the configuration of the container of the engine that runs."""
    found: dict[str, Any] = json.loads(host.check_output("docker inspect hearth-tiny-a"))[0]["Config"]
    return found


@pytest.fixture
def lab(container: dict[str, Any]) -> str:
    """Return which of the lab's images it is: one or two."""
    return str(container["Labels"]["lab"])
