# SPDX-License-Identifier: Apache-2.0
"""Models removed, and what interrupted downloads left."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from hearth.download import manifest, ollama, place
from hearth.download.errors import DownloadError, of_disk
from hearth.download.held import held
from hearth.download.meter import say_nothing
from hearth.download.place import Staging
from hearth.download.plan import MANIFEST
from hearth.download.request import Request, Result
from hearth.download.store import Store, below
from hearth.errors import BusyError


def absent(request: Request, *, foretell: bool = False) -> Result:
    """Remove a model, and what is on its way to be one. What somebody else put into its folder stays.

    The caller sees to it that no engine uses it. Raises BusyError while another process brings it, DownloadError for a
    folder that has no manifest: whose it is, only its owner knows.
    """
    if request.ollama:
        return ollama.absent(request, foretell=foretell)
    begun = time.monotonic()
    path = Path(request.folder).resolve()
    staging = Staging(path)
    if not path.exists() and not staging.path.exists():
        return Result(changed=False)
    known = manifest.read(path)
    if known is None and path.exists() and any(path.iterdir()):
        raise DownloadError(
            f"{path} was not brought by Hearth (it has no {MANIFEST}): remove it by hand, or make it present first"
        )
    if foretell:
        freed = manifest.size_of(staging.path) + (known.bytes_total if known else 0)
        return Result(changed=True, freed=freed, files=len(known.files) if known else 0)
    try:
        with staging.hold(0.0, say_nothing):
            freed = manifest.size_of(staging.blobs)
            staging.empty()
            if known is not None:
                freed += place.drop_files(path, iter(known.files))
                # The last one: until it is gone, a call that was cut off can be made again.
                freed += place.drop_files(path, iter([MANIFEST]))
            kept = sorted(str(one.relative_to(path)) for one in path.rglob("*")) if path.exists() else []
            if path.exists() and not kept:
                path.rmdir()
    except OSError as error:
        raise of_disk(error, path) from None
    return Result(
        changed=True,
        freed=freed,
        files=len(known.files) if known else 0,
        kept=tuple(kept),
        seconds=round(time.monotonic() - begun, 3),
    )


def prune(root: str, *, foretell: bool = False) -> Result:
    """Remove what interrupted downloads left below ``root``, where models are at ``<family>/<name>``.

    Of Ollama's stores also the blobs that no model needs any more, as after a tag moved. What is under way is left
    alone, and in ``kept``. Raises DownloadError.
    """
    begun = time.monotonic()
    freed = 0
    kept = []
    pruned = []
    for one in held(root):
        staging = Staging(Path(one.folder))
        if one.is_store or not staging.path.is_dir():
            continue
        if foretell:
            freed += one.partial
            pruned.append(one.folder)
            continue
        try:
            with staging.hold(0.0, say_nothing):
                freed += manifest.size_of(staging.path)
                shutil.rmtree(staging.blobs)
            pruned.append(one.folder)
        except BusyError:
            kept.append(one.folder)
        except OSError as error:
            raise of_disk(error, staging.path) from None
    stores = [_prune_store(store, foretell=foretell) for store in below(Path(root))]
    unnamed = sum(one.unnamed for one in stores)
    return Result(
        changed=bool(pruned or unnamed or any(one.files for one in stores)),
        freed=freed + sum(one.freed for one in stores),
        files=len(pruned) + sum(one.files for one in stores),
        kept=(*kept, *(path for one in stores for path in one.kept)),
        unnamed=unnamed,
        seconds=round(time.monotonic() - begun, 3),
    )


def _prune_store(store: Store, *, foretell: bool) -> Result:
    try:
        if foretell:
            return _pruned(store)
        with store.locked(0.0, say_nothing):
            # A pull by hand, in the container of an engine, knows no lock of ours.
            if store.in_use([path for paths in store.partial().values() for path in paths]):
                return Result(changed=False, kept=(str(store.path),))
            found = _pruned(store)
            for path in store.useless():
                path.unlink(missing_ok=True)
            return found
    except BusyError:
        return Result(changed=False, kept=(str(store.path),))
    except OSError as error:
        raise of_disk(error, store.path) from None


def _pruned(store: Store) -> Result:
    """What goes of a store. Raises OSError."""
    gone = store.useless()
    return Result(
        changed=bool(gone),
        files=len(store.partial()),
        unnamed=len(store.unnamed()),
        freed=sum(path.lstat().st_blocks * 512 for path in gone),
    )
