# SPDX-License-Identifier: Apache-2.0
"""After an update: the new image runs, and the old one is the way back."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host


def test_the_tag_was_followed(lab: str) -> None:
    assert lab == "two"


def test_the_image_before_is_the_way_back(host: Host, container: dict[str, Any], known: dict[str, Any]) -> None:
    use = known["models"]["tiny-a"]
    assert (use["image"], use["held"]) == (container["Image"], "")
    assert use["previous"] != use["image"]
    assert host.check_output(f"docker inspect --format '{{{{.Config.Labels.lab}}}}' {use['previous']}") == "one"


def test_layers_that_both_have_were_fetched_once(rows: dict[str, dict[str, Any]], host: Host) -> None:
    # They differ in a label alone.
    ids = {row["id"] for row in rows.values()}
    layers = {host.check_output(f"docker inspect --format '{{{{.RootFS.Layers}}}}' {one}") for one in ids}
    assert (len(ids), len(layers)) == (3, 1)
    assert "0 bytes came" in host.check_output("cat /run/hearth/images/*.json")


def test_the_other_engine_was_not_touched(known: dict[str, Any]) -> None:
    assert known["models"]["tiny-b"]["previous"] == ""
