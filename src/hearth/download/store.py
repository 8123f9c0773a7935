# SPDX-License-Identifier: Apache-2.0
"""Ollama's store on the disk, which all its engines share: what Hearth brought into it, and what lies about in it.

What Hearth brought is on record in ``.hearth/`` of the store, a manifest for each tag. Of the store's own layout only
this is relied on: a blob is ``blobs/sha256-<hex>``, one on its way has ``-partial`` behind that (server/download.go of
Ollama), and a name is a file ``<host>/<namespace>/<model>/<tag>`` below ``manifests`` or, in newer ones,
``manifests-v2``, which calls Ollama's own registry by another name (manifest/paths.go). Where that should change, a
model is asked for again, which Ollama answers at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from hearth.download import manifest, place
from hearth.download.errors import DownloadError
from hearth.download.manifest import Kept, Manifest
from hearth.download.meter import Progress, Tell
from hearth.download.request import Request
from hearth.errors import BusyError
from hearth.tags import REGISTRY, full_name

RECORDS = ".hearth"
_ROOTS = ("manifests", "manifests-v2")
_HOSTS = {"ollama.com": REGISTRY}
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
_DIGEST = re.compile(rb"sha256[:-]([0-9a-f]{64})")
# A larger one is no list of others.
_LIST_MAX = 1 << 20
# A blob that nothing names may belong to a pull under way, which somebody began by hand.
_SETTLED_S = 3600.0
_LOCK_INTERVAL_S = 0.1
_TELL_EVERY_S = 1.0


class Store:
    """The store in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs"

    def record(self, tag: str) -> Manifest | None:
        """What Hearth brought as ``tag``; none where it did not."""
        return manifest.read_file(self._record_path(tag))

    def records(self) -> list[Manifest]:
        """All that Hearth brought, by tag."""
        found = [manifest.read_file(path) for path in sorted((self.path / RECORDS).glob("*.json"))]
        return [one for one in found if one is not None and one.asked.ollama]

    def has(self, tag: str) -> bool:
        """Whether Hearth brought it, and all of it is there; reads no content."""
        known = self.record(tag)
        return known is not None and bool(known.files) and manifest.is_intact(self.path, known) and self.knows(tag)

    def knows(self, tag: str) -> bool:
        """Whether Ollama has a model of that name, whoever brought it."""
        return full_name(tag) in self.names()

    def may_have(self, tag: str) -> bool:
        """False where it is clear that an Ollama on this store does not have it. Raises OSError.

        Where nothing of the store looks as it is known to, what Hearth brought counts.
        """
        if any(one.name in _ROOTS for one in self.path.iterdir()):
            return self.knows(tag)
        known = self.record(tag)
        return known is not None and manifest.is_intact(self.path, known)

    def names(self) -> set[str]:
        """All names in the store."""
        found = set()
        for root in _ROOTS:
            for path in (self.path / root).glob("*/*/*/*"):
                # One may be a link to a blob that is gone.
                if path.is_file():
                    host, *rest = path.relative_to(self.path / root).parts
                    found.add(full_name(f"{'/'.join((_HOSTS.get(host, host), *rest[:-1]))}:{rest[-1]}"))
        return found

    def make(self, request: Request) -> None:
        """Have the folder, its owner's. Raises OSError."""
        place.make_parents(self.path, request)
        self.path.mkdir(mode=0o755, exist_ok=True)
        place.own(self.path, request, 0o755)

    def write_record(self, request: Request, digest: str, layers: dict[str, int]) -> Manifest:
        """Record what was brought: ``layers`` are the blobs' sizes, by digest (sha256:…). Raises OSError."""
        kept = {}
        for layer, size in layers.items():
            path = f"blobs/{layer.replace(':', '-')}"
            with suppress(OSError):
                status = (self.path / path).stat()
                if _BLOB.fullmatch(Path(path).name) and status.st_size == size:
                    kept[path] = Kept(size=size, digest=layer, mtime_ns=status.st_mtime_ns)
        # What is not to be found is looked for again by the next call.
        made = manifest.make(request, digest, kept if len(kept) == len(layers) else {})
        path_of_it = self._record_path(request.ollama)
        manifest.write_file(path_of_it, made)
        place.own(path_of_it.parent, request, 0o755)
        place.own(path_of_it, request, 0o644)
        return made

    def drop_record(self, tag: str) -> None:
        self._record_path(tag).unlink(missing_ok=True)
        with suppress(OSError):
            (self.path / RECORDS).rmdir()

    def size_of_others(self) -> int:
        """Bytes of whole blobs that no record names."""
        ours = {path for one in self.records() for path in one.files}
        return sum(_size(path) for path in self._whole() if f"blobs/{path.name}" not in ours)

    def size_of_partial(self) -> int:
        """Bytes that pulls which did not end hold of the disk: their files have the size that they were to get."""
        return sum(path.lstat().st_blocks * 512 for paths in self.partial().values() for path in paths)

    def own_size(self, known: Manifest) -> int:
        """Bytes of a model that no other model on record shares."""
        others = {path for one in self.records() if one.asked.ollama != known.asked.ollama for path in one.files}
        return sum(kept.size for path, kept in known.files.items() if path not in others)

    def partial(self) -> dict[str, list[Path]]:
        """The files of pulls that did not end, by the name of the blob that they were to become."""
        found: dict[str, list[Path]] = {}
        for path in self._entries():
            name, mark, _ = path.name.partition("-partial")
            if mark and _BLOB.fullmatch(name):
                found.setdefault(name, []).append(path)
        return found

    def unnamed(self, now: float | None = None) -> list[Path]:
        """Blobs that nothing in the store names any more, as after a tag moved; ``now`` is in seconds of the epoch."""
        before = (time.time() if now is None else now) - _SETTLED_S
        named: set[str] = set()
        # Whatever of the store is no blob may name some, however it is written, or be a link to one or a copy of it;
        # and a blob may be a list of others.
        seen = [path for path in self._besides() if path.is_file()]
        while seen:
            content = _small(seen.pop())
            for found in (*_DIGEST.findall(content), hashlib.sha256(content).hexdigest().encode()):
                name = f"sha256-{found.decode()}"
                if name not in named:
                    named.add(name)
                    seen.append(self.blobs / name)
        return [path for path in self._whole() if path.name not in named and path.stat().st_mtime < before]

    def useless(self) -> list[Path]:
        """All that can go."""
        return [path for paths in self.partial().values() for path in paths] + self.unnamed()

    @contextmanager
    def locked(self, timeout_s: float, tell: Tell) -> Iterator[bool]:
        """Be the only one of Hearth's who writes into the store; yields whether somebody else did before.

        Models share layers, and two Ollamas that write the same layer spoil each other's. The kernel gives the lock
        back when its holder dies. Raises BusyError after ``timeout_s`` seconds, DownloadError where there is no store.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DownloadError(f"Ollama's store {self.path} cannot be opened ({error.strerror})") from None
        try:
            waited = _lock(descriptor, self.path, timeout_s, tell)
            yield waited
        finally:
            os.close(descriptor)

    def in_use(self, paths: list[Path]) -> bool:
        """Whether a process has one of the files open, as somebody's own pull in an engine's container has."""
        wanted = set()
        for path in paths:
            with suppress(OSError):
                status = path.stat()
                wanted.add((status.st_dev, status.st_ino))
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                status = link.stat()
                if (status.st_dev, status.st_ino) in wanted:
                    return True
        return False

    def _record_path(self, tag: str) -> Path:
        return self.path / RECORDS / f"{quote(full_name(tag), safe='')}.json"

    def _entries(self) -> list[Path]:
        with suppress(OSError):
            return sorted(path for path in self.blobs.iterdir() if path.is_file() and not path.is_symlink())
        return []

    def _whole(self) -> list[Path]:
        return [path for path in self._entries() if _BLOB.fullmatch(path.name)]

    def _besides(self) -> Iterator[Path]:
        for above, folders, names in os.walk(self.path):
            if Path(above) == self.path:
                # What was on record and is no more must not keep its blobs.
                folders[:] = [name for name in folders if name not in ("blobs", RECORDS)]
            yield from (Path(above, name) for name in names)


def below(root: Path) -> list[Store]:
    """The stores below ``root``, the folder of all models."""
    with suppress(OSError):
        return [Store(path) for path in sorted(root.iterdir()) if is_store(path)]
    return []


def is_store(path: Path) -> bool:
    return (path / "blobs").is_dir() and any((path / name).is_dir() for name in (*_ROOTS, RECORDS))


def _lock(descriptor: int, path: Path, timeout_s: float, tell: Tell) -> bool:
    begun, told = time.monotonic(), 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if now - begun >= timeout_s:
                raise BusyError(f"another process brings a model into {path}: ask again when it is done") from None
            if now - told >= _TELL_EVERY_S:
                told = now
                tell(Progress(phase="waiting", note=f"one at a time writes into {path}"))
            time.sleep(_LOCK_INTERVAL_S)
        else:
            return told > 0


def _small(path: Path) -> bytes:
    with suppress(OSError):
        if path.stat().st_size <= _LIST_MAX:
            return path.read_bytes()
    return b""


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
