# SPDX-License-Identifier: Apache-2.0
"""What can be known of a change before anything is stopped for it."""

from __future__ import annotations

from collections.abc import Mapping

from hearth.admission import admit
from hearth.contract import Contract
from hearth.engines import fetching, images
from hearth.engines.units import UnitState
from hearth.errors import RefusedError
from hearth.switching.change import Change
from hearth.switching.plan import Plan
from hearth.switching.transition import Hand


def lacks_files(contract: Contract, plan: Plan) -> bool:
    """Whether the model that would be started is still to be brought."""
    starts = contract.find(plan.target) if plan.target and (plan.start or plan.restart) else None
    if starts is None or starts.fetch is None:
        return False
    try:
        return not fetching.is_there(starts)
    except PermissionError:
        return True


def foresee(
    hand: Hand, change: Change, plan: Plan, states: Mapping[str, UnitState], now: Mapping[str, UnitState]
) -> None:
    """Before anything is stopped: what cannot start must not cost the model that runs. Raises EngineFailedError.

    ``states`` are those that the plan was made from, ``now`` those of now: an engine that is up has its port itself.
    """
    contract = hand.contract
    target = contract.find(plan.target or "")
    admit.preconditions(target, port=not now[target.unit].is_alive, model=target.fetch is None)
    images.require(target, hand.host.docker_socket)
    # How much an engine that still loads has taken already is not known. It serves nobody yet, so to stop it in vain
    # costs less than to refuse in vain.
    hoped_gib = sum(plan.gib[name] for name in plan.stop if not states[contract.find(name).unit].is_up)
    missing_gib = plan.missing_gib - hoped_gib
    # Where nobody serves who would have to go, admission decides alone: it waits while memory comes back.
    costs = plan.restart or any(states[contract.find(name).unit].is_up for name in plan.stop)
    if costs and missing_gib > 0 and not change.force:
        going = f" once {' and '.join(plan.stop)} stopped" if plan.stop else ""
        have_gib = plan.free_after_gib + plan.gib[target.name] + hoped_gib
        raise RefusedError(
            f"engine {target.name} needs {plan.gib[target.name]:.1f} GiB; {have_gib:.1f} GiB would be available{going}"
            f", and {contract.floor_gib:.1f} GiB stay with the host, so {missing_gib:.1f} GiB are "
            f"missing: hearth admit --explain {target.name} says who holds memory"
        )
