# SPDX-License-Identifier: Apache-2.0
"""After site.yml, and a key that was made by the playbook."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

Ask = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("unit", ["hearth-gateway.service", "hearth-gateway.socket", "hearth-gateway-admin.socket"])
def test_it_runs_and_starts_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_it_is_the_one_listener_on_the_network(host: Host) -> None:
    listening = host.check_output("ss -Hltn | awk '{print $4}'").split()
    assert [one for one in listening if not re.match(r"(127\.|\[::1\])", one)] == ["0.0.0.0:8009"]


def test_there_is_no_key_but_those_that_were_made(host: Host) -> None:
    listed = json.loads(host.check_output("hearth keys list --json"))
    names = [one["name"] for one in (listed["keys"] if isinstance(listed, dict) else listed)]
    assert {"default", "laptop"} <= set(names) <= {"default", "laptop", "testinfra"}
    assert "hearth_" not in host.file("/etc/hearth/keys.json").content_string


@pytest.mark.parametrize("secret", ["", "hearth_wrong"])
def test_nobody_is_let_in_without_a_key(host: Host, ask: Ask, secret: str) -> None:
    body: dict[str, Any] = {"model": "tiny-b", "messages": []}
    assert ask("/v1/chat/completions", body, secret=secret)[0] == 401
    assert not host.service("hearth-engine-tiny-b").is_running


def test_the_model_that_starts_at_boot_answers(chat: Callable[[str], str]) -> None:
    assert chat("tiny-a") == "tiny-a"


def test_a_model_is_woken_by_a_request(host: Host, ask: Ask, chat: Callable[[str], str]) -> None:
    assert not host.service("hearth-engine-tiny-b").is_running

    assert chat("tiny-b") == "tiny-b"

    assert host.service("hearth-engine-tiny-b").is_running
    listed = json.loads(ask("/v1/models")[1])["data"]
    assert {one["id"]: one["state"] for one in listed}["tiny-b"] == "ready"


def test_a_stream_comes_to_its_end(ask: Ask) -> None:
    body = {"model": "tiny-b", "stream": True, "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
    status, text = ask("/v1/chat/completions", body)
    assert status == 200
    assert text.rstrip().endswith("data: [DONE]")


def test_a_model_is_switched_to_by_a_request(host: Host, ask: Ask) -> None:
    status, text = ask("/api/switch", {"model": "tiny-a"})
    assert (status, json.loads(text)) == (200, {"loaded": "tiny-a"})
    host.check_output("for i in $(seq 100); do systemctl is-active -q hearth-engine-tiny-b || exit 0; sleep 0.1; done")
    assert host.service("hearth-engine-tiny-a").is_running
    assert not host.service("hearth-engine-tiny-b").is_running

    status, text = ask("/api/switch", {"model": "tiny-b"})
    assert (status, json.loads(text)) == (200, {"loaded": "tiny-b"})


def test_metrics_are_there(ask: Ask) -> None:
    status, text = ask("/metrics")
    assert status == 200
    assert 'hearth_requests_total{code="200",key="testinfra",model="tiny-b"}' in text


def test_it_wrote_of_no_error(host: Host) -> None:
    assert "Traceback" not in host.check_output("journalctl --no-pager -o cat -u hearth-gateway")
