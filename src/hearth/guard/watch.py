# SPDX-License-Identifier: Apache-2.0
"""The guard at work: reads MemAvailable five times a second, and ends an engine where the rule says so.

It is to work where nothing else does any more, so it keeps its own memory from being swapped or dropped, knows whom to
end before it has to, and asks nobody first.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from hearth import contract, memory, state
from hearth.engines import service
from hearth.errors import ContractError, HearthError
from hearth.guard import record
from hearth.guard.rule import Guard, choose
from hearth.guard.victims import Victims

# A reading costs 0.05 ms. Between two of them, the floor of a Spark (5 GiB) is passed by who takes 25 GiB a second.
INTERVAL_S = 0.2
# How often it looks who runs: seldom while there is plenty, since only then does it take Docker's time.
_LOOK_S, _LOOK_NEAR_S = 10.0, 1.0
_SIGN_OF_LIFE_S = 2.0
_STACK_BYTES = 512 * 1024
_KIB_PER_GIB = 2**20
_FIELD = b"MemAvailable:"
_PAGE = 4096
# mlockall(2), of asm-generic/mman.h.
_MCL_CURRENT, _MCL_FUTURE = 1, 2


class Meter:
    """MemAvailable, in GiB. The file stays open; one that HEARTH_MEMINFO names may be replaced, and is opened anew."""

    def __init__(self) -> None:
        played = os.environ.get(memory.MEMINFO_VARIABLE)
        self._path = Path(played or memory.MEMINFO)
        self._descriptor = -1 if played else os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> float:
        """Raises OSError, and ValueError where that is no meminfo."""
        text = self._path.read_bytes() if self._descriptor < 0 else os.pread(self._descriptor, _PAGE, 0)
        begin = text.index(_FIELD) + len(_FIELD)
        return int(text[begin : text.index(b"kB", begin)]) / _KIB_PER_GIB


def lock_memory() -> bool:
    """Keep all of this process in memory; whether the kernel let it."""
    try:
        return bool(ctypes.CDLL(None).mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0)
    except (OSError, AttributeError):
        return False


def run(engines: Path, floor_gib: float, *, folder: Path = state.RUN, learned: Path = state.LEARNED) -> None:
    """Watch until ended. ``engines`` is the contract's file. Raises HearthError where another guard watches."""
    lock = folder.with_name(record.FOLDER) / record.LOCK
    with state.locked(lock, 0, lambda who: HearthError(f"another guard watches already ({who})")):
        _watch(engines, floor_gib, learned / record.NAME)


class _Looker(threading.Thread):
    """Keeps ``victims`` up to date. Apart from the readings, which must not wait for Docker."""

    def __init__(self, engines: Path, victims: Victims) -> None:
        super().__init__(daemon=True)
        self._engines = engines
        self._victims = victims
        self.hurry = threading.Event()

    def run(self) -> None:
        while True:
            # No contract, no engines.
            with suppress(ContractError):
                self._victims.look(contract.load(self._engines))
            time.sleep(_LOOK_NEAR_S)
            self.hurry.wait(_LOOK_S - _LOOK_NEAR_S)
            self.hurry.clear()


def _watch(engines: Path, floor_gib: float, kept: Path) -> None:
    meter, guard, victims = Meter(), Guard(floor_gib), Victims()
    available_gib = meter.read()
    # What is locked counts, so the stack of the second thread is small.
    threading.stack_size(_STACK_BYTES)
    looker = _Looker(engines, victims)
    looker.start()
    locked = "" if lock_memory() else "; its own memory could not be locked"
    _say(f"watches: below {floor_gib:.1f} GiB available it ends the newest engine; {available_gib:.1f} GiB are{locked}")
    service.notify("READY=1")
    sign_at_s = 0.0
    told = False
    while True:
        now_s, available_gib = time.monotonic(), meter.read()
        if guard.is_near(available_gib):
            looker.hurry.set()
        if now_s >= sign_at_s:
            service.notify("WATCHDOG=1")
            sign_at_s = now_s + _SIGN_OF_LIFE_S
        if guard.should_act(now_s, available_gib):
            ended = _end_one(engines, victims, available_gib, floor_gib, kept)
            if not ended and not told:
                _say(f"{available_gib:.1f} GiB are available, below {floor_gib:.1f}, and there is no engine to end")
            told = not ended
        time.sleep(INTERVAL_S)


def _end_one(engines: Path, victims: Victims, available_gib: float, floor_gib: float, kept: Path) -> bool:
    """End whoever is to go; whether somebody was there."""
    while (chosen := choose(victims.running)) is not None:
        if not victims.end(chosen.name):
            # It ended by itself since the last look.
            continue
        ended = record.Ended(
            at=memory.CLOCK.utc(), engine=chosen.name, available_gib=round(available_gib, 2), floor_gib=floor_gib
        )
        _say(ended.words)
        try:
            record.add(kept, ended)
        except OSError as error:
            _say(f"{kept} cannot be written ({error.strerror})")
        _stop_unit(engines, chosen.name)
        return True
    return False


def _stop_unit(engines: Path, name: str) -> None:
    """Have systemd not start it again: that is for whoever asks for it next, and admission then looks at memory."""
    try:
        unit = contract.load(engines).find(name).unit
        subprocess.run(["systemctl", "stop", "--no-block", unit], check=True, timeout=30)
    except (HearthError, OSError, subprocess.SubprocessError) as error:
        _say(f"the unit of {name} could not be stopped ({error}): it may start again, where admission lets it")


def _say(line: str) -> None:
    sys.stderr.write(f"hearth guard: {line}\n")
    sys.stderr.flush()
