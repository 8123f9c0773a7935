# SPDX-License-Identifier: Apache-2.0
"""Which engines load a model from a folder."""

from __future__ import annotations

from pathlib import Path

from hearth import contract


def of(folder: str) -> tuple[list[str], list[str]]:
    """The engines whose model is in the folder: those that run, are starting or stopping, and the others.

    None of either where the box has no engines yet. Raises ContractError and SystemdError.
    """
    if not contract.PATH.exists():
        return [], []
    path = Path(folder).resolve()
    users = [one for one in contract.load(contract.PATH).engines if Path(one.model_path).resolve().is_relative_to(path)]
    if not users:
        return [], []
    # Costs as much as all the rest here.
    from hearth.engines import units

    states = units.read_states([engine.unit for engine in users])
    up = [engine.name for engine in users if states[engine.unit].is_alive]
    return up, [engine.name for engine in users if engine.name not in up]
