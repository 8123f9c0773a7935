# SPDX-License-Identifier: Apache-2.0
"""References of images, as Docker reads them (distribution/reference of the Docker Registry project). Pure."""

from __future__ import annotations

import msgspec

HUB = "docker.io"
# Where docker.io really answers (Docker's registry/config.go, DefaultRegistryHost).
_HUB_HOST = "registry-1.docker.io"


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """``registry`` is the one that people and credentials name, ``host`` where it answers."""

    registry: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def host(self) -> str:
        return _HUB_HOST if self.registry == HUB else self.registry

    @property
    def name(self) -> str:
        """The repository, as a person calls it."""
        if self.registry == HUB:
            return self.repository.removeprefix("library/")
        return f"{self.registry}/{self.repository}"

    @property
    def words(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse(text: str, digest: str = "") -> Reference:
    """Of ``host/path:tag@digest``, where all but the path may be left out. ``digest`` is for a text that has none."""
    rest, _, own = text.partition("@")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry = HUB if first in (HUB, f"index.{HUB}") else first
    else:
        registry, path = HUB, rest
    repository, colon, tag = path.rpartition(":")
    if not colon:
        repository, tag = path, "latest"
    if registry == HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry=registry, repository=repository, tag=tag, digest=own or digest)
