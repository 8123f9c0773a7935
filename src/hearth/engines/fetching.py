# SPDX-License-Identifier: Apache-2.0
"""A model that the box downloads itself, before its engine's first start: by a unit that the engine's own requires.

So whoever starts the engine, the gateway or a person with systemctl, gets the files first. While a download lasts, a
file of /run/hearth/fetch says how far it is.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hearth import state
from hearth.contract import Engine
from hearth.errors import HearthError

if TYPE_CHECKING:
    from hearth.download import Progress, Request, Result, Tell

FOLDER = "fetch"
# A download tells at least this often, unless it was killed: its longest silence is a hub's wish to be left alone.
_STALE_S = 900.0


def unit_of(engine: Engine) -> str:
    """The unit that brings the files, before the engine's own starts."""
    return f"hearth-fetch@{engine.name}.service"


def is_there(engine: Engine) -> bool:
    """Whether nothing has to be fetched; asks nobody but the disk, so that a start does not depend on a hub.

    What somebody else put into the folder counts, where it has what the engine loads.
    """
    from hearth.download import foretell

    try:
        foretell(msgspec.structs.replace(_request(engine), offline=True))
    except HearthError:
        return False
    return Path(engine.model_path).exists()


def fetch(engine: Engine, tell: Tell, run: Path = state.RUN) -> Result | None:
    """Have the model's files in place; none where they are already.

    Raises HearthError, also for an engine whose model is not for the box to fetch.
    """
    from hearth.download import present

    request = _request(engine)
    if is_there(engine):
        return None
    path = _path(engine, run)

    def record(progress: Progress) -> None:
        # Whoever watches is told by this file; that he cannot be is no reason to stop.
        with suppress(OSError):
            state.replace(path, msgspec.json.encode(progress))
        tell(progress)

    try:
        return present(request, record)
    finally:
        with suppress(OSError):
            path.unlink()


def told(engine: Engine, run: Path = state.RUN) -> str:
    """How far the download is, in words; empty where nothing says so."""
    path = _path(engine, run)
    try:
        if time.time() - path.stat().st_mtime > _STALE_S:
            return ""
        raw = path.read_bytes()
        from hearth.download import Progress

        return msgspec.json.decode(raw, type=Progress).words
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _path(engine: Engine, run: Path) -> Path:
    return run / FOLDER / f"{engine.name}.json"


def _request(engine: Engine) -> Request:
    """Raises HearthError."""
    from hearth.download import Request

    if engine.fetch is None:
        raise HearthError(
            f"the files of {engine.name} are not for the box to fetch: site.yml brings them, or you put them there"
        )
    return msgspec.convert(msgspec.to_builtins(engine.fetch), Request)
