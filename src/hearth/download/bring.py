# SPDX-License-Identifier: Apache-2.0
"""One model being brought: planned, fetched, verified, put in place; by the one who holds its lock."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hearth import memory
from hearth.download import digest, manifest, place, plan
from hearth.download.check import check_file
from hearth.download.errors import CancelledError, no_room
from hearth.download.fetch import at_once, fetch, patiently
from hearth.download.look import Carried, blob_name, look
from hearth.download.manifest import Kept, Manifest
from hearth.download.meter import Meter, Progress, Tell
from hearth.download.place import Staging
from hearth.download.plan import File
from hearth.download.request import Request, Result
from hearth.download.sources import Sources, local_files


class Bringing:
    """One model being brought, with its lock held."""

    def __init__(
        self,
        request: Request,
        tell: Tell,
        sources: Sources,
        staging: Staging,
        known: Manifest | None,
        distrusted: frozenset[str],
        commit: str,
    ) -> None:
        self.request = request
        self.tell = tell
        self.sources = sources
        self.staging = staging
        self.folder = staging.folder
        self.known = known
        self.distrusted = distrusted
        self.commit = commit
        # Digests of what is in staging, by path.
        self.got: dict[str, str] = {}
        self.moved = 0
        self.fetching_s = 0.0

    def bring(self, begun: float) -> Result:
        self.tell(Progress(phase="asking"))
        listed, wanted = plan_files(self.request, self.sources, self.tell, self.commit)
        carried = self._carried(wanted)
        wanted = self._with_shards(listed, wanted, carried)
        carried.update(self._carried([file for file in wanted if file.path not in carried]))
        missing = [file for file in wanted if file.path not in carried and file.path not in self.got]
        self._fetch(missing)
        self.tell(Progress(phase="placing"))
        freed = self._place(wanted, carried)
        fetched = tuple(sorted(self.got))
        total = sum(kept.size for kept in self._made.files.values())
        return Result(
            changed=True,
            commit=self.sources.commit,
            files=len(wanted),
            bytes_total=total,
            bytes_fetched=self.moved,
            seconds=round(time.monotonic() - begun, 3),
            rate=self.moved / self.fetching_s if self.fetching_s else 0.0,
            freed=freed,
            fetched=fetched,
        )

    def _carried(self, wanted: Sequence[File]) -> dict[str, Carried]:
        """What of it is in the folder already, and right."""
        seen = look(self.folder, [file for file in wanted if file.path not in self.distrusted], self.known, sure=True)
        meter = Meter("checking", sum(file.size for file in seen.unsure.values()), len(seen.unsure))
        tasks = [functools.partial(check_file, self.folder, file, meter) for file in seen.unsure.values()]
        for file, right in zip(
            seen.unsure.values(), at_once(tasks, self.request.workers, meter, self.tell), strict=True
        ):
            if right:
                seen.carried[file.path] = Carried(source=self.folder / file.path, digest=file.digest)
        return seen.carried

    def _with_shards(self, listed: Sequence[File], wanted: list[File], carried: dict[str, Carried]) -> list[File]:
        """What an index names belongs to the model: it is fetched first, and read."""
        indexes = [file for file in wanted if file.is_index]
        self._fetch([file for file in indexes if file.path not in carried])
        content = {
            file.path: (
                carried[file.path].source if file.path in carried else self.staging.blobs / blob_name(file)
            ).read_bytes()
            for file in indexes
        }
        return plan.add_shards(wanted, listed, content, self.request.exclude)

    def _fetch(self, files: Sequence[File]) -> None:
        assert_room(files, self.staging, self.request)
        meter = Meter("fetching", sum(max(0, file.size) for file in files), len(files))
        # The same content is fetched once; large files first, so that no worker ends with the longest one.
        first: dict[str, File] = {}
        for file in sorted(files, key=lambda one: -one.size):
            first.setdefault(blob_name(file), file)
        tasks = [functools.partial(self._get, file, meter) for file in first.values()]
        begun = time.monotonic()
        found = dict(zip(first, at_once(tasks, self.request.workers, meter, self.tell), strict=True))
        if files:
            self.fetching_s += time.monotonic() - begun
        self.moved += meter.moved
        for file in files:
            self.got[file.path] = found[blob_name(file)]

    def _get(self, file: File, meter: Meter, stop: threading.Event) -> str:
        if stop.is_set():
            raise CancelledError
        blob = self.staging.blobs / blob_name(file)
        there = _verified(file, blob)
        if there:
            meter.have(file.size)
            meter.file_done()
            return there
        return fetch(file, blob, self.sources, meter, self.request.patience, stop)

    def _place(self, wanted: Sequence[File], carried: dict[str, Carried]) -> int:
        where = {
            file.path: carried[file.path].source if file.path in carried else self.staging.blobs / blob_name(file)
            for file in wanted
        }
        kept = {}
        for file in wanted:
            status = where[file.path].stat()
            known = carried[file.path].digest if file.path in carried else self.got[file.path]
            kept[file.path] = Kept(size=status.st_size, digest=known, mtime_ns=status.st_mtime_ns, origin=file.origin)
        self._made = manifest.make(self.request, self.sources.commit, kept)
        if all(source == self.folder / path for path, source in where.items()):
            freed = self._place_in_folder()
        else:
            self.staging.build(where, self.request)
            freed = self.staging.swap(self._made, self.request)
        self.staging.empty()
        memory.drop_page_cache(self.folder / path for path in self.got)
        return freed

    def _place_in_folder(self) -> int:
        """All is there already: only the manifest is new, and what the old one had more goes."""
        for path in self._made.files:
            if not (self.folder / path).is_symlink():
                place.own(self.folder / path, self.request, 0o644)
        manifest.write(self.folder, self._made)
        place.own(self.folder / plan.MANIFEST, self.request, 0o644)
        gone = set(self.known.files if self.known else ()) - set(self._made.files)
        return place.drop_files(self.folder, iter(gone))


def plan_files(request: Request, sources: Sources, tell: Tell, commit: str = "") -> tuple[list[File], list[File]]:
    """All files of the source, and those the model needs, as far as their names tell."""
    listed: list[File] = []
    wanted: list[File] = []
    if request.source:
        listed = local_files(request.source)
    elif request.repo:
        ask: Callable[[], object] = functools.partial(sources.hub.files, commit)
        sources.commit, listed = patiently(ask, Meter("asking"), tell, request.patience)
    if listed or not request.extra_files:
        wanted = plan.choose(listed, request.include, request.exclude)
    wanted += plan.extras(request.extra_files)
    plan.assert_fits_a_folder(wanted)
    return listed, wanted


def _verified(file: File, blob: Path) -> str:
    """The digest of a blob that an earlier run verified; empty where there is none."""
    try:
        size = blob.stat().st_size
        # A large one was on the disk before it got its name; a small one may not have survived a power cut.
        if file.digest and size == file.size and size > digest.BLOCK:
            return file.digest
        found = digest.of_file(blob, digest.kind_of(file.digest))
    except OSError:
        return ""
    return found if found == file.digest or not file.digest else ""


def still_missing(file: File, staging: Staging) -> int:
    """Bytes of a file that have to come."""
    blob = staging.blobs / blob_name(file)
    for path in (blob, blob.with_name(blob.name + ".part")):
        try:
            return max(0, file.size - path.stat().st_size)
        except OSError:
            continue
    return max(0, file.size)


def assert_room(files: Sequence[File], staging: Staging, request: Request) -> None:
    """Raises DownloadError where the disk has no room for what is still missing, and the reserve."""
    missing = sum(still_missing(file, staging) for file in files)
    there = next(path for path in (staging.path, *staging.path.parents) if path.exists())
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    if missing and missing + request.reserve_bytes > free:
        raise no_room(staging.folder.parent, missing, request.reserve_bytes, free)
