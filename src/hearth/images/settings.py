# SPDX-License-Identifier: Apache-2.0
"""How a recipe is built (its recipe.toml), and what of this box a build may have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import msgspec

from hearth.images.errors import ImageError
from hearth.memory import Memory

NAME = "recipe.toml"
# What stays available for the host while something compiles, in GiB, and a smaller host's share of its memory: as for
# engines (the controller's _catalog.floor_gib).
_FLOOR_GIB = 10.0
_FLOOR_SHARE = 6
# Below this MemAvailable, in GiB, a Spark is about to freeze (GB10 platform survey, 1.4): what takes memory must end.
_LAST_GIB = 6.0
_LAST_SHARE = 12


class BuildFailedError(ImageError):
    """An image was not built. ``log`` are the last lines of the step that failed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What recipe.toml says.

    ``disk_gb``: free space that a build wants, in decimal GB. ``job_gib``: what one of its compile jobs takes at most,
    in GiB, of which no more than ``max_jobs`` run at once; 0 where nothing is compiled. ``stage``: the stage of the
    Dockerfile that is built, the last where it is empty. ``args``: its build arguments.
    """

    title: str = ""
    disk_gb: Annotated[float, msgspec.Meta(ge=0)] = 5
    job_gib: Annotated[float, msgspec.Meta(ge=0)] = 0
    max_jobs: Annotated[int, msgspec.Meta(ge=1)] = 1
    stage: str = ""
    args: dict[str, str] = {}


def read(folder: Path) -> Settings:
    """The recipe's settings. Raises BuildFailedError."""
    path = folder / NAME
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Settings)
    except OSError as error:
        raise BuildFailedError(f"{path} cannot be read ({error.strerror}): run the play again, it ships it") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BuildFailedError(f"{path}: {error}: correct it on the controller and run the play again") from None


def jobs(settings: Settings, memory: Memory, cpus: int) -> int:
    """How many compile jobs may run at once; 0 where there is no room for one."""
    if not settings.job_gib:
        return min(settings.max_jobs, cpus)
    room = memory.available_gib - min(_FLOOR_GIB, memory.total_gib / _FLOOR_SHARE)
    return max(0, min(settings.max_jobs, cpus, math.floor(room / settings.job_gib)))


def last_gib(memory: Memory) -> float:
    """With less than this available, in GiB, a build has to end."""
    return min(_LAST_GIB, memory.total_gib / _LAST_SHARE)
