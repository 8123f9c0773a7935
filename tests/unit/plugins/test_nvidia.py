# SPDX-License-Identifier: Apache-2.0
"""_nvidia: driver, GPU, container toolkit and CDI devices, from files and programs that answer as a Spark's do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _nvidia

Put = Callable[[str, str], None]
# As the driver writes it on a DGX Spark.
VERSION = """\
NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.142  Release Build  (dvs-builder@U22-I3-H10-02-1)  Tue
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04.1)
"""
INFORMATION = """\
Model: \t\t NVIDIA GB10
IRQ:   \t\t 185
GPU UUID: \t GPU-12345678-90ab-cdef-1234-567890abcdef
Bus Type: \t PCIe
Bus Location: \t 000f:01:00.0
Device Minor: \t 0
GPU Excluded:\t No
"""
# As nvidia-ctk 1.17 writes it: keys in the alphabet's order, lists no deeper than their key.
SORTED_SPEC = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-uvm
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - update-ldcache
    - --folder
    - /usr/lib/aarch64-linux-gnu
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    hooks:
    - args:
      - nvidia-cdi-hook
      - chmod
      hookName: createContainer
      path: /usr/bin/nvidia-cdi-hook
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-12345678-90ab-cdef-1234-567890abcdef
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""
# As 1.18 and later do: kind and names first.
ORDERED_SPEC = """\
---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      name: not a device
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
"""


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a file of the box whose root is the test's folder."""

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """The box's only programs are those that a test makes; each is a shell script."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def make(name: str, script: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return make


class TestGpu:
    """Name and driver, by the driver's files and nvidia-smi."""

    def test_nvidia_smi_names_the_gpu_and_the_driver(self, tmp_path: Path, program: Put) -> None:
        program("nvidia-smi", "echo 'NVIDIA GB10, 580.178.04'")

        assert _nvidia.gpu(tmp_path, _nvidia.ask_driver()) == {
            "name": "NVIDIA GB10",
            "count": 1,
            "driver": "580.178.04",
            "error": "",
        }

    def test_the_question_is_one_that_a_spark_can_answer(self, tmp_path: Path, program: Put) -> None:
        program("nvidia-smi", 'test "$*" = "--query-gpu=name,driver_version --format=csv,noheader" && echo "X, 1.2"')

        assert _nvidia.gpu(tmp_path, _nvidia.ask_driver())["name"] == "X"

    def test_several_gpus_are_counted(self, tmp_path: Path, program: Put) -> None:
        program("nvidia-smi", "echo 'NVIDIA RTX PRO 6000, 580.95.05'; echo 'NVIDIA GeForce RTX 5090, 580.95.05'")

        facts = _nvidia.gpu(tmp_path, _nvidia.ask_driver())

        assert (facts["name"], facts["count"]) == ("NVIDIA RTX PRO 6000", 2)

    def test_without_nvidia_smi_the_drivers_files_tell(self, tmp_path: Path, put: Put) -> None:
        put("proc/driver/nvidia/version", VERSION)
        put("proc/driver/nvidia/gpus/000f:01:00.0/information", INFORMATION)

        assert _nvidia.gpu(tmp_path, _nvidia.ask_driver()) == {
            "name": "NVIDIA GB10",
            "count": 1,
            "driver": "580.142",
            "error": "",
        }

    def test_a_driver_that_was_updated_under_a_running_kernel(self, tmp_path: Path, put: Put, program: Put) -> None:
        put("proc/driver/nvidia/version", VERSION)
        put("proc/driver/nvidia/gpus/000f:01:00.0/information", INFORMATION)
        program(
            "nvidia-smi",
            "echo 'Failed to initialize NVML: Driver/library version mismatch'\n"
            "echo 'NVML library version: 580.178' >&2\nexit 18",
        )

        facts = _nvidia.gpu(tmp_path, _nvidia.ask_driver())

        assert (facts["name"], facts["driver"]) == ("NVIDIA GB10", "580.142")
        assert facts["error"] == (
            "Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.178"
        )

    def test_a_driver_without_a_device(self, tmp_path: Path, program: Put) -> None:
        program("nvidia-smi", "echo 'No devices were found'; exit 6")

        facts = _nvidia.gpu(tmp_path, _nvidia.ask_driver())

        assert (facts["count"], facts["error"]) == (0, "No devices were found")

    def test_nvidia_smi_that_hangs_is_left_behind(
        self, tmp_path: Path, put: Put, program: Put, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put("proc/driver/nvidia/version", VERSION)
        program("nvidia-smi", "exec /bin/sleep 60")
        monkeypatch.setattr(_nvidia, "_TIMEOUT_S", 0.05)

        facts = _nvidia.gpu(tmp_path, _nvidia.ask_driver())

        assert (facts["driver"], facts["error"]) == ("580.142", "nvidia-smi gave no answer within 0.05 s")

    def test_a_box_without_a_gpu_has_none_and_no_error(self, tmp_path: Path) -> None:
        assert _nvidia.gpu(tmp_path, _nvidia.ask_driver()) == {"name": "", "count": 0, "driver": "", "error": ""}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (VERSION, "580.142"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release Build  (dvs)\n", "580.95.05"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024\n", "470.256.02"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02", "470.256.02"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  TempVersion  Release Build  (main)  Tue\n", ""),
        ("", ""),
    ],
)
def test_the_version_in_the_drivers_own_words(text: str, version: str) -> None:
    assert _nvidia.driver(text) == version


class TestToolkit:
    """The container toolkit's version, from the package manager or from nvidia-ctk."""

    @staticmethod
    def package(name: str, version: str, status: str = "install ok installed") -> str:
        return f"Package: {name}\nStatus: {status}\nPriority: optional\nArchitecture: arm64\nVersion: {version}\n\n"

    def test_of_the_package(self, tmp_path: Path, put: Put) -> None:
        other = self.package("nvidia-container-toolkit-doc", "0.1-1") + self.package("zlib1g", "1:1.3-1")
        put("var/lib/dpkg/status", other + self.package("nvidia-container-toolkit", "1.20.1-1") + other)

        assert _nvidia.toolkit(_nvidia.packages(tmp_path, *_nvidia.TOOLKIT)) == "1.20.1"

    def test_of_the_part_that_cdi_needs(self, tmp_path: Path, put: Put) -> None:
        put("var/lib/dpkg/status", self.package("nvidia-container-toolkit-base", "1.19.0-1"))

        assert _nvidia.toolkit(_nvidia.packages(tmp_path, *_nvidia.TOOLKIT)) == "1.19.0"

    def test_of_a_package_that_is_held(self, tmp_path: Path, put: Put) -> None:
        put("var/lib/dpkg/status", self.package("nvidia-container-toolkit", "1.20.1-1", "hold ok installed"))

        assert _nvidia.toolkit(_nvidia.packages(tmp_path, *_nvidia.TOOLKIT)) == "1.20.1"

    @pytest.mark.parametrize("status", ["deinstall ok config-files", "install ok unpacked"])
    def test_a_package_that_is_not_installed_is_none(self, tmp_path: Path, put: Put, status: str) -> None:
        put("var/lib/dpkg/status", self.package("nvidia-container-toolkit", "1.20.1-1", status))

        assert _nvidia.toolkit(_nvidia.packages(tmp_path, *_nvidia.TOOLKIT)) == ""

    def test_without_a_package_nvidia_ctk_tells(self, tmp_path: Path, program: Put) -> None:
        program("nvidia-ctk", "echo 'NVIDIA Container Toolkit CLI version 1.17.8'; echo 'commit: f202b80a9b9d'")

        assert _nvidia.toolkit(_nvidia.packages(tmp_path, *_nvidia.TOOLKIT)) == "1.17.8"

    def test_its_packages_are_told_each_with_its_version(self, tmp_path: Path, put: Put) -> None:
        gone = self.package("libnvidia-container1", "1.19.0-1", "deinstall ok config-files")
        put("var/lib/dpkg/status", self.package("nvidia-container-toolkit-base", "1.20.1-1") + gone)

        assert _nvidia.packages(tmp_path, *_nvidia.TOOLKIT) == {"nvidia-container-toolkit-base": "1.20.1-1"}

    def test_a_box_without_it_has_none(self, tmp_path: Path) -> None:
        assert _nvidia.toolkit(_nvidia.packages(tmp_path, *_nvidia.TOOLKIT)) == ""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: "0"}]\n', id="YAML"),
        pytest.param('kind: "nvidia.com/gpu"\n', id="YAML with quotes"),
        pytest.param("kind: 'nvidia.com/gpu' # all of them\n", id="YAML with other quotes"),
        pytest.param('{\n  "cdiVersion": "0.5.0",\n  "kind": "nvidia.com/gpu"\n}\n', id="JSON"),
        pytest.param('{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[]}', id="JSON on one line"),
    ],
)
@pytest.mark.parametrize("folder", ["etc/cdi", "var/run/cdi", "run/cdi"])
def test_the_kinds_of_device_that_cdi_offers(tmp_path: Path, put: Put, folder: str, text: str) -> None:
    put(f"{folder}/nvidia.{'json' if text.startswith('{') else 'yaml'}", text)

    assert _nvidia.cdi(tmp_path)[0] == ["nvidia.com/gpu"]


def test_the_kinds_of_several_specs_are_sorted_and_each_named_once(tmp_path: Path, put: Put) -> None:
    put("etc/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n")
    put("run/cdi/nvidia.yaml", "kind: nvidia.com/gpu\n")
    put("run/cdi/net.yaml", "kind: mellanox.com/nic\n")
    put("etc/cdi/empty.yaml", "")

    assert _nvidia.cdi(tmp_path)[0] == ["mellanox.com/nic", "nvidia.com/gpu"]


@pytest.mark.parametrize("name", ["nvidia.yaml.bak", "nvidia.disabled", "README"])
def test_what_docker_does_not_take_for_a_spec_is_none(tmp_path: Path, put: Put, name: str) -> None:
    put(f"etc/cdi/{name}", ORDERED_SPEC)

    assert _nvidia.cdi(tmp_path) == ([], [])


def test_the_devices_of_several_specs_are_sorted_and_each_named_once(tmp_path: Path, put: Put) -> None:
    put("etc/cdi/nvidia.yaml", ORDERED_SPEC)
    put("var/run/cdi/nvidia.yaml", ORDERED_SPEC)
    put("etc/cdi/net.json", '{"kind": "mellanox.com/nic", "devices": [{"name": "cx7"}]}')

    assert _nvidia.cdi(tmp_path)[1] == ["mellanox.com/nic=cx7", "nvidia.com/gpu=0", "nvidia.com/gpu=all"]


def test_devices_as_the_toolkit_writes_them_up_to_1_17() -> None:
    assert _nvidia.devices(SORTED_SPEC) == [
        "nvidia.com/gpu=0",
        "nvidia.com/gpu=GPU-12345678-90ab-cdef-1234-567890abcdef",
        "nvidia.com/gpu=all",
    ]


def test_devices_as_the_toolkit_writes_them_from_1_18_on() -> None:
    assert _nvidia.devices(ORDERED_SPEC) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]


def test_devices_in_json() -> None:
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}

    assert _nvidia.devices(json.dumps(spec, indent=2)) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(
            "    - name: all\n      containerEdits:\n        env:\n            - A=b\n", id="indented by four"
        ),
        pytest.param("-\n  name: all\n  containerEdits: {}\n", id="a dash alone"),
        pytest.param("-   name: all\n    containerEdits: {}\n", id="a wide dash"),
        pytest.param("# all of them\n- name: 'all' # quoted\n\n  containerEdits: {}\n", id="comments and blank lines"),
    ],
)
def test_devices_in_other_plain_yaml(entries: str) -> None:
    assert _nvidia.devices(f"kind: nvidia.com/gpu\ndevices: # below\n{entries}") == ["nvidia.com/gpu=all"]


@given(
    names=st.lists(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.:-]{0,5}[A-Za-z0-9])?", fullmatch=True)),
    edits=st.dictionaries(st.sampled_from(["env", "hooks", "name"]), st.lists(st.text(max_size=8), max_size=2)),
    by_name=st.booleans(),
    indent=st.sampled_from([2, 4]),
)
def test_devices_are_those_that_a_reader_of_yaml_sees(
    names: list[str], edits: dict[str, list[str]], by_name: bool, indent: int
) -> None:
    spec = {"kind": "nvidia.com/gpu", "devices": [{"name": name, "containerEdits": edits} for name in names]}
    text = yaml.safe_dump(spec, sort_keys=by_name, indent=indent, default_flow_style=False)

    assert _nvidia.devices(text) == [f"nvidia.com/gpu={name}" for name in names]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("kind: nvidia.com/gpu\ndevices: [{name: all}]\n", id="flow style"),
        pytest.param("kind: nvidia.com/gpu\ndevices:\n- {name: all}\n", id="flow style in a list"),
        pytest.param("kind: nvidia.com/gpu\ndevices:\n- name: all\n- containerEdits: {}\n", id="one without a name"),
        pytest.param("kind: nvidia.com/gpu\ndevices:\n- name: *all\n", id="an alias"),
        pytest.param('kind: nvidia.com/gpu\ndevices:\n- name: "a\\x6cl"\n', id="escaped"),
        pytest.param("kind: nvidia.com/gpu\ndevices:\n  name: all\n", id="no list"),
        pytest.param("kind: nvidia.com/gpu\ndevices:\n  name: all\n  - name: all\n", id="no YAML"),
        pytest.param("devices:\n- name: all\n", id="no kind"),
        pytest.param("kind: a.b/c\nkind: d.e/f\ndevices:\n- name: all\n", id="two kinds"),
        pytest.param("annotations:\n  kind: a.b/c\ndevices:\n- name: all\n", id="a kind of something else"),
        pytest.param('{"kind": "nvidia.com/gpu"}', id="JSON without devices"),
        pytest.param('{"kind": "nvidia.com/gpu", "devices": 5}', id="JSON with a number"),
        pytest.param('{"kind": "nvidia.com/gpu", "devices": ["all"]}', id="JSON with text"),
        pytest.param('{"kind": "nvidia.com/gpu", "devices": [{"name": 0}]}', id="JSON with a number for a name"),
        pytest.param('{"devices": [{"name": "all"}]}', id="JSON without kind"),
        pytest.param("5", id="JSON of another sort"),
    ],
)
def test_devices_that_cannot_be_told_for_sure_are_none(text: str) -> None:
    assert _nvidia.devices(text) == []
