# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.exhausted: which ends of an engine are for want of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hearth.engines.exhausted import ran_out

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState


@pytest.mark.parametrize(
    "line",
    [
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 8 MiB on device 0: cudaMalloc failed: out of memory",
        "ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 292926534144",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: CUDA error: out of memory",
        "ValueError: Free memory on device cuda:0 (3/23 GiB) on startup is less than desired GPU memory utilization",
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "OSError: [Errno 12] Cannot allocate memory",
    ],
)
def test_engines_say_it_in_their_words(make_engine: MakeEngine, make_state: MakeState, line: str) -> None:
    state = make_state(make_engine(), "failed", result="exit-code", exit_status=1)

    assert ran_out(state, ["loading model", line, "exiting due to model loading error"])


@pytest.mark.parametrize(
    "line",
    [
        "llama_model_load: error loading model: missing tensor 'token_embd.weight'",
        "CUDA0 model buffer size = 1605.34 MiB",
        "INFO: GPU memory utilization 0.9, free memory on device 100 GiB",
        "",
    ],
)
def test_another_reason_is_not_taken_for_it(make_engine: MakeEngine, make_state: MakeState, line: str) -> None:
    assert not ran_out(make_state(make_engine(), "failed", result="exit-code", exit_status=1), [line])


@pytest.mark.parametrize(
    "fields",
    [{"result": "oom-kill"}, {"result": "exit-code", "exit_status": 137}],
    ids=["of the unit itself", "of its container"],
)
def test_who_was_killed_for_it_says_nothing(
    make_engine: MakeEngine, make_state: MakeState, fields: dict[str, object]
) -> None:
    assert ran_out(make_state(make_engine(), "failed", **fields), [])
