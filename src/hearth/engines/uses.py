# SPDX-License-Identifier: Apache-2.0
"""Which engines have a model's files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hearth import contract
from hearth.contract import Engine
from hearth.tags import full_name


def of(folder: str, ollama: str = "") -> tuple[list[str], list[str]]:
    """The engines that have a model's folder: those that run, are starting or stopping, and the others.

    With ``ollama``, the folder is Ollama's store, and it is about the model of that tag. None of either where the box
    has no engines yet. Raises ContractError and SystemdError.
    """
    if not contract.PATH.exists():
        return [], []
    users = among(contract.load(contract.PATH).engines, folder, ollama)
    if not users:
        return [], []
    # Costs as much as all the rest here.
    from hearth.engines import units

    states = units.read_states([engine.unit for engine in users])
    up = [engine.name for engine in users if states[engine.unit].is_alive]
    return up, [engine.name for engine in users if engine.name not in up]


def among(engines: Iterable[Engine], folder: str, ollama: str = "") -> list[Engine]:
    """Those of the engines that have the folder, as their model or mounted beside it; or of a store, that tag."""
    path = Path(folder).resolve()
    if ollama:
        wanted = full_name(ollama)
        return [one for one in engines if full_name(one.tag) == wanted and Path(one.model_path).resolve() == path]
    return [one for one in engines if _has(one, path)]


def image_of(engines: Iterable[Engine], store: str, ollama: str = "") -> str:
    """What the engines of a store run Ollama from, first of all that of the tag; empty where there are none."""
    path = Path(store).resolve()
    known = [one for one in engines if one.engine == "ollama" and Path(one.model_path).resolve() == path]
    known.sort(key=lambda one: full_name(one.tag) != full_name(ollama))
    return known[0].image if known else ""


def _has(engine: Engine, folder: Path) -> bool:
    if engine.engine != "ollama" and Path(engine.model_path).resolve().is_relative_to(folder):
        return True
    mounted = [Path(one).resolve() for one in engine.mounts]
    return any(one.is_relative_to(folder) or folder.is_relative_to(one) for one in mounted)
