# SPDX-License-Identifier: Apache-2.0
"""What a box is told that was never provisioned."""

from __future__ import annotations

from typing import Any

import pytest
from boxes import Box


def test_a_box_without_docker_that_may_not_install_it_is_told(fresh_box: Box) -> None:
    fresh_box.write_inventory(container_toolkit_install=False)

    run = fresh_box.play("site.yml")

    fresh_box.write_inventory()
    assert run.code != 0
    assert "Docker is missing and container_toolkit_install is false" in run.flat
    assert run.count("changed") == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"images_pull": "perhaps"}, "images_pull"),
        ({"layout_directories_extra": ["../etc"]}, "layout_directories: ../etc must be below ~/ai"),
        ({"layout_root": "ai"}, "layout_root: must be a folder below a home (~/ai) or an absolute path (/data/ai)"),
        ({"engines_gpu": "all"}, "engines_gpu: must be auto, none, a CDI name"),
    ],
    ids=["type", "folder", "root", "gpu"],
)
def test_wrong_input_is_refused_before_anything_is_changed(
    fresh_box: Box, variables: dict[str, Any], words: str
) -> None:
    fresh_box.write_inventory(**variables)

    run = fresh_box.play("site.yml")

    fresh_box.write_inventory()
    assert run.code != 0
    assert words in run.flat, run.output[-2000:]
    assert run.count("changed") == 0


def test_dgx_os_without_docker_gets_no_other_docker(fresh_box: Box) -> None:
    fresh_box.out('printf \'DGX_PLATFORM="DGX Spark"\\nDGX_SERIAL_NUMBER="1"\\n\' >/etc/dgx-release')

    run = fresh_box.play("site.yml")

    fresh_box.out("rm /etc/dgx-release")
    assert run.code != 0
    assert "this is DGX OS, whose Docker comes from NVIDIA" in run.flat
    assert run.count("changed") == 0


def test_a_switch_before_site_is_told_to_run_site(fresh_box: Box) -> None:
    run = fresh_box.play("switch.yml", "-e", "model=tiny-a", "-e", "ansible_python_interpreter=/usr/bin/python3")

    assert run.code != 0
    assert "run site.yml against this box first" in run.flat


def test_a_switch_without_a_model_asks_for_one(fresh_box: Box) -> None:
    run = fresh_box.play("switch.yml")

    assert run.code != 0
    assert "No model was named: add -e model=<name>" in run.flat


def test_check_mode_foretells_what_the_first_run_does(fresh_box: Box) -> None:
    check = fresh_box.ok("site.yml", "--check", "--diff")

    assert "Would install docker.io" in check.flat
    assert "Would have tiny-a run" in check.flat
    assert fresh_box.sh("ls /etc/hearth /opt/hearth /home/spark/ai/logs").stdout == ""


# It gets as far as to change something, so it is the last.
def test_a_box_without_network_is_told(fresh_box: Box) -> None:
    fresh_box.out("cp /etc/resolv.conf /var/resolv.conf && echo nameserver 127.0.0.1 >/etc/resolv.conf")

    run = fresh_box.play("site.yml")

    fresh_box.out("cat /var/resolv.conf >/etc/resolv.conf")
    assert run.code != 0
    assert "could not be installed from the box's apt sources" in run.flat
    assert "Check the box's network and /etc/apt/sources.list*, then run this again" in run.flat
