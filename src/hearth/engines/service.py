# SPDX-License-Identifier: Apache-2.0
"""What a process that systemd started as part of a unit knows of itself, and what it can say (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def invocation() -> str:
    """The id of this run of the unit (systemd.exec(5), INVOCATION_ID), as hexadecimal; empty outside of a unit."""
    return os.environ.get("INVOCATION_ID", "")


def keep_waiting(status: str, seconds: float) -> None:
    """Show ``status`` in ``systemctl status``, and ask systemd not to end this process within ``seconds`` from now.

    Wants ``NotifyAccess=exec`` in the unit, which lets ExecStartPre= speak; EXTEND_TIMEOUT_USEC moves TimeoutStartSec=
    for every Type= (seen with exec, systemd 257). Says nothing where nobody listens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = f"STATUS={status}\nEXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}"
    # A status is a help; whether it arrives must not decide over a start.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.sendto(message.encode(), address)
