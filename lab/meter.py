#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What engines of a box are alive, written down forty times a second; and the memory that a Spark with them would have.

Runs inside a box, by the box's own Python. An engine is alive as long as one of its processes is, whatever Docker and
systemd say of it; told by ``--port`` on its command line. Every change goes to ``samples.jsonl``. ``meminfo`` is what
``HEARTH_MEMINFO`` is set to: engines that are alive have what engines.json says they need, so that memory can be played
at a Spark's size on a machine of any.

``meter.json`` says more, and is read again whenever it changes:

    total     MemTotal in GiB
    base      what the host itself has, in GiB
    leak      what somebody else has, in GiB
    ramp_s    how many seconds an engine takes until it has all that it needs
    linger_s  how many seconds what it had takes to come back
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

INTERVAL_S = 0.025
# A longer time between two looks is written down: nobody can say what was alive in between.
GAP_S = 0.25
KIB_PER_GIB = 2**20
CONTRACT = Path("/etc/hearth/engines.json")
DEFAULTS = {"total": 119.0, "base": 4.0, "leak": 0.0, "ramp_s": 0.0, "linger_s": 0.0}


def port_of(pid: str) -> int:
    """The port of an engine's process; 0 for others, and for docker's client, which has the same words."""
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return 0
    if "--port" not in words[:-1] or words[0].endswith("docker"):
        return 0
    port = words[words.index("--port") + 1]
    return int(port) if port.isdecimal() else 0


def alive(names: dict[int, str]) -> set[str]:
    """The engines with at least one process, by the ``names`` of their ports."""
    ports = {port_of(pid) for pid in os.listdir("/proc") if pid.isdecimal()}  # noqa: PTH208
    return {name for port, name in names.items() if port in ports}


class Watched:
    """A JSON file, read again when it was changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0
        self._value: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._seen:
                self._value = json.loads(self._path.read_text(encoding="utf-8"))
                self._seen = changed
        except (OSError, ValueError):
            # Half written, or not there yet: the next look tells.
            pass
        return self._value


class Meter:
    """The figures of a box, from look to look."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._gone: dict[str, float] = {}

    def used_gib(self, engines: set[str], needs: dict[str, float], settings: dict[str, float], now: float) -> float:
        """What is in use, in GiB."""
        for name in engines - self._since.keys():
            self._since[name] = now
        for name in self._since.keys() - engines:
            del self._since[name]
            self._gone[name] = now
        used = settings["base"] + settings["leak"]
        for name, since in self._since.items():
            ramp = settings["ramp_s"]
            used += needs.get(name, 0.0) * (min(1.0, (now - since) / ramp) if ramp else 1.0)
        for name, end in self._gone.items():
            if now - end < settings["linger_s"]:
                used += needs.get(name, 0.0)
        return used


def write_meminfo(path: Path, total_gib: float, used_gib: float) -> None:
    """Replace the file whole: it is read all the time."""
    total = round(total_gib * KIB_PER_GIB)
    free = max(0, total - round(used_gib * KIB_PER_GIB))
    made = path.with_suffix(".new")
    made.write_text(
        f"MemTotal: {total} kB\nMemFree: {free} kB\nMemAvailable: {free} kB\nCached: 0 kB\n", encoding="ascii"
    )
    made.replace(path)


def tell_ready() -> None:
    """Engines start only when there is a meminfo to read: the unit is of Type=notify."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address.replace("@", "\0", 1) if address.startswith("@") else address)


def main(folder: Path, meminfo: Path) -> None:
    """Look until killed."""
    meminfo.parent.mkdir(parents=True, exist_ok=True)
    contract, settings, meter = Watched(CONTRACT), Watched(folder / "meter.json"), Meter()
    known: set[str] | None = None
    before = time.monotonic()
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as samples:
        while True:
            now = time.monotonic()
            listed = contract.read().get("engines", ())
            needs = {one["name"]: one["memory_gib"] for one in listed}
            engines = alive({one["port"]: one["name"] for one in listed})
            said = {**DEFAULTS, **settings.read()}
            write_meminfo(meminfo, said["total"], meter.used_gib(engines, needs, said, now))
            if engines != known or now - before > GAP_S:
                held = {name: needs.get(name, 0.0) for name in sorted(engines)}
                sample = {"at": time.time(), "gap_s": round(now - before, 3), "alive": held}
                samples.write(json.dumps(sample) + "\n")
                samples.flush()
            if known is None:
                tell_ready()
            known, before = engines, now
            time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
