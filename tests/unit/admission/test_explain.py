# SPDX-License-Identifier: Apache-2.0
"""hearth.admission.admit: what it would say now, for people and for plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hearth.admission import holders
from hearth.admission.admit import explain

if TYPE_CHECKING:
    from tests.unit.admission.conftest import Box


def test_an_explanation_has_the_decision_and_who_holds_memory(box: Box) -> None:
    box.set("qwen", "active")
    box.available = 65.0

    found = explain(box.contract, box.engine("scout"), host=box.host)

    assert (found.admitted, found.missing_gib) == (False, 5.0)
    assert found.holders == (holders.Holder(name="qwen", gib=40.0, engine=True),)


def test_an_explanation_waits_for_nothing_and_leaves_nothing(box: Box) -> None:
    box.starts("phi")
    before = box.starting.read_bytes()

    found = explain(box.contract, box.engine("scout"), host=box.host)

    assert (found.admitted, found.waits_for, box.clock.passed) == (True, "phi", 0)
    assert box.starting.read_bytes() == before


def test_an_explanation_knows_a_start_that_is_over(box: Box) -> None:
    box.starts("phi")
    box.set("phi", "failed")

    assert explain(box.contract, box.engine("scout"), host=box.host).waits_for == ""


def test_an_explanation_takes_the_states_that_its_caller_has(box: Box) -> None:
    explain(box.contract, box.engine("scout"), host=box.host, states=box.states)

    assert box.asked == 0


def test_an_explanation_of_an_engine_that_is_up_says_so(box: Box) -> None:
    box.set("scout", "active")
    box.available = 20.0

    found = explain(box.contract, box.engine("scout"), host=box.host)

    assert (found.admitted, found.sentence) == (True, "engine scout is up or starting already, for 60.0 GiB")


def test_an_explanation_says_what_else_is_in_the_way(box: Box) -> None:
    Path(box.engine("scout").model_path).unlink()

    found = explain(box.contract, box.engine("scout"), host=box.host)

    assert not found.admitted
    assert "scout.gguf is missing" in found.sentence
