# SPDX-License-Identifier: Apache-2.0
"""_verdicts: whether Hearth can work on a box, by what was read of it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _verdicts

SETTINGS: dict[str, Any] = {
    "systems": {"ubuntu": "24.04", "debian": "12"},
    "architectures": ["aarch64", "x86_64"],
    "user": "spark",
    "install_docker": True,
    "names": ["huggingface.co"],
    "guards": True,
    "floor_gib": 10.0,
    "guard_floor_gib": 5.0,
    "earlyoom_gib": [2.0, 1.0],
    "sysctl": {"vm.swappiness": 10},
    "watchdog_s": 0,
    "has_watchdog": False,
    "clock_mhz": "",
}
GPU = {"name": "NVIDIA GB10", "count": 1, "driver": "580.178.04", "error": "", "users": []}
SPARK: dict[str, Any] = {
    "os": {"id": "ubuntu", "version": "24.04", "codename": "noble", "name": "Ubuntu 24.04.5 LTS"},
    "dgx": {"name": "NVIDIA DGX Spark", "platform": "GX10", "build": "7.2.3", "ota": "7.6.0", "release": "7.6.0"},
    "arch": "aarch64",
    "kernel": "7.0.0-1019-nvidia",
    "kho": {"cmdline": "off", "disabled": True, "problem": False},
    "memory": {"total_gib": 121.6, "available_gib": 112.0, "swap_total_gib": 16.0, "swap_free_gib": 16.0},
    "disk": {"path": "/home/spark/ai", "total_gb": 3936.8, "free_gb": 3264.2},
    "gpu": GPU,
    "docker": {"installed": True, "packaged": False, "version": "29.6.2", "error": "", "cdi": True},
    "systemd": True,
    "python": {"executable": "/usr/bin/python3", "version": "3.12.3", "venv": True},
    "user": {"name": "spark", "uid": 1000, "gid": 1000, "home": "/home/spark", "groups": ["docker", "spark"]},
    "clock_synchronised": True,
    "unresolved": [],
}


def verdict(check: str, facts: dict[str, Any], **settings: Any) -> dict[str, str]:
    """The one verdict of a check."""
    report = _verdicts.report({**SPARK, **facts}, {**SETTINGS, **settings})
    found = [one for one in report["verdicts"] if one["check"] == check]
    assert len(found) == 1
    return dict(found[0])


def test_a_spark_on_which_all_is_well_has_no_other_verdict() -> None:
    report = _verdicts.report(SPARK, SETTINGS)

    assert {one["level"] for one in report["verdicts"]} == {"ok"}
    assert (report["blockers"], report["warnings"]) == ([], [])
    assert report["lines"][-1] == f"{len(report['verdicts'])} ok, 0 warning, 0 blocker"


@pytest.mark.parametrize(
    ("check", "facts", "words"),
    [
        ("system", {"os": {"id": "arch", "version": "", "name": "Arch Linux"}}, "debian 12 and ubuntu 24.04 or newer"),
        ("system", {"os": {"id": "ubuntu", "version": "22.04", "name": "Ubuntu 22.04"}}, "Hearth supports DGX OS"),
        ("architecture", {"arch": "riscv64"}, "images and packages exist for aarch64 and x86_64"),
        ("systemd", {"systemd": False}, "systemd does not run this box"),
        ("python", {"python": {"executable": "/usr/bin/python3", "version": "3.9.2"}}, "Hearth needs 3.11 or newer"),
        ("user", {"user": {}}, "layout_user: there is no user spark on this box"),
    ],
)
def test_what_hearth_cannot_work_with_is_a_blocker_and_says_what_to_do(
    check: str, facts: dict[str, Any], words: str
) -> None:
    found = verdict(check, facts)

    assert found["level"] == "blocker"
    assert words in found["says"]
    assert found["todo"]


def test_all_blockers_are_said_at_once() -> None:
    report = _verdicts.report({**SPARK, "arch": "riscv64", "systemd": False}, SETTINGS)

    assert len(report["blockers"]) == 2
    assert all(sentence.endswith(".") for sentence in report["blockers"])


def test_root_may_not_own_the_models() -> None:
    found = verdict("user", {"user": {"name": "root", "uid": 0}}, user="root")

    assert found["says"] == "layout_user: root is not to own ~/ai"


@pytest.mark.parametrize(
    ("check", "facts", "words"),
    [
        ("kernel", {"kho": {"cmdline": "", "disabled": False, "problem": True}}, "Kexec HandOver"),
        ("dgx release", {"dgx": {**SPARK["dgx"], "release": "8.0.1"}}, "8.0.1 is not known"),
        ("driver", {"gpu": {**GPU, "driver": "590.44.01"}}, "engines stand still while CUDA graphs are captured"),
        ("driver", {"gpu": {**GPU, "driver": "575.1"}}, "the branch known to be good is 580"),
        ("driver", {"gpu": {**GPU, "error": "No devices were found"}}, "nvidia-smi says: No devices were found"),
        ("driver", {"gpu": {**GPU, "driver": ""}}, "no driver of NVIDIA's is loaded"),
        ("docker", {"docker": {**SPARK["docker"], "version": "", "error": "no socket"}}, "does not answer (no socket)"),
        ("memory", {"memory": {"total_gib": 8.0, "available_gib": 6.0}}, "8.0 GiB"),
        ("disk", {"disk": {"path": "/", "total_gb": 100.0, "free_gb": 20.0}}, "20 of 100 GB free at /"),
        ("time", {"clock_synchronised": False}, "nobody keeps the box's clock"),
        ("dns", {"unresolved": ["huggingface.co"]}, "no address for huggingface.co"),
        (
            "gpu users",
            {"gpu": {**GPU, "users": [{"pid": 7, "name": "python3", "gib": 12.0, "container": ""}]}},
            "python3 (pid 7) with 12.0 GiB",
        ),
    ],
)
def test_what_may_hurt_is_a_warning_that_stops_nothing(check: str, facts: dict[str, Any], words: str) -> None:
    found = verdict(check, facts)

    assert found["level"] == "warning"
    assert words in found["says"]
    assert found["todo"]
    assert _verdicts.report({**SPARK, **facts}, SETTINGS)["blockers"] == []


def test_a_plain_host_without_docker_and_gpu_is_well() -> None:
    facts = {
        **SPARK,
        "dgx": {},
        "gpu": {"name": "", "count": 0, "driver": "", "error": "", "users": []},
        "docker": {"installed": False, "packaged": False, "version": "", "error": "", "cdi": False},
        "clock_synchronised": None,
    }

    assert _verdicts.report(facts, SETTINGS)["warnings"] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"guard_floor_gib": 10.0}, "host_guard_floor_gib: 10 GiB must be more than 0 and less than the 10 GiB"),
        ({"earlyoom_gib": [1.0, 2.0]}, "host_earlyoom_kill_gib: 2 GiB must be more than 0 and not more than the 1 GiB"),
        ({"sysctl": {"vm.swappiness": 0}}, "host_sysctl.vm.swappiness: 0 keeps the kernel from swapping"),
        ({"sysctl": {"vm.swappiness": "much"}}, "host_sysctl.vm.swappiness: must be a number, is 'much'"),
        ({"sysctl": {"../../etc": 1}}, "host_sysctl: ../../etc is no name of a setting"),
        ({"watchdog_s": 30}, "host_watchdog_s: this box has no hardware watchdog"),
        ({"clock_mhz": "fast"}, "host_clock_mhz: must be two numbers such as 300,2200, is fast"),
    ],
)
def test_guards_that_would_harm_are_refused(settings: dict[str, Any], words: str) -> None:
    found = verdict("guards", {}, **settings)

    assert found["level"] == "blocker"
    assert words in found["says"]
    assert found["todo"]


def test_guards_that_nobody_wants_are_not_looked_at() -> None:
    assert verdict("guards", {}, guards=False, sysctl={"vm.swappiness": 0})["level"] == "ok"


def test_what_a_role_refuses_is_one_more_blocker_in_its_own_words() -> None:
    answers = [{"check": "gateway", "refused": "gateway_port: it\nis taken.\n"}, {"check": "layout", "refused": ""}]
    report = _verdicts.report(SPARK, SETTINGS, answers)

    assert report["blockers"] == ["gateway_port: it is taken."]
    assert [one["level"] for one in report["verdicts"][-2:]] == ["blocker", "ok"]
