# SPDX-License-Identifier: Apache-2.0
"""Catalog and inventory become complete models: merged, checked, and fit for the host. Pure functions, no I/O.

PRIVATE to the collection.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _driver
from ansible_collections.hearth.spark.plugins.module_utils._fields import (
    IMAGE,
    MODEL,
    NAME,
    Field,
    FieldError,
    check,
    merge,
)

# What the kernel calls an architecture, and what images call it.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ResolveError(ValueError):
    """One sentence that names the variable, the model and the field."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides whether a model fits.

    MemTotal and what stays free of it are in GiB; ``arch`` is the kernel's word; ``gpu``: there is one, with this
    ``gpu_name`` and version of NVIDIA's ``driver``, empty where nobody knows.
    """

    total_gib: float
    floor_gib: float
    arch: str
    gpu: bool
    gpu_name: str = ""
    driver: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model with all its fields (_fields.MODEL), and the image it runs in (_fields.IMAGE; ``ref`` to the digest)."""

    fields: Mapping[str, Any]
    image: Mapping[str, Any]


def complete(
    models: Mapping[Any, Any],
    images: Mapping[Any, Any],
    catalog: _catalog.Catalog,
    machine: Machine,
    source: str = "engines_models",
    images_source: str = "engines_images",
    recipes: Mapping[str, str] | None = None,
) -> dict[str, Model]:
    """The models of the inventory, each laid over the catalog's entry of its name where there is one.

    ``source`` and ``images_source`` are the variables' names, for messages; ``recipes`` has, by a field ``build`` of
    the inventory, the reference of the image that it makes. Raises ResolveError for what could not run.
    """
    merged = laid_over(models, catalog, source)
    try:
        known = _images(images, catalog, images_source, recipes or {})
        done = {name: _with_image(source, name, model, known) for name, model in merged.items()}
    except FieldError as error:
        raise ResolveError(str(error)) from None
    _check_names(source, merged)
    for name, model in done.items():
        _check_fit(f"{source}.{name}", model, machine)
    _check_boot(source, merged, machine)
    return done


def laid_over(
    models: Mapping[Any, Any], catalog: _catalog.Catalog, source: str = "engines_models"
) -> dict[str, dict[str, Any]]:
    """The fields of the models of the inventory, those of the catalog among them. Raises ResolveError."""
    try:
        return {name: _merge(source, name, data, catalog) for name, data in models.items()}
    except FieldError as error:
        raise ResolveError(str(error)) from None


def with_image(name: str, fields: Mapping[str, Any], images: Mapping[Any, Any], catalog: _catalog.Catalog) -> Model:
    """One of the models of ``laid_over`` with its image, whether it fits the host or not. Raises ResolveError."""
    try:
        return _with_image("engines_models", name, fields, _images(images, catalog, "engines_images", {}))
    except FieldError as error:
        raise ResolveError(str(error)) from None


def _images(
    images: Mapping[Any, Any], catalog: _catalog.Catalog, source: str, recipes: Mapping[str, str]
) -> dict[str, Mapping[str, Any]]:
    known = dict(catalog.images)
    for name, data in images.items():
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise ResolveError(f"{source}.{name}: an image's name is made of a-z, 0-9, '.', '_' and '-'")
        base = _source_of(known.get(name), data if isinstance(data, Mapping) else {})
        laid = _layered(IMAGE, base, data, (source, name))
        known[name] = _catalog.check_image((source, name), laid, _refs(recipes, catalog))
    return known


def _source_of(base: Mapping[str, Any] | None, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The catalog's image without what ``data`` says otherwise: pulled or built, an image comes from one place."""
    if base is None:
        return None
    if data.get("build") is not None:
        return {**base, "ref": None, "digest": None}
    if data.get("ref") is not None:
        return {**base, "build": None}
    # The reference of one that is built follows from its recipe.
    return {**base, "ref": None} if base["build"] else base


def _refs(recipes: Mapping[str, str], catalog: _catalog.Catalog) -> dict[str, str]:
    """What each recipe makes, of those that the catalog and the inventory name."""
    return {image["build"]: image["ref"] for image in catalog.images.values() if image["build"]} | dict(recipes)


def _layered(
    table: Mapping[str, Field], base: Mapping[str, Any] | None, data: Any, path: tuple[str, ...]
) -> dict[str, Any]:
    if base is None:
        return check(table, data, path)
    return merge(table, base, check(table, {} if data is None else data, path, partial=True))


def _merge(source: str, name: Any, data: Any, catalog: _catalog.Catalog) -> dict[str, Any]:
    where = f"{source}.{name}"
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ResolveError(
            f"{where}: a model's name is made of a-z, 0-9, '.', '_' and '-', starts and ends with a letter or digit, "
            "and is at most 63 long"
        )
    base = catalog.models.get(name)
    if base is None and (data is None or (isinstance(data, Mapping) and data.get("engine") is None)):
        raise ResolveError(f"{where}: {_unknown(name, catalog)}")
    if base is not None and isinstance(data, Mapping) and data.get("engine") not in (None, base["engine"]):
        # Another engine: what was said for the catalog's has no meaning for it.
        base = {**base, "argv": None, "env": None, "fork_flags": (), "image": ""}
        if data.get("image") is None:
            raise ResolveError(f"{where}.image: is required, since the engine is not the catalog's")
    return _layered(MODEL, base, data, (source, name))


def _unknown(name: str, catalog: _catalog.Catalog) -> str:
    names = {name: name for name in catalog.models}
    names.update({alias: owner for owner, model in catalog.models.items() for alias in model["aliases"]})
    if name in names:
        return f"is another name of {names[name]} in the catalog: write {names[name]} here; clients may use both"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {names[close[0]]}?" if close else "."
    return f"is not in the catalog{hint} A model of your own needs engine, image, family and memory_gib"


def _with_image(source: str, name: str, model: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Model:
    word = model["image"]
    path = (source, name)
    if word in known:
        image = known[word]
        reference = image["ref"]
        if image["digest"]:
            # By digest alone: a tag beside it would say nothing more, and other tools look for this form.
            reference = f"{re.sub(r':[^/:@]+$', '', reference)}@{image['digest']}"
        _catalog.check_model(path, model, image)
        return Model(fields=model, image={**image, "ref": reference})
    if not re.search(r"[/:@]", word):
        close = difflib.get_close_matches(word, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise FieldError((*path, "image"), f"there is no image {word!r} in the catalog or engines_images{hint}")
    _catalog.check_model(path, model, None)
    # A reference, perhaps with a digest: nothing else is known of it.
    return Model(
        fields=model, image=check(IMAGE, {"engine": model["engine"], "ref": "x", "architectures": []}) | {"ref": word}
    )


def _check_names(source: str, models: Mapping[str, Mapping[str, Any]]) -> None:
    taken: dict[str, str] = {name: name for name in models}
    for name, model in models.items():
        for alias in model["aliases"]:
            if alias in taken:
                raise ResolveError(f"{source}.{name}.aliases: {alias!r} is already a name of {taken[alias]}")
            taken[alias] = name
    if "none" in taken:
        raise ResolveError(f"{source}.{taken['none']}: the name 'none' means no model; choose another")
    # Pinned ones stay whatever is switched to, so any number of them may start beside the one that changes.
    boot = [
        name
        for name, model in models.items()
        if model["lane"] == "main" and model["start"] == "boot" and not model["pinned"]
    ]
    if len(boot) > 1:
        raise ResolveError(
            f"{source}: {' and '.join(boot)} both have start: boot, and one model of the main lane runs at a time; "
            "leave it with one of them, or pin all but one"
        )


def _check_fit(where: str, model: Model, machine: Machine) -> None:
    fields = model.fields
    refusal = _catalog.refusal(fields, machine.total_gib, machine.floor_gib)
    if refusal:
        raise ResolveError(f"{where}.{refusal.field}: {refusal.sentence}")
    exists_for = model.image["architectures"]
    wanted = _ARCHITECTURES.get(machine.arch, machine.arch)
    if exists_for and wanted not in exists_for:
        raise ResolveError(
            f"{where}.image: {fields['image']} exists for {' and '.join(exists_for)}, and this host is {wanted}; "
            "name another image"
        )
    misfit = _driver.refusal(fields["image"], model.image, machine.driver, machine.gpu_name) if machine.gpu else ""
    if misfit and not fields["force"]:
        raise ResolveError(f"{where}.image: {misfit}")
    memory = fields["memory_gib"]
    if _catalog.need_gib(fields) <= 0:
        raise ResolveError(f"{where}.memory_gib: must be more than 0: what the loaded engine needs")
    if machine.gpu and fields["engine"] in ("vllm", "sglang") and memory["overhead"] <= 0:
        raise ResolveError(
            f"{where}.memory_gib.overhead: is required for {fields['engine']}: what it takes beside weights and "
            "kv_cache, about 7 on GB10"
        )


def _check_boot(source: str, models: Mapping[str, Mapping[str, Any]], machine: Machine) -> None:
    """What starts at boot has to fit side by side."""
    needs = {name: _catalog.need_gib(model) for name, model in models.items() if model["start"] == "boot"}
    room = machine.total_gib - machine.floor_gib
    if sum(needs.values()) > room:
        listed = " and ".join(f"{name} ({need:.0f} GiB)" for name, need in needs.items())
        raise ResolveError(
            f"{source}: {listed} all have start: boot and need {sum(needs.values()):.0f} GiB together, of which this "
            f"host has {room:.0f}; give one of them start: demand"
        )
