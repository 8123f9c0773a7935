# SPDX-License-Identifier: Apache-2.0
"""_facts: what is read of a box, from files that look like a Spark's and from this machine."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _facts

SERIAL = "1234567890123"
# As on a Spark that was updated twice: one DGX_OTA_ pair is appended by every update, the last without quotes.
DGX_RELEASE = f"""\
DGX_NAME="DGX Spark"
DGX_PRETTY_NAME="NVIDIA DGX Spark"
DGX_SWBUILD_DATE="2025-09-10-13-50-03"
DGX_SWBUILD_VERSION="7.2.3"
DGX_COMMIT_ID="833b4a7"
DGX_PLATFORM="DGX Server for KVM"
DGX_SERIAL_NUMBER="{SERIAL}"

DGX_OTA_VERSION="7.3.1"
DGX_OTA_DATE="Mon Dec  1 10:00:00 UTC 2025"

DGX_OTA_VERSION=7.5.0
DGX_OTA_DATE=Mon Apr  6 10:00:00 UTC 2026
"""
OS_RELEASE = """\
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
"""
MEMINFO = """\
MemTotal:       125513576 kB
MemFree:        90021212 kB
MemAvailable:   117440512 kB
Active(anon):    1048576 kB
SwapTotal:      16777212 kB
SwapFree:       15728636 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], None]:
    """Write a file of the box whose root is the test's folder."""

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this machine have no part in what is read of a folder."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_of_many_updates_the_last_one_counts() -> None:
    assert _facts.dgx_release(DGX_RELEASE) == {
        "name": "NVIDIA DGX Spark",
        "platform": "DGX Server for KVM",
        "build": "7.2.3",
        "ota": "7.5.0",
        "release": "7.5.0",
    }


def test_a_spark_from_the_factory_had_no_update() -> None:
    assert _facts.dgx_release('DGX_SWBUILD_VERSION="7.2.3"\nDGX_PLATFORM="GX10"\n') == {
        "name": "",
        "platform": "GX10",
        "build": "7.2.3",
        "ota": "",
        "release": "7.2.3",
    }


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_what_is_no_dgx_has_no_release(text: str) -> None:
    assert _facts.dgx_release(text) == {}


def test_the_serial_number_is_in_no_fact(tmp_path: Path, put: Callable[[str, str], None]) -> None:
    put("etc/dgx-release", DGX_RELEASE)

    facts = _facts.read(tmp_path)

    assert facts["dgx"]["ota"] == "7.5.0"
    assert SERIAL not in json.dumps(facts)


def test_the_operating_system() -> None:
    assert _facts.os_release(OS_RELEASE) == {
        "id": "ubuntu",
        "version": "24.04",
        "codename": "noble",
        "name": "Ubuntu 24.04.3 LTS",
    }


def test_an_operating_system_that_says_nothing() -> None:
    assert set(_facts.os_release("").values()) == {""}


def test_memory_is_in_gib() -> None:
    assert _facts.memory(MEMINFO) == {
        "total_gib": 119.7,
        "available_gib": 112.0,
        "swap_total_gib": 16.0,
        "swap_free_gib": 15.0,
    }


def test_unknown_memory_is_none() -> None:
    assert set(_facts.memory("").values()) == {0}


SPARK_KERNEL = "7.0.0-1019-nvidia"
# As a Spark's boot loader writes it, with what the package nvidia-spark-grub-kho adds, and without.
CMDLINE = "BOOT_IMAGE=/boot/vmlinuz-7.0.0-1019-nvidia root=UUID=4f5e ro quiet splash"


@pytest.mark.parametrize(
    ("words", "kernel", "expected"),
    [
        pytest.param("", SPARK_KERNEL, {"cmdline": "", "disabled": False, "problem": True}, id="on by default"),
        pytest.param("kho=off", SPARK_KERNEL, {"cmdline": "off", "disabled": True, "problem": False}, id="off"),
        pytest.param("kho=n", SPARK_KERNEL, {"cmdline": "n", "disabled": True, "problem": False}, id="another no"),
        pytest.param("kho=on", SPARK_KERNEL, {"cmdline": "on", "disabled": False, "problem": True}, id="asked for"),
        pytest.param(
            "kho=off kho=on", SPARK_KERNEL, {"cmdline": "on", "disabled": False, "problem": True}, id="the last counts"
        ),
        pytest.param(
            "-- kho=off", SPARK_KERNEL, {"cmdline": "", "disabled": False, "problem": True}, id="not for the kernel"
        ),
        pytest.param(
            "nokho=off kho_scratch=16M", SPARK_KERNEL, {"cmdline": "", "disabled": False, "problem": True}, id="others"
        ),
        pytest.param("", "6.17.0-1032-nvidia", {"cmdline": "", "disabled": False, "problem": False}, id="older kernel"),
        pytest.param("", "7.0.0-14-generic", {"cmdline": "", "disabled": False, "problem": False}, id="not NVIDIA's"),
        pytest.param("", "", {"cmdline": "", "disabled": False, "problem": False}, id="unknown kernel"),
    ],
)
def test_kexec_handover_is_a_problem_where_nvidias_kernel_has_it_on(
    words: str, kernel: str, expected: dict[str, Any]
) -> None:
    assert (
        _facts.kho(f"{CMDLINE} {words}\n", kernel, "CmaTotal:      131072 kB\nCmaFree:        65536 kB\n") == expected
    )


def test_free_contiguous_memory_where_there_is_none_gives_kexec_handover_away() -> None:
    marked = "CmaTotal:             0 kB\nCmaFree:         9741312 kB\n"

    assert _facts.kho(CMDLINE, "7.1.2", marked)["problem"]
    assert not _facts.kho(CMDLINE, "7.1.2", marked.replace("9741312", "0"))["problem"]


def test_looking_at_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("12345")

    assert _facts.look_at(f"{tmp_path}/f", None) == {
        "path": f"{tmp_path}/f",
        "exists": True,
        "is_dir": False,
        "size": 5,
    }
    assert _facts.look_at(str(tmp_path), None)["is_dir"]


def test_looking_at_what_is_not_there(tmp_path: Path) -> None:
    assert _facts.look_at(f"{tmp_path}/f/g", None) == {
        "path": f"{tmp_path}/f/g",
        "exists": False,
        "is_dir": False,
        "size": 0,
    }


def test_the_tilde_is_the_home_of_the_user_and_not_ours(tmp_path: Path) -> None:
    (tmp_path / "ai").mkdir()

    assert _facts.look_at("~/ai", {"home": str(tmp_path)}) == {
        "path": f"{tmp_path}/ai",
        "exists": True,
        "is_dir": True,
        "size": (tmp_path / "ai").stat().st_size,
    }


def test_free_space_is_that_of_the_file_system_the_tree_will_be_on(tmp_path: Path) -> None:
    facts = _facts.disk("~/ai/models", {"home": str(tmp_path)})

    assert facts["path"] == str(tmp_path)
    assert facts["total_gb"] == round(shutil.disk_usage(tmp_path).total / 1e9, 1)
    assert 0 < facts["free_gb"] <= facts["total_gb"]


def test_the_space_of_a_tree_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "ai").mkdir()

    assert _facts.disk("~/ai", {"home": str(tmp_path)})["path"] == f"{tmp_path}/ai"


def test_the_space_of_nobodys_home_is_unknown() -> None:
    assert _facts.disk("~/ai", None) == {}


@pytest.mark.usefixtures("no_programs")
def test_nothing_has_to_exist_on_a_box(tmp_path: Path) -> None:
    facts = _facts.read(tmp_path)

    assert facts["dgx"] == {}
    assert facts["cdi"] == facts["cdi_devices"] == []
    assert facts["gpu"] == {"name": "", "count": 0, "driver": "", "error": "", "users": []}
    assert facts["toolkit"] == ""
    assert facts["kernel"] == platform.release()
    assert facts["listening"] == {}
    assert facts["engine_ports"] == []
    assert not facts["runtime"]
    assert not facts["systemd"]
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.usefixtures("no_programs")
def test_the_facts_of_a_spark(tmp_path: Path, put: Callable[[str, str], None]) -> None:
    put("etc/dgx-release", DGX_RELEASE)
    put("proc/sys/kernel/osrelease", f"{SPARK_KERNEL}\n")
    put("proc/cmdline", f"{CMDLINE} kho=off\n")
    put("proc/meminfo", MEMINFO)
    put("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.178.04  Release\n")
    put("proc/driver/nvidia/gpus/000f:01:00.0/information", "Model: \t\t NVIDIA GB10\n")
    put("var/run/cdi/nvidia.yaml", "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n")
    put(
        "var/lib/dpkg/status",
        "Package: nvidia-container-toolkit\nStatus: install ok installed\nVersion: 1.20.1-1\n\n",
    )

    facts = _facts.read(tmp_path)

    assert facts["dgx"]["release"] == "7.5.0"
    assert (facts["kernel"], facts["kho"]["problem"]) == (SPARK_KERNEL, False)
    assert facts["gpu"] == {"name": "NVIDIA GB10", "count": 1, "driver": "580.178.04", "error": "", "users": []}
    assert (facts["toolkit"], facts["cdi_devices"]) == ("1.20.1", ["nvidia.com/gpu=all"])
