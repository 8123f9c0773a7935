# SPDX-License-Identifier: Apache-2.0
"""What the box knows of its images: ``/var/lib/hearth/images.json``.

Docker's classic store keeps the digest only of what it pulled itself: what is loaded from a file has none there.
So that an image is known by its digest however it came, and by Docker's id as it was when it was verified, both are
kept here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from hearth import state
from hearth.errors import BusyError, HearthError

PATH = state.LEARNED / "images.json"
LOCK = state.RUN / "images.lock"

How = Literal["pulled", "built", "loaded", "found"]


class Smoke(msgspec.Struct, frozen=True, kw_only=True):
    """It was tried out and works. ``flags`` are all that its help names; none where it has no such help."""

    at: str
    version: str = ""
    flags: tuple[str, ...] = ()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """An image under its name of Hearth's. ``id`` is Docker's; one that was ``found`` is somebody else's as well."""

    name: str
    source: str
    digest: str
    id: str
    how: How
    at: str
    engine: str
    keep_entrypoint: bool = False
    smoke: Smoke | None = None


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine runs from.

    ``previous`` is what it ran from before. ``held``: it was taken back to that image, and stays there until the next
    update.
    """

    image: str
    previous: str = ""
    held: str = ""


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known. ``models`` has uses by engine, ``pins`` names of images by the tags that led to them."""

    schema: Literal[1] = 1
    images: dict[str, Known] = {}
    models: dict[str, Use] = {}
    pins: dict[str, str] = {}

    def with_image(self, known: Known) -> Book:
        """The same, with this one known; one without a digest in its reference is what its tag means from now on."""
        pins = self.pins if "@" in known.source or not known.source else {**self.pins, known.source: known.name}
        return replace(self, images={**self.images, known.name: known}, pins=pins)

    def without(self, name: str) -> Book:
        """The same without an image: nobody can go back to it any more."""
        return replace(
            self,
            images={key: known for key, known in self.images.items() if key != name},
            models={
                model: replace(use, previous="") if use.previous == name else use for model, use in self.models.items()
            },
            pins={source: key for source, key in self.pins.items() if key != name},
        )

    def with_uses(self, images: Mapping[str, str]) -> Book:
        """The same, with engines that run from these images, by their names, and from no others."""
        return replace(self, models={model: _used(self.models.get(model), name) for model, name in images.items()})

    def needed(self) -> dict[str, list[str]]:
        """The images that engines run from or could go back to, each with those engines."""
        found: dict[str, list[str]] = {}
        for model, use in self.models.items():
            for name in filter(None, dict.fromkeys((use.image, use.previous, use.held))):
                found.setdefault(name, []).append(model)
        return found


def _used(before: Use | None, name: str) -> Use:
    if before is None:
        return Use(image=name)
    if before.image == name:
        return before
    return Use(image=name, previous=before.image)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read(path: Path | None = None) -> Book:
    """Empty where there is none, or where nobody can read it: images are then looked at anew."""
    try:
        return msgspec.json.decode((path or PATH).read_bytes(), type=Book)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Book()


def write(book: Book, path: Path | None = None) -> None:
    """Raises HearthError."""
    path = path or PATH
    try:
        state.replace(path, msgspec.json.format(msgspec.json.encode(book)))
    except OSError as error:
        raise HearthError(f"{path} cannot be written ({error.strerror}): run this as root") from None


@contextmanager
def held(timeout_s: float = 10.0, lock: Path | None = None) -> Iterator[None]:
    """Be the only one who changes images. Raises BusyError after ``timeout_s`` seconds."""

    def busy(holder: str) -> BusyError:
        return BusyError(f"other work on images is under way ({holder}): wait for it, then ask again")

    with state.locked(lock or LOCK, timeout_s, busy):
        yield
