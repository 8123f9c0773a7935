# SPDX-License-Identifier: Apache-2.0
"""What each image needs before engines may run from it. Asks Docker and the book, and nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from hearth.images import reference, smoke
from hearth.images.book import Book, Known
from hearth.images.dockerd import Docker, Image
from hearth.images.errors import ImageError
from hearth.images.request import Terms, Want

# What is to be done to have an image under its name. "record": all is there but a line in the book.
Way = Literal["there", "record", "tag", "pull", "build", "missing"]
# What a recipe's image is known by (docs/images.md).
LABEL = "dev.hearth.recipe"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one image needs.

    ``name`` is empty where its tag was never asked for, and ``digest`` the one to pull by, where one is known.
    ``from_name`` is what Docker calls it so far. ``smoke``: it is to be tried out.
    """

    want: Want
    name: str
    way: Way
    digest: str = ""
    from_name: str = ""
    smoke: bool = False

    @property
    def is_done(self) -> bool:
        return self.way == "there" and not self.smoke


def plan(wants: Iterable[Want], known: Book, docker: Docker, terms: Terms) -> list[Step]:
    """Raises HearthError, also for a flag that an image is known not to take."""
    return [step(want, known, docker, terms) for want in wants]


def step(want: Want, known: Book, docker: Docker, terms: Terms) -> Step:
    """As ``plan``, of one."""
    name = want.name or known.pins.get(want.source, "")
    entry = known.images.get(name)
    image = docker.image(name) if name else None
    if image is not None and entry is not None and entry.id == image.id:
        if terms.smoke and entry.smoke is not None:
            smoke.assert_flags(want, entry.smoke)
        return Step(want=want, name=name, way="there", smoke=terms.smoke and entry.smoke is None)
    if image is not None and _is_it(want, image):
        return Step(want=want, name=name, way="record", digest=want.digest, smoke=terms.smoke)
    if not (want.source or want.build):
        return Step(want=want, name=name, way="missing")
    if want.build:
        return Step(want=want, name=name, way="build" if terms.pull else "missing", smoke=terms.smoke)
    # A tag means what it meant when it was asked for last, until an update asks again.
    digest = want.digest or (entry.digest if entry is not None else "")
    found = _found(want, digest, docker)
    if found is not None:
        from_name, there = found
        digest = digest or _digest_of(want, there)
        name = named(want, digest or there.id)
        return Step(want=want, name=name, way="tag", digest=digest, from_name=from_name, smoke=terms.smoke)
    way: Way = "pull" if terms.pull else "missing"
    return Step(want=want, name=name, way=way, digest=digest, smoke=terms.smoke)


def named(want: Want, digest: str) -> str:
    """The name of the image of that digest, which is not ``want.name`` where a tag moved."""
    return f"{want.repository}:{digest.partition(':')[2][:12]}"


def missing(steps: Sequence[Step]) -> ImageError:
    """What to say where images are missing and may not, or cannot, be brought."""
    gone = [one.name for one in steps if not (one.want.source or one.want.build)]
    if gone:
        return ImageError(
            f"Docker has no {' and no '.join(gone)} any more, which engines were taken back to: go forward with "
            "images.yml -e do=update"
        )
    names = " and no ".join(one.want.words for one in steps)
    return ImageError(
        f"the box has no image {names}, and images_pull is false: load it (images.yml -e do=load), or set images_pull "
        "to true"
    )


def _is_it(want: Want, image: Image) -> bool:
    """Whether what has the name is what is wanted, where the book does not say so: names can be given to anything."""
    if want.build:
        return image.labels.get(LABEL) == want.fingerprint
    return bool(want.digest) and any(one.endswith(f"@{want.digest}") for one in image.digests)


def _found(want: Want, digest: str, docker: Docker) -> tuple[str, Image] | None:
    """The image as somebody else brought it: by its digest, or by its tag where no digest is known."""
    asked = reference.parse(want.source, digest)
    by = f"{asked.name}@{asked.digest}" if asked.digest else want.source
    image = docker.image(by)
    return None if image is None else (by, image)


def _digest_of(want: Want, image: Image) -> str:
    """What its registry calls it, where Docker knows that."""
    name = reference.parse(want.source).name
    return next((one.partition("@")[2] for one in image.digests if one.partition("@")[0] == name), "")


def known_as(step: Step, docker: Docker, how: str) -> Known:
    """What goes into the book of an image that has its name now. Raises ImageError."""
    from hearth.images.book import now

    want = step.want
    image = docker.image(step.name)
    if image is None:
        raise ImageError(f"{step.name} is gone from Docker while it was brought: ask again")
    return msgspec.convert(
        {
            "name": step.name,
            "source": f"{want.source}@{want.digest}" if want.digest else want.source,
            "digest": step.digest,
            "id": image.id,
            "how": how,
            "at": now(),
            "engine": want.engine,
            "keep_entrypoint": want.keep_entrypoint,
        },
        Known,
    )
