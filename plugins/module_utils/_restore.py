# SPDX-License-Identifier: Apache-2.0
"""Puts the files of an archive that was looked at back onto a box. Standard library only.

PRIVATE to the collection. First all are written beside their places, then all are moved in: whoever is killed before
that leaves the box as it was, and the next run does it all.
"""

from __future__ import annotations

import fcntl
import grp
import hashlib
import json
import os
import pwd
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ansible_collections.hearth.spark.plugins.module_utils import _backup

# site.yml makes these from the inventory.
DERIVED = ("/etc/hearth/engines.json", "/etc/hearth/gateway.json")
MEASURED, IMAGES = "/var/lib/hearth/measured.json", "/var/lib/hearth/images.json"
# Who runs with what is in it.
ENGINE_KEY = "/etc/hearth/secrets/engine.env"
# A change of engines, of images, or of keys is waited for.
_LOCKS = ("/run/hearth/switch.lock", "/run/hearth/images.lock", "/etc/hearth/.keys.json.lock")
_LOCK_S, _INTERVAL_S = 60.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file as it should be. ``text`` is its content where that is not the archive's own."""

    saved: _backup.Saved
    uid: int
    gid: int
    text: bytes | None = None


def plan(manifest: _backup.Manifest, archive: Path, root: Path = Path("/")) -> list[Place]:
    """The files that differ from what they should be. Raises BackupError."""
    wanted = {one.path: one for one in manifest.files if one.path not in DERIVED}
    learned = {path: source.read() for path, source in _backup.contents(archive, {MEASURED, IMAGES} & wanted.keys())}
    places = []
    for path, saved in wanted.items():
        text = None
        if path in learned:
            merge = with_measured if path == MEASURED else with_pins
            text = _merged(merge, root / path.lstrip("/"), learned[path])
        place = Place(saved=saved, uid=_uid(saved), gid=_gid(saved), text=text)
        if not _is_there(place, root):
            places.append(place)
    return places


def _merged(merge: Any, path: Path, learned: bytes) -> bytes:
    try:
        return _json(merge(_read(path), json.loads(learned)))
    except (ValueError, TypeError, AttributeError, KeyError):
        raise _backup.BackupError(f"{path} was damaged already when it was saved") from None


def _json(table: Mapping[str, Any]) -> bytes:
    return json.dumps(table, indent=2, ensure_ascii=False).encode() + b"\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def with_measured(here: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Of each engine the later measurement."""
    newer = {name: one for name, one in saved.items() if name not in here or here[name]["at"] < one["at"]}
    return dict(sorted({**here, **newer}.items()))


def with_pins(here: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Tags mean again what they meant. What is known of an image comes along where nothing is known of it here."""
    pins: dict[str, str] = saved["pins"]
    images = {name: saved["images"][name] for name in pins.values() if name in saved["images"]}
    return {
        "schema": saved["schema"],
        "models": {},
        **here,
        "images": {**images, **here.get("images", {})},
        "pins": {**here.get("pins", {}), **{tag: name for tag, name in pins.items() if name in images}},
    }


def _uid(saved: _backup.Saved) -> int:
    try:
        return pwd.getpwnam(saved.owner).pw_uid
    except KeyError:
        raise _backup.BackupError(
            f"{saved.path}: there is no user {saved.owner} on this box: create it first"
        ) from None


def _gid(saved: _backup.Saved) -> int:
    try:
        return grp.getgrnam(saved.group).gr_gid
    except KeyError:
        raise _backup.BackupError(
            f"{saved.path}: there is no group {saved.group} on this box: create it first"
        ) from None


def _is_there(place: Place, root: Path) -> bool:
    path = root / place.saved.path.lstrip("/")
    try:
        seen = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(seen.st_mode):
        raise _backup.BackupError(f"{path} is no plain file: move it away, and run this again")
    attributes = (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid)
    if attributes != (int(place.saved.mode, 8), place.uid, place.gid):
        return False
    if place.text is not None:
        return bool(json.loads(place.text) == _read(path))
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == place.saved.sha256


@contextmanager
def alone(root: Path = Path("/")) -> Iterator[None]:
    """While nobody else changes engines, images or keys. Raises BackupError where somebody does so for a minute."""
    with ExitStack() as held:
        for name in _LOCKS:
            path = root / name.lstrip("/")
            if not path.parent.is_dir():
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            held.callback(os.close, descriptor)
            deadline = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise _backup.BackupError(
                            f"something holds {name} for more than {_LOCK_S:.0f} s: wait for it, and run this again"
                        ) from None
                    time.sleep(_INTERVAL_S)
        yield


def put(places: Sequence[Place], archive: Path, root: Path = Path("/")) -> None:
    """Have them all in place. Raises BackupError, with nothing changed unless a disk fails between two moves."""
    staged: list[tuple[Path, Path]] = []
    by_path = {place.saved.path: place for place in places}
    try:
        for name, source in _backup.contents(archive, by_path):
            path = root / name.lstrip("/")
            beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.append((beside, path))
            _stage(beside, by_path[name], source)
        for beside, path in staged:
            beside.replace(path)
    except OSError as error:
        raise _backup.BackupError(
            f"{error.filename} cannot be written ({error.strerror}): nothing was changed"
        ) from None
    finally:
        for beside, _target in staged:
            beside.unlink(missing_ok=True)


def _stage(beside: Path, place: Place, source: IO[bytes]) -> None:
    """Write it, for root's eyes only until it has its owner."""
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        if place.text is not None:
            handle.write(place.text)
        else:
            shutil.copyfileobj(source, handle)
        handle.flush()
        os.fchown(descriptor, place.uid, place.gid)
        os.fchmod(descriptor, int(place.saved.mode, 8))
        os.fsync(descriptor)
