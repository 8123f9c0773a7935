# SPDX-License-Identifier: Apache-2.0
"""What images there are on the box, and what for."""

from __future__ import annotations

import msgspec

from hearth.images.book import Book
from hearth.images.dockerd import Docker


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One image. ``size`` is unpacked, in bytes; 0: Docker does not have it. ``smoke``: what came of trying it out.

    ``previous_of`` are engines that can go back to it, ``next_of`` those that were taken back from it.
    """

    name: str
    source: str
    digest: str
    id: str
    how: str
    at: str
    engine: str
    size: int
    used_by: tuple[str, ...]
    previous_of: tuple[str, ...]
    next_of: tuple[str, ...]
    held_by: tuple[str, ...]
    version: str
    smoke: str


def look(known: Book, docker: Docker) -> list[Row]:
    """All that is known, those in use first. Raises HearthError."""
    rows = []
    for name, entry in known.images.items():
        image = docker.image(name)
        uses = known.models.items()
        rows.append(
            Row(
                name=name,
                source=entry.source,
                digest=entry.digest,
                id=entry.id,
                how=entry.how,
                at=entry.at,
                engine=entry.engine,
                size=image.size if image is not None else 0,
                used_by=tuple(model for model, use in uses if use.image == name),
                previous_of=tuple(model for model, use in uses if use.previous == name and not use.held),
                next_of=tuple(model for model, use in uses if use.previous == name and use.held),
                held_by=tuple(model for model, use in uses if use.held == name),
                version=entry.smoke.version if entry.smoke else "",
                smoke=_smoke(
                    entry.smoke is not None, there=image is not None, same=image is None or image.id == entry.id
                ),
            )
        )
    return sorted(rows, key=lambda row: (not row.used_by, not (row.previous_of or row.next_of), row.name))


def _smoke(tried: bool, *, there: bool, same: bool) -> str:
    if not there:
        return "missing"
    if not same:
        return "replaced"
    return "ok" if tried else "not tried"
