# SPDX-License-Identifier: Apache-2.0
"""Whether an engine's image is on this box, and the one that was verified: its unit never pulls."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from pathlib import Path

from hearth.contract import Engine
from hearth.errors import EngineFailedError
from hearth.images import book
from hearth.local import LocalConnection

# Docker answers from its own store, within milliseconds; a hung one must not hold a switch. Callers name no version of
# its API, so that no Docker is too old or too new.
TIMEOUT_S = 2.0


def is_running(container: str, socket_path: Path) -> bool | None:
    """Whether Docker says that this container's process runs; None where it does not answer.

    ``GET /containers/{name}/json`` (Docker Engine API, ContainerInspect); its network is there before its process is.
    """
    connection = LocalConnection(socket_path, TIMEOUT_S)
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
    """Raises EngineFailedError where Docker does not have the engine's image, or another under its name.

    ``GET /images/{name}/json`` (Docker Engine API, ImageInspect) answers 404 for the first. Where Docker does not
    answer at all, its own unit is started along with the engine's, and nothing is known.
    """
    connection = LocalConnection(socket_path, TIMEOUT_S)
    try:
        connection.request("GET", f"/images/{urllib.parse.quote(engine.image, safe='/:@')}/json")
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        found = json.loads(body).get("Id") if status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return
    finally:
        connection.close()
    if status == http.HTTPStatus.NOT_FOUND:
        raise EngineFailedError(
            f"engine {engine.name}: its image {engine.image} is not on this box; run site.yml, which brings it"
        )
    known = book.read().images.get(engine.image)
    if known is not None and found is not None and found != known.id:
        raise EngineFailedError(
            f"engine {engine.name}: {engine.image} is not the image any more that was verified and tried out; run "
            "site.yml, which brings that again"
        )
