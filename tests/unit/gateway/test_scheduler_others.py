# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: beside requests there are administrators, and other processes that change engines."""

from __future__ import annotations

from scheduling import Bench, begun, crowded_box, granted, only, refused, spec

from hearth.gateway.scheduler.effects import Begin, CancelLoad, Cut, Drained, Grant, Refuse, Stop
from hearth.gateway.scheduler.events import LoadFailed, Stopped

# Holds: another process changes engines


def test_a_hold_of_engines_that_nobody_uses_is_told_at_once() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    assert bench.hold("scout") == [Drained("hold", 0)]


def test_a_hold_is_told_when_the_last_request_has_ended_and_only_once() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.up("scout", "coder")
    for name in ("scout", "coder"):
        bench.arrive(f"of {name}", name)
    assert bench.hold("scout", "coder") == []
    assert bench.end("of scout") == []
    assert bench.end("of coder") == [Drained("hold", 0)]
    assert bench.wait(1000) == []


def test_a_hold_does_not_wait_for_engines_that_it_does_not_name() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.up("scout", "coder")
    bench.arrive("r1", "coder")
    assert bench.hold("scout") == [Drained("hold", 0)]
    assert bench.arrive("r2", "coder") == [Grant("r2", "coder")]


def test_at_its_deadline_a_hold_cuts_what_is_left_and_is_told_how_many() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "scout")
    bench.hold("scout", deadline_s=60)
    assert bench.wait(59.9) == []
    assert bench.wait(0.1) == [Cut("r1"), Cut("r2"), Drained("hold", 2)]
    assert bench.end("r1") + bench.end("r2") == []


def test_who_arrives_during_a_hold_waits_until_it_is_over() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.hold("scout")
    assert bench.arrive("r1", "scout") == []
    assert bench.let_go() == [Grant("r1", "scout")]


def test_an_engine_that_two_hold_is_let_go_by_both() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.hold("scout", hold="one")
    bench.hold("scout", hold="two")
    bench.arrive("r1", "scout")
    assert bench.let_go("one") == []
    assert bench.let_go("two") == [Grant("r1", "scout")]


def test_nothing_begins_and_nothing_stops_while_there_is_a_hold() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.up("scout")
    bench.hold()
    assert bench.arrive("r1", "coder") == []
    bench.unload("scout")
    assert bench.wait(5000) == []
    assert bench.let_go() == [Stop("scout")]


def test_a_door_that_was_shut_for_another_engine_is_open_while_there_is_a_hold() -> None:
    bench = Bench(spec("scout"), spec("coder"), free_gib=0)
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    bench.wait(100)
    bench.arrive("r3", "scout")
    assert granted(bench.hold("coder")) == ["r3"]


def test_a_hold_that_comes_while_a_load_is_under_way_lets_it_end() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.arrive("r1", "scout")
    bench.hold("coder")
    assert granted(bench.loaded("scout")) == ["r1"]


def test_a_load_that_nobody_wants_any_more_is_cancelled_while_there_is_a_hold_too() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.hold()
    assert bench.leave("r1") == [CancelLoad("scout")]


def test_patience_ends_during_a_hold_too() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.hold("scout")
    bench.arrive("r1", "scout", patience_s=5)
    assert refused(bench.wait(5)) == {"r1": "waited_too_long"}


def test_the_end_of_a_hold_that_there_is_not_says_nothing() -> None:
    assert Bench(spec("scout")).let_go() == []


# Administrators load


def test_an_administrator_has_an_engine_loaded_without_a_lease_of_it() -> None:
    bench = Bench(spec("scout", start="manual"))
    assert bench.load("a1", "scout") == [Begin("scout")]
    assert granted(bench.loaded("scout")) == ["a1"]
    assert bench.view("scout").in_flight == 0
    assert bench.leave("a1") == []


def test_a_load_for_a_ready_engine_is_answered_at_once() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    assert bench.load("a1", "scout") == [Grant("a1", "scout")]


def test_a_load_that_an_administrator_asked_for_goes_on_when_he_leaves() -> None:
    bench = Bench(spec("scout"))
    bench.load("a1", "scout")
    assert bench.leave("a1") == []
    bench.loaded("scout")
    assert bench.view("scout").phase == "ready"


def test_a_load_that_an_administrator_asked_for_goes_on_though_others_do_not_wait_for_it() -> None:
    bench = Bench(spec("scout"))
    bench.load("a1", "scout")
    bench.leave("a1")
    bench.arrive("r1", "scout", patience_s=5)
    effects = bench.wait(5000)
    assert refused(effects) == {"r1": "waited_too_long"}
    assert not only(CancelLoad, effects)


def test_a_load_that_an_administrator_asked_for_begins_though_he_left() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.arrive("r1", "coder")
    bench.load("a1", "scout")
    bench.leave("a1")
    assert begun(bench.tell(LoadFailed("coder", "failed"))) == [("scout", ())]
    assert bench.wait(1000) == []


def test_an_administrator_s_load_passes_an_open_breaker() -> None:
    bench = Bench(spec("scout"), breaker_failures=1)
    bench.arrive("r1", "scout")
    bench.failed("scout")
    assert begun(bench.load("a1", "scout")) == [("scout", ())]
    assert refused(bench.failed("scout")) == {"a1": "load_failed"}


def test_an_administrator_s_load_that_failed_is_not_tried_again() -> None:
    bench = Bench(spec("scout"))
    bench.load("a1", "scout")
    bench.failed("scout")
    assert bench.wait(1000) == []


def test_an_administrator_is_told_that_an_engine_does_not_fit() -> None:
    assert refused(Bench(spec("scout", 200)).load("a1", "scout")) == {"a1": "does_not_fit"}


def test_an_administrator_is_told_that_there_is_no_such_engine() -> None:
    assert refused(Bench().load("a1", "scout")) == {"a1": "removed"}


# Administrators unload


def test_an_engine_that_nobody_uses_is_unloaded_at_once() -> None:
    bench = Bench(spec("scout", pinned=True, start="boot"))
    bench.up("scout")
    assert bench.unload("scout") == [Stop("scout")]


def test_an_engine_in_use_is_unloaded_when_the_last_request_has_ended() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    assert bench.unload("scout") == []
    assert bench.arrive("r2", "scout") == []
    assert bench.end("r1") == [Stop("scout")]


def test_what_is_in_flight_when_the_time_to_unload_is_over_is_cut() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.unload("scout", drain_s=60)
    assert bench.wait(59.9) == []
    assert bench.wait(0.1) == [Cut("r1")]
    assert bench.end("r1") == [Stop("scout")]


def test_the_first_of_several_deadlines_is_the_one_that_counts() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.hold("scout", deadline_s=60)
    bench.unload("scout", drain_s=10)
    assert bench.wait(10) == [Cut("r1")]


def test_an_engine_that_is_stopping_already_is_not_told_to() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.unit("scout", "stopping")
    assert bench.unload("scout") == []


def test_who_arrives_while_an_engine_is_unloaded_wakes_it_again() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.unload("scout")
    bench.arrive("r1", "scout")
    assert begun(bench.stopped("scout")) == [("scout", ())]


def test_who_waits_for_an_engine_when_it_is_unloaded_is_refused_and_its_load_cancelled() -> None:
    bench = Bench(spec("scout"), cancel_unwanted_loads=False)
    bench.arrive("r1", "scout")
    effects = bench.unload("scout")
    assert refused(effects) == {"r1": "unloaded"}
    assert only(CancelLoad, effects) == [CancelLoad("scout")]


def test_an_engine_whose_load_was_cancelled_by_an_unload_is_let_in_to_after_the_next() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.unload("scout")
    bench.tell(LoadFailed("scout", "cancelled"))
    bench.arrive("r2", "scout")
    assert granted(bench.loaded("scout")) == ["r2"]


def test_an_engine_that_somebody_else_starts_can_be_unloaded() -> None:
    bench = Bench(spec("scout"))
    bench.unit("scout", "starting")
    assert bench.unload("scout") == [Stop("scout")]


def test_an_engine_that_does_not_run_needs_no_unload() -> None:
    bench = Bench(spec("scout"))
    assert bench.unload("scout") == []
    bench.up("scout")
    assert bench.view("scout").open


def test_a_load_takes_an_unload_back_that_has_not_begun() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.unload("scout", drain_s=60)
    assert granted(bench.load("a1", "scout")) == ["a1"]
    assert bench.wait(100) == []


def test_a_load_takes_an_unload_back_of_an_engine_that_was_to_go_for_another() -> None:
    bench = crowded_box()
    bench.arrive("r1", "coder")
    bench.unload("scout")
    bench.load("a1", "scout")
    assert granted(bench.tell(LoadFailed("coder", "busy"))) == ["a1"]


def test_a_load_that_comes_while_an_engine_stops_starts_it_again() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.unload("scout")
    bench.load("a1", "scout")
    assert begun(bench.stopped("scout")) == [("scout", ())]


def test_an_unload_that_another_change_kept_from_beginning_is_tried_again() -> None:
    bench = Bench(spec("scout"), busy_retry_s=1)
    bench.up("scout")
    bench.unload("scout")
    assert bench.tell(Stopped("scout", busy=True)) == []
    assert bench.arrive("r1", "scout") == []
    assert bench.wait(0.9) == []
    assert bench.wait(0.1) == [Stop("scout")]


def test_an_unload_keeps_no_other_engine_s_requests_waiting() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.up("scout", "coder")
    bench.unload("scout")
    bench.unit("scout", "stopping")
    assert bench.arrive("r1", "coder") == [Grant("r1", "coder")]


def test_an_unload_of_an_engine_that_there_is_not_says_nothing() -> None:
    assert Bench().unload("scout") == []


def test_a_refusal_names_its_engine() -> None:
    [refusal] = Bench(spec("scout", start="manual")).arrive("r1", "scout")
    assert isinstance(refusal, Refuse)
    assert refusal.engine == "scout"
