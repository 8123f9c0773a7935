# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: beside requests there are administrators, other processes, and new configurations."""

from __future__ import annotations

import pytest
from scheduling import Bench, begun, granted, only, refused, spec

from hearth.gateway.scheduler.effects import Begin, CancelLoad, Cut, Drained, Grant, Refuse, Stop
from hearth.gateway.scheduler.events import Configured, LoadFailed
from hearth.gateway.scheduler.spec import Phase, Policy

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
    assert bench.end("r1") == [Stop("scout")]


def test_what_is_in_flight_when_the_time_to_unload_is_over_is_cut() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.unload("scout", drain_s=60)
    assert bench.wait(59.9) == []
    assert bench.wait(0.1) == [Cut("r1")]
    assert bench.end("r1") == [Stop("scout")]


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


def test_an_unload_keeps_no_other_engine_s_requests_waiting() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.up("scout", "coder")
    bench.unload("scout")
    bench.unit("scout", "stopping")
    assert bench.arrive("r1", "coder") == [Grant("r1", "coder")]


# Configurations


def test_a_configuration_in_which_nothing_changed_changes_nothing() -> None:
    engines = (spec("scout", 40), spec("coder", 40), spec("writer", 40))
    bench = Bench(*engines, free_gib=50)
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    before = bench.scheduler.view(bench.now)
    assert bench.configure(*engines) == []
    assert bench.scheduler.view(bench.now) == before
    assert granted(bench.loaded("coder")) == ["r2"]


def test_a_new_engine_can_be_asked_for() -> None:
    bench = Bench(spec("scout"))
    bench.configure(spec("scout"), spec("coder"))
    assert begun(bench.arrive("r1", "coder")) == [("coder", ())]


def test_a_new_engine_that_a_hold_names_is_held() -> None:
    bench = Bench(spec("scout"))
    bench.hold("coder")
    bench.configure(spec("scout"), spec("coder"))
    bench.up("coder")
    assert bench.arrive("r1", "coder") == []


def test_an_engine_that_changed_while_it_runs_goes_on_and_is_stale_until_its_next_start() -> None:
    bench = Bench(spec("scout", version="1"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    assert bench.change("scout", version="2") == []
    assert bench.view("scout").stale
    assert bench.arrive("r2", "scout") == [Grant("r2", "scout")]
    bench.unit("scout", "stopping", "stopped")
    assert not bench.view("scout").stale


def test_an_engine_that_systemd_restarts_is_as_it_is_configured_now() -> None:
    bench = Bench(spec("scout", version="1"))
    bench.up("scout")
    bench.change("scout", version="2")
    bench.unit("scout", "starting")
    assert not bench.view("scout").stale


def test_an_engine_that_changed_while_it_did_not_run_is_not_stale() -> None:
    bench = Bench(spec("scout", version="1"))
    bench.change("scout", version="2")
    assert not bench.view("scout").stale


def test_a_stale_engine_gives_back_what_it_took_when_it_started() -> None:
    bench = Bench(spec("scout", 60, version="1"), spec("coder", 60), free_gib=0)
    bench.up("scout")
    bench.change("scout", version="2", need_gib=20, held_gib=20)
    bench.wait(100)
    assert begun(bench.arrive("r1", "coder")) == [("coder", ("scout",))]


def test_a_policy_may_change_with_the_configuration() -> None:
    bench = Bench(spec("scout"), idle_stop_s=1800)
    bench.up("scout")
    bench.tell(Configured((spec("scout"),), Policy(idle_stop_s=60)))
    assert bench.wait(60) == [Stop("scout")]


def test_a_load_time_that_was_learned_outlives_a_configuration_that_says_the_same_as_before() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout")
    bench.loaded("scout", load_s=45)
    bench.change("scout", version="2")
    assert bench.view("scout").load_s == 45
    bench.change("scout", load_s=50)
    assert bench.view("scout").load_s == 50


def test_who_waits_for_an_engine_that_is_removed_is_refused() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.arrive("r1", "scout")
    effects = bench.configure(spec("coder"))
    assert refused(effects) == {"r1": "removed"}
    assert only(CancelLoad, effects) == [CancelLoad("scout")]
    assert [view.name for view in bench.scheduler.view(bench.now)] == ["coder"]


def test_what_is_in_flight_on_an_engine_that_is_removed_goes_on_and_nobody_else_gets_through() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    assert bench.configure() == []
    assert refused(bench.arrive("r2", "scout")) == {"r2": "removed"}
    assert bench.end("r1") == []


def test_a_hold_waits_for_what_is_in_flight_on_an_engine_that_is_removed() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.configure()
    assert bench.hold("scout") == []
    assert bench.end("r1") == [Drained("hold", 0)]


@pytest.mark.parametrize("phase", ["starting", "stopping"])
def test_an_engine_that_is_removed_on_its_way_keeps_nobody_waiting_for_its_memory(phase: Phase) -> None:
    bench = Bench(spec("scout"), spec("coder"), free_gib=60)
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.unit("scout", phase)
    bench.configure(spec("coder"))
    assert begun(bench.arrive("r2", "coder")) == [("coder", ())]


def test_an_engine_that_is_removed_does_not_go_for_another() -> None:
    bench = Bench(spec("scout"), spec("coder"), free_gib=0)
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.configure(spec("coder"))
    bench.end("r1")
    bench.wait(100)
    assert refused(bench.arrive("r2", "coder")) == {"r2": "does_not_fit"}


def test_an_engine_that_comes_back_is_as_before() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.configure()
    bench.configure(spec("scout"))
    assert bench.arrive("r2", "scout") == [Grant("r2", "scout")]


def test_an_unload_of_an_engine_that_there_is_not_says_nothing() -> None:
    assert Bench().unload("scout") == []


def test_a_refusal_names_its_engine() -> None:
    [refusal] = Bench(spec("scout", start="manual")).arrive("r1", "scout")
    assert isinstance(refusal, Refuse)
    assert refusal.engine == "scout"
