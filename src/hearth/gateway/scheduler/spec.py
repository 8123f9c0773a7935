# SPDX-License-Identifier: Apache-2.0
"""What the scheduler is told before it begins: the engines, its policy, and how to look at the memory.

All times are seconds; those that are points in time are of one monotonic clock, that of ``now`` in every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from hearth.contract import Lane, Start

# systemd's active states, as far as they differ here: "activating" (waiting for an automatic restart included) is
# starting, "active" and "reloading" are ready, "deactivating" is stopping, "inactive" is stopped.
Phase = Literal["stopped", "starting", "ready", "stopping", "failed"]


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, from the contract and from what was measured of it.

    ``need_gib`` is what a start takes, ``held_gib`` what comes back when it stops (GiB). ``load_s`` is how long a load
    is expected to last; 0: unknown. ``queue_max`` is how many may wait for it; None: as the policy says. ``version``
    tells whether an engine that runs is still the one that is configured: any text that changes with the configuration.
    """

    name: str
    need_gib: float
    held_gib: float
    lane: Lane = "main"
    start: Start = "demand"
    pinned: bool = False
    load_s: float = 0.0
    queue_max: int | None = None
    version: str = ""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How requests are weighed against each other.

    ``queue_max``: so many may wait for one engine. ``max_wait_s``: once the oldest waiter has waited half of this, an
    engine that has to go for it takes no new requests, and no engine that fits beside is started before it.
    ``min_residency_s``: so long an engine that is ready stays, unless nobody used it for ``calm_s``. ``drain_s``: so
    long requests in flight may go on once the door of their engine is shut. ``idle_stop_s``: an engine that starts on
    demand stops when it was not used for so long; 0: never. ``cancel_unwanted_loads``: a load that nobody waits for any
    more is cancelled. ``breaker_*``: after ``failures`` within ``window_s`` no start for ``open_s``, which doubles up
    to ``max_s``. ``settle_s``: so long after an engine has stopped its memory may still be on its way back.
    ``promise_s``: so long after its Retry-After a caller who was sent away is still expected. ``unfit_retry_s``: the
    Retry-After of an engine that does not fit, where nobody knows when it will. ``busy_retry_s``: how long after
    another change had the box a start is tried again.
    """

    queue_max: int = 512
    max_wait_s: float = 120.0
    min_residency_s: float = 30.0
    calm_s: float = 5.0
    drain_s: float = 300.0
    idle_stop_s: float = 1800.0
    cancel_unwanted_loads: bool = True
    breaker_failures: int = 3
    breaker_window_s: float = 600.0
    breaker_open_s: float = 30.0
    breaker_max_s: float = 600.0
    settle_s: float = 10.0
    promise_s: float = 60.0
    unfit_retry_s: float = 60.0
    busy_retry_s: float = 1.0


class MemoryView(msgspec.Struct, frozen=True):
    """MemAvailable, and the part of it that stays with the host, in GiB."""

    available_gib: float
    floor_gib: float


# Asked only where a start is weighed, for most events never are.
MemoryLook = Callable[[], MemoryView]
