# SPDX-License-Identifier: Apache-2.0
"""Which models are on the box, by what lies below the folder of all models. Reads no content and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from hearth.download import manifest, store
from hearth.download.manifest import Manifest, size_of
from hearth.download.store import Store


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A model as found: no ``manifest`` where Hearth did not bring it; ``partial`` bytes are on their way.

    Of Ollama's store, which is then ``folder`` (``is_store``), one for each tag that Hearth brought (``ollama``), and
    one without a tag for all else.
    """

    folder: str
    manifest: Manifest | None
    partial: int = 0
    is_store: bool = False

    @property
    def ollama(self) -> str:
        return self.manifest.asked.ollama if self.manifest else ""

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        if self.manifest is not None:
            return self.manifest.bytes_total
        return Store(Path(self.folder)).size_of_others() if self.is_store else size_of(Path(self.folder))

    @property
    def whole(self) -> bool:
        """Whether every file is there as it was verified."""
        if self.ollama:
            return Store(Path(self.folder)).has(self.ollama)
        if self.manifest is not None:
            return manifest.is_intact(Path(self.folder), self.manifest)
        return Path(self.folder).is_dir()


def held(root: Path | str) -> list[Held]:
    """The models below ``root``, where a model is at ``<family>/<name>``; those under way as well."""
    folders: dict[Path, int] = {}
    of_stores: list[Held] = []
    for path in _children(Path(root)):
        if store.is_store(path):
            of_stores += _of_store(Store(path))
            continue
        for child in _children(path):
            if child.name.startswith(".") and child.name.endswith(".partial"):
                name = child.name.removeprefix(".").removesuffix(".partial")
                folders[child.with_name(name)] = size_of(child)
            elif not child.name.startswith("."):
                folders.setdefault(child, 0)
    found = [Held(folder=str(folder), manifest=manifest.read(folder), partial=size) for folder, size in folders.items()]
    return sorted(found + of_stores, key=lambda one: (one.folder, one.ollama))


def _of_store(found: Store) -> list[Held]:
    folder = str(found.path)
    rest = Held(folder=folder, manifest=None, is_store=True, partial=found.size_of_partial())
    known = [Held(folder=folder, manifest=one, is_store=True) for one in found.records()]
    return known + ([rest] if rest.size or rest.partial else [])


def _children(path: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (child for child in sorted(path.iterdir()) if child.is_dir())
