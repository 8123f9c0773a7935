# SPDX-License-Identifier: Apache-2.0
"""What goes wrong at a hub of the tests, by script: which requests, how often, in which way."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


@dataclass
class Fault:
    """For requests whose path contains ``path``: the first ``after`` are spared, then ``times`` are hit (-1: all).

    ``at`` is "hub", "cdn" (where large files are redirected to), "cas" (Xet) or "" for all of them.
    """

    path: str = ""
    method: str = "GET"
    at: str = ""
    after: int = 0
    times: int = 1
    # Answers with this and nothing else.
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    # Closes the connection after so many bytes of the body; with ``reset`` as a crashed machine would.
    cut: int = -1
    reset: bool = False
    # Says and sends nothing more after so many bytes of the body; -1: never, 0: not even a header.
    hang: int = -1
    # Has only so many bytes of the file.
    size: int = -1
    # One byte of what is sent is wrong, at this place of the file.
    flip: int = -1
    # Bytes a second.
    rate: float = 0.0
    # Answers a Range with the whole file.
    no_range: bool = False
    # Redirects there.
    location: str = ""

    def hits(self, at: str, method: str, path: str) -> bool:
        """Whether it hits this request; counts it."""
        if self.path not in path or method != self.method or self.at not in ("", at) or not self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= self.times > 0
        return True


@dataclass
class Seen:
    """A request as it came. ``sent``: bytes of the body handed to the kernel; ``start`` is of its Range."""

    at: str
    method: str
    path: str
    headers: dict[str, str]
    start: int = 0
    status: int = 0
    sent: int = 0
    # Seconds of the monotonic clock.
    when: float = field(default_factory=time.monotonic)

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


class Script:
    """The faults to come, and the record of what was asked. Its methods may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.seen: list[Seen] = []
        # Ends whatever hangs.
        self.released = threading.Event()

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self.seen.clear()

    def take(self, seen: Seen) -> Fault | None:
        """Note a request, and give the fault that hits it."""
        with self._lock:
            self.seen.append(seen)
            return next((fault for fault in self._faults if fault.hits(seen.at, seen.method, seen.path)), None)

    def asked(self, path: str = "", method: str = "", at: str = "") -> list[Seen]:
        """The requests so far, in order, whose path contains ``path``."""
        with self._lock:
            return [one for one in self.seen if path in one.path and method in ("", one.method) and at in ("", one.at)]

    def sent(self, path: str = "", at: str = "") -> int:
        """Bytes of bodies sent for such requests."""
        return sum(one.sent for one in self.asked(path, "GET", at))
