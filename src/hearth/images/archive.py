# SPDX-License-Identifier: Apache-2.0
"""An image as an archive that Docker loads.

It is both an OCI layout, which a Docker with containerd's store reads and so keeps the manifest's digest, and what
``docker save`` writes (manifest.json), which a classic one of any age reads. Layers stay compressed, as they came.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hearth.images.manifest import Document, Manifest, kind_of

_BLOCK = 1 << 20
# Of a tar, in bytes (POSIX.1-2024, "ustar Interchange Format").
_RECORD = 512


def stream(
    name: str,
    document: Document,
    config: bytes,
    manifest: Manifest,
    layers: Mapping[str, Path],
    moved: Callable[[int], None],
) -> Iterator[bytes]:
    """The archive of the image that is to be called ``name``; ``moved`` gets the bytes of layers as they go.

    ``layers`` has the files of the layers by their digests. One that is left out Docker has, unpacked. Raises OSError.
    """
    written: set[str] = set()
    for path, content in _small(name, document, config, manifest):
        yield from _member(path, len(content), (content,))
    for layer in manifest.layers:
        file = layers.get(layer.digest)
        if file is not None and layer.digest not in written:
            written.add(layer.digest)
            yield from _member(_place(layer.digest), layer.size, _read(file, moved))
    yield bytes(2 * _RECORD)


def _small(name: str, document: Document, config: bytes, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    yield "oci-layout", msgspec.json.encode({"imageLayoutVersion": "1.0.0"})
    described = {
        "mediaType": kind_of(document),
        "digest": document.digest,
        "size": len(document.raw),
        # By the first containerd knows what to call it, by the second other programs do.
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        },
    }
    yield "index.json", msgspec.json.encode({"schemaVersion": 2, "manifests": [described]})
    saved: dict[str, Any] = {
        "Config": _place(manifest.config.digest),
        "RepoTags": [name],
        "Layers": [_place(layer.digest) for layer in manifest.layers],
    }
    yield "manifest.json", msgspec.json.encode([saved])
    yield _place(document.digest), document.raw
    yield _place(manifest.config.digest), config


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _member(path: str, size: int, content: Iterable[bytes]) -> Iterator[bytes]:
    entry = tarfile.TarInfo(path)
    entry.size = size
    entry.mode = 0o644
    # GNU's, for what is larger than 8 GiB.
    yield entry.tobuf(tarfile.GNU_FORMAT)
    yield from content
    yield bytes(-size % _RECORD)


def _read(file: Path, moved: Callable[[int], None]) -> Iterator[bytes]:
    with file.open("rb", buffering=0) as source:
        while block := source.read(_BLOCK):
            moved(len(block))
            yield block
