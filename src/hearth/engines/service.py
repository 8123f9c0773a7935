# SPDX-License-Identifier: Apache-2.0
"""What a process that systemd started as part of a unit knows of itself, has of systemd, and can say (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

# sd_listen_fds(3): SD_LISTEN_FDS_START.
_FIRST_SOCKET = 3


def invocation() -> str:
    """The id of this run of the unit (systemd.exec(5), INVOCATION_ID), as hexadecimal; empty outside of a unit."""
    return os.environ.get("INVOCATION_ID", "")


def keep_waiting(status: str, seconds: float) -> None:
    """Show ``status`` in ``systemctl status``, and ask systemd not to end this process within ``seconds`` from now.

    Wants ``NotifyAccess=exec`` in the unit, which lets ExecStartPre= speak; EXTEND_TIMEOUT_USEC moves TimeoutStartSec=
    for every Type= (seen with exec, systemd 257).
    """
    # A status is a help; whether it arrives must not decide over a start.
    notify(f"STATUS={status}\nEXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def notify(message: str) -> None:
    """Tell systemd, as sd_notify(3) does: ``READY=1``, ``STOPPING=1``. Says nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as listener:
        listener.sendto(message.encode(), address)


def sockets() -> dict[str, socket.socket]:
    """The sockets that systemd listens on for this process, by FileDescriptorName= (sd_listen_fds(3)).

    Each is not blocking, and not inherited by programs that are started.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for number, name in enumerate(names[: int(os.environ.get("LISTEN_FDS", "0"))], start=_FIRST_SOCKET):
        os.set_inheritable(number, False)
        found[name] = socket.socket(fileno=number)
        found[name].setblocking(False)
    return found
