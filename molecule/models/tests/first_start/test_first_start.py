# SPDX-License-Identifier: Apache-2.0
"""After a switch to a model that the box downloads itself, which the hub refused the first time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testinfra.host import Host


def test_the_model_is_there_and_serves(files: Callable[[str, str], list[str]], units: dict[str, str]) -> None:
    assert files("late", "tiny-b") == [".hearth.json", "tiny-b.gguf"]
    assert units == {"tiny-a": "inactive", "tiny-b": "inactive", "late": "active"}


def test_it_came_by_the_unit_that_its_own_requires(host: Host) -> None:
    log = host.check_output("journalctl --no-pager -o cat -u hearth-fetch@late")

    assert "hearth-fetch@late.service: Failed" in log, "the try that was refused"
    assert "hearth: brought" in log
    assert host.check_output("systemctl show -P Requires hearth-engine-late").count("hearth-fetch@late.service") == 1


def test_the_hub_was_asked_for_it_with_the_token(asked: list[dict[str, Any]]) -> None:
    assert {one["headers"].get("authorization") for one in asked if one["at"] == "hub"} == {"Bearer hf_of_the_lab"}


def test_another_start_asks_no_hub(host: Host, asked: list[dict[str, Any]]) -> None:
    host.check_output("systemctl restart hearth-engine-late")

    seen = host.check_output("curl -sSf http://127.0.0.1:9400/_hub/seen")
    assert seen.count('"path"') == len(asked)


def test_no_unit_has_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain").strip() == ""
