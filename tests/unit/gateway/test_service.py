# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.service: the sockets that systemd hands over, and what it is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import commands
import pytest

from hearth.engines import service

# Started as systemd starts a service: the sockets are 3 and 4, and their names stand in the environment.
_HANDED_OVER = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from hearth.engines import service
found = service.sockets()
for name, one in found.items():
    print(name, one.getsockname()[1], one.getblocking(), one.get_inheritable())
"""


def test_sockets_come_by_their_names() -> None:
    with socket.create_server(("127.0.0.1", 0)) as lan, socket.create_server(("127.0.0.1", 0)) as admin:
        script = f'exec {sys.executable} -c "$1" 3<&{lan.fileno()} 4<&{admin.fileno()}'
        done = subprocess.run(
            ["bash", "-c", script, "bash", _HANDED_OVER],
            env={**commands.ENVIRONMENT, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "lan:admin"},
            pass_fds=(lan.fileno(), admin.fileno()),
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout.splitlines() == [
            f"lan {lan.getsockname()[1]} False False",
            f"admin {admin.getsockname()[1]} False False",
        ]


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "lan")

    assert service.sockets() == {}


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)

        service.notify("READY=1")

        assert listener.recv(100) == b"READY=1"


def test_where_nobody_listens_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")

    service.notify("READY=1")
