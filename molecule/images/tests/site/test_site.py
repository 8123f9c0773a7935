# SPDX-License-Identifier: Apache-2.0
"""After site.yml: images by digest and by tag, under names of Hearth's."""

from __future__ import annotations

import re
from typing import Any

from testinfra.host import Host

NAME = r"localhost/hearth/{}:[0-9a-f]{{12}}"


def test_units_run_names_that_nobody_else_could_give(host: Host) -> None:
    for engine, name in (("tiny-a", "molecule-images"), ("tiny-b", "llama.cpp")):
        unit = host.check_output(f"systemctl cat hearth-engine-{engine}")
        assert re.search(rf"^ +{NAME.format(re.escape(name))} \\$", unit, flags=re.MULTILINE), unit
        assert "--pull never" in unit


def test_what_runs_is_what_the_registry_has(container: dict[str, Any], known: dict[str, Any], lab: str) -> None:
    entry = known["images"][container["Image"]]
    assert entry["digest"].startswith(f"sha256:{container['Image'].rpartition(':')[2]}")
    assert container["Labels"]["hearth.image"] == "registry.hearth.test:5000/molecule-images:1"
    assert lab == "one"


def test_all_were_pulled_and_tried_out(rows: dict[str, dict[str, Any]]) -> None:
    assert {(row["how"], row["smoke"]) for row in rows.values()} == {("pulled", "ok")}
    assert {tuple(row["used_by"]) for row in rows.values()} == {("tiny-a",), ("tiny-b",)}
    assert all(row["version"] for row in rows.values())


def test_nothing_is_left_of_what_was_fetched(host: Host) -> None:
    assert host.check_output("ls -A /var/lib/hearth/images/blobs") == ""


def test_docker_keeps_no_login(host: Host) -> None:
    assert not host.file(host.check_output("echo ~root") + "/.docker/config.json").exists
