# SPDX-License-Identifier: Apache-2.0
"""Whether an engine's image is on this box: its unit never pulls, so without it the start would fail."""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.parse
from pathlib import Path

from hearth.contract import Engine
from hearth.errors import EngineFailedError

# Docker answers from its own store, within milliseconds; a hung one must not hold a switch.
_TIMEOUT_S = 2.0


class DockerConnection(http.client.HTTPConnection):
    """HTTP over Docker's socket. Callers name no version of the API, so that no Docker is too old or too new."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__("docker")
        self._path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(os.fspath(self._path))


def is_running(container: str, socket_path: Path) -> bool | None:
    """Whether Docker says that this container's process runs; None where it does not answer.

    ``GET /containers/{name}/json`` (Docker Engine API, ContainerInspect); its network is there before its process is.
    """
    connection = DockerConnection(socket_path)
    try:
        connection.request("GET", f"/containers/{urllib.parse.quote(container)}/json")
        answer = connection.getresponse()
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return False
        return bool(json.loads(answer.read())["State"]["Running"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def require(engine: Engine, socket_path: Path) -> None:
    """Raises EngineFailedError where Docker says that it does not have the engine's image.

    ``GET /images/{name}/json`` (Docker Engine API, ImageInspect) answers 404 for those. Where Docker does not answer at
    all, its own unit is started along with the engine's, and nothing is known.
    """
    connection = DockerConnection(socket_path)
    try:
        connection.request("GET", f"/images/{urllib.parse.quote(engine.image, safe='/:@')}/json")
        missing = connection.getresponse().status == http.HTTPStatus.NOT_FOUND
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()
    if missing:
        raise EngineFailedError(
            f"engine {engine.name}: its image {engine.image} is not on this box; run site.yml, which brings it"
        )
