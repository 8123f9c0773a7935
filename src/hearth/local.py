# SPDX-License-Identifier: Apache-2.0
"""HTTP over a socket of this box: Docker's, and the gateway's own."""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path


class LocalConnection(http.client.HTTPConnection):
    """``timeout_s`` is for each wait of the connection; whoever uses it closes it."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
