# SPDX-License-Identifier: Apache-2.0
"""hearth.admission.admit: another start and memory that comes back are waited for, and nothing else is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth.admission import admit
from hearth.admission.admit import wait_for_memory
from hearth.engines import service
from hearth.errors import EngineFailedError
from hearth.memory import Memory

if TYPE_CHECKING:
    from tests.unit.admission.conftest import Box

SECOND_US = 1_000_000


def test_on_a_box_where_nothing_stops_a_refusal_takes_two_seconds(box: Box) -> None:
    box.available = 69.0

    with pytest.raises(EngineFailedError):
        box.admit()

    assert box.clock.passed == pytest.approx(2, abs=0.2)
    assert box.said == ["engine scout: 1.0 GiB are missing; waiting while memory comes back"]


def test_while_an_engine_stops_its_memory_is_waited_for(box: Box) -> None:
    box.available = 30.0
    box.set("qwen", "deactivating")
    box.clock.after(25, lambda: box.set_available(70.0))

    assert box.admit().admitted
    assert box.clock.passed == pytest.approx(25, abs=0.2)


def test_memory_that_does_not_come_back_from_an_engine_that_stops_is_waited_for_no_longer_than_said(box: Box) -> None:
    box.available = 30.0
    box.set("qwen", "deactivating")

    with pytest.raises(EngineFailedError, match=r"qwen holds 40\.0 GiB: hearth stop qwen$"):
        box.admit(patience_s=20)

    assert box.clock.passed == pytest.approx(20, abs=0.2)


def test_memory_that_rises_is_waited_for_whoever_gives_it_back(box: Box) -> None:
    box.available = 50.0
    for second in range(1, 21):
        box.clock.after(second, lambda: box.set_available(box.available + 1))

    assert box.admit().admitted
    assert box.clock.passed == pytest.approx(20, abs=0.2)


def test_memory_that_wanders_is_not_taken_for_memory_that_comes_back(box: Box) -> None:
    box.available = 50.0
    for second in range(1, 60):
        box.clock.after(second, lambda: box.set_available(100.09 - box.available))

    with pytest.raises(EngineFailedError):
        box.admit()

    assert box.clock.passed == pytest.approx(2, abs=0.2)


def test_after_a_stop_that_systemd_remembers_memory_may_be_slow_to_come_back(box: Box) -> None:
    box.available = 30.0
    box.set("qwen", "inactive", stopped_us=round((box.clock.time - 5) * SECOND_US))
    box.clock.after(8, lambda: box.set_available(70.0))

    assert box.admit().admitted


def test_a_stop_of_long_ago_is_no_reason_to_wait(box: Box) -> None:
    box.available = 30.0
    box.set("qwen", "inactive", stopped_us=round((box.clock.time - 61) * SECOND_US))

    with pytest.raises(EngineFailedError):
        box.admit()

    assert box.clock.passed == pytest.approx(2, abs=0.2)


def test_whoever_has_stopped_an_engine_waits_until_the_next_one_fits(box: Box) -> None:
    box.available = 30.0
    box.clock.after(8, lambda: box.set_available(70.0))

    wait_for_memory(box.contract, box.engine("scout"), host=box.host)

    assert box.clock.passed == pytest.approx(8, abs=0.2)


def test_whoever_has_stopped_an_engine_is_told_after_ten_calm_seconds_that_it_was_not_enough(box: Box) -> None:
    box.available = 30.0

    with pytest.raises(EngineFailedError, match=r"^engine scout needs 60\.0 GiB, but of the 30\.0 GiB available"):
        wait_for_memory(box.contract, box.engine("scout"), host=box.host)

    assert box.clock.passed == pytest.approx(10, abs=0.2)


def test_systemd_is_asked_for_patience_all_along_while_memory_is_waited_for(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(service, "keep_waiting", lambda status, seconds: told.append(box.clock.now()))
    box.available = 30.0
    box.set("qwen", "deactivating")

    with pytest.raises(EngineFailedError):
        box.admit(patience_s=20)

    gaps = [after - before for before, after in zip(told, [*told[1:], box.clock.now()], strict=True)]
    assert len(told) >= 19
    assert max(gaps) < admit._KEEP_S


def test_an_engine_waits_until_the_one_that_starts_is_ready(box: Box) -> None:
    box.starts("phi")
    box.clock.after(42, lambda: box.settles("phi"))

    assert box.admit().admitted
    assert box.clock.passed == pytest.approx(42, abs=0.2)
    assert box.said == ["engine scout waits for phi, which is starting since 2026-11-21T05:00:00Z"]


def test_what_the_one_before_took_counts(box: Box) -> None:
    box.starts("qwen")
    box.clock.after(10, lambda: box.set_available(65.0))
    box.clock.after(20, lambda: box.settles("qwen"))

    with pytest.raises(EngineFailedError, match=r"65\.0 GiB available .* hearth stop qwen$"):
        box.admit()


def test_after_another_start_memory_has_its_whole_time_again_to_come_back(box: Box) -> None:
    box.available = 30.0
    box.set("qwen", "deactivating")
    box.clock.after(50, lambda: box.set_available(78.0))
    box.clock.after(50, lambda: box.starts("phi"))
    box.clock.after(100, lambda: box.set_available(69.0))
    box.clock.after(101, lambda: box.settles("phi"))
    box.clock.after(130, lambda: box.set_available(70.0))

    assert box.admit().admitted
    assert box.clock.passed == pytest.approx(130, abs=0.2)


def test_memory_that_is_there_and_gone_again_is_not_waited_for_without_end(box: Box) -> None:
    readings = 0

    def flapping() -> Memory:
        nonlocal readings
        readings += 1
        box.clock.time += 1
        gib = 70.0 if readings % 2 == 0 else 69.0
        return Memory(total_gib=120, available_gib=gib, free_gib=gib, cached_gib=0)

    box.host = msgspec.structs.replace(box.host, read_memory=flapping)

    with pytest.raises(EngineFailedError):
        box.admit(patience_s=20)

    assert box.clock.passed == pytest.approx(20, abs=4)


@pytest.mark.parametrize(
    ("active", "sub", "its_run"),
    [
        pytest.param("failed", "failed", True, id="failed"),
        pytest.param("inactive", "dead", False, id="stopped and forgotten"),
        pytest.param("active", "running", True, id="up, its settling lost"),
        pytest.param("deactivating", "stop-sigterm", True, id="stopping"),
        pytest.param("activating", "start-pre", False, id="starts again, not admitted yet"),
        pytest.param("activating", "auto-restart", True, id="waits for its automatic restart"),
    ],
)
def test_a_start_that_is_over_is_not_waited_for_though_nobody_cleaned_up(
    box: Box, active: str, sub: str, its_run: bool
) -> None:
    box.starts("qwen")
    box.set("qwen", active, sub=sub, invocation=box.OTHER_RUN if its_run else "")

    assert box.admit().admitted
    assert box.clock.passed == 0


def test_the_end_of_a_start_that_nobody_settles_is_noticed_within_a_second(box: Box) -> None:
    box.starts("qwen")
    box.clock.after(10, lambda: box.set("qwen", "failed"))

    assert box.admit().admitted
    assert box.clock.passed <= 11.2


def test_a_start_without_end_is_waited_for_as_long_as_its_own_time_allows(box: Box) -> None:
    box.starts("qwen")

    with pytest.raises(EngineFailedError) as caught:
        box.admit()

    assert str(caught.value) == (
        "engine scout waited 360 s for qwen, which is still starting; "
        "see systemctl status hearth-engine-qwen.service, or stop it: hearth stop qwen"
    )
    assert box.clock.passed == pytest.approx(360, abs=0.2)


def test_systemd_is_asked_for_patience_all_along_while_another_starts(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(service, "keep_waiting", lambda status, seconds: told.append(box.clock.now()))
    box.starts("qwen")
    box.clock.after(30, lambda: box.settles("qwen"))
    box.admit()

    gaps = [after - before for before, after in zip(told, [*told[1:], box.clock.now()], strict=True)]
    assert len(told) >= 27
    assert max(gaps) < admit._KEEP_S


def test_an_engine_does_not_wait_for_its_own_last_start(box: Box) -> None:
    box.starts("scout", box.OTHER_RUN)

    assert box.admit("scout", box.RUN).admitted
    assert json.loads(box.starting.read_text())["invocation"] == box.RUN


def test_a_start_of_an_engine_that_the_contract_no_longer_has_counts_too(box: Box) -> None:
    box.starts("phi")
    box.contract = msgspec.structs.replace(box.contract, engines=box.contract.engines[:2])

    with pytest.raises(EngineFailedError, match=r"waited 360 s for phi"):
        box.admit()


def test_admission_takes_no_longer_than_the_slowest_other_start_and_memory(box: Box) -> None:
    assert admit.longest_wait_s(box.contract, box.engine("scout")) == 300 + 60 + 60
