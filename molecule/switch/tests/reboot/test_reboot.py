# SPDX-License-Identifier: Apache-2.0
"""After the power went in the middle of a switch from tiny-b to tiny-a."""

from __future__ import annotations

from collections.abc import Callable

from testinfra.host import Host


def test_the_boot_default_came_up_alone(
    units: dict[str, str], containers: list[str], chat: Callable[[str], str]
) -> None:
    assert units == {"tiny-a": "inactive", "tiny-b": "active", "gemma-2-2b": "inactive"}
    assert containers == ["hearth-tiny-b"]
    assert chat("tiny-b") == "tiny-b"


def test_it_still_starts_at_boot(boots: list[str]) -> None:
    assert boots == ["tiny-b"]


def test_a_switch_after_it_works(host: Host, chat: Callable[[str], str]) -> None:
    host.check_output("hearth switch tiny-a")

    assert chat("tiny-a") == "tiny-a"
