# SPDX-License-Identifier: Apache-2.0
"""Manifests of images (OCI Image Format 1.1, and Docker's Image Manifest 2.2, which differ in names only). Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from hearth.download.errors import DownloadError
from hearth.images.errors import no_manifest, wrong_architecture
from hearth.images.reference import Reference

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
IMAGES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
# A manifest is at most of this size (OCI Distribution 1.1, "Pushing Manifests"), in bytes.
LARGEST = 4 << 20


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""

    @property
    def words(self) -> str:
        return self.architecture if self.os == "linux" else f"{self.os}/{self.architecture}"


class Descriptor(msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}):
    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None


class Index(msgspec.Struct, frozen=True):
    manifests: tuple[Descriptor, ...]


class Manifest(msgspec.Struct, frozen=True):
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Config(msgspec.Struct, frozen=True):
    """The part of an image's configuration that says where it runs, and what its unpacked layers are."""

    class RootFS(msgspec.Struct, frozen=True):
        diff_ids: tuple[str, ...] = ()

    architecture: str = ""
    os: str = "linux"
    rootfs: RootFS = RootFS()


class Document(msgspec.Struct, frozen=True):
    """A manifest as it came."""

    raw: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return digest_of(self.raw)


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def decode(raw: bytes, kind: Any, reference: Reference) -> Any:
    """Raises DownloadError."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DownloadError(f"{reference.words}: its manifest is damaged ({error}): take another image") from None


def kind_of(document: Document) -> str:
    """The media type: what the document says itself, else what it came with."""

    class Said(msgspec.Struct, rename={"media_type": "mediaType"}):
        media_type: str = ""

    try:
        said = msgspec.json.decode(document.raw, type=Said).media_type
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ""
    return said or document.media_type


def for_platform(document: Document, architecture: str, reference: Reference) -> Descriptor | None:
    """Of an index, the image for Linux on this architecture; None where the document is that of one image.

    Raises DownloadError.
    """
    kind = kind_of(document)
    if kind in IMAGES:
        return None
    if kind not in INDEXES:
        raise no_manifest(reference, kind)
    # What an image was built from, and the like, is for no platform: "unknown".
    offered = [
        one
        for one in decode(document.raw, Index, reference).manifests
        if one.platform is not None and one.platform.os != "unknown"
    ]
    wanted = Platform(architecture=architecture, os="linux")
    chosen: Descriptor | None = next((one for one in offered if one.platform == wanted), None)
    if chosen is not None:
        return chosen
    raise wrong_architecture(reference, [one.platform.words for one in offered if one.platform], architecture)


def assert_runs(config: Config, architecture: str, reference: Reference) -> None:
    """Raises DownloadError where an image is for others."""
    if (config.os, config.architecture) != ("linux", architecture):
        found = Platform(architecture=config.architecture, os=config.os).words
        raise wrong_architecture(reference, [found], architecture)


def read(document: Document, reference: Reference) -> Manifest:
    """Raises DownloadError, also for layers that are kept elsewhere."""
    manifest: Manifest = decode(document.raw, Manifest, reference)
    foreign = [one for one in manifest.layers if "foreign" in one.media_type or "nondistributable" in one.media_type]
    if foreign:
        raise DownloadError(f"{reference.words} has layers that its registry may not give away: take another image")
    return manifest
