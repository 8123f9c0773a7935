# SPDX-License-Identifier: Apache-2.0
"""After ten switches in a row."""

from __future__ import annotations

from collections.abc import Callable

from testinfra.host import Host


def test_the_last_model_serves_alone(units: dict[str, str], containers: list[str], chat: Callable[[str], str]) -> None:
    assert units == {"tiny-a": "active", "tiny-b": "inactive", "gemma-2-2b": "inactive"}
    assert containers == ["hearth-tiny-a"]
    assert chat("tiny-a") == "tiny-a"


def test_it_alone_starts_at_boot(boots: list[str]) -> None:
    assert boots == ["tiny-a"]


def test_each_switch_started_one_engine_once(host: Host) -> None:
    # One more of tiny-a: that of site.yml.
    for name, starts in (("tiny-a", 6), ("tiny-b", 5)):
        log = host.check_output(f"journalctl --no-pager -o cat -u hearth-engine-{name}")
        assert log.count(f"hearth: {name} is ready after") == starts


def test_no_unit_has_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain").strip() == ""


def test_nothing_is_left_to_heal(host: Host) -> None:
    assert not host.file("/run/hearth/switch.json").exists
