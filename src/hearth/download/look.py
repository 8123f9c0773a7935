# SPDX-License-Identifier: Apache-2.0
"""What of a model is in its folder already."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hearth.download.manifest import Kept, Manifest, is_unchanged
from hearth.download.plan import File


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is there and right."""

    source: Path
    digest: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """By path: what is right by the manifest, and what has the right size but has to be hashed."""

    carried: dict[str, Carried]
    unsure: dict[str, File]


def look(folder: Path, wanted: Sequence[File], known: Manifest | None, *, sure: bool) -> Seen:
    """Look for every file of ``wanted``; reads no content. With ``sure``, also under other names of the manifest."""
    seen = Seen(carried={}, unsure={})
    files: dict[str, Kept] = known.files if known else {}
    elsewhere = {kept.digest: path for path, kept in files.items()} if sure else {}
    for file in wanted:
        kept = files.get(file.path)
        if kept is not None and _is_same(file, kept) and is_unchanged(folder, file.path, kept):
            seen.carried[file.path] = Carried(source=folder / file.path, digest=kept.digest)
        elif file.digest and _has_size(folder / file.path, file.size):
            seen.unsure[file.path] = file
        elif (other := elsewhere.get(file.digest)) and is_unchanged(folder, other, files[other]):
            seen.carried[file.path] = Carried(source=folder / other, digest=file.digest)
    return seen


def blob_name(file: File) -> str:
    """The name of a file in staging: that of its content, as far as it is known."""
    if file.digest:
        return file.digest.replace(":", "-")
    return "url-" + hashlib.sha256(f"{file.url} {file.origin}".encode()).hexdigest()


def _is_same(file: File, kept: Kept) -> bool:
    return file.digest == kept.digest if file.digest else bool(file.origin) and file.origin == kept.origin


def _has_size(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and size in (-1, status.st_size)
