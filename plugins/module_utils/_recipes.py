# SPDX-License-Identifier: Apache-2.0
"""Recipes: folders with a Dockerfile and all that its build takes; how their images are called.

PRIVATE to the collection: used on the controller only.
"""

from __future__ import annotations

import hashlib
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils._fields import NAME

# The recipes of the collection.
FOLDER = Path(__file__).resolve().parents[2] / "catalog" / "recipes"
DOCKERFILE = "Dockerfile"
# How it is built (src/hearth/images/settings.py reads it on the box), and of what kind its values are.
SETTINGS = "recipe.toml"
_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "title": str,
    "disk_gb": (int, float),
    "job_gib": (int, float),
    "max_jobs": int,
    "stage": str,
    "args": dict,
}
# A build context is text: what is larger was put there by mistake.
_LARGEST_BYTES = 16 * 2**20


class RecipeError(ValueError):
    """A folder that is no recipe: one sentence that names it and says what to do."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a recipe: its bytes, and whether it may be run. Nothing else of it reaches the box."""

    content: bytes
    executable: bool


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe: its name, its files by their paths below its folder, and what they are in 64 hex digits."""

    name: str
    files: Mapping[str, File]
    fingerprint: str

    @property
    def ref(self) -> str:
        return ref(self.name, self.fingerprint)


def fingerprint(files: Mapping[str, File]) -> str:
    """SHA-256 over the names, the contents and the executable bits of the files, in the order of the names."""
    whole = hashlib.sha256()
    for path in sorted(files):
        file = files[path]
        # Lengths, so that nothing of one file can pass for the beginning of another.
        head = f"{len(path.encode())} {path} {'x' if file.executable else '-'} {len(file.content)}\n"
        whole.update(head.encode() + file.content)
    return whole.hexdigest()


def ref(name: str, mark: str) -> str:
    """The name of the image that a recipe of this fingerprint makes.

    Nothing can be pulled from the registry ``localhost``: where the image is missing, nobody else's comes in its place.
    """
    return f"localhost/hearth/{name}:{mark[:12]}"


def folder(build: str, base: str | Path = "") -> Path:
    """Where the recipe of a field ``build`` is: a name is one of the catalog, a path counts from ``base``."""
    if re.fullmatch(NAME, build):
        return FOLDER / build
    return Path(base, build)


def refs(images: Mapping[Any, Any], base: str | Path = "") -> dict[str, str]:
    """What the recipes that images of the inventory name make, by their fields ``build``. Raises RecipeError."""
    named = [image.get("build") for image in images.values() if isinstance(image, Mapping)]
    # What is no text is told of with its field, by whoever checks the images.
    return {build: read(folder(build, base)).ref for build in named if isinstance(build, str) and build}


def read(path: Path) -> Recipe:
    """Read a recipe. Links to files count as the files; hidden ones are left out, but for .dockerignore.

    Raises RecipeError.
    """
    name = path.name
    if not re.fullmatch(NAME, name):
        raise RecipeError(f"{path}: a recipe's folder is named with a-z, 0-9, '.', '_' and '-': rename it")
    try:
        # Not strict: a folder that is not there is told below, by the name that was given.
        files = {inner: _file(path, inner) for inner in _names(path)}
    except OSError as error:
        raise RecipeError(f"{error.filename}: cannot be read ({error.strerror})") from None
    for wanted in (DOCKERFILE, SETTINGS):
        if wanted not in files:
            missing = f"has no {wanted}" if path.is_dir() else "there is no such folder"
            raise RecipeError(f"{path}: {missing}; a recipe is a folder with a {DOCKERFILE} and a {SETTINGS}")
    _check_settings(path / SETTINGS, files[SETTINGS].content)
    return Recipe(name=name, files=files, fingerprint=fingerprint(files))


def _names(path: Path) -> list[str]:
    found = []
    for entry in sorted(path.iterdir()) if path.is_dir() else ():
        if (entry.name.startswith(".") and entry.name != ".dockerignore") or entry.name == "__pycache__":
            continue
        if entry.is_dir():
            if entry.is_symlink():
                raise RecipeError(f"{entry}: is a link to a folder: put the folder itself there, or links to its files")
            found += [f"{entry.name}/{inner}" for inner in _names(entry)]
        else:
            found.append(entry.name)
    return found


def _file(path: Path, inner: str) -> File:
    file = path / inner
    said = file.stat()
    if not stat.S_ISREG(said.st_mode):
        raise RecipeError(f"{file}: is no file: remove it")
    if said.st_size > _LARGEST_BYTES:
        raise RecipeError(
            f"{file}: has {said.st_size / 1e6:.0f} MB, and a recipe is shipped whole: let its {DOCKERFILE} download "
            "what is large, by its checksum"
        )
    return File(content=file.read_bytes(), executable=bool(said.st_mode & stat.S_IXUSR))


def _check_settings(path: Path, content: bytes) -> None:
    try:
        settings: dict[str, Any] = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: is no TOML: {error}") from None
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise RecipeError(f"{path}: unknown setting {name}; known: {', '.join(sorted(_SETTINGS))}")
        if not isinstance(value, _SETTINGS[name]) or isinstance(value, bool):
            raise RecipeError(f"{path}: {name} is not of the kind it should be: {value!r}")
    for name, value in settings.get("args", {}).items():
        if not isinstance(value, str):
            raise RecipeError(f"{path}: args.{name} must be text, is {value!r}")
