# SPDX-License-Identifier: Apache-2.0
"""Bringing an image from its registry: asked for, fetched layer by layer, verified, and handed to Docker whole.

What was fetched lies in the staging folder by its digest until Docker has the image, so that a pull that was cut off,
killed, or met a full disk goes on where it was.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import msgspec

from hearth import disk
from hearth.download.errors import DownloadError, of_disk
from hearth.download.fetch import at_once, fetch, patiently
from hearth.download.meter import Meter
from hearth.download.meter import Progress as Moved
from hearth.download.plan import File
from hearth.errors import HearthError
from hearth.images import archive, manifest
from hearth.images.dockerd import Docker
from hearth.images.errors import ImageError
from hearth.images.manifest import Config, Document, Manifest
from hearth.images.progress import Progress, Tell
from hearth.images.reference import Reference
from hearth.images.registry import Registry
from hearth.images.request import Credential, Terms
from hearth.words import gigabytes, span

# An image of an engine is so many times as large unpacked as its layers are: 2.2 to 2.6 of vLLM's and SGLang's.
_UNPACKED = 2.6


class Found(msgspec.Struct, frozen=True):
    """What a registry has for this box. ``digest`` is the one that names it: that of the index, where there is one."""

    digest: str
    document: Document
    config: bytes
    manifest: Manifest
    diff_ids: tuple[str, ...]


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the whole image as it is fetched, and those that came; seconds for that, and for Docker's part."""

    digest: str
    bytes_total: int
    bytes_fetched: int
    seconds: float
    unpack_s: float


class Pull:
    """One image of one registry. All raise HearthError."""

    def __init__(self, reference: Reference, docker: Docker, terms: Terms, credential: Credential | None) -> None:
        self._reference = reference
        self._docker = docker
        self._terms = terms
        self._registry = Registry(reference, docker.settings, credential, terms.patience)
        # A registry that is not there is not worth the half minute that a large download is.
        self._brief = msgspec.structs.replace(terms.patience, tries=min(3, terms.patience.tries))

    def digest(self, tell: Tell) -> str:
        """What the tag is now."""
        with closing(self._registry):
            return str(self._ask(self._registry.document, tell).digest)

    def bring(self, name: Callable[[str], str], tell: Tell) -> Pulled:
        """Have it in Docker, under the name that goes with its digest."""
        began = time.monotonic()
        with closing(self._registry):
            found = self._find(tell)
            there = self._there(found)
            layers = {layer.digest: layer for layer in found.manifest.layers[there:]}
            files = [
                File(path=f"layer {number} of {self._reference.name}", size=layer.size, digest=layer.digest)
                for number, layer in enumerate(layers.values(), there + 1)
            ]
            fetched = self._fetch(files, tell)
        here = time.monotonic()
        paths = {file.digest: self._blob(file.digest) for file in files}
        called = name(found.digest)
        self._load(called, found, paths, tell)
        self._assert_is(called, found)
        for path in paths.values():
            path.unlink(missing_ok=True)
        return Pulled(
            digest=found.digest,
            bytes_total=sum(layer.size for layer in found.manifest.layers),
            bytes_fetched=fetched,
            seconds=here - began,
            unpack_s=time.monotonic() - here,
        )

    def _ask(self, question: Callable[[], Document], tell: Tell) -> Document:
        def told(moved: Moved) -> None:
            tell(Progress(phase="asking", words=moved.note))

        tell(Progress(phase="asking"))
        document: Document = patiently(question, Meter("asking"), told, self._brief)
        return document

    def _find(self, tell: Tell) -> Found:
        """The manifest for this box, verified up to the digest that was asked for."""
        reference, architecture = self._reference, self._docker.settings.architecture
        document = first = self._ask(partial(self._registry.document, reference.digest), tell)
        chosen = manifest.for_platform(document, architecture, reference)
        if chosen is not None:
            document = self._ask(partial(self._registry.document, chosen.digest), tell)
        read = manifest.read(document, reference)
        raw = patiently(partial(self._registry.blob, read.config.digest), Meter("asking"), lambda _: None, self._brief)
        config: Config = manifest.decode(raw, Config, reference)
        manifest.assert_runs(config, architecture, reference)
        return Found(first.digest, document, raw, read, config.rootfs.diff_ids)

    def _there(self, found: Found) -> int:
        """How many layers, from the lowest up, Docker has of other images: the classic store needs no more of them."""
        if self._docker.settings.containerd or len(found.diff_ids) != len(found.manifest.layers):
            return 0
        return max((_common(found.diff_ids, layers) for layers in self._docker.all_layers()), default=0)

    @property
    def _blobs(self) -> Path:
        return Path(self._terms.staging) / "blobs"

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest.replace(":", "-")

    def _fetch(self, files: Sequence[File], tell: Tell) -> int:
        """Have the layers in the staging folder; returns how many bytes came."""
        total = sum(file.size for file in files)
        missing = [file for file in files if not self._blob(file.digest).exists()]
        self._assert_room(total, sum(file.size - self._part(file) for file in missing))
        try:
            self._blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise of_disk(error, self._blobs) from None
        meter = Meter("fetching", total=total, files=len(files))
        meter.have(total - sum(file.size for file in missing))

        def one(file: File, stop: threading.Event) -> str:
            return fetch(file, self._blob(file.digest), self._registry, meter, self._terms.patience, stop)

        at_once(
            [partial(one, file) for file in missing], self._terms.workers, meter, lambda moved: tell(_pulling(moved))
        )
        return meter.moved

    def _part(self, file: File) -> int:
        with suppress(OSError):
            return self._blob(f"{file.digest}.part").stat().st_size
        return 0

    def _assert_room(self, total: int, missing: int) -> None:
        """Before the first byte: room for what is still to come, and for what Docker makes of all of it.

        The classic store writes the archive to its own disk before it unpacks it, containerd's keeps the layers.
        """
        unpacked = round(total * (1 + _UNPACKED))
        needs: dict[Path, int] = {}
        for folder, count in ((Path(self._terms.staging), missing), (Path(self._docker.settings.root), unpacked)):
            where = disk.of(folder)
            needs[where] = needs.get(where, 0) + count
        for where, count in needs.items():
            free = shutil.disk_usage(where).free
            if count and count + self._terms.reserve_bytes > free:
                raise DownloadError(
                    f"{self._reference.words} needs {gigabytes(count)} GB below {where} (fetched {gigabytes(missing)} "
                    f"GB, unpacked about {gigabytes(round(total * _UNPACKED))} GB) and "
                    f"{gigabytes(self._terms.reserve_bytes)} GB are to stay free, but only {gigabytes(free)} GB are "
                    "free: make room (images.yml -e do=prune); nothing was fetched"
                )

    def _load(self, name: str, found: Found, paths: dict[str, Path], tell: Tell) -> None:
        total = sum(path.stat().st_size for path in paths.values())
        meter = Meter("fetching", total=total)

        def moved(count: int) -> None:
            meter.move(count)
            said = meter.progress()
            tell(Progress(phase="loading", bytes_done=said.bytes_done, bytes_total=total))

        layers: dict[str, None] = {}

        def unpacked(layer: str, done: int, size: int) -> None:
            layers.setdefault(layer)
            words = f"{100 * done // size} % of it"
            tell(Progress(phase="extracting", step=len(layers), steps=max(len(layers), len(paths)), words=words))

        stream = archive.stream(name, found.document, found.config, found.manifest, paths, moved)
        try:
            self._docker.load(stream, unpacked)
        except HearthError as error:
            raise _not_taken(self._reference.words, error, self._docker.settings.root) from None

    def _assert_is(self, name: str, found: Found) -> None:
        """What Docker has now is what was verified: its id is the configuration's digest, or else the manifest's."""
        image = self._docker.image(name)
        if image is None or image.id not in (found.manifest.config.digest, found.document.digest):
            raise ImageError(
                f"Docker took {self._reference.words} in and has something else under {name} now: see journalctl -u "
                "docker, and ask again"
            )


def _common(wanted: Sequence[str], have: Sequence[str]) -> int:
    """How many layers two images share, from the lowest up."""
    count = 0
    for one, other in zip(wanted, have, strict=False):
        if one != other:
            break
        count += 1
    return count


def _pulling(moved: Moved) -> Progress:
    words = [f"{moved.rate / 1e6:.0f} MB/s"] if moved.rate > 0 else []
    words += [f"{span(moved.eta_s)} to go"] if moved.eta_s >= 0 else []
    words += [f"({moved.note})"] if moved.note else []
    return Progress(phase="pulling", bytes_done=moved.bytes_done, bytes_total=moved.bytes_total, words=", ".join(words))


def _not_taken(what: str, error: HearthError, root: str) -> ImageError:
    """Why Docker did not load an archive."""
    if "no space left" in str(error):
        return ImageError(
            f"the disk below {root} became full while Docker unpacked {what}: make room there (images.yml -e "
            "do=prune), then ask again; what came is kept"
        )
    return ImageError(
        f"Docker did not take {what} in ({error}): see journalctl -u docker, then ask again; what came is kept"
    )
