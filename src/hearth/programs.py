# SPDX-License-Identifier: Apache-2.0
"""Programs of the box, run to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable

# A shell's exit code where it finds no program, and that of timeout(1).
NO_PROGRAM, LATE = 127, 124
# Where programs lie that a service's PATH may leave out.
FOLDERS = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"


def found(name: str) -> str | None:
    """Where the program is; None where there is none."""
    return shutil.which(name, path=FOLDERS)


def run(
    *command: str, timeout_s: float, meanwhile: Callable[[], None] | None = None, every_s: float = 1.0
) -> subprocess.CompletedProcess[str]:
    """The program's end, with what it said; NO_PROGRAM as exit code where there is none, LATE where it did not end.

    ``meanwhile`` is called every ``every_s`` seconds while it runs.
    """
    program = found(command[0])
    if program is None:
        return subprocess.CompletedProcess(command, NO_PROGRAM, "", f"{command[0]} is not installed")
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        (program, *command[1:]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ) as process:
        while True:
            try:
                out, err = process.communicate(timeout=max(0.0, min(every_s, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= deadline:
                    process.kill()
                    process.communicate()
                    return subprocess.CompletedProcess(command, LATE, "", f"no end after {timeout_s:.0f} s")
                if meanwhile is not None:
                    meanwhile()
            else:
                return subprocess.CompletedProcess(command, process.returncode, out, err)
