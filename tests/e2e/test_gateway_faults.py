# SPDX-License-Identifier: Apache-2.0
"""What breaks, and what clients of the gateway see of it: an error that says so or an answer, never a silent end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from callers import ENDLESS, Answer, Door, together

pytestmark = pytest.mark.thorough


def in_the_end(door: Door, model: str, timeout_s: float = 60) -> Answer:
    """Ask until it answers, as a client does that minds Retry-After; every other answer says why not."""
    deadline = time.monotonic() + timeout_s
    while (answer := door.models.ask(model)).status != 200:
        assert answer.error["code"], answer.text
        assert time.monotonic() < deadline, answer.text
        time.sleep(min(2, int(answer.headers.get("retry-after", 1))))
    return answer


# Engines


def test_a_stream_whose_engine_is_killed_ends_with_an_error_and_the_next_request_is_answered(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()

    door.box.out("docker kill hearth-big")

    assert stream.result() == "error"
    assert stream.error["code"] == "engine_died"
    assert in_the_end(door, "big").json["model"] == "big"


def test_an_engine_that_ends_while_it_loads_is_told_with_its_last_words(door: Door) -> None:
    door.stage.mood("small", "crash 1")

    answer = door.models.ask("small")

    assert (answer.status, answer.error["code"]) == (503, "load_failed")
    assert "cannot load the model, as the mood says" in "\n".join(answer.error["log"])
    door.stage.mood("small")
    assert in_the_end(door, "small").json["model"] == "small"


def test_a_stream_that_waits_for_such_a_load_ends_with_the_error(door: Door) -> None:
    door.stage.mood("small", "crash 2")

    stream = door.models.stream("small")

    assert stream.result() == "error"
    assert stream.error["code"] == "load_failed"
    door.stage.mood("small")
    in_the_end(door, "small")


def test_a_crash_loop_is_not_fed_and_is_tried_again_after_its_time(door: Door) -> None:
    door.stage.mood("small", "crash 0")
    codes = []
    while "breaker_open" not in codes:
        answer = door.models.ask("small")
        assert answer.status == 503, answer.text
        codes.append(answer.error["code"])
        assert len(codes) < 8, codes
    assert "as the mood says" in "\n".join(answer.error.get("log", [])) or "small" in answer.error["message"]
    assert int(answer.headers["retry-after"]) >= 1
    before = door.stage.invocations()
    assert {one.status for one in together(20, lambda _: door.models.ask("small"))} == {503}
    assert door.stage.invocations() == before
    # Nobody else suffers.
    assert door.models.ask("helper").status == 200

    door.stage.mood("small")
    assert in_the_end(door, "small").json["model"] == "small"


def test_an_engine_that_never_gets_ready_is_told(door: Door) -> None:
    door.stage.mood("other", "deaf")

    answer = door.models.ask("other")

    assert (answer.status, answer.error["code"]) == (503, "load_failed")
    assert "did not become ready" in answer.error["message"]
    # What had to go for it comes back for the next who asks.
    assert in_the_end(door, "big").json["model"] == "big"


def test_an_engine_that_somebody_stops_is_started_for_the_next_request(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()

    door.box.out("systemctl stop hearth-engine-big")

    assert stream.result() == "error"
    assert in_the_end(door, "big").json["model"] == "big"


def test_an_engine_that_somebody_starts_is_waited_for_and_not_started_twice(door: Door) -> None:
    door.stage.mood("small", "load 2")
    before = door.starts("small")
    door.box.out("systemctl start --no-block hearth-engine-small")
    door.until_phase("small", "starting")

    assert door.models.ask("small").json["model"] == "small"
    assert door.starts("small") == before + 1


def test_memory_that_is_not_there_is_told_and_costs_nobody_anything(door: Door) -> None:
    door.stage.memory(leak=60)
    before = door.stage.invocations()

    answer = door.models.ask("other")

    assert (answer.status, answer.error["code"]) == (503, "does_not_fit")
    assert "50.0 GiB" in answer.error["message"]
    assert door.stage.invocations() == before
    door.stage.memory()
    assert in_the_end(door, "other").json["model"] == "other"


def test_memory_that_comes_back_late_is_waited_for(door: Door) -> None:
    door.stage.memory(linger_s=3)

    assert door.models.ask("other").json["model"] == "other"


# The gateway


def test_its_restart_lets_streams_end_and_touches_no_engine(door: Door) -> None:
    door.drip(5)
    before = door.stage.invocations()
    streams = [door.models.stream("big").until_began() for _ in range(4)]

    door.box.out("systemctl restart --no-block hearth-gateway")
    late = door.models.ask("helper")

    assert [stream.result() for stream in streams] == ["done"] * 4
    assert late.status == 200
    assert door.stage.invocations() == before


def test_its_restart_while_a_model_loads_loses_no_caller_and_starts_nothing_twice(door: Door) -> None:
    door.stage.mood("small", "load 4")
    before = door.starts("small")
    early = [door.models.stream("small") for _ in range(5)]
    door.until_phase("small", "starting")

    door.box.out("systemctl restart --no-block hearth-gateway")
    late = together(5, lambda _: door.models.ask("small"))

    assert [stream.result() for stream in early] == ["done"] * 5
    assert {answer.status for answer in late} == {200}
    assert door.starts("small") == before + 1


def test_its_sudden_death_is_seen_by_clients_and_by_no_engine(door: Door) -> None:
    before = door.stage.invocations()
    stream = door.models.stream("big", **ENDLESS).until_began()

    door.box.out("systemctl kill -s KILL hearth-gateway")

    # Nobody could say anything more; but it must not look like a proper end.
    assert stream.result() == "lost"
    assert door.models.ask("big").json["model"] == "big"
    assert door.stage.invocations() == before
    door.stage.until_in_flight("big", 0)


def test_its_sudden_death_while_a_model_loads_costs_no_second_start(door: Door) -> None:
    door.stage.mood("small", "load 4")
    before = door.starts("small")
    waiting = door.models.stream("small")
    door.until_phase("small", "starting")

    door.box.out("systemctl kill -s KILL hearth-gateway")
    assert waiting.result() == "lost"

    assert door.models.ask("small").json["model"] == "small"
    assert door.starts("small") == before + 1


def test_its_sudden_death_between_two_models_leaves_nothing_that_the_next_request_does_not_heal(door: Door) -> None:
    door.stage.mood("other", "load 2")
    waiting = door.models.stream("other")
    door.until("big", lambda now: now["phase"] in {"stopping", "stopped"})

    door.box.out("systemctl kill -s KILL hearth-gateway")
    waiting.result()

    assert in_the_end(door, "other").json["model"] == "other"
    assert in_the_end(door, "big").json["model"] == "big"


def test_a_box_that_reboots_answers_again(door: Door) -> None:
    door.cut_power()

    assert in_the_end(door, "big").json["model"] == "big"
    assert in_the_end(door, "other").json["model"] == "other"


# What it stands on


def test_docker_restarted_while_streams_run_is_told_and_healed(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()

    door.box.out("systemctl restart docker")

    assert stream.result() == "error"
    assert in_the_end(door, "big").json["model"] == "big"
    assert in_the_end(door, "helper").json["model"] == "helper"


def test_docker_that_is_down_is_told_and_does_not_hang_anybody(door: Door) -> None:
    # Masked, or the engine's unit would start it again.
    door.box.out("systemctl mask --runtime --now docker.socket docker")
    try:
        answer = door.models.ask("small")
        assert answer.status == 503, answer.text
        assert door.models.request("GET", "/v1/models").status == 200
    finally:
        door.box.out("systemctl unmask --runtime docker.socket docker; systemctl start docker")

    assert in_the_end(door, "small").json["model"] == "small"
    assert in_the_end(door, "big").json["model"] == "big"


@pytest.fixture
def no_dbus(door: Door) -> Iterator[None]:
    door.box.out("systemctl stop dbus.socket dbus.service")
    try:
        yield
    finally:
        door.box.out("systemctl start dbus.socket dbus.service")
        door.until("big", lambda now: now["phase"] == "ready")


def test_warm_models_answer_while_d_bus_is_down(door: Door, no_dbus: None) -> None:
    for model in ("big", "helper") * 3:
        assert door.models.ask(model).status == 200
    assert door.models.request("GET", "/v1/models").status == 200


def test_a_cold_model_is_started_once_d_bus_is_back(door: Door) -> None:
    stream = None
    door.box.out("systemctl stop dbus.socket dbus.service")
    try:
        stream = door.models.stream("small")
        time.sleep(2)
        assert stream.is_alive()
    finally:
        door.box.out("systemctl start dbus.socket dbus.service")

    assert stream.result() == "done"


def test_the_suite_left_no_error_of_the_gateways_own(door: Door) -> None:
    log = door.box.out("journalctl --no-pager -o cat -u hearth-gateway")

    assert "Traceback" not in log, log[-3000:]
    assert "never retrieved" not in log
