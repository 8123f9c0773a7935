# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: whose turn it is where not all fit, and doors that are shut so that it comes."""

from __future__ import annotations

from typing import Any

import pytest
from scheduling import Bench, begun, crowded_box, granted, spec

from hearth.gateway.scheduler.effects import Begin, Cut
from hearth.gateway.scheduler.events import Closing, LoadFailed
from hearth.gateway.scheduler.spec import Phase


def busy(max_wait_s: float = 120.0, **policy: float) -> Bench:
    """``scout`` is in use by ``r1``, and ``coder`` waits for its room."""
    bench = crowded_box(max_wait_s=max_wait_s, **policy)
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    return bench


def test_an_engine_in_use_lets_requests_in_until_the_other_has_waited_for_half_of_the_longest_wait() -> None:
    bench = busy(max_wait_s=120)
    bench.wait(59.9)
    assert granted(bench.arrive("r3", "scout")) == ["r3"]
    bench.wait(0.1)
    assert bench.arrive("r4", "scout") == []
    assert not bench.view("scout").open


def test_the_door_of_an_engine_stays_open_during_its_residency() -> None:
    bench = crowded_box("writer", max_wait_s=10, min_residency_s=30)
    bench.arrive("r1", "coder")
    bench.arrive("r2", "writer")
    bench.loaded("coder", "scout")
    bench.wait(29.9)
    assert granted(bench.arrive("r3", "coder")) == ["r3"]
    bench.wait(0.1)
    assert bench.arrive("r4", "coder") == []


def test_an_engine_whose_door_is_shut_goes_when_nothing_is_in_flight_any_more() -> None:
    bench = busy()
    bench.wait(60)
    bench.arrive("r3", "scout")
    assert bench.end("r1") == [Begin("coder", ("scout",))]


def test_who_waits_at_a_shut_door_is_served_after_the_other_engine() -> None:
    bench = busy()
    bench.wait(60)
    bench.arrive("r3", "scout")
    bench.end("r1")
    assert granted(bench.loaded("coder", "scout")) == ["r2"]
    assert bench.wait(10) == []
    bench.end("r2")
    assert begun(bench.wait(5)) == [("scout", ("coder",))]


def test_what_is_in_flight_is_cut_when_the_time_to_drain_is_over_and_only_then() -> None:
    bench = busy(max_wait_s=120, drain_s=300)
    assert bench.wait(359.9) == []
    assert bench.wait(0.1) == [Cut("r1")]
    assert bench.arrive("r3", "scout") == []
    assert begun(bench.end("r1")) == [("coder", ("scout",))]


def test_nothing_is_cut_where_nobody_waits() -> None:
    bench = crowded_box()
    bench.arrive("r1", "scout")
    assert bench.wait(100_000) == []


def test_a_door_opens_again_when_nobody_waits_for_the_other_engine_any_more() -> None:
    bench = busy()
    bench.wait(60)
    bench.arrive("r3", "scout")
    assert granted(bench.leave("r2")) == ["r3"]
    assert bench.wait(1000) == []


def test_a_door_stays_shut_while_memory_is_on_its_way_back() -> None:
    bench = Bench(spec("scout"), spec("coder"), spec("tiny", 10), free_gib=0)
    bench.up("scout", "tiny")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    bench.wait(60)
    bench.unit("tiny", "stopping", "stopped")
    assert bench.arrive("r3", "scout") == []


def test_a_door_opens_while_memory_is_on_its_way_back_where_nobody_has_waited_for_long() -> None:
    bench = Bench(spec("scout"), spec("coder"), spec("writer"), spec("tiny", 10), free_gib=0)
    bench.up("scout", "tiny")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    bench.wait(60)
    bench.unit("tiny", "stopping", "stopped")
    bench.arrive("r3", "scout")
    bench.arrive("r4", "writer")
    assert granted(bench.leave("r2")) == ["r3"]


def test_a_door_opens_while_another_engine_stops() -> None:
    bench = Bench(spec("scout"), spec("coder"), spec("tiny", 10), free_gib=0)
    bench.up("scout", "tiny")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    bench.wait(60)
    bench.unload("tiny")
    bench.arrive("r3", "scout")
    assert granted(bench.leave("r2")) == ["r3"]


def test_a_door_stays_shut_while_another_change_has_the_box() -> None:
    bench = busy()
    bench.wait(60)
    bench.end("r1")
    bench.tell(LoadFailed("coder", "busy"))
    bench.arrive("r3", "scout")
    assert bench.view("scout").in_flight == 1
    bench.wait(1)
    assert bench.arrive("r4", "scout") == []


def test_a_door_that_was_shut_again_gives_the_whole_time_to_drain() -> None:
    bench = busy(max_wait_s=120, drain_s=300)
    bench.wait(100)
    bench.leave("r2")
    bench.arrive("r3", "coder")
    assert bench.wait(359.9) == []
    assert bench.wait(0.1) == [Cut("r1")]


def test_a_door_opens_again_when_there_is_room_without_it() -> None:
    bench = busy()
    bench.wait(60)
    bench.free_gib = 60
    assert begun(bench.arrive("r3", "scout")) == [("coder", ())]
    assert bench.view("scout").in_flight == 2


def test_the_one_whose_door_is_shut_is_the_one_that_goes() -> None:
    bench = Bench(spec("scout"), spec("other"), spec("coder"), free_gib=0)
    bench.up("scout", "other")
    bench.arrive("s1", "scout")
    bench.wait(100)
    bench.arrive("o1", "other")
    bench.arrive("r1", "coder")
    bench.wait(60)
    shut = next(name for name in ("scout", "other") if not bench.view(name).open)
    kept = "other" if shut == "scout" else "scout"
    bench.change(kept, load_s=1.0)
    bench.wait(1)
    bench.arrive("x1", shut)
    assert not bench.view(shut).open
    assert bench.view(kept).open


def test_an_engine_that_ended_by_itself_behind_its_door_has_made_room() -> None:
    bench = busy(settle_s=10)
    bench.wait(60)
    bench.unit("scout", "failed")
    bench.free_gib = 60
    assert begun(bench.wait(1)) == [("coder", ())]


@pytest.mark.parametrize("phase", ["failed", "starting"])
def test_an_engine_that_ended_by_itself_behind_its_door_does_not_go_for_anybody_any_more(phase: Phase) -> None:
    bench = busy(max_wait_s=120, drain_s=300)
    bench.wait(359)
    bench.unit("scout", phase)
    assert bench.wait(5) == []


@pytest.mark.parametrize("fields", [{"pinned": True}, {"lane": "utility"}])
def test_the_door_of_an_engine_that_may_not_go_any_more_opens(fields: dict[str, Any]) -> None:
    bench = Bench(spec("scout"), spec("coder"), spec("tiny", 10), free_gib=0)
    bench.up("scout", "tiny")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    bench.wait(60)
    bench.unit("tiny", "stopping", "stopped")
    bench.arrive("r3", "scout")
    assert granted(bench.change("scout", **fields)) == ["r3"]


def test_engines_that_did_not_have_to_go_after_all_let_requests_in_again() -> None:
    bench = busy()
    bench.wait(60)
    bench.arrive("r3", "scout")
    bench.end("r1")
    assert granted(bench.tell(LoadFailed("coder", "busy"))) == ["r3"]


def test_nothing_is_cut_for_who_waits_once_the_gateway_ends() -> None:
    bench = busy()
    bench.wait(60)
    bench.tell(Closing())
    assert bench.wait(10_000) == []


# While the first waits for room


def beside(free_gib: float = 20.0, **policy: float) -> Bench:
    """``coder`` waits for the room of ``scout``, which is in use; there is some room beside them."""
    bench = Bench(spec("scout"), spec("coder"), spec("small", 20), spec("tiny", 10), free_gib=free_gib, **policy)
    bench.up("scout")
    bench.wait(100)
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    return bench


def test_an_engine_that_fits_beside_the_first_is_begun_before_it() -> None:
    assert beside().arrive("r3", "small") == [Begin("small")]


def test_no_engine_is_begun_before_the_first_that_would_take_its_room() -> None:
    bench = beside(free_gib=20)
    bench.change("coder", need_gib=60.1)
    assert bench.arrive("r3", "small") == []
    assert bench.end("r1") == [Begin("coder", ("scout",))]


def test_no_engine_is_begun_before_the_first_that_somebody_would_have_to_go_for() -> None:
    bench = Bench(spec("scout", 40), spec("coder", 10), spec("idle", 20), spec("small", 20), free_gib=0)
    bench.up("idle")
    bench.wait(100)
    bench.up("scout")
    bench.wait(100)
    bench.change("idle", load_s=10_000)
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    assert bench.arrive("r3", "small") == []


def test_one_at_a_time_is_begun_before_the_first() -> None:
    bench = beside(free_gib=40)
    bench.hold()
    bench.arrive("r3", "small")
    bench.arrive("r4", "tiny")
    assert bench.let_go() == [Begin("small")]


def test_no_engine_is_begun_before_the_first_once_that_has_waited_for_half_of_the_longest_wait() -> None:
    bench = beside(max_wait_s=120)
    bench.wait(60)
    assert bench.arrive("r3", "small") == []


def test_no_engine_is_begun_before_one_that_all_others_go_for() -> None:
    bench = beside(free_gib=90)
    bench.failed("coder", "oom")
    bench.wait(20)
    assert bench.arrive("r3", "small") == []
