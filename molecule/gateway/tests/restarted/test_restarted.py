# SPDX-License-Identifier: Apache-2.0
"""After a key was revoked by the playbook and the gateway restarted."""

from __future__ import annotations

import json
from collections.abc import Callable

from testinfra.host import Host


def test_the_key_is_gone(host: Host) -> None:
    assert "laptop" not in host.check_output("hearth keys list --json")


def test_the_model_of_before_was_left_alone_and_answers(host: Host, chat: Callable[[str], str]) -> None:
    assert chat("tiny-b") == "tiny-b"
    began = [
        int(host.check_output(f"systemctl show -P ActiveEnterTimestampMonotonic {unit}"))
        for unit in ("hearth-engine-tiny-b", "hearth-gateway")
    ]
    assert began == sorted(began)


def test_it_knows_what_runs(ask: Callable[..., tuple[int, str]]) -> None:
    listed = json.loads(ask("/v1/models")[1])["data"]
    states = {one["id"]: one["state"] for one in listed}
    assert states["tiny-b"] == "ready"


def test_nothing_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain").strip() == ""
