# SPDX-License-Identifier: Apache-2.0
"""_gpu: what a box is to have for its GPU, and how engines get it, by what was read of the box."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _gpu
from ansible_collections.hearth.spark.plugins.module_utils._nvidia import TOOLKIT

DGX = {"platform": "GX10", "release": "7.6.0"}
PINNED = [f"{name}=1.20.1-1" for name in TOOLKIT]


def box(**changed: Any) -> dict[str, Any]:
    """The facts of a Spark on which all is well, but for what is ``changed``."""
    docker = {"installed": True, "packaged": False, "version": "29.6.2", "error": "", "cdi": True}
    gpu = {"name": "NVIDIA GB10", "count": 1, "driver": "580.178.04", "error": ""}
    facts: dict[str, Any] = {
        "dgx": DGX,
        "docker": docker | changed.pop("docker", {}),
        "gpu": gpu | changed.pop("gpu", {}),
        "toolkit": "1.20.1",
        "toolkit_packages": dict.fromkeys(TOOLKIT, "1.20.1-1"),
        "cdi": ["nvidia.com/gpu"],
        "cdi_devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all"],
        "user": {"name": "spark", "groups": ["docker", "spark"]},
    }
    return facts | changed


def plain(**changed: Any) -> dict[str, Any]:
    """An Ubuntu with a driver and nothing else of NVIDIA's."""
    bare = {"dgx": {}, "toolkit": "", "toolkit_packages": {}, "cdi": [], "cdi_devices": []}
    return box(**{**bare, **changed})


NO_GPU = {"name": "", "count": 0, "driver": "", "error": ""}


def test_a_spark_on_which_all_is_well_has_nothing_done() -> None:
    plan = _gpu.plan(box(), version="1.20.1")

    assert (plan["packages"], plan["missing"], plan["managed"]) == ([], [], False)
    assert plan["way"] == "nvidia.com/gpu=all"
    assert plan["versions"] == [
        "Docker 29.6.2",
        "NVIDIA GB10, driver 580.178.04",
        "NVIDIA container toolkit 1.20.1",
        "CDI devices nvidia.com/gpu=0, nvidia.com/gpu=all",
        "engines get the GPU as nvidia.com/gpu=all",
    ]


def test_a_spark_never_has_anything_installed() -> None:
    plan = _gpu.plan(box(toolkit="", toolkit_packages={}), gpu="nvidia", install=True, version="1.20.1")

    assert (plan["managed"], plan["packages"]) == (False, [])
    assert plan["missing"] == ["the NVIDIA container toolkit is missing: sudo apt-get install nvidia-container-toolkit"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param(
            {"cdi": []}, "sudo nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml", id="no CDI devices"
        ),
        pytest.param(
            {"cdi": [], "toolkit": "1.17.8"}, "--output=/etc/cdi/nvidia.yaml", id="none, and none after a boot"
        ),
        pytest.param({"docker": {"cdi": False}}, 'CDI is off in Docker: {"features": {"cdi": true}}', id="CDI off"),
        pytest.param({"docker": {"packaged": True}}, "sudo apt-get install docker-ce docker-ce-cli", id="docker.io"),
        pytest.param({"user": {"name": "spark", "groups": ["spark"]}}, "sudo usermod -aG docker spark", id="group"),
        pytest.param(
            {"gpu": {"error": "Driver/library version mismatch"}}, "a reboot mends that", id="driver's libraries"
        ),
        pytest.param({"gpu": NO_GPU}, "no driver of NVIDIA's is loaded", id="no driver"),
        pytest.param(
            {"toolkit_packages": {**dict.fromkeys(TOOLKIT, "1.20.1-1"), "libnvidia-container1": "1.19.0-1"}},
            "of several versions (nvidia-container-toolkit 1.20.1-1, ",
            id="split",
        ),
    ],
)
def test_what_a_spark_lacks_is_told_with_what_to_do(changed: dict[str, Any], words: str) -> None:
    missing = _gpu.plan(box(**changed))["missing"]

    assert len(missing) == 1
    assert words in missing[0]


def test_a_plain_box_with_a_driver_gets_the_toolkit_in_one_version() -> None:
    plan = _gpu.plan(plain(), version="1.20.1")

    assert (plan["managed"], plan["packages"], plan["pin"]) == (True, PINNED, "1.20.1-1")
    assert plan["way"] == "nvidia.com/gpu=all"


def test_a_version_may_be_said_as_apt_has_it() -> None:
    assert _gpu.plan(plain(), version="1.20.1-1")["packages"] == PINNED


def test_without_a_version_the_packages_are_not_pinned() -> None:
    plan = _gpu.plan(plain(), version="")

    assert (plan["packages"], plan["pin"]) == (list(TOOLKIT), "")


@pytest.mark.parametrize(
    ("have", "packages"),
    [
        pytest.param(dict.fromkeys(TOOLKIT, "1.20.1-1"), [], id="the same"),
        pytest.param(dict.fromkeys(TOOLKIT, "1.21.0-1"), [], id="newer: it stays"),
        pytest.param(dict.fromkeys(TOOLKIT, "1.9.0-1"), PINNED, id="older"),
        pytest.param({TOOLKIT[1]: "1.20.1-1"}, PINNED, id="a part of it"),
        pytest.param({**dict.fromkeys(TOOLKIT, "1.20.1-1"), TOOLKIT[3]: "1.19.0-1"}, PINNED, id="split"),
    ],
)
def test_only_what_is_not_there_is_installed(have: dict[str, str], packages: list[str]) -> None:
    plan = _gpu.plan(plain(toolkit="x", toolkit_packages=have), version="1.20.1")

    assert (plan["packages"], plan["refused"]) == (packages, "")


def test_what_would_be_split_by_a_part_that_is_newer_is_refused() -> None:
    plan = _gpu.plan(plain(toolkit_packages={TOOLKIT[1]: "1.21.0-1"}), version="1.20.1")

    assert plan["packages"] == []
    assert plan["refused"].startswith("container_toolkit_version: 1.20.1-1 is older than the 1.21.0-1 of")
    assert plan["refused"].endswith("set it to 1.21.0-1")


@pytest.mark.parametrize(
    ("gpu", "driver", "nvidia"),
    [
        ("auto", "580.178.04", True),
        ("auto", "", False),
        ("nvidia", "", True),
        ("none", "580.178.04", False),
    ],
)
def test_whether_there_is_a_gpu_is_seen_or_told(gpu: str, driver: str, nvidia: bool) -> None:
    plan = _gpu.plan(plain(gpu={"driver": driver}), gpu=gpu, version="1.20.1")

    assert (plan["nvidia"], plan["managed"], bool(plan["packages"])) == (nvidia, nvidia, nvidia)


def test_a_box_without_a_gpu_lacks_nothing() -> None:
    plan = _gpu.plan(plain(gpu=NO_GPU))

    assert (plan["way"], plan["missing"]) == ("none", [])
    assert plan["versions"] == ["Docker 29.6.2", "engines run without a GPU"]


OLD, OFF = {"version": "20.10.24", "cdi": False}, {"version": "29.6.2", "cdi": False}


@pytest.mark.parametrize(
    ("facts", "install", "way"),
    [
        pytest.param(box(), True, "nvidia.com/gpu=all", id="a Spark"),
        pytest.param(box(docker=OFF), True, "gpus=all", id="a Spark with CDI off"),
        pytest.param(box(cdi=[]), True, "gpus=all", id="a Spark without a specification"),
        pytest.param(box(cdi=[], toolkit=""), True, "none", id="a Spark without a toolkit"),
        pytest.param(plain(), True, "nvidia.com/gpu=all", id="all is still to be installed"),
        pytest.param(plain(docker={"version": "", "cdi": False}), True, "nvidia.com/gpu=all", id="Docker, too"),
        pytest.param(plain(docker=OFF), True, "nvidia.com/gpu=all", id="CDI is to be switched on"),
        pytest.param(plain(docker=OLD), True, "gpus=all", id="Docker is too old for CDI"),
        pytest.param(plain(), False, "none", id="nothing there, and nothing may be installed"),
        pytest.param(plain(docker=OLD, toolkit="1.20.1", cdi=["nvidia.com/gpu"]), False, "gpus=all", id="old, by hand"),
        pytest.param(plain(toolkit="1.20.1", cdi=["nvidia.com/gpu"]), False, "nvidia.com/gpu=all", id="CDI, by hand"),
    ],
)
def test_engines_get_the_gpu_by_cdi_and_else_by_the_hook(facts: dict[str, Any], install: bool, way: str) -> None:
    assert _gpu.plan(facts, install=install, version="1.20.1")["way"] == way


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("26.1.5+dfsg1", (26, 1, 5)),
        ("1.20.1-1", (1, 20, 1, 1)),
        ("580", (580,)),
        ("v25.0", (25, 0)),
        ("", ()),
        ("x", ()),
    ],
)
def test_a_version_as_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert _gpu.numbers(version) == numbers
