#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kill the process that changes the engines of a box, as soon as its change is at a named step.

Runs inside a box, by the interpreter of Hearth's runtime: ``killer.py STEP OLD NEW SECONDS``. Whoever holds the box's
lock gets SIGKILL. The steps are told from outside: by systemd's states of the two units, and by files. Prints what was
killed; exit code 1 where the step did not come within the seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hearth.engines.units import Systemd
from hearth.switching import journal, switch

WANTS = Path("/etc/systemd/system/multi-user.target.wants")
INTERVAL_S = 0.002
# A step that is told by what does not happen has to last for so long.
CALM_S = 0.4


@dataclass(frozen=True, kw_only=True)
class Look:
    """The box at one moment: ActiveState of both units, who starts at boot, and whether a change has begun to stop."""

    old: str
    new: str
    old_boots: bool
    new_boots: bool
    began: bool


STEPS: dict[str, tuple[Callable[[Look], bool], float]] = {
    "draining": (lambda now: now.old == "active" and now.new == "inactive" and not now.began, CALM_S),
    "stopping": (lambda now: now.old == "deactivating", 0),
    "memory": (lambda now: now.old == "inactive" and now.new == "inactive" and now.began, CALM_S),
    "loading": (lambda now: now.new == "activating", CALM_S),
    "verifying": (lambda now: now.new == "active" and now.old_boots and not now.new_boots, CALM_S),
    # systemd answers nobody while it reads its units again, which is all of this step.
    "boot": (lambda now: now.old_boots == now.new_boots, 0),
    "restoring": (lambda now: now.old == "activating" and now.new != "active", 0),
}


def starts_at_boot(unit: str) -> bool:
    """Whether the link is there that `systemctl enable` makes."""
    return os.path.lexists(WANTS / unit)


def holder() -> int:
    """The process that has the lock; 0 where it is nobody's."""
    try:
        words = switch.LOCK.read_text(encoding="utf-8").split()
        pid = int(words[1].rstrip(","))
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError):
        return 0
    return pid


async def kill_at(step: str, old: str, new: str, seconds: float) -> int:
    """Wait for the step and kill; returns the pid, 0 where the step did not come."""
    holds, calm_s = STEPS[step]
    units = [f"hearth-engine-{name}.service" for name in (old, new)]
    deadline = time.monotonic() + seconds
    since: float | None = None
    async with Systemd() as systemd:
        while time.monotonic() < deadline:
            states = {} if step == "boot" else await systemd.states(units)
            now = Look(
                old=states[units[0]].active if states else "",
                new=states[units[1]].active if states else "",
                old_boots=starts_at_boot(units[0]),
                new_boots=starts_at_boot(units[1]),
                began=journal.read() is not None,
            )
            pid = holder()
            if not pid or not holds(now):
                since = None
            else:
                since = since or time.monotonic()
                if time.monotonic() - since >= calm_s:
                    os.kill(pid, signal.SIGKILL)
                    return pid
            await asyncio.sleep(INTERVAL_S)
    return 0


def main(arguments: list[str]) -> int:
    """Run as a command."""
    step, old, new, seconds = arguments
    pid = asyncio.run(kill_at(step, old, new, float(seconds)))
    if not pid:
        print(f"the step {step} did not come within {seconds} s", file=sys.stderr)
        return 1
    print(f"killed {pid} while {step}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
