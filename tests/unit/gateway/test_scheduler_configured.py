# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: a new configuration touches only what changed in it."""

from __future__ import annotations

import pytest
from scheduling import Bench, begun, granted, only, refused, spec

from hearth.gateway.scheduler.effects import CancelLoad, Drained, Grant, Stop
from hearth.gateway.scheduler.events import Configured, Loaded
from hearth.gateway.scheduler.spec import Phase, Policy


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


def test_what_is_learned_of_an_engine_that_runs_as_configured_counts_at_once() -> None:
    bench = Bench(spec("scout", 60), spec("coder", 60), free_gib=0)
    bench.up("scout")
    bench.change("scout", held_gib=50)
    bench.wait(100)
    assert refused(bench.arrive("r1", "coder")) == {"r1": "does_not_fit"}


def test_an_engine_that_comes_back_while_it_loads_is_let_in_to_when_the_load_is_over() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.configure()
    bench.configure(spec("scout"))
    bench.arrive("r2", "scout")
    assert bench.unit("scout", "starting", "ready") == []
    assert granted(bench.tell(Loaded("scout", 20))) == ["r2"]


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
    assert bench.wait(10_000) == []


def test_an_engine_that_is_removed_is_not_unloaded_any_more() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.unload("scout", drain_s=60)
    bench.configure()
    assert bench.wait(100) == []
    assert bench.end("r1") == []


def test_out_of_memory_has_no_engine_go_that_is_removed() -> None:
    bench = Bench(spec("scout"), spec("coder"), free_gib=60)
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    bench.configure(bench.specs["coder"])
    assert refused(bench.failed("coder", "oom")) == {"r2": "load_failed"}


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


def test_an_engine_that_comes_back_after_nothing_was_known_of_it_counts_as_stopped() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.configure()
    bench.configure(spec("scout"))
    assert begun(bench.arrive("r1", "scout")) == [("scout", ())]


def test_an_engine_that_comes_back_while_it_is_used_is_as_before() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.configure()
    bench.configure(spec("scout"))
    assert bench.arrive("r2", "scout") == [Grant("r2", "scout")]
