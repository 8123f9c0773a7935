# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.scheduler: what becomes of those who wait when an engine does not start, or ends."""

from __future__ import annotations

import pytest
from scheduling import Bench, begun, granted, only, refused, spec

from hearth.gateway.scheduler.effects import Begin, Grant, Refuse
from hearth.gateway.scheduler.events import FailureKind, Loaded, LoadFailed, UnitChanged
from hearth.gateway.scheduler.spec import Phase


def test_all_who_wait_are_told_why_an_engine_did_not_start() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.arrive("r2", "scout")
    refusals = only(Refuse, bench.failed("scout", reason="it broke", log="line 1\nline 2"))
    assert [refusal.request for refusal in refusals] == ["r1", "r2"]
    for refusal in refusals:
        assert (refusal.code, refusal.status, refusal.retry_after_s) == ("load_failed", 503, 1)
        assert (refusal.reason, refusal.log) == ("it broke", "line 1\nline 2")


def test_an_engine_that_did_not_start_is_not_started_again_by_itself() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.failed("scout")
    assert bench.wait(10_000) == []


def test_the_next_request_tries_again_what_did_not_start() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.failed("scout")
    assert bench.arrive("r2", "scout") == [Begin("scout")]


def test_who_is_refused_by_admission_is_told_that_it_does_not_fit() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    [refusal] = bench.tell(LoadFailed("scout", "refused", "4 GiB are missing"))
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.reason) == ("does_not_fit", "4 GiB are missing")


def test_a_start_that_another_change_kept_from_beginning_is_tried_again_for_who_waits() -> None:
    bench = Bench(spec("scout"), busy_retry_s=1)
    bench.arrive("r1", "scout")
    assert bench.tell(LoadFailed("scout", "busy")) == []
    assert bench.arrive("r2", "scout") == []
    assert bench.wait(0.9) == []
    assert bench.wait(0.1) == [Begin("scout")]


def test_the_result_of_a_change_that_is_not_under_way_says_nothing() -> None:
    bench = Bench(spec("scout"), spec("coder", 10))
    bench.arrive("r1", "scout")
    assert bench.tell(LoadFailed("coder", "failed")) == []
    assert bench.tell(Loaded("coder", 99)) == []
    assert bench.view("coder").load_s == 20
    assert granted(bench.loaded("scout")) == ["r1"]


# Out of memory


def crowded() -> Bench:
    """``scout`` has run out of memory beside ``a``, which is pinned, ``b``, which is idle, and ``c``, which is busy."""
    bench = Bench(spec("a", 10, pinned=True), spec("b", 10), spec("c", 10), spec("scout", 50), free_gib=60)
    bench.up("a", "b", "c")
    bench.wait(100)
    bench.arrive("busy", "c")
    bench.arrive("r1", "scout")
    return bench


def test_out_of_memory_has_all_go_that_may_before_it_is_tried_again() -> None:
    bench = crowded()
    assert bench.failed("scout", "oom") == []
    assert bench.wait(20) == []
    assert bench.end("busy") == [Begin("scout", ("b", "c"))]


def test_out_of_memory_is_answered_with_one_more_try_only() -> None:
    bench = crowded()
    bench.end("busy")
    bench.failed("scout", "oom")
    bench.wait(20)
    bench.evicted("b", "c")
    assert refused(bench.failed("scout", "oom", "out of memory")) == {"r1": "load_failed"}


def test_a_failure_that_is_not_of_memory_has_nobody_go() -> None:
    bench = crowded()
    assert refused(bench.failed("scout", "failed")) == {"r1": "load_failed"}


def test_out_of_memory_is_not_answered_with_a_third_try_though_somebody_could_go() -> None:
    bench = crowded()
    bench.end("busy")
    bench.failed("scout", "oom")
    bench.wait(20)
    bench.evicted("b", "c")
    bench.up("b")
    assert refused(bench.failed("scout", "oom")) == {"r1": "load_failed"}


def test_out_of_memory_where_nobody_can_go_is_a_failure_at_once() -> None:
    bench = Bench(spec("a", 10, pinned=True), spec("scout", 50))
    bench.up("a")
    bench.arrive("r1", "scout")
    assert refused(bench.failed("scout", "oom")) == {"r1": "load_failed"}


def test_out_of_memory_evicts_nobody_once_nobody_waits_any_more() -> None:
    bench = crowded()
    bench.failed("scout", "oom")
    bench.leave("r1")
    bench.end("busy")
    bench.wait(20)
    assert bench.arrive("r2", "scout") == [Begin("scout")]


def test_out_of_memory_evicts_nobody_once_who_was_told_to_come_again_is_not_expected_any_more() -> None:
    bench = crowded()
    bench.leave("r1")
    bench.tell(LoadFailed("scout", "cancelled"))
    bench.arrive("r2", "scout", patience_s=0)
    bench.failed("scout", "oom")
    bench.wait(1000)
    bench.end("busy")
    assert bench.arrive("r3", "scout") == [Begin("scout")]


def test_a_try_after_out_of_memory_that_another_change_kept_from_beginning_is_still_to_come() -> None:
    bench = crowded()
    bench.end("busy")
    bench.failed("scout", "oom")
    assert begun(bench.wait(20)) == [("scout", ("b", "c"))]
    bench.tell(LoadFailed("scout", "busy"))
    assert begun(bench.wait(1)) == [("scout", ("b", "c"))]


def test_after_a_try_that_went_well_out_of_memory_has_all_go_again() -> None:
    bench = crowded()
    bench.end("busy")
    bench.failed("scout", "oom")
    bench.wait(20)
    assert granted(bench.loaded("scout", "b", "c")) == ["r1"]
    bench.end("r1")
    bench.unit("scout", "stopping", "stopped")
    bench.free_gib = 60
    bench.up("b")
    bench.wait(20)
    assert begun(bench.arrive("r2", "scout")) == [("scout", ())]
    assert refused(bench.failed("scout", "oom")) == {}


# Crashes


def crashed(bench: Bench, engine: str = "scout") -> list[object]:
    return list(bench.tell(UnitChanged(engine, "failed", "it was killed", "the last words")))


def ready(bench: Bench) -> None:
    bench.arrive("first", "scout")
    bench.loaded("scout")
    bench.free_gib += 60
    bench.end("first")


def test_who_waits_for_an_engine_that_ends_by_itself_has_it_started_again() -> None:
    bench = Bench(spec("scout"))
    ready(bench)
    bench.hold("scout")
    bench.arrive("r1", "scout")
    assert crashed(bench) == []
    assert begun(bench.let_go()) == [("scout", ())]


def test_an_engine_that_systemd_restarts_is_waited_for() -> None:
    bench = Bench(spec("scout"))
    ready(bench)
    bench.unit("scout", "starting")
    assert bench.arrive("r1", "scout") == []
    assert granted(bench.unit("scout", "ready")) == ["r1"]


def test_an_engine_that_did_not_start_for_somebody_else_is_started_for_who_waits() -> None:
    bench = Bench(spec("scout"))
    bench.unit("scout", "starting")
    bench.arrive("r1", "scout")
    assert bench.unit("scout", "failed") == [Begin("scout")]


def test_an_engine_that_is_gone_when_its_load_is_over_is_begun_again_for_who_waits() -> None:
    bench = Bench(spec("scout"))
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting", "ready", "failed")
    assert begun(bench.tell(Loaded("scout", 20))) == [("scout", ())]


def test_who_is_refused_is_told_a_reason_also_where_none_is_known() -> None:
    bench = Bench(spec("scout"), breaker_failures=1)
    bench.arrive("r1", "scout")
    [refusal] = only(Refuse, bench.failed("scout", reason=""))
    assert "scout" in refusal.reason
    bench.wait(1000)
    bench.unit("scout", "starting", "failed")
    [refusal] = only(Refuse, bench.arrive("r2", "scout"))
    assert "scout" in refusal.reason


def test_an_engine_that_is_gone_when_its_load_is_over_has_failed() -> None:
    bench = Bench(spec("scout"), breaker_failures=1)
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting", "ready", "failed")
    assert refused(bench.tell(Loaded("scout", 20))) == {"r1": "breaker_open"}


# The breaker


def trip(bench: Bench, failures: int = 3) -> Refuse:
    refusals: list[Refuse] = []
    for number in range(failures):
        bench.arrive(f"f{number}", "scout")
        refusals += only(Refuse, bench.failed("scout", reason="it broke", log="the last words"))
    return refusals[-1]


def test_a_third_failure_opens_the_breaker() -> None:
    bench = Bench(spec("scout"))
    assert trip(bench).retry_after_s == 30
    [refusal] = bench.arrive("r1", "scout")
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.status, refusal.retry_after_s) == ("breaker_open", 503, 30)
    assert (refusal.reason, refusal.log) == ("it broke", "the last words")
    assert bench.view("scout").retry_after_s == 30
    assert bench.view("scout").reason == "it broke"


def test_the_breaker_of_one_engine_is_no_other_s() -> None:
    bench = Bench(spec("scout"), spec("coder"))
    trip(bench)
    assert begun(bench.arrive("r1", "coder")) == [("coder", ())]


def test_failures_that_are_long_past_do_not_count() -> None:
    bench = Bench(spec("scout"), breaker_window_s=600)
    trip(bench, 2)
    bench.wait(600)
    trip(bench, 1)
    assert begun(bench.arrive("r1", "scout")) == [("scout", ())]


def test_failures_within_the_window_count() -> None:
    bench = Bench(spec("scout"), breaker_window_s=600)
    trip(bench, 2)
    bench.wait(599.9)
    trip(bench, 1)
    assert refused(bench.arrive("r1", "scout")) == {"r1": "breaker_open"}


def test_after_its_time_the_breaker_lets_a_start_through() -> None:
    bench = Bench(spec("scout"))
    trip(bench)
    bench.wait(29.9)
    assert refused(bench.arrive("r1", "scout")) == {"r1": "breaker_open"}
    bench.wait(0.1)
    assert bench.arrive("r2", "scout") == [Begin("scout")]


def test_a_failure_after_that_opens_it_at_once_for_twice_as_long_up_to_the_most() -> None:
    bench = Bench(spec("scout"), breaker_open_s=30, breaker_max_s=100)
    bench.wait(trip(bench).retry_after_s or 0)
    times = []
    for _ in range(3):
        times.append(trip(bench, 1).retry_after_s)
        bench.wait(times[-1] or 0)
    assert times == [60, 100, 100]


def test_a_failure_long_after_the_breaker_closed_is_a_first_one() -> None:
    bench = Bench(spec("scout"), breaker_window_s=600)
    trip(bench)
    bench.wait(30 + 600.1)
    assert trip(bench, 1).retry_after_s == 1


def test_a_long_load_that_fails_is_counted_from_when_it_began() -> None:
    bench = Bench(spec("scout"), breaker_window_s=600)
    trip(bench)
    bench.wait(30)
    bench.arrive("r1", "scout")
    bench.unit("scout", "starting")
    bench.wait(700)
    bench.unit("scout", "failed")
    [refusal] = only(Refuse, bench.tell(LoadFailed("scout", "failed")))
    assert refusal.retry_after_s == 60


def test_an_engine_that_ran_for_long_has_made_good_for_its_failures() -> None:
    bench = Bench(spec("scout", start="boot"), breaker_window_s=600)
    trip(bench)
    bench.wait(30)
    ready(bench)
    bench.wait(600)
    crashed(bench)
    assert begun(bench.arrive("r1", "scout")) == [("scout", ())]


def test_an_engine_that_ends_soon_after_its_start_has_not() -> None:
    bench = Bench(spec("scout", start="boot"), breaker_window_s=600)
    trip(bench)
    bench.wait(30)
    ready(bench)
    bench.wait(599)
    crashed(bench)
    assert refused(bench.arrive("r1", "scout")) == {"r1": "breaker_open"}


def test_an_engine_that_ends_again_and_again_while_it_is_used_opens_the_breaker() -> None:
    bench = Bench(spec("scout"))
    for _ in range(2):
        ready(bench)
        crashed(bench)
    ready(bench)
    bench.hold("scout")
    bench.arrive("r1", "scout")
    [refusal] = only(Refuse, crashed(bench))
    assert (refusal.code, refusal.reason, refusal.log) == ("breaker_open", "it was killed", "the last words")
    assert begun(bench.let_go()) == []


@pytest.mark.parametrize(
    "phases",
    [
        ("ready", "failed"),
        ("ready", "stopped"),
        ("ready", "stopping", "failed"),
        ("ready", "starting"),
        ("ready", "stopping", "starting"),
        ("failed",),
    ],
)
def test_however_systemd_shows_that_an_engine_ended_by_itself_it_counts(phases: tuple[Phase, ...]) -> None:
    bench = Bench(spec("scout"), breaker_failures=1)
    bench.unit("scout", "starting")
    bench.unit("scout", *phases)
    assert refused(bench.arrive("r1", "scout")) == {"r1": "breaker_open"}


@pytest.mark.parametrize("phases", [("ready", "stopping", "stopped"), ("stopped",), ("stopping", "stopped")])
def test_an_engine_that_somebody_stops_has_not_failed(phases: tuple[Phase, ...]) -> None:
    bench = Bench(spec("scout"), breaker_failures=1)
    bench.unit("scout", "starting")
    bench.unit("scout", *phases)
    assert refused(bench.arrive("r1", "scout")) == {}


def test_what_a_change_of_the_gateway_s_own_does_to_an_engine_is_no_failure_of_it() -> None:
    bench = Bench(spec("scout"), spec("coder"), free_gib=0, breaker_failures=1)
    bench.up("scout")
    bench.wait(100)
    bench.arrive("r1", "coder")
    bench.unit("scout", "stopping", "failed")
    bench.free_gib = 60
    bench.loaded("coder")
    assert bench.view("scout").retry_after_s is None


@pytest.mark.parametrize("kind", ["cancelled", "busy"])
def test_a_load_that_was_cancelled_or_not_begun_has_not_failed(kind: FailureKind) -> None:
    bench = Bench(spec("scout"), breaker_failures=1)
    bench.arrive("r1", "scout")
    bench.tell(LoadFailed("scout", kind))
    assert bench.view("scout").retry_after_s is None


def test_who_waits_at_the_door_of_a_ready_engine_is_not_refused_for_its_breaker() -> None:
    bench = Bench(spec("scout"))
    trip(bench)
    bench.up("scout")
    bench.hold("scout")
    assert bench.arrive("r1", "scout") == []


def test_an_engine_that_somebody_stops_while_its_breaker_is_open_is_not_started_for_who_waits() -> None:
    bench = Bench(spec("scout"))
    trip(bench)
    bench.unit("scout", "starting", "ready")
    bench.hold("scout")
    bench.arrive("r1", "scout")
    bench.unit("scout", "stopping")
    assert refused(bench.unit("scout", "stopped")) == {"r1": "breaker_open"}
    assert bench.let_go() == []


def test_a_ready_engine_lets_requests_in_whatever_its_breaker() -> None:
    bench = Bench(spec("scout"))
    trip(bench)
    bench.up("scout")
    assert bench.arrive("r1", "scout") == [Grant("r1", "scout")]
