# SPDX-License-Identifier: Apache-2.0
"""The command line of each engine, from a model of the catalog. Pure functions, no I/O.

PRIVATE to the collection. Flags as the engines' own parsers know them: vLLM 0.32, SGLang 0.5.23 and llama-server 0.7.0
are asked by tests/contract.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Where a model's folder and the caches stand in every container.
MODEL_DIR = "/models"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model on one host. ``total_gib`` is the host's MemTotal; ``gpu``: it has one."""

    name: str
    model: Mapping[str, Any]
    port: int
    total_gib: float
    gpu: bool


def argv(run: Run) -> list[str]:
    """The engine's arguments, after its program: vllm serve, python3 -m sglang.launch_server, llama-server.

    A flag of the model's own argv wins over one that is derived; false takes it away.
    """
    # `vllm serve` wants the model by its place; as a flag it is only warned about, for now.
    place = {"vllm": [MODEL_DIR], "ollama": ["serve"]}
    words = [word for flag, value in _flags(run).items() for word in _words(flag, value)]
    return place.get(run.model["engine"], []) + words


def flags(run: Run) -> list[str]:
    """The flags among those arguments."""
    return [flag for flag, value in _flags(run).items() if value is not False]


def _flags(run: Run) -> dict[str, Any]:
    return {**_DERIVED[run.model["engine"]](run), **(run.model["argv"] or {})}


def _words(flag: str, value: Any) -> Sequence[str]:
    if value is False:
        return ()
    if value is True:
        return (flag,)
    if isinstance(value, (list, tuple)):
        return (flag, *map(str, value))
    return (flag, str(value))


def share(model: Mapping[str, Any], total_gib: float) -> float:
    """The share of the host's memory that vLLM and SGLang are to take: weights and cache, rounded up to a thousandth.

    What they need beside their share is the model's overhead (GB10 platform survey, 1.4: about 7 GB on GB10).
    """
    memory = model["memory_gib"]
    wanted: float = (memory["weights"] + memory["kv_cache"]) / model["nodes"]
    return math.ceil(wanted / total_gib * 1000) / 1000


def _vllm(run: Run) -> dict[str, Any]:
    flags: dict[str, Any] = {
        # vLLM answers to no other name; the gateway passes on the one that was asked for.
        "--served-model-name": [run.name, *run.model["aliases"]],
        "--host": "0.0.0.0",  # noqa: S104 - of the container; docker publishes it on the box's loopback only
        "--port": run.port,
        "--max-model-len": run.model["context"]["practical"],
    }
    if run.gpu:
        flags["--gpu-memory-utilization"] = share(run.model, run.total_gib)
    if run.model["nodes"] > 1:
        flags["--tensor-parallel-size"] = run.model["nodes"]
    return flags


def _sglang(run: Run) -> dict[str, Any]:
    flags: dict[str, Any] = {
        "--model-path": MODEL_DIR,
        "--served-model-name": run.name,
        "--host": "0.0.0.0",  # noqa: S104 - of the container
        "--port": run.port,
        "--context-length": run.model["context"]["practical"],
        # What runs and waits is read before an engine is stopped; the other engines tell it unasked.
        "--enable-metrics": True,
    }
    if run.gpu:
        flags["--mem-fraction-static"] = share(run.model, run.total_gib)
    if run.model["nodes"] > 1:
        flags["--tp-size"] = run.model["nodes"]
    return flags


def _llama(run: Run) -> dict[str, Any]:
    own = run.model["argv"] or {}
    # --ctx-size is shared out evenly among the slots, unless they draw on one cache (llama-server's --kv-unified, which
    # is what it takes where --parallel is not given).
    slots = 1 if own.get("--kv-unified") else int(own.get("--parallel") or 1)
    flags: dict[str, Any] = {
        "--model": posixpath.join(MODEL_DIR, run.model["file"]),
        "--alias": run.name,
        "--host": "0.0.0.0",  # noqa: S104 - of the container
        "--port": run.port,
        "--ctx-size": run.model["context"]["practical"] * max(1, slots),
        "--metrics": True,
        "--no-webui": True,
    }
    if run.gpu:
        flags["--n-gpu-layers"] = 999
    if "embeddings" in run.model["capabilities"]:
        flags["--embeddings"] = True
    return flags


_DERIVED: dict[str, Callable[[Run], dict[str, Any]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "llama.cpp": _llama,
    # Its settings come from the environment (_docker).
    "ollama": lambda run: {},  # noqa: ARG005
}
