# SPDX-License-Identifier: Apache-2.0
"""What the tests of resolution share: a small host, a Spark, a small catalog, and a good model."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

from ansible_collections.hearth.spark.plugins.lookup import catalog as lookup
from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _complete, _docker, _resolve

IMAGE = f"registry.example:5000/llama.cpp@sha256:{'ab' * 32}"
DIGEST = f"sha256:{'cd' * 32}"
GOOD: dict[str, Any] = {
    "engine": "llama.cpp",
    "image": IMAGE,
    "family": "tiny",
    "file": "tiny.gguf",
    "memory_gib": 1,
}

HOST = _complete.Machine(total_gib=16, floor_gib=2, arch="x86_64", gpu=False)
SPARK = _complete.Machine(total_gib=119.7, floor_gib=10, arch="aarch64", gpu=True)
SMALL_SPARK = _complete.Machine(total_gib=59.7, floor_gib=9.95, arch="aarch64", gpu=True)
PLACE = _docker.Place(root="/home/spark/ai", uid=1000, gid=1001, user="spark", gpu="none", ulimits=())
GPU_PLACE = _docker.Place(
    root="/home/spark/ai", uid=1000, gid=1001, user="spark", gpu="nvidia.com/gpu=all", ulimits=("memlock=-1",)
)

CATALOG = _catalog.check_catalog(
    models={
        "qwen": {
            "family": "qwen3",
            "repo": "Qwen/Qwen3",
            "engine": "sglang",
            "image": "sglang",
            "aliases": ["chatty"],
            "argv": {"--quantization": "modelopt_fp4", "--attention-backend": "flashinfer"},
            "env": {"A": "1", "B": "2"},
            "context": {"theoretical": 40960, "practical": 40960},
            "memory_gib": {"weights": 20, "kv_cache": 10, "overhead": 7},
        },
        "embed": {
            "family": "embeddings",
            "repo": "BAAI/embed",
            "engine": "vllm",
            "image": "vllm",
            "argv": {"--runner": "pooling"},
            "memory_gib": {"weights": 2, "kv_cache": 4, "overhead": 3},
            "capabilities": ["embeddings"],
            "lane": "utility",
            "start": "boot",
        },
        "small": {
            "family": "gemma",
            "folder": "shared",
            "repo": "google/gemma-GGUF",
            "engine": "llama.cpp",
            "image": "llama",
            "file": "gemma.gguf",
            "memory_gib": {"weights": 2},
        },
        "helper": {
            "family": "qwen3",
            "engine": "ollama",
            "image": "ollama",
            "ollama": "qwen3:0.6b",
            "disk_gb": 0.5,
            "memory_gib": {"weights": 0.5, "kv_cache": 0.5},
        },
        "huge": {
            "family": "huge",
            "repo": "x/huge",
            "engine": "vllm",
            "image": "vllm",
            "nodes": 2,
            "memory_gib": {"weights": 150, "overhead": 14},
        },
        "bad": {
            "family": "bad",
            "repo": "x/bad",
            "engine": "vllm",
            "image": "vllm",
            "memory_gib": {"weights": 5, "overhead": 7},
            "status": {"is": "broken", "reason": "It answers nonsense."},
        },
    },
    images={
        "sglang": {
            "engine": "sglang",
            "ref": "lmsysorg/sglang:v1",
            "digest": DIGEST,
            "architectures": ["arm64", "amd64"],
        },
        "vllm": {"engine": "vllm", "ref": "nvcr.io/nvidia/vllm:1-py3", "architectures": ["arm64"]},
        "llama": {"engine": "llama.cpp", "ref": "ghcr.io/llama.cpp:server", "architectures": ["arm64", "amd64"]},
        "ollama": {"engine": "ollama", "ref": "ollama/ollama:1", "architectures": ["arm64", "amd64"]},
    },
)


@functools.cache
def real_catalog() -> _catalog.Catalog:
    """The catalog of the collection."""
    return _catalog.check_catalog(**lookup.read())


def resolve(
    models: Mapping[Any, Any],
    *,
    images: Mapping[Any, Any] | None = None,
    catalog: _catalog.Catalog = CATALOG,
    machine: _complete.Machine = HOST,
    place: _docker.Place = PLACE,
    recipes: Mapping[str, str] | None = None,
) -> list[_resolve.Resolved]:
    """``models`` resolved, on a small host without a GPU where nothing else is said."""
    return _resolve.resolve(models, images or {}, catalog, machine, place, recipes=recipes)


def on_spark(models: Mapping[Any, Any], **more: Any) -> list[_resolve.Resolved]:
    """``models`` resolved on a Spark of 128 GB."""
    return resolve(models, machine=more.pop("machine", SPARK), place=GPU_PLACE, **more)


def one(**fields: Any) -> _resolve.Resolved:
    """One model of llama.cpp on the small host."""
    return resolve({"scout": {**GOOD, **fields}})[0]


def values(argv: tuple[str, ...], flag: str) -> list[str]:
    """What follows each occurrence of ``flag``."""
    return [after for before, after in itertools.pairwise(argv) if before == flag]


def engine_argv(engine: _resolve.Resolved) -> tuple[str, ...]:
    """What follows the image on the command line."""
    return engine.docker[engine.docker.index(engine.contract["image"]) + 1 :]
