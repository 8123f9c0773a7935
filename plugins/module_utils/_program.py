# SPDX-License-Identifier: Apache-2.0
"""Programs, run to their end or asked while other things are read. Standard library only: it runs on a fresh host.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass

# A shell's exit code where it finds no program, and that of timeout(1).
NO_PROGRAM, LATE = 127, 124
# systemd gives an engine its own time to stop, which is minutes for a large one.
_END_S = 900.0
# Where programs lie that a login's PATH may leave out.
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
_KILLED_WITHIN_S = 0.2


def run(*command: str, timeout_s: float = _END_S, given: str = "") -> subprocess.CompletedProcess[str]:
    """The program's end, with what it said; NO_PROGRAM as exit code where there is none, LATE where it did not end.

    ``given``: what it reads.
    """
    program = shutil.which(command[0]) or shutil.which(command[0], path=PROGRAMS)
    if program is None:
        return subprocess.CompletedProcess(command, NO_PROGRAM, "", f"{command[0]} is not installed")
    try:
        return subprocess.run(  # pylint: disable=ansible-bad-function
            (program, *command[1:]),
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, LATE, "", f"no end after {timeout_s:.0f} s")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program said. ``found``: there is such a program; ``late``: it did not end in time, so says nothing."""

    found: bool
    late: bool
    text: str


class Program:
    """A program that was started; ``answer`` waits for it. One that is not there says nothing."""

    def __init__(self, *command: str, errors: bool = False) -> None:
        """Start it. With ``errors``, what it says on its error output belongs to its answer."""
        self._process: subprocess.Popen[str] | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
                text=True,
                errors="replace",
            )

    def answer(self, timeout_s: float) -> Answer:
        """What it says within ``timeout_s`` seconds; whatever its exit code, and then it is ended."""
        process = self._process
        if process is None:
            return Answer(found=False, late=False, text="")
        try:
            return Answer(found=True, late=False, text=process.communicate(timeout=timeout_s)[0])
        except subprocess.TimeoutExpired:
            # A program that hangs in a driver cannot be killed, and must not hold us too.
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_KILLED_WITHIN_S)
            if process.stdout:
                process.stdout.close()
            return Answer(found=True, late=True, text="")
