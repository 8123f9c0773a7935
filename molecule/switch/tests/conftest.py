# SPDX-License-Identifier: Apache-2.0
"""What the looks at the box share: which model it is that serves, alone and in full."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest
from testinfra.host import Host


@pytest.fixture
def units(host: Host) -> dict[str, str]:
    """Return the state of each engine's unit, by engine."""
    contract = json.loads(host.file("/etc/hearth/engines.json").content_string)
    return {
        engine["name"]: host.run(f"systemctl is-active {engine['unit']}").stdout.strip()
        for engine in contract["engines"]
    }


@pytest.fixture
def boots(host: Host, units: dict[str, str]) -> list[str]:
    """Return the engines that start at boot."""
    return [name for name in units if host.service(f"hearth-engine-{name}.service").is_enabled]


@pytest.fixture
def chat(host: Host) -> Callable[[str], str]:
    """Ask an engine something; return the name under which it answered."""

    def ask(name: str) -> str:
        contract = json.loads(host.file("/etc/hearth/engines.json").content_string)
        port = next(engine["port"] for engine in contract["engines"] if engine["name"] == name)
        key = host.check_output("sed -n s/^LLAMA_API_KEY=//p /etc/hearth/secrets/engine.env").strip('"')
        body = {"model": name, "max_tokens": 4, "messages": [{"role": "user", "content": "Is the fire on?"}]}
        words = ["curl", "-sSf", "-m", "60", "-H", f"Authorization: Bearer {key}", "-d", json.dumps(body)]
        text = host.check_output(shlex.join([*words, f"http://127.0.0.1:{port}/v1/chat/completions"]))
        return str(json.loads(text)["model"])

    return ask


@pytest.fixture
def containers(host: Host) -> list[str]:
    """Return the names of all containers, those that ended too."""
    return sorted(host.check_output("docker ps --all --format '{{.Names}}'").split())
