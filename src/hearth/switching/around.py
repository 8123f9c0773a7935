# SPDX-License-Identifier: Apache-2.0
"""Something that takes all engines down for a moment, such as a restart of Docker: requests wait, engines come back.

systemd itself stops an engine before Docker and starts it after, since its unit requires docker.service. So a process
that is killed here leaves nothing undone; while it lives, nothing is cut, and it is seen that all serve again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from hearth.admission import admit
from hearth.contract import Contract, read_key
from hearth.engines.units import Systemd
from hearth.switching import recovery, transition
from hearth.switching.change import DRAIN_S
from hearth.switching.progress import Tell, say_nothing
from hearth.switching.switch import LOCK, box_lock
from hearth.switching.transition import Hand


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What the work returned; how many requests ended before it, which engines serve again, and why others do not."""

    said: str
    drained: int
    restored: tuple[str, ...]
    failures: tuple[str, ...]


async def around(
    contract: Contract,
    work: Callable[[], str],
    *,
    drain_s: float = DRAIN_S,
    lock_timeout_s: float = 60.0,
    tell: Tell = say_nothing,
    host: admit.Host = admit.HOST,
) -> Around:
    """Let requests under way end, do ``work``, and have every engine run that ran before.

    The gateway holds back who comes meanwhile. Raises BusyError, SystemdError, and what ``work`` raises.
    """
    key = read_key(contract)
    with box_lock(lock_timeout_s, host.run / LOCK.name):
        async with Systemd() as systemd:
            hand = Hand(systemd=systemd, contract=contract, key=key, host=host, tell=tell)
            states = await recovery.settled(hand)
            running = [engine for engine in contract.engines if states[engine.unit].is_coming]
            async with transition.emptied(hand, running, drain_s) as drained:
                said = await asyncio.to_thread(work)
                restored, failures = await recovery.restore(hand, running)
    return Around(said=said, drained=drained, restored=tuple(restored), failures=tuple(failures))
