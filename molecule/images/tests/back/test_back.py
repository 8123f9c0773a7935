# SPDX-License-Identifier: Apache-2.0
"""After the way back, and site.yml: the old image runs, and stays."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host


def test_the_image_before_runs_again(lab: str) -> None:
    assert lab == "one"


def test_it_is_held_there(container: dict[str, Any], known: dict[str, Any]) -> None:
    use = known["models"]["tiny-a"]
    assert use["image"] == use["held"] == container["Image"]


def test_a_person_can_see_that(host: Host) -> None:
    assert "tiny-a (held)" in host.check_output("hearth images")
