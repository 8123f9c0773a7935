# SPDX-License-Identifier: Apache-2.0
"""What images are called on the box, and what is asked of them before engines run from them. Pure functions, no I/O.

PRIVATE to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _docker
from ansible_collections.hearth.spark.plugins.module_utils._complete import Model

# Nothing can be pulled from there: where an image is missing, nobody else's comes in its place.
_LOCAL = "localhost/hearth/"
# Where the image's name belongs in a command: a tag that was never asked for has none yet (hearth.images.smoke).
IMAGE = "{image}"
_CONTAINER = "hearth-smoke"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the box knows of images, as /var/lib/hearth/images.json has it (hearth.images.book)."""

    images: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]
    pins: Mapping[str, str]

    @classmethod
    def of(cls, document: Mapping[str, Any] | None, *, holds: bool = True) -> Known:
        """From the file's content, or nothing. Without ``holds``, models that were taken back are not held there."""
        said = document or {}
        return cls(
            images=said.get("images") or {},
            models=(said.get("models") or {}) if holds else {},
            pins=said.get("pins") or {},
        )


def repository(reference: str) -> str:
    """What an image is called on the box, without its digest."""
    last = reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return f"{_LOCAL}{last.lower()}"


def placed(models: Mapping[str, Model], known: Known) -> dict[str, Model]:
    """The models with images by their names on the box: ``ref``.

    What is to be pulled is in ``source`` (a reference without a digest; empty where it is built) and ``digest``. A tag
    means what it meant when the box asked for it last; one that was never asked for is its own name until then.
    A model that was taken back to an earlier image has ``held``, what it would run from otherwise.
    """
    return {name: replace(model, image=_placed(name, model, known)) for name, model in models.items()}


def _placed(name: str, model: Model, known: Known) -> dict[str, Any]:
    image = dict(model.image)
    if image.get("build"):
        image |= {"source": "", "digest": "", "name": image["ref"]}
    else:
        source, digest = image["ref"].partition("@")[::2]
        local = f"{repository(source)}:{digest.partition(':')[2][:12]}" if digest else known.pins.get(source, "")
        image |= {"source": source, "digest": digest, "name": local, "ref": local or source}
    held = str((known.models.get(name) or {}).get("held") or "")
    entry = known.images.get(held)
    # Another engine has other flags: then the inventory counts, not what was.
    if entry and entry.get("engine") == model.fields["engine"] and held != image["name"]:
        image |= _of_entry(held, entry) | {"held": image["ref"], "keep_entrypoint": entry["keep_entrypoint"]}
    return image


def _of_entry(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    source, digest = str(entry["source"]).partition("@")[::2]
    # Only from the box itself: what it was built from or pulled as may be no more.
    return {"source": source, "digest": digest, "name": name, "ref": name, "build": None, "fork": None}


def wanted(
    models: Mapping[str, Model], flags: Mapping[str, Sequence[str]], place: _docker.Place
) -> list[dict[str, Any]]:
    """Each image once, as the module ``images`` takes it: what to bring, who runs from it, and how to try it out.

    ``flags`` are those of each model's command line.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        image = model.image
        one = found.setdefault(
            image["ref"],
            {
                "name": image["name"],
                "repository": repository(image["source"]) if image["source"] else "",
                "source": image["source"],
                "digest": image["digest"],
                "engine": model.fields["engine"],
                "keep_entrypoint": image["keep_entrypoint"],
                "build": image.get("build") or "",
                "users": [],
                "version": _probe(model, _VERSION[model.fields["engine"]], place),
                "help": [_probe(model, program, place) for program in _HELP[model.fields["engine"]]],
            },
        )
        own = set(model.fields["fork_flags"])
        one["users"].append({"name": name, "flags": [flag for flag in flags[name] if flag not in own]})
    return list(found.values())


# SGLang's server knows no such flag.
_VERSION: Mapping[str, Sequence[str]] = {
    "vllm": ("vllm", "--version"),
    "sglang": ("python3", "-c", "import sglang; print(sglang.__version__)"),
    "llama.cpp": ("--version",),
    "ollama": ("--version",),
}
# The first that works: vLLM shows groups only, unless it is asked for all of them, which older ones do not know.
# Ollama takes its settings from its environment.
_HELP: Mapping[str, Sequence[Sequence[str]]] = {
    "vllm": (("vllm", "serve", "--help=all"), ("vllm", "serve", "--help")),
    "sglang": (("python3", "-m", "sglang.launch_server", "--help"),),
    "llama.cpp": (("--help",),),
    "ollama": (),
}


def _probe(model: Model, program: Sequence[str], place: _docker.Place) -> list[str]:
    """A command that has the image say something."""
    nameless = replace(model, image={**model.image, "ref": IMAGE})
    return list(_docker.probe(nameless, program, place, _CONTAINER))
