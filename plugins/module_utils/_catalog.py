# SPDX-License-Identifier: Apache-2.0
"""The catalog: models and images as data, checked as a whole. Pure functions, no I/O.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils._fields import IMAGE, MODEL, NAME, FieldError, check

# Rendered from other fields, or a secret: no catalog entry may say them a second time.
OWN_FLAGS = {
    "vllm": (
        "--model",
        "--served-model-name",
        "--host",
        "--port",
        "--api-key",
        "--gpu-memory-utilization",
        "--max-model-len",
        "--tensor-parallel-size",
        "--nnodes",
        "--node-rank",
    ),
    "sglang": (
        "--model-path",
        "--model",
        "--served-model-name",
        "--host",
        "--port",
        "--api-key",
        "--mem-fraction-static",
        "--context-length",
        "--tensor-parallel-size",
        "--tp-size",
        "--tp",
        "--nnodes",
        "--node-rank",
    ),
    "llama.cpp": ("--model", "--alias", "--host", "--port", "--api-key", "--api-key-file", "--ctx-size"),
    "ollama": (),
}
# MemTotal of a 128 GB Spark on its first system image, in GiB: 125,513,944 kB (GB10 platform survey, 1.1).
SPARK_GIB = 119.7


@dataclass(frozen=True)
class Catalog:
    """All models and images by name, with the defaults of their fields."""

    models: Mapping[str, Mapping[str, Any]]
    images: Mapping[str, Mapping[str, Any]]


def check_catalog(
    models: Mapping[str, Any], images: Mapping[str, Any], recipes: Mapping[str, str] | None = None
) -> Catalog:
    """Check every entry, and what they say of each other.

    ``recipes``: by their names, the references of the images that they make. Raises FieldError; its path begins with
    the file, such as ``models/scout.yml``.
    """
    checked = Catalog(
        models={name: _entry("models", name, MODEL, data) for name, data in models.items()},
        images={
            name: check_image((_file("images", name),), _entry("images", name, IMAGE, data), recipes or {})
            for name, data in images.items()
        },
    )
    names: dict[str, str] = {name: name for name in checked.models}
    for name, model in checked.models.items():
        path = (_file("models", name),)
        for alias in model["aliases"]:
            if alias in names:
                raise FieldError((*path, "aliases"), f"{alias!r} is already a name of {names[alias]}")
            names[alias] = name
        image = checked.images.get(model["image"])
        if image is None:
            raise FieldError(
                (*path, "image"),
                f"there is no image {model['image']!r}; known: {', '.join(sorted(checked.images))}",
            )
        check_model(path, model, image)
        if model["engine"] != "ollama" and not model["repo"]:
            raise FieldError((*path, "repo"), "is required of what the catalog offers")
    return checked


def _file(kind: str, name: str) -> str:
    return f"{kind}/{name}.yml"


def _entry(kind: str, name: str, table: Any, data: Any) -> Mapping[str, Any]:
    path = (_file(kind, name),)
    if not re.fullmatch(NAME, name) or name == "none":
        raise FieldError(path, "its name is made of a-z, 0-9, '.', '_' and '-', is at most 63 long, and not 'none'")
    return check(table, data, path)


def check_image(path: tuple[str, ...], image: Mapping[str, Any], recipes: Mapping[str, str]) -> Mapping[str, Any]:
    """The image with its reference, which is made from the recipe where it is built. Raises FieldError."""
    if not image["build"]:
        if not image["ref"]:
            raise FieldError((*path, "ref"), "is required, or build")
        return image
    for field in ("ref", "digest"):
        if image[field]:
            raise FieldError((*path, field), "cannot be said of an image that is built: leave it or build out")
    if image["build"] not in recipes:
        raise FieldError((*path, "build"), f"there is no recipe {image['build']!r} in catalog/recipes")
    return {**image, "ref": recipes[image["build"]]}


def check_model(path: tuple[str, ...], model: Mapping[str, Any], image: Mapping[str, Any] | None) -> None:
    """Check what the fields of a model say of each other, and of its image where that is known.

    Raises FieldError, its path beginning with ``path``.
    """
    if image is not None and image["engine"] != model["engine"]:
        raise FieldError(
            (*path, "image"), f"{model['image']!r} has the engine {image['engine']}, not {model['engine']}"
        )
    for flag in model["argv"] or {}:
        if flag in OWN_FLAGS[model["engine"]]:
            raise FieldError((*path, "argv", flag), "is set by Hearth from other fields and cannot be said here")
    if model["fork_flags"] and image is not None and not image["fork"]:
        raise FieldError((*path, "fork_flags"), f"the image {model['image']!r} is no fork")
    for flag in model["fork_flags"]:
        if flag not in (model["argv"] or {}):
            raise FieldError((*path, "fork_flags"), f"{flag} is not in argv")
    wanted = {"llama.cpp": "file", "ollama": "ollama"}.get(model["engine"], "")
    if wanted and not model[wanted]:
        raise FieldError((*path, wanted), f"is required for {model['engine']}")
    if model["status"]["is"] == "broken" and not model["status"]["reason"]:
        raise FieldError((*path, "status", "reason"), "is required of what is broken")


def need_gib(model: Mapping[str, Any]) -> float:
    """What a loaded engine needs in all, in GiB."""
    memory = model["memory_gib"]
    return float(memory["weights"] + memory["kv_cache"] + memory["overhead"])


def floor_gib(total_gib: float) -> float:
    """What stays free for the host itself, in GiB: 10, and less on hosts that are smaller than a Spark.

    10 GB of MemAvailable is what a Spark needs to stay alive (GB10 platform survey, 1.4); a sixth is the same on the
    64 GB one, and leaves a use to machines of 8 or 16 GB.
    """
    return min(10.0, total_gib / 6)


@dataclass(frozen=True)
class Refusal:
    """Why a model cannot run on a host: the field that says so, and a sentence that goes on from it."""

    field: str
    sentence: str


def refusal(model: Mapping[str, Any], total_gib: float, floor: float, sparks: int = 1) -> Refusal | None:
    """Why the model cannot run on a host with so much memory, of which ``floor`` GiB stay free; None where it can."""
    if model["nodes"] > sparks:
        have = "this is one" if sparks == 1 else f"there are {sparks}"
        return Refusal("nodes", f"needs {model['nodes']} Sparks, and {have}; choose a smaller model")
    if model["status"]["is"] == "broken" and not model["force"]:
        return Refusal("status", f"is broken: {model['status']['reason'].rstrip('.')}. With force: true it runs anyway")
    # The catalog gives the need of a whole model; more Sparks share it.
    need = need_gib(model) / model["nodes"]
    if need > total_gib - floor:
        return Refusal(
            "memory_gib",
            f"needs {need:.0f} GiB of the host's {total_gib:.0f}, of which {floor:.0f} stay free; choose a smaller "
            "model, or one of its smaller contexts",
        )
    return None
