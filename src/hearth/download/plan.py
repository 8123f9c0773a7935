# SPDX-License-Identifier: Apache-2.0
"""Which files make up a model. Pure: a list of a hub goes in, a list of files comes out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import msgspec

from hearth.download.request import ExtraFile
from hearth.errors import HearthError

MANIFEST = ".hearth.json"
INDEX_SUFFIX = ".safetensors.index.json"
# Parts of one model: model-00001-of-00007.safetensors, and GGUF files split by llama-gguf-split.
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.(?:safetensors|gguf))")
# What Linux takes as one name, in bytes (NAME_MAX).
_NAME_MAX = 255


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a model needs.

    ``digest`` is ``sha256:…`` (files in large-file storage, extra files) or ``git:…`` (the SHA-1 of a git blob, which
    is what a hub knows of small files), empty where nobody knows it; ``size`` in bytes, -1 where nobody knows it.
    ``url`` is empty for a file of the repository. ``origin`` tells versions of a file without a digest apart.
    """

    path: str
    size: int = -1
    digest: str = ""
    url: str = ""
    origin: str = ""

    @property
    def is_index(self) -> bool:
        return self.path.endswith(INDEX_SUFFIX)


def safe(path: str) -> str:
    """The path of a file below a model's folder, as it is. Raises HearthError where it could lead out of it."""
    parts = path.split("/")
    climbs = path.startswith("/") or any(part in ("", ".", "..") for part in parts)
    odd = "\\" in path or not path.isprintable() or any(len(part.encode()) > _NAME_MAX for part in parts)
    if climbs or odd or parts[0] == MANIFEST:
        what = "climbs out of the model's folder" if climbs else "no model needs under such a name"
        raise HearthError(
            f"the list of files has {path[:120]!r}, which {what}: nothing was fetched; do not use this source"
        )
    return path


def choose(files: Sequence[File], include: Sequence[str], exclude: Sequence[str]) -> list[File]:
    """The files that match, and what belongs to them: all parts where a pattern matches one.

    Patterns are those of huggingface_hub (filter_repo_objects): ``*`` crosses slashes, case counts, a folder with its
    slash at the end stands for all in it. Raises HearthError where nothing matches or the repository lacks a part.
    """
    by_path = {file.path: file for file in files}
    wanted = {path for path in by_path if (not include or _matches(path, include)) and not _matches(path, exclude)}
    if not wanted:
        raise HearthError(
            f"none of the {len(files)} files matches (include {', '.join(include) or '*'}, exclude "
            f"{', '.join(exclude) or 'nothing'}): correct the patterns; there is, for example, "
            f"{', '.join(sorted(by_path)[:3]) or 'no file at all'}"
        )
    for path in sorted(wanted):
        for part in parts_of(path):
            if part not in by_path:
                raise HearthError(
                    f"the repository has {path}, but not its part {part}: it is incomplete; take another revision"
                )
            if not _matches(part, exclude):
                wanted.add(part)
    return [by_path[path] for path in sorted(wanted)]


def add_shards(
    wanted: Sequence[File], listed: Sequence[File], indexes: dict[str, bytes], exclude: Sequence[str]
) -> list[File]:
    """``wanted`` with every shard that the safetensors indexes among it name; ``indexes`` has their content by path.

    Raises HearthError where an index cannot be read, or the repository lacks one of its shards.
    """
    by_path = {file.path: file for file in listed}
    paths = {file.path for file in wanted}
    for path, content in sorted(indexes.items()):
        for shard in sorted(_shards(path, content)):
            if shard not in by_path:
                raise HearthError(
                    f"{path} names {shard}, which the repository does not have: it is incomplete; take another revision"
                )
            if not _matches(shard, exclude):
                paths.add(shard)
    extra = [by_path[path] for path in sorted(paths - {file.path for file in wanted})]
    return [*wanted, *extra]


def parts_of(path: str) -> list[str]:
    """All parts of the split file that ``path`` is one of; empty where it is none."""
    found = _PART.fullmatch(path)
    if found is None:
        return []
    count = int(found["count"])
    return [f"{found['stem']}-{number:05}-of-{count:05}{found['suffix']}" for number in range(1, count + 1)]


def extras(files: Iterable[ExtraFile]) -> list[File]:
    """The extra files of a request as files of the model. Raises HearthError for a path that leads out."""
    return [
        File(
            path=safe(file.path),
            digest=f"sha256:{file.sha256.lower()}" if file.sha256 else "",
            url=file.url,
            origin=file.url,
        )
        for file in files
    ]


def assert_fits_a_folder(files: Iterable[File]) -> None:
    """Every path once, and none that is a file and a folder. Raises HearthError."""
    seen: set[str] = set()
    for file in files:
        if file.path in seen:
            raise HearthError(f"two files are to be {file.path}: rename the extra file of that path")
        seen.add(file.path)
    for path in seen:
        for above in PurePosixPath(path).parents:
            if str(above) in seen:
                raise HearthError(f"{above} is to be a file and a folder, of {path}: rename the extra file")


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, f"{one}*" if one.endswith("/") else one) for one in patterns)


def _shards(path: str, content: bytes) -> set[str]:
    try:
        index = msgspec.json.decode(content, type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HearthError(
            f"{path} is no index of safetensors ({error}): the repository is broken; take another revision"
        ) from None
    folder = PurePosixPath(path).parent
    return {safe(str(folder / shard)) for shard in index.weight_map.values()}


class _Index(msgspec.Struct):
    """model.safetensors.index.json, as transformers writes it."""

    weight_map: dict[str, str]
