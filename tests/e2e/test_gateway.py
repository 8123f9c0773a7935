# SPDX-License-Identifier: Apache-2.0
"""The gateway's promises, seen from outside: real engines on a box, asked over the network by :8009."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
from boxes import Box
from callers import ENDLESS, PATIENCE_S, Door, together

# Keys


@pytest.mark.parametrize("key", ["", "hearth_wrong", None], ids=["missing", "wrong", "revoked"])
def test_nothing_starts_without_a_valid_key(door: Door, key: str | None) -> None:
    if key is None:
        key = door.box.out("hearth keys add gone 2>/dev/null; hearth keys revoke gone >/dev/null 2>&1")
        time.sleep(0.6)
    before = door.stage.invocations()

    answer = door.models.ask("small", {"Authorization": f"Bearer {key}" if key else ""})

    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert door.stage.invocations() == before
    assert door.view("small")["phase"] == "stopped"


# Finding a model


def test_all_models_are_listed_with_their_state(door: Door) -> None:
    listed = door.models.request("GET", "/v1/models").json["data"]

    assert {one["id"]: one["state"] for one in listed} == {
        "big": "ready",
        "other": "stopped",
        "small": "stopped",
        "helper": "ready",
    }


def test_a_model_answers_by_body_and_by_path(door: Door) -> None:
    assert door.models.ask("big").json["model"] == "big"
    answer = door.models.request("POST", "/v1/helper/chat/completions", {"messages": [], "max_tokens": 1})
    assert "helper" in str(answer.json) or answer.status < 500


def test_an_unknown_model_is_answered_with_the_closest_names(door: Door) -> None:
    answer = door.models.ask("helpr")

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "helper" in answer.error["message"]


@pytest.mark.parametrize("size", [8_000_000, 60_000_000], ids=["8 MB", "60 MB"])
def test_a_large_body_gets_to_the_engine(door: Door, size: int) -> None:
    # Played by the moody one: the real one takes half a minute to read so much.
    door.stage.mood("small", "drip 1")

    assert door.models.ask("small", padding="x" * size).json["model"] == "small"


def test_a_body_beyond_the_limit_is_refused(door: Door) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % door.models.key.encode()

    said = door.models.raw(head + b"Content-Length: 1000000000\r\n\r\n{")

    assert said.startswith(b"HTTP/1.1 413 ")


# Cold models


def test_fifty_callers_of_a_cold_model_cause_one_start_and_are_all_answered(door: Door) -> None:
    before = door.starts("small")

    answers = together(50, lambda _: door.models.ask("small"))

    assert {(one.status, one.json.get("model")) for one in answers} == {(200, "small")}
    assert door.starts("small") == before + 1


def test_a_stream_hears_of_the_load_until_the_engine_speaks(door: Door) -> None:
    door.stage.mood("small", "load 2")

    stream = door.models.stream("small")

    assert stream.result() == "done"
    assert len(stream.comments) >= 3
    assert all(comment.startswith(": small: loading; ") for comment in stream.comments)
    assert stream.events


def test_who_does_not_want_to_wait_is_told_when_to_come_again(door: Door) -> None:
    door.stage.mood("small", "load 2")

    answer = door.models.ask("small", {"Prefer": "wait=0"})

    assert (answer.status, answer.error["code"]) == (503, "waited_too_long")
    assert int(answer.headers["retry-after"]) >= 1
    # It is believed to come again.
    door.until_phase("small", "ready")
    assert door.models.ask("small", {"Prefer": "wait=0"}).status == 200


def test_a_load_that_nobody_waits_for_any_more_is_given_up(door: Door) -> None:
    door.stage.mood("small", "load 20")
    stream = door.models.stream("small")
    door.until_phase("small", "starting")

    stream.leave()

    door.until_phase("small", "stopped")
    assert "small" not in door.stage.active()


def test_a_client_that_leaves_is_noticed_by_the_engine(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()
    door.stage.until_in_flight("big", 1)

    stream.leave()

    door.stage.until_in_flight("big", 0)


def test_warm_models_do_not_wait_for_a_cold_one(door: Door) -> None:
    door.stage.mood("small", "load 4")
    cold = door.models.stream("small")
    door.until_phase("small", "starting")

    for model in ("big", "helper") * 3:
        assert door.models.ask(model).status == 200

    assert door.view("small")["phase"] == "starting"
    assert cold.result() == "done"


# Models that do not fit side by side


def test_a_request_switches_models_and_nothing_else_is_stopped(door: Door) -> None:
    assert door.models.ask("other").json["model"] == "other"

    assert door.stage.active() == ["other", "helper"]
    # Which model starts at boot is not for requests to say.
    assert door.stage.boots() == ["big", "helper"]


def test_a_busy_model_does_not_starve_another_and_none_of_its_streams_is_cut(door: Door) -> None:
    door.drip(2)
    ended: list[str] = []
    served = threading.Event()

    def keep_busy(number: int) -> None:
        time.sleep(number / 2)
        while not served.is_set():
            ended.append(door.models.stream("big").result())

    busy = [threading.Thread(target=keep_busy, args=(number,), daemon=True) for number in range(3)]
    for thread in busy:
        thread.start()
    door.until("big", lambda now: now["in_flight"] >= 2)
    answer = door.models.ask("other")
    before = len(ended)
    served.set()
    for thread in busy:
        thread.join(90)
        assert not thread.is_alive()

    assert answer.json["model"] == "other"
    assert before >= 3
    assert set(ended) == {"done"}


def test_two_clients_in_turns_cause_at_most_a_third_as_many_switches(door: Door) -> None:
    before = door.starts("big") + door.starts("other")
    begun = time.monotonic()
    asked = [0, 0]

    def talk(number: int) -> None:
        # On a busy machine a model may take long to come up: there is a turn back for both before it is counted.
        while time.monotonic() < begun + 15 or (min(asked) < 2 and time.monotonic() < begun + PATIENCE_S):
            model = ("big", "other")[number]
            assert door.models.ask(model).json["model"] == model
            asked[number] += 1

    together(2, talk)

    switches = door.starts("big") + door.starts("other") - before
    assert min(asked) > 1
    assert 1 < switches <= sum(asked) / 3


def test_an_unload_delays_no_other_model(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()

    assert door.admin.request("POST", "/api/models/big/unload", {"drain_s": 3}).status == 202
    for _ in range(5):
        assert door.models.ask("helper").status == 200

    assert stream.result() == "error"
    assert stream.error["code"] == "drained"
    door.until_phase("big", "stopped")


def test_models_are_loaded_and_switched_by_an_administrator(door: Door) -> None:
    assert door.admin.request("POST", "/api/models/small/load").json == {"loaded": "small"}
    assert door.admin.request("POST", "/api/switch", {"model": "other"}).json == {"loaded": "other"}

    door.until_phase("small", "stopped")
    assert door.stage.active() == ["other", "helper"]


def test_a_models_key_administers_nothing(door: Door) -> None:
    answer = door.models.request("POST", "/api/models/big/unload", {})

    assert (answer.status, answer.error["code"]) == (403, "key_scope")


def test_a_request_is_cancelled_by_an_administrator(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()
    (one,) = door.admin.request("GET", "/api/requests").json["requests"]

    assert door.admin.request("DELETE", f"/api/requests/{one['id']}").status == 200

    assert stream.result() == "error"
    assert stream.error["code"] == "cancelled"
    door.stage.until_in_flight("big", 0)


def test_metrics_have_the_gateways_and_the_engines_figures(door: Door) -> None:
    door.models.ask("big")

    page = door.admin.request("GET", "/metrics").text.decode()

    assert 'hearth_requests_total{code="200",key="e2e-models",model="big"}' in page
    assert 'hearth_tokens_total{key="e2e-models",kind="completion",model="big"}' in page
    for model in ("big", "helper"):
        assert f'llamacpp:requests_processing{{model="{model}"}}' in page


# Others who change engines


def test_a_switch_by_the_command_line_waits_for_streams_and_cuts_none(door: Door) -> None:
    door.drip(4)
    streams = [door.models.stream("big") for _ in range(3)]
    for stream in streams:
        stream.until_began()

    switching = door.stage.begin("switch", "other", "--drain", "60")
    late = door.models.ask("other")
    said = switching.communicate(timeout=90)[0]

    assert switching.returncode == 0, said
    assert [stream.result() for stream in streams] == ["done"] * 3
    assert late.json["model"] == "other"
    assert door.stage.active() == ["other", "helper"]


def test_a_switch_by_the_playbook_waits_for_streams_and_cuts_none(door: Door) -> None:
    door.drip(15)
    streams = [door.models.stream("big") for _ in range(2)]
    for stream in streams:
        stream.until_began()

    door.box.ok("switch.yml", "-e", "model=other")

    assert [stream.result() for stream in streams] == ["done"] * 2
    assert door.stage.active() == ["other", "helper"]


def test_who_asks_for_the_model_that_is_switched_away_waits_and_is_answered(door: Door) -> None:
    door.stage.mood("other", "load 2")
    switching = door.stage.begin("switch", "other")
    door.until_phase("other", "starting")

    answer = door.models.ask("big")

    assert answer.json["model"] == "big"
    assert switching.wait(90) == 0
    switching.communicate()


def test_what_systemctl_starts_and_stops_is_known_at_once(door: Door) -> None:
    for verb, phase in (("start", "ready"), ("stop", "stopped")):
        door.box.out(f"systemctl {verb} hearth-engine-small")
        door.until("small", lambda now, phase=phase: now["phase"] == phase, timeout_s=2)


# The configuration


def test_read_again_and_unchanged_nothing_happens(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()
    before = door.stage.invocations()

    assert door.admin.request("POST", "/api/reload").json == {"changed": []}
    door.box.out("systemctl reload hearth-gateway")

    assert door.models.ask("helper").status == 200
    assert door.stage.invocations() == before
    assert stream.end == "lost"
    assert stream.is_alive()
    stream.leave()


def test_one_model_changed_touches_only_that_one(door: Door) -> None:
    stream = door.models.stream("big", **ENDLESS).until_began()
    before = door.stage.invocations()
    door.stage.pin("small")
    try:
        assert door.admin.request("POST", "/api/reload").json == {"changed": ["small"]}
        assert door.stage.invocations() == before
        assert stream.is_alive()
    finally:
        door.stage.pin()
        door.admin.request("POST", "/api/reload")
        stream.leave()


def test_the_suite_left_no_error_of_the_gateways_own(door: Door) -> None:
    log = door.box.out("journalctl --no-pager -o cat -u hearth-gateway")

    assert "Traceback" not in log, log[-3000:]
    assert "never retrieved" not in log


def curl(box: Box, words: str) -> subprocess.CompletedProcess[str]:
    return box.sh(f"curl -sS -m 20 {words}")


def test_the_boxs_own_socket_needs_no_key_and_is_not_for_everybody(door: Door) -> None:
    asked = "--unix-socket /run/hearth/gateway.sock http://hearth/api/models"

    assert '"name":"big"' in curl(door.box, asked).stdout
    assert door.box.sh(f"runuser -u spark -- curl -sS -m 5 {asked}").returncode != 0
