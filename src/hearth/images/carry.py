# SPDX-License-Identifier: Apache-2.0
"""Images in a folder, for boxes without a network: an archive each as Docker saves it, and what they are in index.json.

An archive is verified by its SHA-256 before Docker gets it, and what Docker made of it by the digests of its layers,
which are the same in every store. So an image stays what its registry's digest says, which Docker forgets on the way.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from hearth import state
from hearth.download.digest import of_file
from hearth.download.errors import DownloadError, of_disk
from hearth.errors import HearthError
from hearth.images import book
from hearth.images.book import Known
from hearth.images.dockerd import Docker
from hearth.images.errors import ImageError
from hearth.images.have import Outcome
from hearth.images.progress import Progress, Tell
from hearth.words import amount, gigabytes

INDEX = "index.json"
_BLOCK = 1 << 20


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a folder. ``image`` is what was known of it where it was saved; ``layers`` are unpacked ones."""

    image: Known
    architecture: str
    layers: tuple[str, ...]
    size: int
    file: str
    bytes: int
    sha256: str


class Index(msgspec.Struct, frozen=True, kw_only=True):
    schema: int
    images: tuple[Saved, ...] = ()


def read(folder: Path) -> Index:
    """Raises ImageError."""
    path = folder / INDEX
    try:
        index = msgspec.json.decode(path.read_bytes(), type=Index)
    except FileNotFoundError:
        raise ImageError(
            f"{folder} has no {INDEX}: it is no folder that images were saved to (images.yml -e do=save)"
        ) from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImageError(f"{path} is damaged ({error}): save the images again") from None
    if index.schema != 1:
        raise ImageError(f"{path} has schema {index.schema}, which this version of hearth does not know: update it")
    return index


def save(
    known: Sequence[Known], folder: Path, docker: Docker, reserve_bytes: int, tell: Callable[[int, Progress], None]
) -> Iterator[Outcome]:
    """Have the images in the folder. What is there of the same id stays; others' files are left alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise of_disk(error, folder / INDEX) from None
    saved = {one.image.name: one for one in (read(folder).images if (folder / INDEX).exists() else ())}
    for number, entry in enumerate(known):
        had = saved.get(entry.name)
        path = folder / f"{entry.name.removeprefix('localhost/').replace('/', '-').replace(':', '-')}.tar"
        if had is not None and had.image.id == entry.id and path.exists() and path.stat().st_size == had.bytes:
            yield Outcome(words=entry.name, name=entry.name)
            continue

        def told(progress: Progress, number: int = number) -> None:
            tell(number, progress)

        one = _save(entry, path, docker, reserve_bytes, told)
        saved[entry.name] = one
        index = Index(schema=1, images=tuple(saved[name] for name in sorted(saved)))
        state.replace(folder / INDEX, msgspec.json.format(msgspec.json.encode(index)))
        yield Outcome(words=entry.name, name=entry.name, done=f"saved to {path} ({amount(one.bytes)})")


def foretell(state: str, names: Sequence[str], folder: Path, known: book.Book) -> list[Outcome]:
    """What would be saved or loaded. Raises ImageError."""
    if state == "loaded":
        return [
            Outcome(words=name, name=name, done="" if name in known.images else f"would be loaded from {folder}")
            for name in (one.image.name for one in read(folder).images)
        ]
    there = {one.image.name: one.image.id for one in (read(folder).images if (folder / INDEX).exists() else ())}
    return [
        Outcome(
            words=name,
            name=name,
            done="" if there.get(name) == known.images[name].id else f"would be saved to {folder}",
        )
        for name in names
    ]


def _save(entry: Known, path: Path, docker: Docker, reserve_bytes: int, tell: Tell) -> Saved:
    image = docker.image(entry.name)
    if image is None or image.id != entry.id:
        raise ImageError(
            f"Docker has {'another' if image else 'no'} image {entry.name}: run site.yml, which puts that right"
        )
    free = shutil.disk_usage(path.parent).free
    if image.size + reserve_bytes > free:
        raise ImageError(
            f"{entry.name} has {gigabytes(image.size)} GB and {gigabytes(reserve_bytes)} GB are to stay free, but "
            f"below {path.parent} only {gigabytes(free)} GB are free: take another folder"
        )
    part = path.with_name(f"{path.name}.part")
    found, size = hashlib.sha256(), 0
    try:
        with part.open("wb") as file:
            for block in docker.save(entry.name):
                file.write(block)
                found.update(block)
                size += len(block)
                # The archive has the layers unpacked, and a little more.
                tell(Progress(phase="saving", bytes_done=min(size, image.size), bytes_total=image.size))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise of_disk(error, path, max(0, image.size - size)) from None
    return Saved(
        image=msgspec.structs.replace(entry, smoke=None),
        architecture=docker.settings.architecture,
        layers=image.layers,
        size=image.size,
        file=path.name,
        bytes=size,
        sha256=found.hexdigest(),
    )


def load(
    folder: Path, docker: Docker, tell: Callable[[int, Progress], None], path: Path | None = None
) -> Iterator[Outcome]:
    """Have the images of a folder in Docker, verified. They are tried out by whoever wants engines to run from them."""
    for number, saved in enumerate(read(folder).images):

        def told(progress: Progress, number: int = number) -> None:
            tell(number, progress)

        name = saved.image.name
        there = docker.image(name)
        if there is not None and there.layers == saved.layers and name in book.read(path).images:
            yield Outcome(words=name, name=name)
            continue
        _load(saved, folder, docker, told)
        image = docker.image(name)
        if image is None or image.layers != saved.layers:
            raise ImageError(f"Docker made something else of {folder / saved.file} than was saved: save it again")
        entry = msgspec.structs.replace(saved.image, id=image.id, how="loaded", at=book.now(), smoke=None)
        book.write(book.read(path).with_image(entry), path)
        yield Outcome(words=name, name=name, done=f"loaded from {folder / saved.file} ({amount(saved.bytes)})")


def _load(saved: Saved, folder: Path, docker: Docker, tell: Tell) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", saved.file):
        raise ImageError(f"{folder / INDEX} names a file {saved.file!r}: it is damaged; save the images again")
    if saved.architecture != docker.settings.architecture:
        raise ImageError(
            f"{saved.image.name} in {folder} is for {saved.architecture}, and this box is "
            f"{docker.settings.architecture}: save it on a box like this one"
        )
    path = folder / saved.file
    done = 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        # Read once to be verified, and once for Docker.
        tell(Progress(phase="loading", bytes_done=done, bytes_total=2 * saved.bytes))

    try:
        found = of_file(path, "sha256", moved)
        if found != f"sha256:{saved.sha256}":
            raise ImageError(
                f"{path} is damaged: its hash is {found}, {INDEX} says sha256:{saved.sha256}; copy or save it again"
            )
        docker.load(_blocks(path, moved), lambda *_: None)
    except OSError as error:
        raise DownloadError(f"{path} cannot be read ({error.strerror}): copy or save it again") from None
    except HearthError as error:
        if "no space left" in str(error):
            raise ImageError(
                f"the disk below {docker.settings.root} became full: make room there (images.yml -e do=prune)"
            ) from None
        raise


def _blocks(path: Path, moved: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            moved(len(block))
            yield block
