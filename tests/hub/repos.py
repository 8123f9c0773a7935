# SPDX-License-Identifier: Apache-2.0
"""What a hub of the tests holds: repositories with commits and branches, and files with their two kinds of hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

# What a hub keeps in large-file storage by default (.gitattributes of a new repository), and anything from 10 MB on.
_LARGE = (".safetensors", ".gguf", ".bin")
_LARGE_FROM = 10_000_000


@dataclass(frozen=True)
class Blob:
    """Content of a file: bytes, or a file of this machine. ``large`` overrides the rule of the suffix."""

    content: bytes | Path
    name: str = ""
    large: bool | None = None

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def is_large(self) -> bool:
        return self.large if self.large is not None else self.name.endswith(_LARGE) or self.size >= _LARGE_FROM

    @cached_property
    def sha256(self) -> str:
        return self._hash(hashlib.sha256())

    @cached_property
    def git(self) -> str:
        """The SHA-1 by which git knows it: of a pointer (git-lfs, docs/spec.md) where it is large."""
        if self.is_large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
            return hashlib.sha1(f"blob {len(pointer)}\0{pointer}".encode(), usedforsecurity=False).hexdigest()
        return self._hash(hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False))

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.git

    def read(self, start: int, count: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[start : start + count]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(count)

    def _hash(self, found: Any) -> str:
        if isinstance(self.content, bytes):
            found.update(self.content)
        else:
            with self.content.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
        return str(found.hexdigest())


Tree = dict[str, Blob]


@dataclass
class Repo:
    """A repository. ``gated``: its files want a token of somebody who accepted its licence; ``private``: all of it."""

    name: str
    commits: dict[str, Tree] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    # Tokens that may read it.
    allowed: set[str] = field(default_factory=set)
    # Paths in the list of files that no tree could have.
    listed_as: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes | Path | Blob], branch: str = "main") -> str:
        """A new commit with exactly these files; the branch moves to it."""
        tree = {
            path: content if isinstance(content, Blob) else Blob(content, name=path)
            for path, content in sorted(files.items())
        }
        words = "".join(f"{path} {blob.etag}\n" for path, blob in tree.items())
        ident = hashlib.sha1(f"{len(self.commits)}\n{words}".encode(), usedforsecurity=False).hexdigest()
        self.commits[ident] = tree
        self.branches[branch] = ident
        return ident

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def info(self, commit: str, *, blobs: bool) -> dict[str, Any]:
        """As /api/models/… answers (huggingface_hub: ModelInfo)."""
        siblings = []
        for path, blob in self.commits[commit].items():
            one: dict[str, Any] = {"rfilename": self.listed_as.get(path, path)}
            if blobs:
                one.update(size=blob.size, blobId=blob.git)
                if blob.is_large:
                    one["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
            siblings.append(one)
        return {
            "_id": "0",
            "id": self.name,
            "modelId": self.name,
            "sha": commit,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }

    def tree(self, commit: str, xet: dict[str, str]) -> list[dict[str, Any]]:
        """As /api/models/…/tree/… answers with recursive=true (huggingface_hub: RepoFile), files only."""
        entries = []
        for path, blob in self.commits[commit].items():
            one: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git}
            if blob.is_large:
                one["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
                if blob.sha256 in xet:
                    one["xetHash"] = xet[blob.sha256]
            entries.append(one)
        return entries
