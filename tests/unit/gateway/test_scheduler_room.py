# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: who has to go so that another engine fits, and when."""

from __future__ import annotations

from typing import Any

import pytest
from scheduling import Bench, begun, crowded_box, granted, only, refused, spec

from hearth.gateway.scheduler.effects import Begin, Refuse, Stop
from hearth.gateway.scheduler.events import Stopped


def test_an_engine_that_fits_beside_those_that_run_evicts_nobody() -> None:
    bench = Bench(spec("scout", 40), spec("coder", 40), free_gib=40)
    bench.up("scout")
    bench.wait(100)
    assert bench.arrive("r1", "coder") == [Begin("coder")]


def test_an_engine_that_needs_all_there_is_above_the_floor_fits() -> None:
    assert begun(Bench(spec("scout", 60), free_gib=60).arrive("r1", "scout")) == [("scout", ())]


def test_an_engine_that_needs_a_part_of_the_floor_does_not_fit() -> None:
    [refusal] = Bench(spec("scout", 60), free_gib=59.9, unfit_retry_s=42).arrive("r1", "scout")
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.status, refusal.retry_after_s) == ("does_not_fit", 503, 42)
    assert "60.0 GiB" in refusal.reason


def test_an_idle_engine_goes_at_once() -> None:
    assert crowded_box().arrive("r1", "coder") == [Begin("coder", ("scout",))]


def test_what_an_engine_gives_back_may_be_another_figure_than_what_it_needs() -> None:
    bench = Bench(spec("scout", 60, held_gib=50), spec("coder", 55), free_gib=0)
    bench.up("scout")
    bench.wait(100)
    assert refused(bench.arrive("r1", "coder")) == {"r1": "does_not_fit"}


def test_nobody_goes_where_it_would_not_fit_even_so() -> None:
    bench = crowded_box()
    bench.change("coder", need_gib=61)
    assert refused(bench.arrive("r1", "coder")) == {"r1": "does_not_fit"}


def test_who_does_not_fit_does_not_keep_the_next_one_waiting() -> None:
    bench = Bench(spec("scout", 40), spec("big", 200), spec("coder", 40), free_gib=40)
    bench.arrive("r1", "scout")
    bench.arrive("r2", "big")
    bench.arrive("r3", "coder")
    effects = bench.loaded("scout")
    assert refused(effects) == {"r2": "does_not_fit"}
    bench.end("r1")
    assert begun(bench.wait(5)) == [("coder", ("scout",))]


@pytest.mark.parametrize("fields", [{"pinned": True}, {"lane": "utility"}])
def test_a_pinned_engine_and_one_of_the_utility_lane_never_go(fields: dict[str, Any]) -> None:
    bench = crowded_box()
    bench.change("scout", **fields)
    assert refused(bench.arrive("r1", "coder")) == {"r1": "does_not_fit"}


def test_the_one_least_recently_used_goes() -> None:
    bench = Bench(spec("old", 50), spec("new", 50), spec("coder", 50), free_gib=0)
    bench.up("old")
    bench.wait(100)
    bench.up("new")
    bench.wait(100)
    assert begun(bench.arrive("r1", "coder")) == [("coder", ("old",))]


def test_a_use_counts_until_its_last_byte() -> None:
    bench = Bench(spec("old", 50), spec("new", 50), spec("coder", 50), free_gib=0)
    bench.up("old", "new")
    bench.arrive("r1", "old")
    bench.wait(100)
    bench.end("r1")
    bench.wait(40)
    assert begun(bench.arrive("r2", "coder")) == [("coder", ("new",))]


def test_the_one_that_loads_quickly_goes_before_one_that_loads_slowly() -> None:
    bench = Bench(spec("slow", 50, load_s=600), spec("quick", 50, load_s=10), spec("coder", 50), free_gib=0)
    bench.up("slow")
    bench.wait(100)
    bench.up("quick")
    bench.wait(100)
    assert begun(bench.arrive("r1", "coder")) == [("coder", ("quick",))]


def test_one_that_is_idle_goes_before_one_in_use() -> None:
    bench = Bench(spec("busy", 50, load_s=20), spec("idle", 50, load_s=100), spec("coder", 50), free_gib=0)
    bench.up("busy", "idle")
    bench.arrive("r1", "busy")
    bench.wait(100)
    assert begun(bench.arrive("r2", "coder")) == [("coder", ("idle",))]


def test_nobody_goes_without_whom_it_fits_as_well() -> None:
    bench = Bench(spec("small", 10, load_s=1), spec("big", 50), spec("coder", 50), free_gib=0)
    bench.up("small", "big")
    bench.wait(100)
    assert begun(bench.arrive("r1", "coder")) == [("coder", ("big",))]


def test_as_many_go_as_are_needed() -> None:
    bench = Bench(spec("a", 30, load_s=1), spec("b", 30, load_s=2), spec("c", 30, load_s=3), spec("coder"), free_gib=0)
    bench.up("a", "b", "c")
    bench.wait(100)
    assert begun(bench.arrive("r1", "coder")) == [("coder", ("a", "b"))]


def test_one_of_two_goes_where_it_fits_without_either_but_not_without_both() -> None:
    bench = Bench(spec("a", 10, load_s=1), spec("b", 10, load_s=2), spec("big", 50), spec("coder", 55), free_gib=0)
    bench.up("a", "b", "big")
    bench.wait(100)
    assert begun(bench.arrive("r1", "coder")) == [("coder", ("a", "big"))]


def test_an_engine_of_the_utility_lane_gets_room_as_well() -> None:
    bench = crowded_box()
    bench.change("coder", lane="utility")
    assert begun(bench.arrive("r1", "coder")) == [("coder", ("scout",))]


# What is on its way


def test_what_an_engine_that_loads_may_yet_take_is_not_free() -> None:
    bench = Bench(spec("scout", 60), spec("coder", 60), free_gib=100)
    bench.unit("scout", "starting")
    assert bench.arrive("r1", "coder") == []
    bench.free_gib = 40
    assert bench.unit("scout", "ready") == []
    assert begun(bench.wait(5)) == [("coder", ("scout",))]


def test_two_that_fit_beside_each_other_load_one_after_the_other() -> None:
    bench = Bench(spec("scout", 40), spec("coder", 40), free_gib=100)
    assert begun(bench.arrive("r1", "scout")) == [("scout", ())]
    assert bench.arrive("r2", "coder") == []
    assert begun(bench.loaded("scout")) == [("coder", ())]


def test_memory_on_its_way_back_is_waited_for_before_anybody_goes() -> None:
    bench = Bench(spec("scout", 40), spec("coder", 40), spec("writer", 40), free_gib=0)
    bench.up("scout", "writer")
    bench.wait(100)
    bench.unit("writer", "stopping")
    assert bench.arrive("r1", "coder") == []
    assert bench.unit("writer", "stopped") == []
    assert bench.wait(2) == []
    bench.free_gib = 40
    assert begun(bench.wait(1)) == [("coder", ())]


def test_memory_that_does_not_come_back_is_not_waited_for_longer_than_it_takes_to_settle() -> None:
    bench = Bench(spec("scout", 40), spec("coder", 40), spec("writer", 40), free_gib=0, settle_s=10)
    bench.up("scout", "writer")
    bench.wait(100)
    bench.unit("writer", "stopping", "stopped")
    bench.arrive("r1", "coder")
    assert bench.wait(9.9) == []
    assert begun(bench.wait(0.1)) == [("coder", ("scout",))]


def test_nobody_is_told_that_it_does_not_fit_while_memory_may_come_back() -> None:
    bench = Bench(spec("scout", 60), spec("coder", 60), free_gib=0, settle_s=10)
    bench.up("scout")
    bench.unit("scout", "failed")
    assert bench.arrive("r1", "coder") == []
    assert bench.wait(9.9) == []
    assert refused(bench.wait(0.1)) == {"r1": "does_not_fit"}


def test_memory_that_somebody_else_let_go_of_during_a_load_is_still_waited_for() -> None:
    bench = Bench(spec("coder", 30, pinned=True), spec("tiny", 30), spec("big", 30), free_gib=30, settle_s=10)
    bench.up("tiny")
    bench.arrive("r1", "coder")
    bench.unit("coder", "starting")
    bench.wait(1)
    bench.unit("tiny", "stopping", "stopped")
    bench.loaded("coder")
    assert bench.arrive("r2", "big") == []
    bench.free_gib = 30
    assert begun(bench.wait(1)) == [("big", ())]


def test_memory_is_looked_at_only_while_somebody_waits_for_it() -> None:
    bench = Bench(spec("scout", 60), spec("coder", 60), free_gib=0)
    bench.unit("scout", "starting", "failed")
    assert bench.scheduler.due() is None


# Residency


def test_an_engine_in_use_stays_as_long_as_its_residency() -> None:
    bench = crowded_box("writer", min_residency_s=30)
    bench.arrive("r1", "coder")
    bench.loaded("coder", "scout")
    bench.wait(1)
    bench.arrive("r2", "writer")
    for number in range(5):
        bench.arrive(f"again{number}", "coder")
        bench.end(f"again{number}")
        assert begun(bench.wait(4)) == []
    bench.end("r1")
    assert begun(bench.wait(4.9)) == []
    bench.arrive("last", "coder")
    assert begun(bench.wait(4.2)) == []
    assert begun(bench.end("last")) == [("writer", ("coder",))]


def test_an_engine_that_nobody_uses_need_not_stay_as_long_as_its_residency() -> None:
    bench = crowded_box("writer", min_residency_s=30, calm_s=5)
    bench.arrive("r1", "coder")
    bench.loaded("coder", "scout")
    bench.arrive("r2", "writer")
    bench.end("r1")
    assert begun(bench.wait(4.9)) == []
    assert begun(bench.wait(0.1)) == [("writer", ("coder",))]


def test_an_engine_goes_between_two_requests_once_its_residency_is_over() -> None:
    bench = crowded_box()
    bench.arrive("r1", "scout")
    assert bench.arrive("r2", "coder") == []
    assert begun(bench.end("r1")) == [("coder", ("scout",))]


# Idle engines


def test_an_engine_stops_when_nobody_used_it_for_the_set_time() -> None:
    bench = Bench(spec("scout"), idle_stop_s=1800)
    bench.up("scout")
    assert bench.wait(1799.9) == []
    assert bench.wait(0.1) == [Stop("scout")]


def test_idle_time_counts_from_the_last_byte() -> None:
    bench = Bench(spec("scout"), idle_stop_s=1800)
    bench.up("scout")
    bench.arrive("r1", "scout")
    assert bench.wait(5000) == []
    bench.end("r1")
    assert bench.wait(1799.9) == []
    assert bench.wait(0.1) == [Stop("scout")]


@pytest.mark.parametrize("fields", [{"start": "boot"}, {"start": "manual"}, {"pinned": True}])
def test_an_engine_that_is_pinned_or_does_not_start_on_demand_stays_however_idle(fields: dict[str, Any]) -> None:
    bench = Bench(spec("scout", **fields))
    bench.up("scout")
    assert bench.wait(100_000) == []


def test_idle_engines_stop_one_after_the_other() -> None:
    bench = Bench(spec("scout"), spec("coder"), idle_stop_s=1800)
    bench.up("scout", "coder")
    assert bench.wait(1800) == [Stop("scout")]
    assert bench.stopped("scout") == [Stop("coder")]


def test_no_engine_stops_for_being_idle_where_that_is_switched_off() -> None:
    bench = Bench(spec("scout"), idle_stop_s=0)
    assert bench.unit("scout", "starting", "ready") == []
    assert bench.wait(100_000) == []


def test_who_arrives_while_an_idle_engine_stops_has_it_started_again() -> None:
    bench = Bench(spec("scout"), idle_stop_s=1800)
    bench.up("scout")
    bench.wait(1800)
    assert bench.arrive("r1", "scout") == []
    assert begun(bench.stopped("scout")) == [("scout", ())]


def test_a_stop_that_another_change_kept_from_beginning_is_tried_again_unless_somebody_comes() -> None:
    bench = Bench(spec("scout"), idle_stop_s=1800, busy_retry_s=1)
    bench.up("scout")
    bench.wait(1800)
    assert bench.tell(Stopped("scout", busy=True)) == []
    assert bench.wait(1) == [Stop("scout")]
    bench.tell(Stopped("scout", busy=True))
    assert granted(bench.arrive("r1", "scout")) == ["r1"]
    assert bench.wait(10) == []


def test_an_engine_that_would_not_stop_is_let_in_to_again_and_told_to_stop_after_the_same_time() -> None:
    bench = Bench(spec("scout"), idle_stop_s=1800)
    bench.up("scout")
    bench.wait(1800)
    assert bench.tell(Stopped("scout")) == []
    assert bench.view("scout").open
    assert bench.wait(1799.9) == []
    assert only(Stop, bench.wait(0.1)) == [Stop("scout")]
