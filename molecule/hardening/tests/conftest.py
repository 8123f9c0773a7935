# SPDX-License-Identifier: Apache-2.0
"""What the looks at a hardened box share: ways in, from this machine and from a second container."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
KEYS = ROOT / ".cache/lab/hardening"
BOX = "hearth-molecule-hardening"
# Well-known ports, and all that Hearth, Docker and NVIDIA's tools listen on.
PORTS = [
    *range(1, 1025),
    2375,
    2376,
    5000,
    5353,
    6379,
    8000,
    8009,
    8080,
    8081,
    8265,
    8888,
    11000,
    11434,
    12000,
    30000,
    30001,
]
SCAN = """
import asyncio, json, sys
async def answers(host, port):
    try:
        (await asyncio.wait_for(asyncio.open_connection(host, port), 2))[1].close()
        return port
    except (OSError, asyncio.TimeoutError):
        return 0
async def main(host, ports):
    print(json.dumps(sorted(filter(None, await asyncio.gather(*(answers(host, port) for port in ports))))))
asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""
Ssh = Callable[..., "subprocess.CompletedProcess[str]"]


def docker(*words: str) -> str:
    """Ask this machine's Docker."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=120).stdout.strip()


@pytest.fixture(scope="session")
def address() -> str:
    """Return the box's address on the lab's network."""
    form = '{{(index .NetworkSettings.Networks "hearth-lab").IPAddress}}'
    return docker("container", "inspect", "--format", form, BOX)


@pytest.fixture(scope="session")
def ssh(address: str) -> Ssh:
    """Run ssh to the box as somebody; all words come before the command."""

    def run(
        user: str, *words: str, key: str = "admin", command: str = "", say: str = ""
    ) -> subprocess.CompletedProcess[str]:
        options = [
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]
        options += ["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10", "-i", str(KEYS / key)]
        return subprocess.run(
            ["ssh", *options, *words, "-l", user, address, *([command] if command else [])],
            input=say,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.fixture
def scan(address: str) -> Callable[[], list[int]]:
    """Return the ports of the box that answer a second container on its network."""

    def scan() -> list[int]:
        words = (
            "--rm",
            "--network=hearth-lab",
            "--label=hearth.lab=true",
            "--entrypoint=python3",
            "hearth-lab/box:latest",
        )
        found: list[int] = json.loads(docker("run", *words, "-c", SCAN, address, json.dumps(PORTS)))
        return found

    return scan
