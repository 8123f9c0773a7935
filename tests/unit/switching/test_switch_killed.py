# SPDX-License-Identifier: Apache-2.0
"""switching.switch: a process that is really killed in the middle of a change leaves its journal, and no lock."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hearth.switching import journal

if TYPE_CHECKING:
    from switchbox import Box

# A process of its own that switches to "new", and gets as far as the start.
SWITCHER = """
import asyncio, sys
from pathlib import Path
import msgspec
from fakes import FakeClock, FakeMemory, FakeSystemd
from hearth.admission import admit
from hearth.switching import switch
from hearth.switching.change import Change
from hearth.contract import load
from hearth.engines.units import UnitState

class Systemd(FakeSystemd):
    async def start(self, unit, timeout_s):
        print("starting", flush=True)
        await asyncio.sleep(60)

def state(engine):
    up = engine.name in ("old", "embed")
    return UnitState(
        unit=engine.unit, load="loaded", active="active" if up else "inactive", sub="", enabled=up, result="success",
        main_pid=0, started_us=0, fragment="", outdated=False,
    )

known, run = load(Path(sys.argv[1])), Path(sys.argv[2])
switch.Systemd = Systemd(*map(state, known.engines))
host = msgspec.structs.replace(admit.HOST, run=run, read_memory=FakeMemory(FakeClock()).read)
asyncio.run(switch.switch(known, Change(name="new", drain_s=0), host=host))
"""


def test_journal_and_lock_stand_up_to_a_process_that_is_really_killed(box: Box, tmp_path: Path) -> None:
    contract = tmp_path / "engines.json"
    contract.write_bytes(msgspec.json.encode(box.contract))
    unit_tests, package = Path(__file__).parents[1], Path(journal.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{package}:{unit_tests}"}
    command = (sys.executable, "-c", SWITCHER, str(contract), str(box.host.run))
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as switcher:
        assert switcher.stdout is not None
        assert switcher.stdout.readline() == b"starting\n"
        switcher.kill()
    box.systemd.set(box.unit("old"), active="inactive")
    box.systemd.set(box.unit("new"), active="activating")

    outcome = asyncio.run(box.run("embed"))

    assert outcome.healed.endswith(" was cut off; new serves now")
    assert box.up == {"new", "embed"}
    assert box.at_boot == {"new", "embed"}
