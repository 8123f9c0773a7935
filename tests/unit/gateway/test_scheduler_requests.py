# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: how a request gets through, waits, and is refused."""

from __future__ import annotations

import pytest
from scheduling import Bench, begun, granted, only, refused, spec

from hearth.gateway.scheduler.effects import Begin, CancelLoad, Grant, Refuse
from hearth.gateway.scheduler.events import Closing, LoadFailed
from hearth.gateway.scheduler.spec import Phase


def test_a_request_for_a_ready_engine_gets_through_at_once() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    assert bench.arrive("r1", "scout") == [Grant("r1", "scout")]


def test_a_request_for_a_ready_engine_gets_through_while_another_loads() -> None:
    bench = Bench(spec("scout", 40), spec("coder", 40))
    bench.up("scout")
    bench.arrive("r1", "coder")
    bench.unit("coder", "starting")
    assert bench.arrive("r2", "scout") == [Grant("r2", "scout")]


def test_requests_for_ready_engines_cost_no_look_at_the_memory() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.end("r1")
    assert bench.looks == 0


def test_a_request_for_a_cold_engine_begins_its_load() -> None:
    assert Bench(spec("scout")).arrive("r1", "scout") == [Begin("scout")]


def test_a_hundred_requests_for_a_cold_engine_begin_one_load_and_all_get_through() -> None:
    bench = Bench(spec("scout"))
    names = [f"r{number}" for number in range(100)]
    effects = [effect for name in names for effect in bench.arrive(name, "scout")]
    assert effects == [Begin("scout")]
    assert granted(bench.loaded("scout")) == names


def test_nobody_gets_through_to_an_engine_that_starts_before_its_load_is_over() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    assert bench.unit("scout", "starting", "ready") == []
    assert bench.arrive("r2", "scout") == []


def test_an_engine_that_somebody_else_starts_is_waited_for_and_not_started() -> None:
    bench = Bench(spec("scout"))
    bench.unit("scout", "starting")
    assert bench.arrive("r1", "scout") == []
    assert bench.unit("scout", "ready") == [Grant("r1", "scout")]


def test_who_waits_for_an_engine_that_somebody_else_starts_gets_through_while_another_loads() -> None:
    bench = Bench(spec("scout", 40), spec("coder", 40))
    bench.unit("scout", "starting")
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder")
    assert bench.unit("scout", "ready") == [Grant("r1", "scout")]


def test_an_engine_that_stops_is_started_once_it_has_stopped() -> None:
    bench = Bench(spec("scout", 60))
    bench.up("scout")
    bench.unit("scout", "stopping")
    assert bench.arrive("r1", "scout") == []
    assert begun(bench.unit("scout", "stopped")) == [("scout", ())]


def test_who_left_while_waiting_gets_no_lease() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.arrive("r2", "scout")
    bench.leave("r1")
    assert granted(bench.loaded("scout")) == ["r2"]


def test_who_leaves_with_a_lease_gives_it_back() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.leave("r1")
    assert bench.view("scout").in_flight == 0


def test_the_end_of_a_request_is_heard_once() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    bench.end("r1")
    assert bench.end("r1") == bench.leave("r1") == []


def test_more_than_the_queue_holds_are_refused_as_too_many() -> None:
    bench = Bench(spec("scout", load_s=30), queue_max=2)
    for name in ("r1", "r2"):
        bench.arrive(name, "scout")
    [refusal] = only(Refuse, bench.arrive("r3", "scout"))
    assert (refusal.code, refusal.status) == ("queue_full", 429)
    assert refusal.retry_after_s == 30


def test_an_engine_may_have_a_queue_of_its_own_length() -> None:
    bench = Bench(spec("scout", queue_max=1), spec("coder"), queue_max=2)
    bench.arrive("r1", "scout")
    assert refused(bench.arrive("r2", "scout")) == {"r2": "queue_full"}
    bench.arrive("r3", "coder")
    assert refused(bench.arrive("r4", "coder")) == {}


def test_requests_in_flight_take_no_place_in_the_queue() -> None:
    bench = Bench(spec("scout"), queue_max=1)
    bench.up("scout")
    assert granted(bench.arrive("r1", "scout") + bench.arrive("r2", "scout")) == ["r1", "r2"]


def test_who_left_the_queue_leaves_a_place_in_it() -> None:
    bench = Bench(spec("scout"), queue_max=1)
    bench.arrive("r1", "scout")
    bench.leave("r1")
    assert refused(bench.arrive("r2", "scout")) == {}


@pytest.mark.parametrize("phase", ["stopped", "failed", "stopping"])
def test_an_engine_that_only_a_person_starts_is_not_started_for_a_request(phase: Phase) -> None:
    bench = Bench(spec("scout", start="manual"))
    bench.unit("scout", phase)
    [refusal] = bench.arrive("r1", "scout")
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.status, refusal.retry_after_s) == ("not_on_demand", 503, None)


def test_an_engine_that_a_person_starts_is_waited_for() -> None:
    bench = Bench(spec("scout", start="manual"))
    bench.unit("scout", "starting")
    bench.arrive("r1", "scout")
    assert granted(bench.unit("scout", "ready")) == ["r1"]


def test_an_engine_that_a_person_started_in_vain_is_not_started_for_who_waits() -> None:
    bench = Bench(spec("scout", start="manual"))
    bench.unit("scout", "starting")
    bench.arrive("r1", "scout", patience_s=5)
    assert refused(bench.wait(5)) == {"r1": "waited_too_long"}
    bench.arrive("r2", "scout")
    effects = bench.unit("scout", "failed")
    assert refused(effects) == {"r2": "not_on_demand"}
    assert not begun(effects)


def test_an_engine_that_starts_at_boot_is_started_for_a_request_too() -> None:
    assert begun(Bench(spec("scout", start="boot")).arrive("r1", "scout")) == [("scout", ())]


def test_a_request_for_an_engine_that_there_is_not_is_refused() -> None:
    [refusal] = Bench(spec("scout")).arrive("r1", "coder")
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.status) == ("removed", 404)


# Patience


def test_who_waits_no_longer_is_refused_with_the_time_that_is_left() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout", patience_s=5)
    bench.unit("scout", "starting")
    [refusal] = only(Refuse, bench.wait(5))
    assert (refusal.code, refusal.status, refusal.retry_after_s) == ("waited_too_long", 503, 15)


def test_who_does_not_wait_at_all_begins_the_load_all_the_same() -> None:
    effects = Bench(spec("scout")).arrive("r1", "scout", patience_s=0)
    assert refused(effects) == {"r1": "waited_too_long"}
    assert begun(effects) == [("scout", ())]


def test_who_is_told_to_come_again_finds_the_engine_ready() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout", patience_s=0)
    bench.unit("scout", "starting")
    assert bench.wait(20) == []
    bench.loaded("scout")
    assert bench.arrive("r2", "scout") == [Grant("r2", "scout")]


def test_who_is_told_to_come_again_keeps_the_engine_s_place_in_the_queue() -> None:
    bench = Bench(spec("scout"), spec("coder"), spec("writer"), free_gib=60)
    bench.arrive("r1", "scout")
    bench.arrive("r2", "coder", patience_s=1)
    bench.wait(2)
    bench.arrive("r3", "writer")
    bench.wait(1)
    bench.arrive("r4", "coder")
    bench.loaded("scout")
    bench.end("r1")
    assert begun(bench.wait(6)) == [("coder", ("scout",))]


def test_who_was_told_to_come_again_and_does_not_is_expected_no_longer_than_promised() -> None:
    bench = Bench(spec("scout", load_s=20), promise_s=60)
    bench.arrive("r1", "scout", patience_s=0)
    bench.unit("scout", "starting")
    assert bench.wait(79) == []
    assert bench.wait(1) == [CancelLoad("scout")]


# Loads that nobody wants any more


def test_a_load_that_nobody_waits_for_any_more_is_cancelled() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.arrive("r2", "scout")
    assert bench.leave("r1") == []
    assert bench.leave("r2") == [CancelLoad("scout")]


def test_a_load_is_cancelled_once() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.leave("r1")
    assert bench.unit("scout", "starting") == []


def test_a_load_that_nobody_waits_for_goes_on_where_that_is_the_policy() -> None:
    bench = Bench(spec("scout"), cancel_unwanted_loads=False)
    bench.arrive("r1", "scout")
    assert bench.leave("r1") == []


def test_a_load_that_somebody_else_began_is_never_cancelled() -> None:
    bench = Bench(spec("scout"))
    bench.unit("scout", "starting")
    bench.arrive("r1", "scout")
    assert bench.leave("r1") == []


def test_an_engine_that_is_ready_is_not_cancelled_any_more() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting", "ready")
    assert bench.leave("r1") == []


def test_who_comes_after_a_cancelled_load_has_it_begun_again() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.leave("r1")
    assert bench.arrive("r2", "scout") == []
    assert bench.tell(LoadFailed("scout", "cancelled")) == [Begin("scout")]


def test_a_load_is_never_ended_for_lasting_long() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting")
    assert bench.wait(7200) == []
    assert granted(bench.loaded("scout")) == ["r1"]


# Place and time


def test_who_waits_is_told_how_long_a_load_is_expected_to_last() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting")
    bench.wait(5)
    place = bench.scheduler.place("r1", bench.now)
    assert (place.stage, place.elapsed_s, place.expected_s) == ("loading", 5, 20)
    assert place.words == "loading; 5 s of about 20 s"


def test_who_waits_in_the_queue_is_told_how_many_load_before() -> None:
    bench = Bench(*(spec(name, load_s=20) for name in ("scout", "coder", "writer")), free_gib=60)
    for number, name in enumerate(("scout", "coder", "writer")):
        bench.arrive(f"r{number}", name)
    place = bench.scheduler.place("r2", bench.now)
    assert (place.stage, place.ahead, place.expected_s) == ("queued", 2, 60)
    assert place.words == "waiting, 2 to load before it; 0 s of about 60 s"


def test_who_waits_while_others_still_go_for_its_engine_is_told_that_it_loads() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    assert bench.scheduler.place("r1", bench.now).stage == "loading"


def test_who_waits_for_what_somebody_else_starts_is_told_that_it_loads() -> None:
    bench = Bench(spec("scout"))
    bench.unit("scout", "starting")
    bench.arrive("r1", "scout")
    bench.wait(5)
    place = bench.scheduler.place("r1", bench.now)
    assert (place.stage, place.expected_s) == ("loading", 20)


def test_who_is_not_known_is_told_that_it_is_ready() -> None:
    assert Bench().scheduler.place("r1", 0).stage == "ready"


def test_who_does_not_wait_is_told_that_it_is_ready() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.arrive("r1", "scout")
    assert bench.scheduler.place("r1", bench.now).words == "ready"


def test_what_is_expected_of_a_load_is_learned_from_the_last_one() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout")
    bench.loaded("scout", load_s=45)
    bench.unit("scout", "stopping", "stopped")
    assert bench.scheduler.retry_after_s("scout", bench.now) == 45


def test_a_load_that_takes_longer_than_expected_is_expected_to_go_on() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting")
    bench.wait(300)
    assert bench.scheduler.retry_after_s("scout", bench.now) == 30


def test_a_first_load_is_expected_to_last_the_longer_the_bigger_the_engine_is() -> None:
    bench = Bench(spec("small", 1, load_s=0), spec("big", 50, load_s=0))
    assert bench.view("big").load_s is None
    assert bench.scheduler.retry_after_s("small", bench.now) == 10
    assert bench.scheduler.retry_after_s("big", bench.now) == 100


def test_a_state_that_is_told_once_more_changes_nothing() -> None:
    bench = Bench(spec("scout"))
    bench.up("scout")
    bench.wait(10)
    assert bench.unit("scout", "ready") == []
    assert bench.view("scout").ready_s == 10


def test_a_state_of_an_engine_that_is_not_known_says_nothing() -> None:
    assert Bench(spec("scout")).unit("coder", "ready") == []


def test_a_view_says_how_things_stand_with_an_engine() -> None:
    bench = Bench(spec("scout", load_s=20))
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting")
    bench.wait(3)
    view = bench.view("scout")
    assert (view.phase, view.waiting, view.loading_s, view.ready_s, view.open) == ("starting", 1, 3, None, False)
    bench.loaded("scout")
    bench.wait(7)
    view = bench.view("scout")
    assert (view.phase, view.in_flight, view.loading_s, view.ready_s, view.idle_s) == ("ready", 1, None, 7, 0)
    bench.end("r1")
    bench.wait(2)
    assert (bench.view("scout").idle_s, bench.view("scout").open) == (2, True)


# The end of the gateway


def test_when_the_gateway_ends_who_waits_is_refused_and_the_load_goes_on() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    [refusal] = bench.tell(Closing())
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.retry_after_s) == ("gateway_stopping", 1)


def test_when_the_gateway_ends_nobody_gets_through_any_more_and_nothing_begins() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    bench.up("scout")
    bench.tell(Closing())
    codes = refused(bench.arrive("r1", "scout") + bench.arrive("r2", "coder"))
    assert codes == {"r1": "gateway_stopping", "r2": "gateway_stopping"}
    assert bench.wait(10_000) == []
