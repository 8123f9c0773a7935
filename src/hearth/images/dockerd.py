# SPDX-License-Identifier: Apache-2.0
"""The box's Docker, as far as images go."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hearth.errors import HearthError
from hearth.local import LocalConnection

if TYPE_CHECKING:
    from docker import APIClient

SOCKET = Path("/run/docker.sock")
_ANSWER_S = 10.0
# Docker says nothing while it writes 20 GB to a slow disk; but a hung one must not be waited for for ever.
_LONG_S = 3600
# What Docker says of its host, as images say it in their manifests.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What Docker has under a name. ``layers`` are the digests of its unpacked layers, from the lowest up."""

    id: str
    size: int
    layers: tuple[str, ...]
    digests: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How this Docker is set up.

    ``containerd``: images are in containerd's store, which keeps their manifests. ``mirrors`` stand in for docker.io,
    ``insecure`` are networks and registries whose certificates are not asked for.
    """

    root: str
    architecture: str
    containerd: bool = False
    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    proxies: dict[str, str] = {}


def settings_of(info: Mapping[str, Any]) -> Settings:
    """From ``GET /info`` (Docker Engine API, SystemInfo)."""
    registries = info.get("RegistryConfig") or {}
    indexes = registries.get("IndexConfigs") or {}
    insecure = [*(registries.get("InsecureRegistryCIDRs") or ())]
    insecure += [name for name, index in indexes.items() if index.get("Secure") is False]
    arch = str(info.get("Architecture", ""))
    proxies = {"http": info.get("HttpProxy"), "https": info.get("HttpsProxy"), "no": info.get("NoProxy")}
    return Settings(
        root=str(info.get("DockerRootDir") or "/var/lib/docker"),
        architecture=_ARCHITECTURES.get(arch, arch),
        containerd=any("io.containerd.snapshotter" in str(pair) for pair in info.get("DriverStatus") or ()),
        mirrors=tuple(registries.get("Mirrors") or ()),
        insecure=tuple(insecure),
        # With a password in it, it is told with stars.
        proxies={name: str(value) for name, value in proxies.items() if value and "xxxxx" not in value},
    )


class Docker:
    """Its API. Questions go over its socket, which costs nothing; changes by Docker's SDK. All raise HearthError."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket

    @cached_property
    def _api(self) -> APIClient:
        import docker

        try:
            return docker.APIClient(base_url=f"unix://{self._socket}", version="auto", timeout=_LONG_S)
        except docker.errors.DockerException as error:
            raise _away(error) from None

    def get(self, path: str) -> Any:
        """What it answers; None for what it does not know."""
        connection = LocalConnection(self._socket, _ANSWER_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == http.HTTPStatus.NOT_FOUND:
                return None
            if answer.status != http.HTTPStatus.OK:
                raise HearthError(f"Docker answers HTTP {answer.status} to GET {path}: {_message(body)}")
            return json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _away(error) from None
        finally:
            connection.close()

    def image(self, name: str) -> Image | None:
        said = self.get(f"/images/{urllib.parse.quote(name, safe='/:@')}/json")
        if said is None:
            return None
        return Image(
            id=said["Id"],
            size=int(said.get("Size") or 0),
            layers=tuple((said.get("RootFS") or {}).get("Layers") or ()),
            digests=tuple(said.get("RepoDigests") or ()),
            tags=tuple(said.get("RepoTags") or ()),
            labels=(said.get("Config") or {}).get("Labels") or {},
        )

    @cached_property
    def settings(self) -> Settings:
        return settings_of(self.get("/info"))

    def all_layers(self) -> list[tuple[str, ...]]:
        """The layers of every image there is."""
        found = []
        for one in self.get("/images/json") or ():
            image = self.image(one["Id"])
            if image is not None:
                found.append(image.layers)
        return found

    def used(self) -> dict[str, list[str]]:
        """By the ids of images, the names of containers that are made of them, running or not."""
        found: dict[str, list[str]] = {}
        for one in self.get("/containers/json?all=1") or ():
            found.setdefault(one["ImageID"], []).append(", ".join(name.lstrip("/") for name in one["Names"]))
        return found

    def tag(self, image: str, name: str) -> None:
        """Give an image a further name."""
        repository, _, tag = name.rpartition(":")
        self._do(lambda: self._api.tag(image, repository, tag))

    def remove(self, name: str) -> str:
        """Take a name from an image; it goes when that was its last. Returns why that was refused, or nothing."""
        import docker

        try:
            self._api.remove_image(name)
        except docker.errors.ImageNotFound:
            return ""
        except docker.errors.APIError as error:
            if error.status_code == http.HTTPStatus.CONFLICT:
                return str(error.explanation)
            raise HearthError(f"Docker cannot remove {name}: {error.explanation}") from None
        return ""

    def load(self, data: Iterable[bytes], tell: Callable[[str, int, int], None]) -> None:
        """Have it take in an archive. ``tell`` gets the layer, and bytes done of all, as Docker unpacks it."""

        def carry_out() -> None:
            lines: Iterator[dict[str, Any]] = self._api.load_image(data, quiet=False)  # type: ignore[no-untyped-call]
            for line in lines:
                detail = line.get("progressDetail") or {}
                if "error" in line or "errorDetail" in line:
                    raise HearthError(str(line.get("error") or line["errorDetail"].get("message")))
                if line.get("id") and detail.get("total"):
                    tell(line["id"], int(detail.get("current") or 0), int(detail["total"]))

        self._do(carry_out)

    def save(self, name: str) -> Iterator[bytes]:
        """The image as an archive that ``load`` takes."""
        stream: Iterator[bytes] = self._do(lambda: self._api.get_image(name, chunk_size=1 << 20))
        return stream

    def _do(self, work: Callable[[], Any]) -> Any:
        import docker
        import requests

        try:
            return work()
        except docker.errors.APIError as error:
            raise HearthError(str(error.explanation or error)) from None
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise _away(error) from None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _away(error: Exception) -> HearthError:
    return HearthError(f"Docker does not answer ({error}): see journalctl -u docker")
