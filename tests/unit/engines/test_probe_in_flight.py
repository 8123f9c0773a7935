# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.probe.in_flight: how many requests an engine has, in the words of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hearth.engines import probe

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, ScriptedServer

LLAMA = b"""# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 3
llamacpp:n_decode_total 1234
"""
VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a name, with {braces} and spaces"} 2.0
vllm:num_requests_waiting{engine="0",model_name="x"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="x",reason="capacity"} 1.0
vllm:num_preemptions_total{engine="0",model_name="x"} 7.0
"""
SGLANG = b"""sglang:num_running_reqs{engine_type="unified",model_name="x",pp_rank="0",priority="",tp_rank="0"} 2.0
sglang:num_running_reqs{engine_type="unified",model_name="x",pp_rank="0",priority="1",tp_rank="0"} 2.0
sglang:num_queue_reqs{engine_type="unified",model_name="x",pp_rank="0",tp_rank="0"} 4.0
sglang:num_running_reqs_offline_batch{model_name="x"} 9.0
"""


@pytest.mark.parametrize(("kind", "text", "count"), [("llama.cpp", LLAMA, 5), ("vllm", VLLM, 3), ("sglang", SGLANG, 6)])
def test_what_runs_and_what_waits_is_counted_once(
    make_engine: MakeEngine, server: ScriptedServer, kind: str, text: bytes, count: int
) -> None:
    server.script["/metrics"] = [(200, text)]

    assert probe.in_flight(make_engine(engine=kind, port=server.port), "") == count


def test_an_engine_may_have_several_cores_that_each_tell_their_own(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    server.script["/metrics"] = [
        (200, b'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_running{engine="1"} 1.0\n')
    ]

    assert probe.in_flight(make_engine(engine="vllm", port=server.port), "") == 3


def test_an_ollama_tells_nothing_and_is_not_asked(make_engine: MakeEngine, server: ScriptedServer) -> None:
    assert probe.in_flight(make_engine(engine="ollama", port=server.port), "") == 0
    assert server.seen == []


@pytest.mark.parametrize("status", [401, 404, 501])
def test_an_engine_that_shows_no_metrics_is_taken_to_have_nothing(
    make_engine: MakeEngine, server: ScriptedServer, status: int
) -> None:
    server.script["/metrics"] = [(status, LLAMA)]

    assert probe.in_flight(make_engine(port=server.port), "") == 0


def test_an_engine_that_does_not_answer_is_taken_to_have_nothing(make_engine: MakeEngine, free_port: int) -> None:
    assert probe.in_flight(make_engine(port=free_port), "") == 0


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-", b""])
def test_a_value_that_is_no_count_does_not_hide_the_others(
    make_engine: MakeEngine, server: ScriptedServer, value: bytes
) -> None:
    server.script["/metrics"] = [(200, b"llamacpp:requests_processing " + value + b"\nllamacpp:requests_deferred 3\n")]

    assert probe.in_flight(make_engine(port=server.port), "") == 3


def test_the_key_goes_along(make_engine: MakeEngine, server: ScriptedServer) -> None:
    probe.in_flight(make_engine(port=server.port), "s3cret")

    assert server.seen[0][2]["Authorization"] == "Bearer s3cret"


def test_an_engine_that_says_nothing_in_time_is_busy(make_engine: MakeEngine, server: ScriptedServer) -> None:
    server.hangs.set()

    assert probe.in_flight(make_engine(port=server.port), "", 0.05) == 1
