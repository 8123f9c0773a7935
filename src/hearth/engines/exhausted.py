# SPDX-License-Identifier: Apache-2.0
"""Whether an engine ended because memory ran out: then it is worth another try once others have made room."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hearth.engines.units import UnitState

_WORDS = re.compile(
    # CUDA by way of llama.cpp (ggml-cuda.cu: "cudaMalloc failed: out of memory") and of PyTorch ("CUDA out of memory").
    r"\bout of memory\b"
    # llama.cpp: ggml-alloc.c, llama-model.cpp.
    r"|\b(?:failed|unable) to allocate \S+ buffer"
    # vLLM: v1/worker/gpu_worker.py.
    r"|^.*\bFree memory on device\b.*\bis less than desired GPU memory utilization\b"
    # SGLang: model_executor/model_runner.py.
    r"|\bNot enough memory\. Please try to increase\b"
    # Of the host: malloc(3), C++, Python.
    r"|\bCannot allocate memory\b|\bstd::bad_alloc\b|\bMemoryError\b",
    re.IGNORECASE,
)
# What `docker run` ends with when its container was killed (128 + SIGKILL): by the kernel for want of memory, unless
# somebody asked for that.
_KILLED = 137


def ran_out(state: UnitState, log: Iterable[str]) -> bool:
    """``state`` is of the unit after its end, and ``log`` what it said in that run."""
    return state.result == "oom-kill" or state.exit_status == _KILLED or any(map(_WORDS.search, log))
