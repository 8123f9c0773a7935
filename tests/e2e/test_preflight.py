# SPDX-License-Identifier: Apache-2.0
"""playbooks/preflight.yml: it tells all that stands in the way, by its exit code too, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import Box

PLAYBOOK = "playbooks/preflight.yml"


@pytest.fixture(autouse=True)
def _as_found(box: Box) -> Iterator[None]:
    yield
    box.write_inventory()


def _report(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_box_that_can_do_is_told_so(box: Box, tmp_path: Path) -> None:
    run = box.ok(PLAYBOOK, "-e", f"report={tmp_path}/report.json")

    assert run.count("changed") == 0
    assert "Nothing stands in the way." in run.flat
    levels = {one["check"]: one["level"] for one in _report(tmp_path / "report.json")["verdicts"]}
    assert levels["system"] == levels["docker"] == levels["gateway"] == "ok"
    assert "blocker" not in levels.values()


def test_all_that_stands_in_the_way_of_a_box_is_told_at_once(box: Box, tmp_path: Path) -> None:
    box.write_inventory(layout_user="nobody-here", host_supported_architectures=["riscv64"])

    run = box.play(PLAYBOOK, "-e", f"report={tmp_path}/report.json")

    assert run.code != 0
    assert run.count("changed") == 0
    blockers = [one["says"] for one in _report(tmp_path / "report.json")["verdicts"] if one["level"] == "blocker"]
    assert len(blockers) == 2
    assert all(says in run.flat for says in blockers)
    assert box.active() == ["tiny-a"]


def test_what_several_roles_refuse_is_told_in_their_own_words(box: Box, tmp_path: Path) -> None:
    models = box.models()
    models["tiny-b"]["lane"] = "fast"
    box.write_inventory(engines_models=models, gateway_port=0, layout_root="elsewhere")

    run = box.play(PLAYBOOK, "-e", f"report={tmp_path}/report.json")

    assert run.code != 0
    refused = {one["check"]: one["says"] for one in _report(tmp_path / "report.json")["verdicts"]}
    assert "layout_root: must be a folder below a home" in refused["layout"]
    assert "engines_models.tiny-b.lane: must be one of main, utility" in refused["engines"]
    assert "gateway_port" in refused["gateway"]
