# SPDX-License-Identifier: Apache-2.0
"""_others and what _facts makes of it: the clock, names, and who else is on the GPU."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _facts, _others

OURS, THEIRS = "a" * 64, "b" * 64


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have a program that is a shell script, in front of those of this machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


def test_the_kernel_tells_whether_somebody_keeps_the_clock() -> None:
    assert _others.clock_synchronised() in (True, False)


def test_names_without_an_address_are_told(program: Callable[[str, str], None]) -> None:
    program("getent", '[ "$2" = there ] && echo 192.0.2.1 STREAM there')

    assert _others.unresolved(_others.ask_names(["there", "nowhere"])) == ["nowhere"]


def test_a_resolver_that_does_not_answer_holds_a_run_for_two_seconds_whatever_is_asked(
    program: Callable[[str, str], None],
) -> None:
    program("getent", "exec sleep 20")
    began = time.monotonic()

    assert _others.unresolved(_others.ask_names(["one"])) == ["one"]
    assert time.monotonic() - began < 4


def test_without_getent_nothing_is_said_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert _others.unresolved(_others.ask_names(["one"])) == []


def test_users_of_the_gpu_are_told_with_what_they_hold(program: Callable[[str, str], None], tmp_path: Path) -> None:
    program("nvidia-smi", 'printf "7, /usr/bin/python3, 12288\\n8, a, b, [N/A]\\nno such line\\n"')
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(f"0::/system.slice/docker-{OURS}.scope\n")

    assert _others.gpu_users(tmp_path, _others.ask_gpu_users()) == [
        {"pid": 7, "name": "python3", "gib": 12.0, "container": OURS},
        {"pid": 8, "name": "a, b", "gib": 0.0, "container": ""},
    ]


def test_engines_of_hearths_are_no_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_facts, "docker_get", lambda _, url: {"Id": OURS} if "hearth-a" in url else {})
    users = [
        {"pid": 1, "name": "VLLM::EngineCore", "gib": 60.0, "container": OURS},
        {"pid": 2, "name": "python3", "gib": 1.0, "container": THEIRS},
        {"pid": 3, "name": "blender", "gib": 2.0, "container": ""},
    ]

    assert [one["name"] for one in _facts.strangers(tmp_path, users, ["hearth-a"])] == ["python3", "blender"]


def test_the_contract_names_our_containers() -> None:
    assert _others.our_containers(json.dumps({"engines": [{"container": "hearth-a"}]})) == ["hearth-a"]
    assert _others.our_containers("") == []
