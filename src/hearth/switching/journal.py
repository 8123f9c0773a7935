# SPDX-License-Identifier: Apache-2.0
"""What a change of engines was about to do, on disk, for whoever comes after it was killed.

It lies in /run: after a reboot nothing is left to heal, since the boot default comes up by itself.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from hearth import state
from hearth.errors import HearthError

PATH = state.RUN / "switch.json"


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """A change that has begun: what it wants to run ("none": nothing), and what ran ``previously``.

    ``at`` is when it began (ISO 8601, UTC). ``enable``: the target was to start at boot, and did not before;
    ``disable`` names those that did, and were no longer to.
    """

    target: str
    previous: tuple[str, ...]
    at: str
    enable: bool = False
    disable: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """For a person: which change that was."""
        return f"a change to {self.target} that began at {self.at} was cut off"


def read(path: Path = PATH) -> Journal | None:
    """The journal of a change that did not end, or nothing. One that is damaged says nothing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write(journal: Journal, path: Path = PATH) -> None:
    """Keep it until ``clear``. Raises HearthError: a change that could not be healed is not begun."""
    try:
        state.replace(path, msgspec.json.encode(journal))
    except OSError as error:
        raise HearthError(f"{path} cannot be written ({error.strerror}): run this as root") from None


def clear(path: Path = PATH) -> None:
    """The change has ended, one way or the other."""
    with suppress(OSError):
        path.unlink()
