# SPDX-License-Identifier: Apache-2.0
"""A box with a GPU after site.yml, after an upgrade of its packages, and after a boot."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
UNIT = "hearth-engine-tiny-a.service"
CONTAINER = "hearth-tiny-a"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_newer_version_does_not_split_the_pinned_packages(host: Host, package: str) -> None:
    assert "1.21.0-1" in host.check_output("apt-cache madison %s", package)
    assert host.package(package).version == "1.20.1-1"


def test_the_repository_is_trusted_by_its_own_key_alone(host: Host) -> None:
    line = host.file("/etc/apt/sources.list.d/nvidia-container-toolkit.list").content_string

    assert line == (
        "deb [signed-by=/etc/apt/keyrings/nvidia-container-toolkit.asc] http://127.0.0.1:9500/stable/deb/$(ARCH) /\n"
    )


def test_what_the_owner_has_told_docker_stays(host: Host) -> None:
    file = host.file("/etc/docker/daemon.json")

    assert (oct(file.mode), file.user) == (oct(0o640), "root")
    assert json.loads(file.content_string) == {
        "shutdown-timeout": 7,
        "features": {"cdi": True},
        "log-opts": {"max-size": "9m", "max-file": "3"},
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},
    }


def test_the_engines_unit_gives_it_the_gpu_by_cdi(host: Host) -> None:
    unit = host.check_output(f"systemctl cat {UNIT}")

    assert "--device nvidia.com/gpu=all" in unit
    assert host.run(f"systemd-analyze verify /etc/systemd/system/{UNIT}").stderr == ""


def test_the_engine_runs_after_a_boot_at_which_nobody_had_described_the_gpu(host: Host) -> None:
    # A container's boot is not one of its kernel's, which --boot goes by.
    boot = host.check_output("systemctl show --property=UserspaceTimestamp --value")
    starts = f"journalctl --since='{boot}' --no-pager --output=cat --unit={UNIT} --grep='^Starting .*Hearth engine'"

    # It may still be loading.
    assert host.run(f"systemctl start {UNIT}").rc == 0
    assert len(host.check_output(starts).splitlines()) == 1, "it started at the first try"


def test_the_engine_sees_the_device(host: Host) -> None:
    # The specification's environment is the process's; `docker exec` does not have it.
    look = "test -c /dev/nvidia0 && tr '\\0' '\\n' </proc/1/environ"

    assert "HEARTH_LAB_GPU=stub" in host.check_output(f'docker exec {CONTAINER} sh -c "{look}"').splitlines()


def test_a_container_may_be_given_the_gpu_in_nvidias_older_way(host: Host) -> None:
    image = host.check_output(f"docker inspect --format '{{{{.Image}}}}' {CONTAINER}")
    run = "docker run --rm --runtime=nvidia --gpus=all --entrypoint=/bin/true"

    assert host.run(f"{run} {image}").rc == 0
    assert "prestart" in host.file("/run/hearth-lab-hook").content_string
