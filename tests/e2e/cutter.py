# SPDX-License-Identifier: Apache-2.0
"""A way to a registry that can be cut: a TCP proxy. Run in a box by the tests; standard library only.

cutter.py PORT TARGET_PORT MODE_FILE. The file says "pass", "hold N" (after N bytes of answers they stand still) or
"die N" (after N bytes everything is cut, and nobody gets through). Bytes count from when the file was changed last.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_LOOK_EVERY_S = 0.02
# Small, so that what is on its way when an answer is cut is little.
_PIECE = 16 * 1024


class Way:
    """How many bytes went through, and whether more may."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._said = ""
        self._passed = 0

    def _mode(self) -> tuple[str, int]:
        said = self._file.read_text()
        if said != self._said:
            self._said, self._passed = said, 0
        word, _, count = said.strip().partition(" ")
        return word, int(count or 0)

    def may(self, count: int) -> bool:
        """Waits while it is held; false where the way is cut."""
        while True:
            with self._lock:
                word, most = self._mode()
                if word == "pass" or self._passed + count <= most:
                    self._passed += count
                    return True
                if word == "die":
                    return False
            time.sleep(_LOOK_EVERY_S)


def pump(source: socket.socket, sink: socket.socket, way: Way | None) -> None:
    with suppress(OSError):
        while data := source.recv(_PIECE):
            if way is not None and not way.may(len(data)):
                break
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def main(port: int, target: int, file: Path) -> None:
    way = Way(file)
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:
        while True:
            client, _ = server.accept()
            if not way.may(0):
                client.close()
                continue
            upstream = socket.create_connection(("127.0.0.1", target))
            threading.Thread(target=pump, args=(client, upstream, None), daemon=True).start()
            threading.Thread(target=pump, args=(upstream, client, way), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
