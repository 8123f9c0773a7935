# SPDX-License-Identifier: Apache-2.0
"""Models removed, and what interrupted downloads left."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from hearth.download import manifest, place
from hearth.download.errors import DownloadError, of_disk
from hearth.download.meter import say_nothing
from hearth.download.place import Staging
from hearth.download.plan import MANIFEST
from hearth.download.request import Result
from hearth.errors import BusyError


def absent(folder: str, *, foretell: bool = False) -> Result:
    """Remove a model, and what is on its way to be one. What somebody else put into its folder stays.

    The caller sees to it that no engine uses it. Raises BusyError while another process brings it, DownloadError for a
    folder that has no manifest: whose it is, only its owner knows.
    """
    begun = time.monotonic()
    path = Path(folder).resolve()
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

    What is under way is left alone, and in ``kept``. Raises DownloadError.
    """
    begun = time.monotonic()
    freed = 0
    kept = []
    pruned = []
    for one in manifest.held(Path(root)):
        staging = Staging(Path(one.folder))
        if not staging.path.is_dir():
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
    return Result(
        changed=bool(pruned),
        freed=freed,
        files=len(pruned),
        kept=tuple(kept),
        seconds=round(time.monotonic() - begun, 3),
    )
