# SPDX-License-Identifier: Apache-2.0
"""Programs of the box, run to their end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable

# A shell's exit code where it finds no program, and that of timeout(1).
NO_PROGRAM, LATE = 127, 124
# Where programs lie that a service's PATH may leave out.
FOLDERS = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
# What its programs say while systemd replaces itself, as after an update of its own package (seen: 257, daemon-reexec).
_AWAY = re.compile(r"Connection refused|Connection reset by peer|Transport endpoint is not connected")
# The same before anything was asked.
_UNREACHED = re.compile(r"Failed to connect to .*: Connection refused")
# Seen: under a second.
_AWAY_S = 15.0
_AGAIN_S = 0.2

Done = subprocess.CompletedProcess[str]


def found(name: str) -> str | None:
    """Where the program is; None where there is none."""
    return shutil.which(name, path=FOLDERS)


def run(*command: str, timeout_s: float) -> Done:
    """The program's end, with what it said; NO_PROGRAM as exit code where there is none, LATE where it did not end."""
    program = found(command[0])
    if program is None:
        return subprocess.CompletedProcess(command, NO_PROGRAM, "", f"{command[0]} is not installed")
    try:
        return subprocess.run(
            (program, *command[1:]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, LATE, "", f"no end after {timeout_s:.0f} s")


def patiently(ask: Callable[[], Done], *, begins: bool = False) -> Done:
    """What a program of systemd's says, asked again while systemd replaces itself.

    With ``begins`` it begins something, which must not happen twice: only what was never asked is asked again.
    """
    deadline = time.monotonic() + _AWAY_S
    while True:
        done = ask()
        away = done.returncode and (_UNREACHED if begins else _AWAY).search(done.stderr)
        if not away or time.monotonic() >= deadline:
            return done
        time.sleep(_AGAIN_S)
