# SPDX-License-Identifier: Apache-2.0
"""What the looks at the gateway share: a key of their own, and questions with it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def key(host: Host) -> Iterator[str]:
    """Return the secret of a key for models and administration."""
    yield host.check_output("hearth keys add testinfra --scope models --scope admin 2>/dev/null")
    host.run("hearth keys revoke testinfra")


@pytest.fixture
def ask(host: Host, key: str) -> Ask:
    """Ask the gateway by curl; return the status and the text."""

    def ask(path: str, body: dict[str, Any] | None = None, *, secret: str = key, more: str = "") -> tuple[int, str]:
        header = f"-H 'Authorization: Bearer {secret}'" if secret else ""
        data = f"-d {shlex.quote(json.dumps(body))}" if body is not None else ""
        retry = "--retry 5 --retry-connrefused --retry-delay 1"
        url = f"http://127.0.0.1:8009{path}"
        done = host.run(f"curl -sSN -m 60 {retry} {more} {header} {data} -w '\\n%{{http_code}}' {url}")
        assert done.rc == 0, done.stderr
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    return ask


@pytest.fixture
def chat(ask: Ask) -> Callable[[str], str]:
    """Ask a model something; return the name under which it answered."""

    def chat(model: str) -> str:
        messages = [{"role": "user", "content": "Is the fire on?"}]
        status, text = ask("/v1/chat/completions", {"model": model, "max_tokens": 4, "messages": messages})
        assert status == 200, text
        return str(json.loads(text)["model"])

    return chat
