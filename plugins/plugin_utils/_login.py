# SPDX-License-Identifier: Apache-2.0
"""A login by key, made anew on the controller, as the proof that somebody can still come in."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

CONNECT_S = 10
_LOGIN_S = 30.0
# What ssh -v says of the way that it came in: OpenSSH 8.7 and newer, and older ones.
_BY_KEY = re.compile(r'Authenticated to .* using "publickey"|Authentication succeeded \(publickey\)')
# First values count in ssh too. Without a shared connection: the login is to be a new one, and by key only.
_ALWAYS = (
    *("-v", "-T", "-n"),
    *("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"),
    *("-o", "PreferredAuthentications=publickey", "-o", "PubkeyAuthentication=yes", "-o", "PasswordAuthentication=no"),
    *("-o", "KbdInteractiveAuthentication=no", "-o", "ClearAllForwardings=yes"),
)


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who comes in, and where; ``words`` are more arguments of ssh."""

    host: str
    user: str
    port: int = 0
    key: str = ""
    words: Sequence[str] = ()
    program: str = "ssh"

    def command(self) -> list[str]:
        """What is run on the controller."""
        more = ["-p", str(self.port)] if self.port else []
        if self.key:
            more += ["-i", self.key, "-o", "IdentitiesOnly=yes"]
        return [self.program, *_ALWAYS, *more, *self.words, "-l", self.user, "--", self.host, "cat /etc/machine-id"]

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port else "")


def why_not(login: Login, machine: str) -> str:
    """Log in. Empty where that came in by key, on the box with this machine-id; else why it did not."""
    try:
        done = subprocess.run(login.command(), capture_output=True, text=True, timeout=_LOGIN_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not end within {_LOGIN_S:.0f} s"
    except OSError as error:
        return f"{login.program} cannot be run here: {error.strerror}"
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not _noise(line)]
        return said[-1].strip().rstrip(".") if said else f"ssh ended with {done.returncode}"
    if not _BY_KEY.search(done.stderr):
        return "it came in, but not by a key"
    if done.stdout.strip() != machine:
        return "another machine answered (its /etc/machine-id is not the box's)"
    return ""


def _noise(line: str) -> bool:
    return line.startswith(("debug1:", "OpenSSH_", "Warning:", "Transferred:", "Bytes per second:", "Authenticated to"))


def words(text: str) -> list[str]:
    """Arguments as a shell would part them."""
    return shlex.split(text or "")
