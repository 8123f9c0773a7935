# SPDX-License-Identifier: Apache-2.0
"""After a download was killed half way, and site.yml was run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testinfra.host import Host

MODELS = "/home/spark/ai/models/tiny"
# What the download writes at once, and what the kernel holds on its way.
IN_FLIGHT = 200_000


def test_the_model_is_whole(files: Callable[[str, str], list[str]]) -> None:
    assert files("tiny-b", "tiny-b") == [".hearth.json", "LICENSE", "tiny-b.gguf"]


def test_what_had_come_was_not_fetched_again(host: Host, asked: list[dict[str, Any]]) -> None:
    size = host.file(f"{MODELS}/tiny-b/tiny-b.gguf").size
    bodies = [one for one in asked if one["at"] == "cdn" and one["method"] == "GET"]

    assert len(bodies) == 2
    assert bodies[1]["start"] > 0
    assert sum(one["sent"] for one in bodies) < size + IN_FLIGHT


def test_nothing_is_left_of_the_first_try(host: Host) -> None:
    assert host.check_output(f"ls -A {MODELS}").split() == ["tiny-a", "tiny-b"]


def test_the_other_model_went_on(units: dict[str, str]) -> None:
    assert units["tiny-a"] == "active"
