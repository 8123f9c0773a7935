# SPDX-License-Identifier: Apache-2.0
"""admission.admit among real processes: one start at a time, also when somebody is killed in the middle of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import hearth
from hearth.contract import Contract

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine

# One unit's life: it says that it starts (a file is what systemd would say), is admitted, loads, settles, is up.
# Between admission and settling it puts a file that must not be there yet: two starts at a time are seen by it.
UNIT = """
import os, sys, time
from pathlib import Path
import msgspec
from hearth import contract, memory
from hearth.admission.admit import Host, admit, settle
from hearth.errors import HearthError
from hearth.engines.units import UnitState

folder, name, load_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
known = contract.load(folder / "engines.json")
engine, invocation = known.find(name), name.encode().hex().ljust(32, "0")

def states(units):
    return {unit: state(unit) for unit in units}

def state(unit):
    try:
        active, run, pid = (folder / "systemd" / unit).read_text().split()
        os.kill(int(pid), 0)
        dead = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        active, run, dead = "failed", "", False
    return UnitState(unit=unit, load="loaded", active="failed" if dead else active, sub="start-pre", enabled=False,
                     result="", main_pid=0, started_us=0, fragment="", outdated=False, invocation=run)

def say(active):
    path = folder / "systemd" / engine.unit
    path.with_suffix(".new").write_text(f"{active} {invocation} {os.getpid()}")
    path.with_suffix(".new").replace(path)

host = Host(run=folder / "run", measured=folder / "measured.json", units=folder / "units", proc=folder,
            docker_socket=folder / "none", read_states=states,
            read_memory=lambda: memory.read(folder / "meminfo"))
say("activating")
try:
    admit(known, engine, invocation=invocation, host=host, patience_s=0)
except HearthError as error:
    print(error, flush=True)
    sys.exit(1)
inside = folder / "inside"
os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
print("admitted", flush=True)
time.sleep(load_s)
inside.unlink()
settle(engine, load_s, invocation=invocation, host=host)
say("active")
print("ready", flush=True)
sys.stdin.read()
"""

StartUnit = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, make_engine: MakeEngine, make_contract: Callable[..., Contract]) -> Iterator[StartUnit]:
    """Starts the unit of an engine as a process; engines ``m0`` to ``m4`` are known."""
    for folder in ("systemd", "units", "model"):
        (tmp_path / folder).mkdir()
    gib = 2**20
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {9 * gib} kB\nMemFree: {9 * gib} kB\nMemAvailable: {9 * gib} kB\nCached: 0 kB\n"
    )
    # Port 0 is never taken.
    engines = [make_engine(f"m{number}", model_path=str(tmp_path / "model"), port=0) for number in range(5)]
    contract = make_contract(*engines)
    (tmp_path / "engines.json").write_bytes(msgspec.json.encode(contract))
    environment = {**os.environ, "PYTHONPATH": str(Path(hearth.__file__).parents[1]), "PATH": str(tmp_path)}
    with ExitStack() as stack:

        def begin(name: str, load_s: float) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", UNIT, str(tmp_path), name, str(load_s)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            stack.callback(process.kill)
            return process

        yield begin


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_engines_that_start_at_the_same_moment_each_is_admitted_alone(start: StartUnit) -> None:
    processes = [start(f"m{number}", 0.05) for number in range(5)]

    assert [(line(process), line(process)) for process in processes] == [("admitted", "ready")] * 5


def test_after_a_kill_between_admission_and_readiness_the_next_is_admitted(start: StartUnit, tmp_path: Path) -> None:
    killed = start("m0", 60)
    assert line(killed) == "admitted"
    waiting = start("m1", 0)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (tmp_path / "inside").unlink()

    assert line(waiting) == "admitted"


def test_a_kill_of_one_that_waits_holds_nobody_up(start: StartUnit, tmp_path: Path) -> None:
    first = start("m0", 60)
    assert line(first) == "admitted"
    waiting, next_one = start("m1", 0), start("m2", 0)
    waiting.kill()
    waiting.wait()
    first.kill()
    first.wait()
    (tmp_path / "inside").unlink()

    assert line(next_one) == "admitted"
