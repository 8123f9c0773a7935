# SPDX-License-Identifier: Apache-2.0
"""The way back to the images that engines ran from before, and what becomes of images that nobody needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hearth.images import book, context
from hearth.images.book import Book, Known, Use
from hearth.images.dockerd import Docker
from hearth.images.errors import ImageError
from hearth.images.request import STAGING
from hearth.words import amount


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What was changed, or would be: sentences, and what is known then. ``freed`` is in bytes."""

    lines: tuple[str, ...]
    book: Book
    changed: bool
    freed: int = 0


def roll_back(known: Book, models: Sequence[str], docker: Docker) -> Change:
    """Have engines run from what they ran from before, and stay there until the next update.

    Without names all that have such an image. Raises ImageError.
    """
    for name in models:
        if name not in known.models:
            raise ImageError(
                f"{name}: no engine of this name runs from an image of Hearth's: hearth images tells which do"
            )
        use = known.models[name]
        if use.held and use.held == use.image:
            raise ImageError(
                f"{name} was taken back to {use.image} already, and stays there until images.yml -e do=update"
            )
        if not use.previous:
            raise ImageError(f"{name}: nothing is known that it ran from before {use.image}, so there is no way back")
    chosen = {
        name: use
        for name, use in known.models.items()
        if use.previous and not use.held and (not models or name in models)
    }
    if not chosen:
        held = [name for name, use in known.models.items() if use.held]
        said = f"; {' and '.join(held)} went back already" if held else ""
        raise ImageError(f"no engine has an image that it ran from before, so there is no way back{said}")
    gone = [f"{use.previous} of {name}" for name, use in chosen.items() if docker.image(use.previous) is None]
    if gone:
        raise ImageError(
            f"Docker has no {' and no '.join(gone)} any more, so there is no way back: name that image for it instead"
        )
    uses = {name: Use(image=use.previous, previous=use.image, held=use.previous) for name, use in chosen.items()}
    return Change(
        lines=tuple(
            f"{name} goes back from {use.previous} to {use.image}, and stays there until images.yml -e do=update"
            for name, use in uses.items()
        ),
        book=replace(known, models={**known.models, **uses}),
        changed=True,
    )


def prune(
    known: Book,
    docker: Docker,
    *,
    check: bool,
    path: Path | None = None,
    staging: Path = Path(STAGING),
    recipes: Path = context.FOLDER,
) -> Change:
    """Remove what Hearth brought and no engine runs from or could go back to, and what pulls left that did not end.

    Nothing that somebody else brought goes, nor what a container is made of.
    """
    needed = known.needed()
    lines, freed, changed = [], 0, False
    for name, entry in known.images.items():
        if name in needed:
            continue
        stays, size, says = _removed(entry, docker, check=check)
        lines.append(f"{name} stays: {stays}" if stays else f"{name} {'would go' if check else 'is gone'}: {says}")
        if stays:
            continue
        freed, changed, known = freed + size, True, known.without(name)
        if not check:
            book.write(known, path)
    left = [one for one in (staging / "blobs").glob("*") if one.is_file()]
    if left:
        size = sum(one.stat().st_size for one in left)
        freed, changed = freed + size, True
        done = "would go" if check else "is gone"
        lines.append(f"what pulls left that did not end {done}: {amount(size)} given back")
        if not check:
            for one in left:
                one.unlink(missing_ok=True)
    if context.prune(needed, recipes, check=check):
        changed = True
        lines.append(f"recipes of images that nobody needs {'would go' if check else 'are gone'}")
    return Change(lines=tuple(lines), book=known, changed=changed, freed=freed)


def _removed(entry: Known, docker: Docker, *, check: bool) -> tuple[str, int, str]:
    """Take the name from an image. Returns why it stays; and else the bytes given back, and that in words."""
    image = docker.image(entry.name)
    if image is None:
        return "", 0, "Docker does not have it any more"
    repository = entry.name.rpartition(":")[0]
    others = [one for one in image.tags if one != entry.name]
    others += [one for one in image.digests if not one.startswith(f"{repository}@")]
    users = docker.used().get(image.id)
    if users and not others:
        return f"the container {users[0]} is made of it", 0, ""
    refused = "" if check else docker.remove(entry.name)
    if refused:
        return refused, 0, ""
    if others:
        return "", 0, f"Docker keeps it as {others[0]}"
    return "", image.size, f"{amount(image.size)} given back"
