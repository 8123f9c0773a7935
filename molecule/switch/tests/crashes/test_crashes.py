# SPDX-License-Identifier: Apache-2.0
"""After an engine and a switch were killed, and the switch was asked for again."""

from __future__ import annotations

from collections.abc import Callable

from testinfra.host import Host


def test_systemd_started_the_engine_again(host: Host) -> None:
    log = host.check_output("journalctl --no-pager -o cat -u hearth-engine-tiny-a")
    assert "Scheduled restart job" in log


def test_the_switch_that_was_asked_for_again_is_done(
    units: dict[str, str], containers: list[str], chat: Callable[[str], str]
) -> None:
    assert units["tiny-a"] != "active"
    assert units["tiny-b"] == "active"
    assert containers == ["hearth-tiny-b"]
    assert chat("tiny-b") == "tiny-b"


def test_the_start_at_boot_moved_along(boots: list[str]) -> None:
    assert boots == ["tiny-b"]


def test_nothing_is_left_to_heal(host: Host) -> None:
    assert not host.file("/run/hearth/switch.json").exists
