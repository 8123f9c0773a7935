# SPDX-License-Identifier: Apache-2.0
"""A set of files and folders, brought to what it should be in one go. Standard library only.

PRIVATE to the collection. Each entry is compared first; what differs is written beside its place, synced, and moved
in, so that a reader or a crash sees the old content or the new one, never half of it.
"""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HIDDEN = "(not shown: secret)\n"


class FileSetError(Exception):
    """One sentence: what could not be done, where, and why."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file or folder as it should be. ``generate`` makes the content, once, where the file is missing."""

    path: Path
    state: str
    content: str
    generate: str
    mode: int
    owner: str
    group: str
    adopt: bool
    secret: bool


@dataclass(frozen=True, kw_only=True)
class Purge:
    """Files directly in ``folder`` that match ``pattern`` and are no entry are removed."""

    folder: Path
    pattern: str


@dataclass
class Result:
    """The paths that changed (or would), and a diff a path."""

    changed: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    def add(self, path: Path, before: str, after: str) -> None:
        self.changed.append(str(path))
        self.diff.append({"before_header": str(path), "after_header": str(path), "before": before, "after": after})

    def add_folder(self, path: Path, attributes: str) -> None:
        """New folders share one diff: a line each says all there is to say."""
        self.changed.append(str(path))
        if not self.diff or self.diff[0]["after_header"] != "folders":
            self.diff.insert(0, {"before_header": "folders", "after_header": "folders", "before": "", "after": ""})
        self.diff[0]["after"] += f"{path} ({attributes})\n"


def apply(entries: list[Entry], purges: list[Purge], check: bool) -> Result:
    """Bring the set to what it should be; with ``check`` only say what would change. Raises FileSetError."""
    result = Result()
    # Folders before what is in them.
    for entry in sorted(entries, key=lambda one: (one.state != "directory", len(one.path.parts))):
        try:
            if entry.state == "absent":
                _remove(entry.path, result, check, entry.secret)
            elif entry.state == "directory":
                _directory(entry, result, check)
            else:
                _file(entry, result, check)
        except OSError as error:
            raise FileSetError(f"{entry.path}: {error.strerror}") from error
    kept = {entry.path for entry in entries if entry.state != "absent"}
    for purge in purges:
        if not purge.folder.is_dir():
            continue
        for path in sorted(purge.folder.iterdir()):
            if fnmatch.fnmatch(path.name, purge.pattern) and path not in kept and not path.is_dir():
                _remove(path, result, check, secret=False)
    return result


def _ids(entry: Entry, lenient: bool) -> tuple[int, int]:
    """Numeric owner and group. Where ``lenient``, -1 for one that does not exist: a dry run may precede its making."""
    try:
        uid = pwd.getpwnam(entry.owner).pw_uid if entry.owner else os.geteuid()
        gid = pwd.getpwnam(entry.owner).pw_gid if entry.owner and not entry.group else os.getegid()
    except KeyError:
        if lenient:
            return -1, -1
        raise FileSetError(f"{entry.path}: there is no user {entry.owner} on this box: create it first") from None
    if entry.group:
        try:
            gid = grp.getgrnam(entry.group).gr_gid
        except KeyError:
            if lenient:
                return uid, -1
            raise FileSetError(f"{entry.path}: there is no group {entry.group} on this box: create it first") from None
    return uid, gid


@contextmanager
def _acting_as(uid: int, gid: int) -> Iterator[None]:
    """Make folders as their owner would: root must not be led astray by a link in a user's tree."""
    before = os.geteuid(), os.getegid()
    if before[0] != 0 or uid <= 0:
        yield
        return
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


def _directory(entry: Entry, result: Result, check: bool) -> None:
    uid, gid = _ids(entry, lenient=check)
    wanted = _attributes(entry.mode, uid, gid)
    if not os.path.lexists(entry.path):
        result.add_folder(entry.path, wanted)
        if not check:
            _make_folder(entry, uid, gid)
        return
    if not entry.path.is_dir():
        raise FileSetError(f"{entry.path}: is in the way, a folder should be there: move it and run this again")
    if entry.path.is_symlink():
        # The user's own arrangement, such as a link to a bigger disk.
        return
    current = entry.path.lstat()
    # An adopted folder keeps the mode and group that its owner gave it.
    mode = stat.S_IMODE(current.st_mode) if entry.adopt else entry.mode
    group = current.st_gid if entry.adopt and current.st_uid == uid else gid
    _set_attributes(entry.path, current, mode, uid, group, result, check)


def _make_folder(entry: Entry, uid: int, gid: int) -> None:
    """Make a folder with its final mode from the first moment on: a later run takes it for the owner's wish."""
    base = next(parent for parent in entry.path.parents if parent.exists())
    # Below a folder of the system, such as /srv, its owner may make nothing; and there is no link of his on the way.
    by_owner = entry.adopt and (base.stat().st_uid != 0 or base.resolve() != base)
    with _acting_as(uid, gid) if by_owner else nullcontext():
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        before = os.umask(0)
        try:
            entry.path.mkdir(mode=entry.mode)
        finally:
            os.umask(before)
    if not by_owner:
        os.chown(entry.path, uid, gid)


def _file(entry: Entry, result: Result, check: bool) -> None:
    uid, gid = _ids(entry, lenient=check)
    try:
        current = entry.path.lstat()
    except FileNotFoundError:
        current = None
    if current is not None and stat.S_ISDIR(current.st_mode):
        raise FileSetError(f"{entry.path}: is a folder, a file should be there: move it and run this again")
    regular = current is not None and stat.S_ISREG(current.st_mode)
    have = entry.path.read_bytes() if regular else b""
    if entry.generate:
        wanted = have if regular else entry.generate.replace("{token}", secrets.token_urlsafe(32)).encode()
    else:
        wanted = entry.content.encode()
    if regular and have == wanted:
        if current is not None:
            _set_attributes(entry.path, current, entry.mode, uid, gid, result, check)
        return
    shown = (HIDDEN if regular else "", HIDDEN) if entry.secret else (_shown(have), _shown(wanted))
    result.add(entry.path, *shown)
    if not check:
        write(entry.path, wanted, entry.mode, uid, gid)


def _shown(content: bytes) -> str:
    """Text for a diff."""
    return content.decode(errors="replace")


def write(path: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            handle.write(content)
            handle.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove(path: Path, result: Result, check: bool, secret: bool) -> None:
    if not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():
        raise FileSetError(
            f"{path}: is a folder, and only files are removed: look at what is in it, and remove it yourself"
        )
    before = HIDDEN if secret else _shown(path.read_bytes()) if path.is_file() else "present\n"
    result.add(path, before, "")
    if not check:
        path.unlink()


def _attributes(mode: int, uid: int, gid: int) -> str:
    return f"mode {mode:04o}, owner {uid}:{gid}"


def _set_attributes(
    path: Path, current: os.stat_result, mode: int, uid: int, gid: int, result: Result, check: bool
) -> None:
    have = _attributes(stat.S_IMODE(current.st_mode), current.st_uid, current.st_gid)
    want = _attributes(mode, uid, gid)
    if have == want:
        return
    result.add(path, have + "\n", want + "\n")
    if not check:
        os.chown(path, uid, gid, follow_symlinks=False)
        path.chmod(mode)


def entry_from(arguments: dict[str, Any]) -> Entry:
    """An Entry from one element of the module's ``entries``. Raises FileSetError for a bad mode or path."""
    path = Path(arguments["path"])
    if not path.is_absolute():
        raise FileSetError(f"{path}: a path of a set must be absolute")
    default = "0755" if arguments["state"] == "directory" else "0644"
    mode = str(arguments["mode"] or default)
    # Unquoted, YAML makes the number 420 of 0644: what does not look octal was not meant so.
    if not re.fullmatch(r"0[0-7]{3,4}", mode):
        raise FileSetError(f"{path}: its mode must be octal and quoted, like '0644', is {mode!r}")
    return Entry(
        path=path,
        state=arguments["state"],
        content=arguments["content"] or "",
        generate=arguments["generate"] or "",
        mode=int(mode, 8),
        owner=arguments["owner"] or "",
        group=arguments["group"] or "",
        adopt=arguments["adopt"],
        secret=arguments["secret"],
    )
