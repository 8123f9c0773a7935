# SPDX-License-Identifier: Apache-2.0
"""After a switch to a model that cannot be loaded."""

from __future__ import annotations

from collections.abc import Callable

from testinfra.host import Host


def test_the_model_of_before_serves_alone(
    units: dict[str, str], containers: list[str], chat: Callable[[str], str]
) -> None:
    assert units["tiny-a"] == "active"
    assert units["tiny-b"] != "active"
    assert containers == ["hearth-tiny-a"]
    assert chat("tiny-a") == "tiny-a"


def test_it_still_starts_at_boot(boots: list[str]) -> None:
    assert boots == ["tiny-a"]


def test_what_failed_is_not_tried_again(host: Host) -> None:
    assert host.check_output("systemctl show -P SubState hearth-engine-tiny-b") in ("dead", "failed")


def test_nothing_is_left_to_heal(host: Host) -> None:
    assert not host.file("/run/hearth/switch.json").exists
