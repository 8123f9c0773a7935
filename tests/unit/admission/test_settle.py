# SPDX-License-Identifier: Apache-2.0
"""hearth.admission.admit: a good load is measured, and then the next engine may start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth.admission import holders
from hearth.admission.admit import settle
from hearth.admission.ledger import Need
from hearth.errors import HearthError
from hearth.memory import Memory

if TYPE_CHECKING:
    from tests.unit.admission.conftest import Box


def test_a_good_load_is_measured_and_kept(box: Box) -> None:
    box.starts("qwen")
    box.available = 72.55

    assert box.settles("qwen") == pytest.approx(37.45)
    assert box.host.ledger.need(box.engine("qwen")) == Need(gib=37.5, source="measured", load_s=12.0)


@pytest.mark.parametrize(("seen", "kept"), [(38.0, 38.0), (44.0, 40.0), (5.0, 30.0)])
def test_what_is_seen_of_an_engine_makes_up_for_memory_that_another_gave_back_up_to_the_contracts_need(
    box: Box, monkeypatch: pytest.MonkeyPatch, seen: float, kept: float
) -> None:
    asked: list[tuple[str, str]] = []

    def held_by(container: str, unit: str, **_: object) -> float:
        asked.append((container, unit))
        return seen

    monkeypatch.setattr(holders, "held_by", held_by)
    box.starts("qwen")
    box.available = 80.0

    assert box.settles("qwen") == kept
    assert asked == [("hearth-qwen", "hearth-engine-qwen.service")]


def test_a_load_that_took_more_than_the_contract_says_is_kept_as_it_is_without_a_look_at_processes(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "held_by", lambda *_, **__: pytest.fail("a look at all processes for nothing"))
    box.starts("qwen")
    box.available = 60.0

    assert box.settles("qwen") == 50.0


def test_after_a_good_load_the_next_may_start_though_systemd_does_not_say_active_yet(box: Box) -> None:
    box.starts("qwen")
    settle(box.engine("qwen"), 12.0, invocation=box.OTHER_RUN, host=box.host)

    assert box.admit().admitted
    assert box.clock.passed == 0


@pytest.mark.parametrize("invocation", ["", "0ff1ce" * 5 + "00"])
def test_only_the_run_that_was_admitted_settles(box: Box, invocation: str) -> None:
    box.starts("qwen")

    assert settle(box.engine("qwen"), 12.0, invocation=invocation, host=box.host) is None
    assert box.starting.exists()
    assert not box.host.measured.exists()


def test_an_engine_does_not_settle_for_another(box: Box) -> None:
    box.starts("qwen")

    assert settle(box.engine("phi"), 12.0, invocation=box.OTHER_RUN, host=box.host) is None
    assert box.starting.exists()


def test_a_measurement_that_cannot_be_kept_ends_no_engine_and_holds_nobody_up(box: Box) -> None:
    (box.folder / "var").write_text("in the way")
    box.starts("qwen")

    assert box.settles("qwen") is None
    assert not box.starting.exists()


def test_a_load_that_cannot_be_measured_ends_no_engine(box: Box) -> None:
    def broken() -> Memory:
        raise HearthError("no meminfo")

    box.starts("qwen")
    host = msgspec.structs.replace(box.host, read_memory=broken)

    assert settle(box.engine("qwen"), 12.0, invocation=box.OTHER_RUN, host=host) is None
    assert not box.starting.exists()
