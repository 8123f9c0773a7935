# SPDX-License-Identifier: Apache-2.0
"""What is asked for images."""

from __future__ import annotations

import msgspec

from hearth.download.request import Patience

STAGING = "/var/lib/hearth/images"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that runs from the image. ``flags`` are those that its command line has, and any such engine knows."""

    name: str
    flags: tuple[str, ...] = ()


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is to be on the box.

    ``name`` is what units run. It is empty for a tag that moves and was never brought: then it becomes ``repository``
    with the first 12 hex digits of the digest that the tag has. ``source`` is the reference to pull, with ``digest``
    beside it; ``build`` the recipe that makes it, of that ``fingerprint`` and in that ``folder`` of the box.
    ``version`` and ``help`` are commands that make it tell its version and its flags, the first that works of several.
    """

    name: str
    repository: str = ""
    source: str = ""
    digest: str = ""
    engine: str
    keep_entrypoint: bool = False
    build: str = ""
    fingerprint: str = ""
    folder: str = ""
    users: tuple[User, ...] = ()
    version: tuple[str, ...] = ()
    help: tuple[tuple[str, ...], ...] = ()

    @property
    def words(self) -> str:
        """What a person calls it."""
        if self.build:
            return f"{self.build} ({self.name})"
        return f"{self.source}@{self.digest}" if self.digest else self.source


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """For a registry, as in ``images_registries``."""

    host: str
    user: str
    password: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How images are brought.

    ``pull``: they may be pulled or built. ``smoke``: they are tried out before they may serve. ``refresh``: registries
    are asked whether a tag moved. ``reserve_bytes`` stay free on each disk.
    """

    pull: bool = True
    smoke: bool = True
    refresh: bool = False
    reserve_bytes: int = 10 * 2**30
    staging: str = STAGING
    workers: int = 4
    patience: Patience = Patience()
