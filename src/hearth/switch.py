# SPDX-License-Identifier: Apache-2.0
"""The switch: one transaction under one lock. The Ansible module and the CLI both call it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hearth import transition
from hearth.contract import Contract, Engine, read_key
from hearth.errors import BusyError, EngineFailedError, HearthError
from hearth.plan import Plan, keeps_its_choice, plan_switch
from hearth.units import Systemd

LOCK = Path("/run/hearth/switch.lock")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a switch did, or in a dry run would do. Times are in seconds."""

    plan: Plan
    active: str | None
    stop_s: float = 0.0
    start_s: float = 0.0


@contextmanager
def box_lock(timeout_s: float, path: Path = LOCK) -> Iterator[None]:
    """Hold the box's one lock; the kernel gives it back when the holder dies, however it dies.

    Raises BusyError with who holds it and since when, after ``timeout_s`` seconds.
    """
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise HearthError(f"{path} cannot be made ({error.strerror}): run this as root") from None
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                    raise BusyError(f"a switch is under way ({holder}): wait for it, or end that process") from None
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()}, since {time.strftime('%H:%M:%S')}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


async def switch(
    contract: Contract,
    name: str | None,
    *,
    lane: str = "main",
    boot: bool = True,
    keep: bool = False,
    dry: bool = False,
    lock_timeout_s: float = 60.0,
) -> Outcome:
    """Make ``name`` (none: nothing) the one engine of its lane that runs, and with ``boot`` the one started at boot.

    With ``keep`` an engine that was chosen for the lane earlier stays, and ``name`` is only the default for a lane
    where nothing was. With ``dry`` nothing is done, and the plan tells what would be.
    Raises UnknownModelError, BusyError, SystemdError, EngineFailedError.
    """
    target = contract.find(name) if name is not None else None
    if dry:
        return await _switch(contract, target, lane, boot, keep, dry)
    with box_lock(lock_timeout_s):
        return await _switch(contract, target, lane, boot, keep, dry)


async def _switch(contract: Contract, target: Engine | None, lane: str, boot: bool, keep: bool, dry: bool) -> Outcome:
    key = read_key(contract)
    engines = {engine.name: engine for engine in contract.engines}
    async with Systemd() as systemd:
        units = [engine.unit for engine in contract.engines]
        states = await systemd.states(units)
        if not dry and any(state.outdated for state in states.values()):
            # Left by a site.yml that was killed between writing the units and telling systemd.
            await systemd.reload()
            states = await systemd.states(units)
        if keep:
            target = keeps_its_choice(contract, states, target.lane if target else lane) or target
        sick = target is not None and transition.is_sick(target, states[target.unit], key)
        plan = plan_switch(contract, states, target, sick, boot, lane)
        if dry or not (plan.changes or plan.wait):
            return Outcome(plan=plan, active=plan.target)
        if target is not None and plan.start and not states[target.unit].is_alive:
            # Before anything is stopped: what cannot start must not cost the model that runs.
            transition.admit(target)
        stop_s = start_s = 0.0
        leaving = [*plan.stop, *([plan.target] if plan.restart and plan.target else [])]
        for name in leaving:
            stop_s += await transition.stop(systemd, engines[name])
        if target is not None and (plan.start or plan.restart or plan.wait):
            try:
                start_s = await transition.start(systemd, target, key)
            except HearthError as error:
                raise EngineFailedError(_and_now(error, plan), error.log) from None
        # Last, so that a boot in the middle of a failing switch still brings the old engine up.
        if plan.disable:
            await systemd.disable([engines[name].unit for name in plan.disable])
        if plan.enable and target is not None:
            await systemd.enable(target.unit)
        return Outcome(plan=plan, active=plan.target, stop_s=stop_s, start_s=start_s)


def _and_now(error: HearthError, plan: Plan) -> str:
    """The failure, and the state it leaves behind."""
    if not plan.stop:
        return str(error)
    names = " and ".join(plan.stop)
    return f"{error}; {names} was stopped for it, so switch to {plan.stop[0]} to have it back"
