# SPDX-License-Identifier: Apache-2.0
"""What the scheduler is told.

An id of a request is never used twice. Of a transaction (the effects Begin and Stop) exactly one result is told:
Loaded or LoadFailed, and Stopped. It comes after the UnitChanged of every engine that the transaction touched, for the
state of an engine is what systemd says and not what a transaction meant to do.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from hearth.gateway.scheduler.spec import EngineSpec, Phase, Policy

# oom: out of memory while it loaded. refused: admission said no. cancelled: as CancelLoad asked for. busy: another
# change had the box, nothing was touched, try again. failed: all else.
FailureKind = Literal["oom", "refused", "cancelled", "busy", "failed"]


class Arrived(msgspec.Struct, frozen=True):
    """A request wants a lease of an engine, and waits for it no longer than ``patience_s``.

    It ends in exactly one Grant or Refuse, unless Left comes first.
    """

    request: str
    engine: str
    patience_s: float = math.inf


class Left(msgspec.Struct, frozen=True):
    """Who waited has gone. For a request that has its lease already it is the same as Ended."""

    request: str


class Ended(msgspec.Struct, frozen=True):
    """The last byte of a request that had a lease; also where it broke off or was cut."""

    request: str


class UnitChanged(msgspec.Struct, frozen=True):
    """What systemd says of an engine now, whoever caused it; the same once more does no harm.

    The first events are these, one an engine. ``reason`` and ``log`` tell of an engine that ended by itself why, where
    that is known.
    """

    engine: str
    phase: Phase
    reason: str = ""
    log: str = ""


class Loaded(msgspec.Struct, frozen=True):
    """The result of Begin: the engine answers. ``load_s`` is how long it took to load."""

    engine: str
    load_s: float


class LoadFailed(msgspec.Struct, frozen=True):
    """The result of Begin: it does not answer. ``reason`` is a sentence, ``log`` the tail of what the engine said."""

    engine: str
    kind: FailureKind
    reason: str = ""
    log: str = ""


class Stopped(msgspec.Struct, frozen=True):
    """The result of Stop, also where the engine did not stop: its state is what UnitChanged said last.

    ``busy``: another change had the box, nothing was touched, try again.
    """

    engine: str
    busy: bool = False


class HoldBegan(msgspec.Struct, frozen=True):
    """Another process is going to change these engines: let what is in flight there end within ``deadline_s``."""

    hold: str
    engines: tuple[str, ...]
    deadline_s: float


class HoldEnded(msgspec.Struct, frozen=True):
    """The other process is done, or gone."""

    hold: str


class AdminLoad(msgspec.Struct, frozen=True):
    """Somebody with the right to wants this engine to run, whatever its kind of start and its breaker.

    ``request`` is answered as any other, but its Grant says only that the engine is ready: it takes no lease. The load
    goes on when it leaves.
    """

    request: str
    engine: str


class AdminUnload(msgspec.Struct, frozen=True):
    """Somebody with the right to wants this engine to stop, once what is in flight has ended within ``drain_s``.

    Who waits for it is refused; who arrives later wakes it again.
    """

    engine: str
    drain_s: float


class Configured(msgspec.Struct, frozen=True):
    """The engines that there are from now on, and the policy where that changed.

    What did not change is not touched, what did goes on as it runs. A new one counts as stopped until UnitChanged.
    """

    engines: tuple[EngineSpec, ...]
    policy: Policy | None = None


class Closing(msgspec.Struct, frozen=True):
    """The gateway is about to end: who waits is refused, what is in flight goes on, engines are left as they are."""


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


Event = (
    Arrived
    | Left
    | Ended
    | UnitChanged
    | Loaded
    | LoadFailed
    | Stopped
    | HoldBegan
    | HoldEnded
    | AdminLoad
    | AdminUnload
    | Configured
    | Closing
    | Tick
)
