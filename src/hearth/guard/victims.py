# SPDX-License-Identifier: Apache-2.0
"""The engines that have a process, known before one has to be ended: then nobody has to be asked any more.

What is ended is the first process of an engine's container. The unit's own process is only `docker run`, which waits
for that; the kernel ends everything in the container with its first process (pid_namespaces(7)).
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from hearth.admission.holders import DOCKER_SOCKET, PROC, containers
from hearth.contract import Contract, Engine
from hearth.engines.images import TIMEOUT_S
from hearth.guard.rule import Running
from hearth.local import LocalConnection

# proc_pid_stat(5): starttime is field 22; what follows the name in parentheses begins with field 3.
_STARTTIME = 22 - 3


class _State(msgspec.Struct):
    Pid: int = 0


class _Container(msgspec.Struct):
    State: _State


class Victims:
    """Who could be ended; ``look`` brings it up to date."""

    def __init__(self, docker_socket: Path = DOCKER_SOCKET, proc: Path = PROC) -> None:
        self._socket = docker_socket
        self._proc = proc
        self._known: dict[str, tuple[Running, int]] = {}
        self._lock = threading.Lock()

    def look(self, contract: Contract) -> None:
        """Ask Docker who runs. Where it does not answer, those that were known before still are."""
        ids = {name: one for one, name in containers(self._socket).items()}
        found: dict[str, tuple[Running, int]] = {}
        for engine in contract.engines:
            if engine.container in ids:
                known = self._of(engine)
                if known is not None:
                    found[engine.name] = known
        if found or ids:
            self._forget(found)

    def _forget(self, found: Mapping[str, tuple[Running, int]]) -> None:
        with self._lock:
            for _, descriptor in self._known.values():
                os.close(descriptor)
            self._known = dict(found)

    def _of(self, engine: Engine) -> tuple[Running, int] | None:
        pid = self._pid(engine.container)
        if not pid:
            return None
        with suppress(OSError, ValueError, IndexError):
            # A descriptor stays with its process: the number may be somebody else's one day.
            descriptor = os.pidfd_open(pid)
            try:
                text = (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
                started = int(text.rpartition(")")[2].split()[_STARTTIME])
            except (OSError, ValueError, IndexError):
                os.close(descriptor)
                raise
            return Running(name=engine.name, pinned=engine.pinned, started=started), descriptor
        return None

    def _pid(self, container: str) -> int:
        """``GET /containers/{id}/json`` (Docker Engine API, ContainerInspect)."""
        connection = LocalConnection(self._socket, TIMEOUT_S)
        try:
            connection.request("GET", f"/containers/{container}/json")
            return msgspec.json.decode(connection.getresponse().read(), type=_Container).State.Pid
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            return 0
        finally:
            connection.close()

    @property
    def running(self) -> tuple[Running, ...]:
        with self._lock:
            return tuple(running for running, _ in self._known.values())

    def end(self, name: str) -> bool:
        """End it at once; whether there was still something to end."""
        with self._lock:
            _, descriptor = self._known.pop(name, (None, -1))
            if descriptor < 0:
                return False
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            except ProcessLookupError:
                return False
            finally:
                os.close(descriptor)
        return True
