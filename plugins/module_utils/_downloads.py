# SPDX-License-Identifier: Apache-2.0
"""What is to be downloaded for models: one download a folder, whoever shares it, or a tag of Ollama. No I/O.

PRIVATE to the collection.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

HUB = "https://huggingface.co"
# Where the token lies on a box whose models are fetched at their first start.
TOKEN_FILE = "/etc/hearth/secrets/hf_token"  # noqa: S105 - a path
RESERVE_GIB = 10.0


class DownloadError(ValueError):
    """One sentence, beginning with the model and the field."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """One folder and what belongs in it. ``models`` share it; ``when`` is site or first_start.

    For Ollama the folder is its store, and ``ollama`` the tag; ``image`` is what it is run from, and ``names`` are
    those that engines give to the tag.
    """

    path: str
    models: tuple[str, ...]
    when: str
    repo: str
    revision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    extra_files: tuple[Mapping[str, str], ...]
    ollama: str = ""
    image: str = ""
    names: tuple[str, ...] = ()

    def request(self) -> dict[str, Any]:
        """As hearth.spark.model takes it."""
        if self.ollama:
            return {"path": self.path, "ollama": self.ollama, "image": self.image, "names": list(self.names)}
        return {
            "path": self.path,
            "repo": self.repo,
            "revision": self.revision,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "extra_files": [dict(file) for file in self.extra_files],
        }


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where a box fetches from by itself. ``token_file`` is a path on it, ``reserve_gib`` stay free on its disk."""

    endpoint: str = HUB
    token_file: str = ""
    offline: bool = False
    reserve_gib: float = RESERVE_GIB

    def fetch(self, download: Download, uid: int, gid: int) -> dict[str, Any]:
        """A download as engines.json has it (hearth.contract.Fetch)."""
        return {
            "folder": download.path,
            "repo": download.repo,
            "revision": download.revision,
            "include": list(download.include),
            "exclude": list(download.exclude),
            "extra_files": [dict(file) for file in download.extra_files],
            "ollama": download.ollama,
            "image": download.image,
            "endpoint": str(self.endpoint),
            "token_file": str(self.token_file),
            "offline": bool(self.offline),
            "uid": uid,
            "gid": gid,
            "reserve_bytes": round(float(self.reserve_gib) * 2**30),
        }


def folder(root: str, name: str, fields: Mapping[str, Any]) -> str:
    """The model's folder on the box, below ``root``: its own, or the store that all models of Ollama share."""
    if fields["engine"] == "ollama":
        return posixpath.join(root, "models", "ollama")
    return posixpath.join(root, "models", fields["family"], fields["folder"] or name)


def is_fetched(fields: Mapping[str, Any]) -> bool:
    """Whether its files are brought by Hearth."""
    return fields["download"] != "never" and _has_source(fields)


def _has_source(fields: Mapping[str, Any]) -> bool:
    return bool(fields["ollama"] if fields["engine"] == "ollama" else fields["repo"] or fields["extra_files"])


def plan(
    models: Mapping[str, Mapping[str, Any]], root: str, images: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Download]:
    """The downloads of models (fields by name), by folder and Ollama's tag. ``images`` are references, by model.

    Raises DownloadError where two cannot share theirs.
    """
    found: dict[tuple[str, str], Download] = {}
    for name, fields in models.items():
        if not is_fetched(fields):
            continue
        one = _of(name, fields, root, (images or {}).get(name, ""))
        key = one.path, one.ollama
        found[key] = _merged(found[key], one) if key in found else one
    return found


def plan_one(
    models: Mapping[str, Mapping[str, Any]], root: str, name: str, images: Mapping[str, str] | None = None
) -> Download:
    """The download of one of the models, whenever it is to happen. Raises DownloadError where it cannot be had."""
    fields = models[name]
    if not _has_source(fields):
        raise DownloadError(f"{name}: has no repo, so its files are yours to bring")
    asked = {**models, name: {**fields, "download": "site"}}
    return next(one for one in plan(asked, root, images).values() if name in one.models)


def _of(name: str, fields: Mapping[str, Any], root: str, image: str) -> Download:
    if fields["engine"] == "ollama":
        return Download(
            path=folder(root, name, fields),
            models=(name,),
            when=fields["download"],
            repo="",
            revision="main",
            include=(),
            exclude=(),
            extra_files=(),
            ollama=fields["ollama"],
            image=image,
            names=(name, *fields["aliases"]),
        )
    include, file = tuple(fields["include"]), fields["file"]
    extra = tuple(
        {"url": one["url"], "path": one["path"], "sha256": one["sha256"] or ""} for one in fields["extra_files"]
    )
    if fields["engine"] == "llama.cpp" and fields["repo"] and file not in [one["path"] for one in extra]:
        # A repository of GGUF files has the same model many times over.
        include = include or (file,)
        if not _matches(file, include):
            raise DownloadError(f"{name}.include: {', '.join(include)} leaves out its file {file}; add it")
        if _matches(file, fields["exclude"]):
            raise DownloadError(
                f"{name}.exclude: {', '.join(fields['exclude'])} leaves out its file {file}; correct it"
            )
    return Download(
        path=folder(root, name, fields),
        models=(name,),
        when=fields["download"],
        repo=fields["repo"] or "",
        revision=fields["revision"],
        include=include,
        exclude=tuple(fields["exclude"]),
        extra_files=extra,
    )


def _matches(file: str, patterns: Sequence[str]) -> bool:
    """As huggingface_hub does it (filter_repo_objects): a folder stands for all in it."""
    return any(fnmatch.fnmatchcase(file, f"{one}*" if one.endswith("/") else one) for one in patterns)


def _merged(one: Download, other: Download) -> Download:
    """All that either of them needs, perhaps more. Raises DownloadError."""
    names = f"{other.models[0]}.folder: is shared with {one.models[0]}"
    if one.repo and other.repo and (one.repo, one.revision) != (other.repo, other.revision):
        raise DownloadError(
            f"{names}, which is {one.repo} {one.revision} and not {other.repo} {other.revision}; give it another folder"
        )
    extra = {file["path"]: file for file in one.extra_files}
    for file in other.extra_files:
        if extra.setdefault(file["path"], file) != file:
            raise DownloadError(f"{names}, whose {file['path']} is another file; give it another folder")
    # What has no repository wants nothing of one.
    given = [download for download in (one, other) if download.repo] or [one]
    include = given[0].include
    exclude = given[0].exclude
    if len(given) > 1:
        include = tuple(dict.fromkeys((*include, *other.include))) if include and other.include else ()
        exclude = tuple(pattern for pattern in exclude if pattern in other.exclude)
    return replace(
        one,
        models=(*one.models, *other.models),
        when="site" if "site" in (one.when, other.when) else "first_start",
        repo=given[0].repo,
        revision=given[0].revision,
        include=include,
        exclude=exclude,
        extra_files=tuple(extra.values()),
        names=(*one.names, *other.names),
    )
