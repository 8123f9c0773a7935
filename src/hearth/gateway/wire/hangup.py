# SPDX-License-Identifier: Apache-2.0
"""Notices that a client hangs up while nothing is read from it.

A connection that is not read is not watched by the event loop either, so that its end would be seen only when reading
goes on: after the model was loaded for nobody. An epoll of our own watches such connections for nothing but their end,
and the event loop watches the epoll. An end that waits behind more bytes than the kernel holds for us cannot be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable

_END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLONESHOT


class Hangups:
    """The connections whose end is waited for, by file descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self.closed = False
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call once when the other side of this socket is gone."""
        if fd not in self._calls:
            self._epoll.register(fd, _END)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Watch it no longer; before its descriptor is closed."""
        if self._calls.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def close(self) -> None:
        """Watch nothing any more."""
        self.closed = True
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._calls.clear()

    def _look(self) -> None:
        for fd, _ in self._epoll.poll(0):
            call = self._calls.get(fd)
            self.forget(fd)
            if call is not None:
                call()
