# SPDX-License-Identifier: Apache-2.0
"""Recipes on the box: ``/var/lib/hearth/recipes/<recipe>/<12 hex of its fingerprint>/``, put there whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from hearth import state
from hearth.download.errors import of_disk

FOLDER = state.LEARNED / "recipes"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a recipe."""

    content: bytes
    executable: bool = False


def folder_of(recipe: str, fingerprint: str, root: Path = FOLDER) -> Path:
    return root / recipe / fingerprint[:12]


def put(recipe: str, fingerprint: str, files: Mapping[str, File], root: Path = FOLDER) -> Path:
    """Have the recipe there, and nothing else of another state. Raises DownloadError."""
    folder = folder_of(recipe, fingerprint, root)
    made = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(made, ignore_errors=True)
        for path, file in files.items():
            target = made / path
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            target.write_bytes(file.content)
            target.chmod(0o755 if file.executable else 0o644)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    except OSError as error:
        raise of_disk(error, folder) from None
    return folder


def prune(needed: Iterable[str], root: Path = FOLDER, *, check: bool) -> int:
    """Remove recipes of images that nobody needs; ``needed`` are names of images. Returns how many."""
    kept = set(needed)
    gone = [folder for folder in root.glob("*/*") if f"localhost/hearth/{folder.parent.name}:{folder.name}" not in kept]
    if not check:
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
    return len(gone)
