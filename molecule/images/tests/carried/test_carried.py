# SPDX-License-Identifier: Apache-2.0
"""After a box that had nothing got its images from a folder."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host


def test_the_registry_was_not_there(host: Host) -> None:
    assert host.run("curl --silent --max-time 5 https://registry.hearth.test:5000/v2/").rc != 0


def test_images_are_what_their_digests_say_although_docker_has_forgotten_them(
    host: Host, rows: dict[str, dict[str, Any]]
) -> None:
    assert {row["how"] for row in rows.values()} == {"loaded"}
    for name, row in rows.items():
        assert row["digest"].startswith(f"sha256:{name.rpartition(':')[2]}")
        assert row["smoke"] == "ok"
    assert "sha256" not in host.check_output("docker images --digests --format '{{.Digest}}'")


def test_the_engine_runs_from_them(host: Host, container: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    assert container["Image"] in rows
    assert host.service("hearth-engine-tiny-a").is_running
