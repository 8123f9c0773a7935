# SPDX-License-Identifier: Apache-2.0
"""A registry of the tests, over HTTP on the loopback, and a Docker that takes in what a real one would."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import msgspec

from hearth.errors import HearthError
from hearth.images.dockerd import Docker, Image, Settings

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
USER, PASSWORD = "me", "right"
# Docker takes registries on the loopback without a certificate.
LOOPBACK = ("127.0.0.0/8",)


def digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def layer(seed: int, size: int = 50_000) -> bytes:
    """A layer, unpacked: a tar with one file that cannot be compressed."""
    from random import Random

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo(f"file-{seed}")
        entry.size = size
        archive.addfile(entry, io.BytesIO(Random(seed).randbytes(size)))  # noqa: S311
    return raw.getvalue()


class Made(msgspec.Struct, frozen=True):
    """An image of a registry: digests of all, of the manifest, the configuration, the layers, and of those unpacked."""

    digest: str
    manifest: str
    config: str
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]


class ScriptedRegistry:
    """``login``: none, bearer or basic. ``faults`` answer in place of it, the first that fits, once each.

    A fault gets the method's path and gives a status with headers and a body, or a number of bytes after which the
    answer breaks off, or nothing.
    """

    def __init__(self, login: str = "") -> None:
        self.login = login
        self.public = True
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.redirects = ""
        self.faults: list[Callable[[str], tuple[int, dict[str, str], bytes] | int | None]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.tokens = 0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.seen.append((self.path, dict(self.headers)))
                for fault in registry.faults:
                    found = fault(self.path)
                    if found is None:
                        continue
                    registry.faults.remove(fault)
                    if isinstance(found, int):
                        self.cut(found)
                    else:
                        self.say(*found)
                    return
                self.say(*registry.answer(self.path, dict(self.headers)))

            def say(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def cut(self, after: int) -> None:
                status, headers, body = registry.answer(self.path, dict(self.headers))
                self.say(status, {**headers, "Content-Length": str(len(body))}, body[:after])
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, *unpacked: bytes, tag: str = "1", architecture: str = "arm64", index: bool = True) -> Made:
        """An image with these layers; ``index``: beside one for another platform, as they are published."""
        layers = [gzip.compress(one, mtime=0) for one in unpacked]
        diff_ids = [digest(one) for one in unpacked]
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"diff_ids": diff_ids}}).encode()
        for blob in (*layers, config):
            self.blobs[digest(blob)] = blob
        described = [{"mediaType": LAYER, "digest": digest(one), "size": len(one)} for one in layers]
        about = {"digest": digest(config), "size": len(config)}
        raw = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": described}).encode()
        self.manifests[digest(raw)] = (MANIFEST, raw)
        named = digest(raw)
        if index:
            platforms = [(named, architecture, "linux"), ("sha256:" + "0" * 64, "unknown", "unknown")]
            entries = [
                {"digest": one, "size": 1, "platform": {"architecture": arch, "os": system}}
                for one, arch, system in platforms
            ]
            whole = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
            named = digest(whole)
            self.manifests[named] = (INDEX, whole)
        self.tags[tag] = named
        return Made(named, digest(raw), digest(config), tuple(digest(one) for one in layers), tuple(diff_ids))

    def asked(self, part: str = "") -> list[str]:
        """The paths that were asked for."""
        return [path for path, _ in self.seen if part in path]

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/token"):
            return self._token(headers)
        said = headers.get("Authorization", "")
        if self.login == "bearer" and said != f"Bearer t{self.tokens}":
            challenge = f'Bearer realm="http://{self.host}/token",service="tests",scope="repository:me/engine:pull"'
            return 401, {"WWW-Authenticate": challenge}, error("UNAUTHORIZED", "authentication required")
        if self.login == "basic" and said != basic():
            return 401, {"WWW-Authenticate": 'Basic realm="tests"'}, error("UNAUTHORIZED", "authentication required")
        repository, kind, name = path.removeprefix("/v2/").rsplit("/", 2)
        if repository != "me/engine":
            return 404, {}, error("NAME_UNKNOWN", "repository name not known to registry")
        if kind == "manifests":
            found = self.manifests.get(self.tags.get(name, name))
            return (200, {"Content-Type": found[0]}, found[1]) if found else (404, {}, error("MANIFEST_UNKNOWN", ""))
        blob = self.blobs.get(name)
        if blob is None:
            return 404, {}, error("BLOB_UNKNOWN", "")
        if self.redirects:
            return 307, {"Location": f"{self.redirects}/v2/me/engine/blobs/{name}"}, b""
        start = int(headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in headers else 0
        part = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"} if start else {}
        return (206 if start else 200), part, blob[start:]

    def _token(self, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        said = headers.get("Authorization", "")
        if (said and said != basic()) or (not said and not self.public):
            return 401, {}, json.dumps({"details": "incorrect username or password"}).encode()
        self.tokens += 1
        return 200, {}, json.dumps({"token": f"t{self.tokens}"}).encode()


def error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class FakeDocker(Docker):
    """Images by their names. ``refuses`` is what it says to the next archive that it gets."""

    def __init__(self, *, containerd: bool = False, root: str = "/", architecture: str = "arm64") -> None:
        super().__init__()
        self.images: dict[str, Image] = {}
        self.containers: dict[str, list[str]] = {}
        self.refuses = ""
        self.archives: list[dict[str, bytes]] = []
        self.settings = Settings(root=root, architecture=architecture, containerd=containerd, insecure=LOOPBACK)

    def add(self, name: str, *, ident: str = "", **fields: Any) -> Image:
        image = Image(id=ident or digest(name.encode()), size=1000, layers=fields.pop("layers", ("l1",)), **fields)
        self.images[name] = image
        return image

    def image(self, name: str) -> Image | None:
        found = self.images.get(name)
        if found is None:
            return None
        tags = tuple(sorted(one for one, image in self.images.items() if image.id == found.id and "@" not in one))
        digests = tuple(sorted(one for one, image in self.images.items() if image.id == found.id and "@" in one))
        return msgspec.structs.replace(found, tags=tags, digests=digests)

    def all_layers(self) -> list[tuple[str, ...]]:
        return [image.layers for image in self.images.values()]

    def used(self) -> dict[str, list[str]]:
        return self.containers

    def tag(self, image: str, name: str) -> None:
        self.images[name] = self.images[image]

    def remove(self, name: str) -> str:
        del self.images[name]
        return ""

    def load(self, data: Iterable[bytes], tell: Callable[[str, int, int], None]) -> None:
        """Unpacks as Docker does: each layer must be in the archive, or known, and be what the configuration says."""
        raw = b"".join(data)
        if self.refuses:
            said, self.refuses = self.refuses, ""
            raise HearthError(said)
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            files = {
                member.name: file.read() for member in archive if (file := archive.extractfile(member)) is not None
            }
        self.archives.append(files)
        saved = json.loads(files["manifest.json"])[0]
        config = files[saved["Config"]]
        wanted = json.loads(config)["rootfs"]["diff_ids"]
        have: list[str] = []
        for number, path in enumerate(saved["Layers"]):
            if path in files:
                unpacked = gzip.decompress(files[path]) if files[path][:2] == b"\x1f\x8b" else files[path]
                have.append(digest(unpacked))
            elif any(layers[: number + 1] == tuple(wanted[: number + 1]) for layers in self.all_layers()):
                have.append(wanted[number])
            else:
                raise HearthError(f"open {path}: no such file or directory")
            tell(path, 1, 1)
        if have != wanted:
            raise HearthError("invalid diffID for layer")
        described = json.loads(files["index.json"])["manifests"][0]
        ident = described["digest"] if self.settings.containerd else digest(config)
        for name in saved["RepoTags"]:
            self.images[name] = Image(id=ident, size=len(raw), layers=tuple(have))

    def save(self, name: str) -> Iterator[bytes]:
        image = self.images[name]
        raw = json.dumps({"name": name, "id": image.id, "layers": image.layers}).encode()
        yield raw[:5]
        yield raw[5:]
