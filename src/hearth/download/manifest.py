# SPDX-License-Identifier: Apache-2.0
"""What is in a model's folder: ``.hearth.json`` beside the files. It never holds a token."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from hearth import state
from hearth.download.plan import MANIFEST, safe
from hearth.download.request import ExtraFile, Request, Result
from hearth.errors import HearthError

SCHEMA = 1


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request decides which files there are. Whether a mirror or the hub gave them does not."""

    repo: str
    revision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    extra_files: tuple[ExtraFile, ...]
    source: str
    ollama: str = ""

    @classmethod
    def of(cls, request: Request) -> Asked:
        return cls(
            repo=request.repo,
            revision=request.revision,
            include=request.include,
            exclude=request.exclude,
            extra_files=request.extra_files,
            source=request.source,
            ollama=request.ollama,
        )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One file: bytes, its verified digest, and the time of its last change, by which a later one is noticed."""

    size: int
    digest: str
    mtime_ns: int
    origin: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that Hearth brought into a folder. ``at`` is when (ISO 8601, UTC), ``endpoint`` where from."""

    schema: int
    asked: Asked
    endpoint: str
    commit: str
    at: str
    files: dict[str, Kept]

    @property
    def bytes_total(self) -> int:
        return sum(kept.size for kept in self.files.values())


def make(request: Request, commit: str, files: dict[str, Kept]) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        asked=Asked.of(request),
        endpoint=request.endpoint if request.repo else "",
        commit=commit,
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        files=dict(sorted(files.items())),
    )


def read(folder: Path) -> Manifest | None:
    """The folder's manifest; none where there is none that can be read: then all is looked at anew."""
    return read_file(folder / MANIFEST)


def read_file(path: Path) -> Manifest | None:
    """The manifest in a file; none where it cannot be read."""
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        for name in manifest.files:
            # Its owner may write it, and root removes what it names.
            safe(name)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, HearthError):
        return None
    return manifest if manifest.schema == SCHEMA else None


def write(folder: Path, manifest: Manifest) -> None:
    """Raises OSError."""
    write_file(folder / MANIFEST, manifest)


def write_file(path: Path, manifest: Manifest) -> None:
    """Raises OSError."""
    state.replace(path, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def is_unchanged(folder: Path, path: str, kept: Kept) -> bool:
    """Whether size and time of the file are those of the manifest; through links, which a user's copy may have."""
    try:
        status = (folder / path).stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (kept.size, kept.mtime_ns)


def is_intact(folder: Path, manifest: Manifest) -> bool:
    """Whether every file is there as it was verified; reads no content."""
    return all(is_unchanged(folder, path, kept) for path, kept in manifest.files.items())


def size_of(path: Path) -> int:
    """Bytes that the files below ``path`` hold of the disk; a file with two names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                status = Path(folder, name).lstat()
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def unchanged(known: Manifest, begun: float) -> Result:
    """What is said of a model that is there whole, looked at since ``begun`` (time.monotonic())."""
    return Result(
        changed=False,
        commit=known.commit,
        files=len(known.files),
        bytes_total=known.bytes_total,
        seconds=round(time.monotonic() - begun, 3),
    )
