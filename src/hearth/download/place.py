# SPDX-License-Identifier: Apache-2.0
"""From staging to a model's folder: all at once, and nothing lost that is not the hub's.

The new tree is made of hard links (of what came, and of what was right already) and takes the folder's place by one
``renameat2(RENAME_EXCHANGE)``. The old tree is then beside it: what Hearth brought is removed, what somebody else put
there moves back. A process that is killed in between leaves a marker that says which of the two trees is the new one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hearth import state
from hearth.download import manifest
from hearth.download.errors import DownloadError
from hearth.download.manifest import Manifest, size_of
from hearth.download.meter import Progress, Tell
from hearth.download.plan import MANIFEST
from hearth.download.request import Request
from hearth.errors import BusyError

# renameat2(2): <fcntl.h> and <stdio.h> of glibc.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644
# Where the disk cannot exchange two names (NFS, some FUSE).
_NO_EXCHANGE = frozenset((errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP))


class Staging:
    """``.<name>.partial`` beside a model's folder: what came so far, by its hash, and the lock of whoever brings it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder.with_name(f".{folder.name}.partial")
        self.blobs = self.path / "blobs"
        self._new = self.path / "new"
        self._old = self.path / "old"
        self._marker = self.path / "placing"
        self._lock = self.path / "lock"

    @contextmanager
    def hold(self, timeout_s: float, tell: Tell) -> Iterator[bool]:
        """Be the only one to bring this model; yields whether another did before. Leaves nothing but what came.

        Raises BusyError after ``timeout_s`` seconds, and HearthError where nothing can be written.
        """
        waited = False
        while True:
            with self._locked(timeout_s, waited, tell) as got:
                if not got:
                    waited = True
                    timeout_s -= 1.0
                    continue
                # Whoever had it before may have removed the file that the lock was on.
                if not state.holder(self._lock).startswith(f"pid {os.getpid()},"):
                    waited = True
                    continue
                try:
                    self._recover()
                    self.blobs.mkdir(exist_ok=True)
                    yield waited
                finally:
                    if not any(self.blobs.glob("*")):
                        shutil.rmtree(self.path, ignore_errors=True)
                return

    @contextmanager
    def _locked(self, timeout_s: float, waited: bool, tell: Tell) -> Iterator[bool]:
        words: list[str] = []

        def busy(holder: str) -> BusyError:
            words.append(holder)
            return BusyError(f"{self.folder} is still brought by another process ({holder}): ask again when it is done")

        # Half a second at a time, so that whoever waits is told.
        lock = state.locked(self._lock, min(1.0, timeout_s) if waited else 0.0, busy)
        try:
            lock.__enter__()
        except BusyError:
            if timeout_s <= 0:
                raise
            tell(Progress(phase="waiting", bytes_done=size_of(self.blobs), note=words[-1]))
            yield False
            return
        try:
            yield True
        finally:
            lock.__exit__(None, None, None)

    def build(self, sources: Mapping[str, Path], request: Request) -> Path:
        """The new tree: every path of ``sources`` as a link to what is its content. Raises OSError."""
        self._new.mkdir(mode=_FOLDER_MODE)
        for path, source in sources.items():
            target = self._new / path
            target.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            foreign = source.is_symlink()
            _link(source.resolve() if foreign else source, target)
            if not foreign:
                own(target, request, _FILE_MODE)
        for folder, _, _ in os.walk(self._new):
            own(Path(folder), request, _FOLDER_MODE)
        return self._new

    def swap(self, made: Manifest, request: Request) -> int:
        """Put the new tree in place, with its manifest; returns the bytes the old one gave back. Raises OSError."""
        manifest.write(self._new, made)
        own(self._new / MANIFEST, request, _FILE_MODE)
        sync(self._new)
        if not self.folder.exists():
            self._new.rename(self.folder)
            sync(self.folder.parent)
            return 0
        state.replace(self._marker, str(self._new.stat().st_ino).encode())
        self._exchange()
        sync(self.folder.parent)
        return self._recover()

    def _exchange(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(self._new), os.fsencode(self.folder)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code == errno.EBUSY:
            raise DownloadError(
                f"{self.folder} is a mount point, which cannot be replaced as a whole: mount the disk at the family's "
                "folder or above, and let the model be a folder of it"
            )
        if code not in _NO_EXCHANGE:
            raise OSError(code, os.strerror(code), str(self.folder))
        self.folder.rename(self._old)
        self._new.rename(self.folder)

    def _recover(self) -> int:
        """Finish what was cut off: returns the bytes of the old tree that were given back."""
        freed = 0
        if self._marker.exists():
            inode = int(self._marker.read_text(encoding="ascii") or 0)
            if not self.folder.exists() and self._old.exists():
                (self._new if self._new.exists() else self._old).rename(self.folder)
            if self.folder.exists() and self.folder.stat().st_ino == inode:
                for tree in (self._new, self._old):
                    freed += settle(tree, self.folder)
            self._marker.unlink()
        if self._new.exists():
            # Only links: what they name is a blob, or in place.
            shutil.rmtree(self._new)
        return freed

    def empty(self) -> None:
        """What came is in place."""
        shutil.rmtree(self.blobs)


def settle(tree: Path, folder: Path) -> int:
    """Remove of an old tree what Hearth brought, and move the rest of it into ``folder``; returns the bytes given back.

    What has the path of a file of the new tree is replaced by it. Raises OSError.
    """
    ours = {MANIFEST}
    for known in (manifest.read(tree), manifest.read(folder)):
        ours.update(known.files if known else ())
    freed = 0
    # Bottom up, and never through a link.
    for above, folders, names in os.walk(tree, topdown=False):
        for name in [*names, *(one for one in folders if Path(above, one).is_symlink())]:
            path = Path(above, name)
            relative = path.relative_to(tree)
            target = folder / relative
            if str(relative) in ours or os.path.lexists(target):
                freed += _given_back(path)
                path.unlink()
                continue
            target.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            path.rename(target)
        relative = Path(above).relative_to(tree)
        if not (folder / relative).exists() and not _held_ours(relative, ours):
            # An empty folder of somebody else.
            (folder / relative).mkdir(mode=_FOLDER_MODE, parents=True)
        Path(above).rmdir()
    return freed


def own(path: Path, request: Request, mode: int) -> None:
    """Owner and mode of something of ours; what is right already is left alone. Raises OSError."""
    status = path.stat()
    wanted = request.uid if request.uid >= 0 else status.st_uid, request.gid if request.gid >= 0 else status.st_gid
    if (status.st_uid, status.st_gid) != wanted:
        os.chown(path, *wanted, follow_symlinks=False)
    if status.st_mode & 0o7777 != mode:
        path.chmod(mode)


def make_parents(folder: Path, request: Request) -> None:
    """The folders above a model's, owned as it. Raises OSError."""
    missing = [above for above in folder.parents if not above.exists()]
    for above in reversed(missing):
        above.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        own(above, request, _FOLDER_MODE)


def drop_files(folder: Path, paths: Iterator[str]) -> int:
    """Remove files of ours below ``folder``, and the folders that are empty then; returns the bytes given back."""
    freed = 0
    for relative in paths:
        path = folder / relative
        if any(above.is_symlink() for above in path.parents if folder in above.parents):
            continue
        with suppress(FileNotFoundError):
            freed += _given_back(path)
            path.unlink()
        for above in path.parents:
            if above == folder or folder not in above.parents:
                break
            with suppress(OSError):
                above.rmdir()
    return freed


def _given_back(path: Path) -> int:
    status = path.lstat()
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def _held_ours(relative: Path, ours: set[str]) -> bool:
    prefix = f"{relative}/"
    return str(relative) == "." or any(path.startswith(prefix) for path in ours)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copy2(source, target)


def sync(folder: Path) -> None:
    """All that was written to the disk of ``folder`` is there after a power cut (syncfs(2)). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)
