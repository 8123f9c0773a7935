# SPDX-License-Identifier: Apache-2.0
"""The archive of a box: what cannot be downloaded again. Standard library only; the controller uses it too.

PRIVATE to the collection. A tar of ``files/<path>`` members and, last, ``manifest.json`` with their checksums and
owners. Nothing of an archive is believed before all was read: it may be damaged, cut off, or made by somebody else.
"""

from __future__ import annotations

import grp
import gzip
import hashlib
import io
import json
import os
import posixpath
import pwd
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

FORMAT = 1
# What is backed up of every box: keys and settings, and what was learned.
STANDARD = ("/etc/hearth", "/var/lib/hearth/measured.json", "/var/lib/hearth/images.json")
_FILES, _MANIFEST = "files", "manifest.json"
_PIECE = 1 << 20
# A manifest of a million files has less.
_LONGEST_MANIFEST = 1 << 28


class BackupError(Exception):
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """One file. ``owner`` and ``group`` are names, since numbers differ between boxes; ``mode`` is octal."""

    path: str
    mode: str
    owner: str
    group: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``hearth`` is the version that made it, ``boot`` the units of engines that started at boot."""

    format: int
    hearth: str
    host: str
    made: str
    boot: list[str]
    files: list[Saved]


def collect(extra: Sequence[str], root: Path = Path("/")) -> tuple[list[str], list[str]]:
    """The paths of all files to be saved, and sentences on what is left out. Raises BackupError."""
    found: dict[str, None] = {}
    told: list[str] = []
    for name in (*STANDARD, *extra):
        if not name.startswith("/") or posixpath.normpath(name) != name:
            raise BackupError(f"{name}: must be an absolute path, without .. and a / at its end")
        start = root / name.lstrip("/")
        if not start.exists() and name in extra:
            raise BackupError(f"{name} is not on this box: take it out of what is to be saved")
        for path in _walk(start):
            shown = "/" + str(path.relative_to(root))
            if path.is_symlink() or not path.is_file():
                told.append(f"{shown} is no plain file and is left out")
            elif not _is_lock(path):
                found[shown] = None
    return list(found), told


def _walk(start: Path) -> Iterator[Path]:
    if start.is_dir() and not start.is_symlink():
        for child in sorted(start.iterdir()):
            yield from _walk(child)
    elif os.path.lexists(start):
        yield start


def _is_lock(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".lock")


def write(dest: Path, paths: Sequence[str], head: dict[str, Any], root: Path = Path("/")) -> Manifest:
    """Write the archive, readable for its owner alone, who is the folder's. Raises BackupError."""
    saved: list[Saved] = []
    descriptor = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as handle, tarfile.open(fileobj=handle, mode="w:gz") as archive:
        for path in paths:
            try:
                saved.append(_add(archive, path, root))
            except OSError as error:
                raise BackupError(
                    f"{path} cannot be read ({error.strerror}), or changed meanwhile: try again"
                ) from None
        manifest = Manifest(format=FORMAT, files=saved, **head)
        text = json.dumps(asdict(manifest), indent=1).encode()
        member = tarfile.TarInfo(_MANIFEST)
        member.size, member.mode = len(text), 0o600
        archive.addfile(member, io.BytesIO(text))
    above = dest.parent.stat()
    os.chown(dest, above.st_uid, above.st_gid)
    return manifest


def _add(archive: tarfile.TarFile, path: str, root: Path) -> Saved:
    with (root / path.lstrip("/")).open("rb") as source:
        seen = os.fstat(source.fileno())
        member = tarfile.TarInfo(_FILES + path)
        member.size, member.mode, member.mtime = seen.st_size, stat.S_IMODE(seen.st_mode), int(seen.st_mtime)
        hashing = _Hashing(source)
        # Raises OSError where the file has become shorter.
        archive.addfile(member, hashing)
    return Saved(
        path=path,
        mode=f"{stat.S_IMODE(seen.st_mode):04o}",
        owner=pwd.getpwuid(seen.st_uid).pw_name,
        group=grp.getgrgid(seen.st_gid).gr_name,
        size=seen.st_size,
        sha256=hashing.digest.hexdigest(),
    )


class _Hashing(io.RawIOBase):
    """Reads, and keeps the SHA-256 of what was read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(size)
        self.digest.update(piece)
        return piece


def look(archive: Path, extra: Sequence[str]) -> Manifest:
    """Read all of an archive, and say what is in it. Raises BackupError unless all its files are whole."""
    sums: dict[str, tuple[int, str]] = {}
    manifest, wrong = b"", ""
    try:
        with gzip.open(archive) as unpacked:
            members = tarfile.open(fileobj=unpacked, mode="r|")  # noqa: SIM115 - what it reads is closed here
            for member in members:
                source = members.extractfile(member) if member.isreg() else None
                if source is None:
                    wrong = wrong or f"{member.name} in it is no plain file"
                elif member.name == _MANIFEST and not manifest:
                    manifest = source.read(_LONGEST_MANIFEST)
                elif member.name in sums or not _is_plain(member.name):
                    wrong = wrong or f"{member.name} in it leads elsewhere, or is there twice"
                else:
                    sums[member.name] = _sum(source)
            # Behind the last of them is gzip's own checksum, of the manifest too.
            while unpacked.read(_PIECE):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupError(f"{archive} is no backup of Hearth's, or it is damaged ({error})") from None
    except OSError as error:
        raise BackupError(f"{archive} cannot be read ({error.strerror or error})") from None
    found = _manifest(archive, manifest)
    if wrong:
        raise BackupError(f"{archive} is no backup that may be restored: {wrong}")
    if sums != {_FILES + one.path: (one.size, one.sha256) for one in found.files} or len(sums) != len(found.files):
        raise BackupError(f"{archive} is damaged: what is in it is not what its manifest says")
    strange = [one.path for one in found.files if not _is_ours(one.path, extra)]
    if strange:
        raise BackupError(
            f"{archive} has {strange[0]}, which is none of what Hearth saves: name it in backup_extra where it is yours"
        )
    return found


def _sum(source: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _is_plain(name: str) -> bool:
    """Whether it leads where it says: no way up, no detour."""
    return name.startswith(f"{_FILES}/") and posixpath.normpath(name) == name


def _is_ours(path: str, extra: Iterable[str]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in (*STANDARD, *extra))


def _manifest(archive: Path, text: bytes) -> Manifest:
    try:
        said = json.loads(text)
        if said["format"] > FORMAT:
            raise BackupError(
                f"{archive} was made by a newer Hearth ({said['hearth']}, format {said['format']}; this one knows "
                f"{FORMAT}): update Hearth first"
            )
        listed: list[dict[str, Any]] = said.pop("files")
        if not all(isinstance(one["path"], str) and int(one["mode"], 8) <= 0o7777 for one in listed):
            raise TypeError
        files = [Saved(**one) for one in listed]
        manifest = Manifest(files=files, **said)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BackupError(f"{archive} is no backup of Hearth's: it has no manifest that could be read") from None
    return manifest


def contents(archive: Path, wanted: Iterable[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of these paths, of an archive that was looked at."""
    names = {_FILES + path: path for path in wanted}
    with tarfile.open(archive, mode="r:gz") as members:
        for member in members:
            source = members.extractfile(member) if member.name in names else None
            if source is not None:
                yield names[member.name], source
