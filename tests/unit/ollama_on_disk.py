#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An Ollama of the tests that keeps its models on the disk, as Ollama does; as a program it is ``ollama serve``.

Where what lies is written after server/images.go, server/download.go and manifest/manifest.go of Ollama: blobs by
their SHA-256, ``-partial`` while they come, with a file beside it for each part; names as files below ``manifests`` or,
with ``v2``, as links below ``manifests-v2``. Its registry is made up: a layer's bytes follow from its name and size.

The file ``mood`` in the store says, as JSON, what happens in a pull: attributes of OllamaServer. What waits there goes
on as soon as there is a file ``go``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from ollama_server import STEPS, OllamaServer, Reply, full

# What the program can pull: small, but of more than one layer, of which one is shared.
REGISTRY = {
    "qwen3:0.6b": {"weights": 3_000_000, "licence": 1_100},
    "qwen3:1.7b": {"more weights": 2_000_000, "licence": 1_100},
}


@functools.cache
def content(layer: str, size: int) -> bytes:
    return Random(f"{layer} {size}").randbytes(size)  # noqa: S311


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Go(threading.Event):
    """Set, or there is a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(timeout) or self._path.exists()


class OllamaOnDisk(OllamaServer):
    """``layers`` is its registry: of each tag, the layers with their sizes. ``given`` counts the bytes that it gave."""

    def __init__(
        self, folder: Path, address: tuple[str, int] = ("127.0.0.1", 0), *, prune: bool = False, v2: bool = False
    ) -> None:
        self.folder = folder
        self.layers = {tag: dict(layers) for tag, layers in REGISTRY.items()}
        self.given = 0
        self._v2 = v2
        (folder / "blobs").mkdir(exist_ok=True)
        self._root.mkdir(exist_ok=True)
        if prune:
            self._prune()
        super().__init__(address)
        self.goes_on = _Go(folder / "go")

    @property
    def _root(self) -> Path:
        return self.folder / ("manifests-v2" if self._v2 else "manifests")

    def get(self, path: str) -> Reply:
        self._look()
        return super().get(path)

    def post(self, path: str, body: Any) -> Reply:
        self._look()
        status, said = super().post(path, body)
        if status == 200 and path == "/api/copy":
            source = self._name_path(full(body["source"]))
            self._name(full(body["destination"]), source.read_bytes())
        if status == 200 and path == "/api/delete":
            self._name_path(full(body["model"])).unlink()
            self._prune(partial=False)
        return status, said

    def pull(self, tag: str) -> Iterator[bytes | None]:
        mood = self.folder / "mood"
        if mood.exists():
            for name, value in json.loads(mood.read_text(encoding="utf-8")).items():
                setattr(self, name, value)
        yield from self._step("manifest", {"status": "pulling manifest"})
        if full(tag) not in self.layers:
            yield json.dumps({"error": "pull model manifest: file does not exist"}).encode()
            return
        fresh = []
        described = []
        for layer, size in self.layers[full(tag)].items():
            data = content(layer, size)
            described.append({"digest": digest(data), "size": size})
            blob = self._blob(digest(data))
            line: dict[str, Any] = {"status": f"pulling {blob.name[7:19]}", "digest": digest(data), "total": size}
            if blob.exists():
                yield json.dumps({**line, "completed": blob.stat().st_size}).encode()
                continue
            fresh.append(blob)
            yield from self._layer(layer, data, blob, line)
        yield from self._step("verify", {"status": "verifying sha256 digest"}, repeats=False)
        for blob in fresh:
            if digest(blob.read_bytes()) != blob.name.replace("-", ":"):
                blob.unlink()
                yield json.dumps({"error": f"digest mismatch, file must be downloaded again: {blob.name}"}).encode()
                return
        yield from self._step("write", {"status": "writing manifest"})
        self._name(full(tag), json.dumps({"schemaVersion": 2, "layers": described}).encode())
        yield from self._step("success", {"status": "success"})

    def _layer(self, layer: str, data: bytes, blob: Path, line: dict[str, Any]) -> Iterator[bytes | None]:
        partial, part = blob.with_name(f"{blob.name}-partial"), blob.with_name(f"{blob.name}-partial-0")
        done = json.loads(part.read_text(encoding="utf-8"))["Completed"] if part.exists() else 0
        with partial.open("r+b" if partial.exists() else "w+b") as file:
            file.truncate(len(data))
            for step in range(STEPS + 1):
                until = len(data) * step // STEPS
                if until < done:
                    continue
                self.given += until - done
                file.seek(done)
                file.write(data[done:until])
                file.flush()
                done = until
                # Ollama writes this when a part ends, or is given up.
                part.write_text(json.dumps({"N": 0, "Completed": done}), encoding="utf-8")
                yield from self._step(f"{layer} {step}", {**line, "completed": done} if done else line)
        part.unlink()
        partial.rename(blob)

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "-")

    def _name_path(self, name: str) -> Path:
        model, _, tag = name.rpartition(":")
        parts = ["ollama.com" if self._v2 else "registry.ollama.ai", "library", *model.split("/")][-3:]
        return self._root.joinpath(*parts, tag)

    def _name(self, name: str, manifest: bytes) -> None:
        path = self._name_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._v2:
            path.write_bytes(manifest)
            return
        blob = self._blob(digest(manifest))
        blob.write_bytes(manifest)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(blob, path.parent))

    def _manifests(self) -> dict[str, bytes]:
        found = {}
        for path in self._root.glob("*/*/*/*"):
            host, namespace, model, tag = path.relative_to(self._root).parts
            short = [part for part in (host, namespace) if part not in ("registry.ollama.ai", "ollama.com", "library")]
            found[f"{'/'.join((*short, model))}:{tag}"] = path.read_bytes()
        return found

    def _look(self) -> None:
        self.store = {name: hashlib.sha256(data).hexdigest() for name, data in self._manifests().items()}

    def _prune(self, *, partial: bool = True) -> None:
        needed = set()
        for data in self._manifests().values():
            needed |= {digest(data).replace(":", "-")}
            needed |= {layer["digest"].replace(":", "-") for layer in json.loads(data)["layers"]}
        for path in (self.folder / "blobs").iterdir():
            if path.name not in needed and (partial or "-partial" not in path.name):
                path.unlink()


def main() -> int:
    if sys.argv[1:] == ["--version"]:
        # As Ollama says it where none serves.
        sys.stdout.write("Warning: could not connect to a running Ollama instance\nWarning: client version is 0.0.0\n")
        return 0
    if sys.argv[1:] != ["serve"]:
        sys.stderr.write(f"this Ollama knows 'serve', not {sys.argv[1:]}\n")
        return 2
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    folder = Path(os.environ["OLLAMA_MODELS"])
    server = OllamaOnDisk(folder, (host, int(port)), prune=os.environ.get("OLLAMA_NOPRUNE") != "1")
    sys.stderr.write(f"Listening on {host}:{port} (played)\n")
    signal.sigwait((signal.SIGTERM, signal.SIGINT))
    server.close()
    return 0


if __name__ == "__main__":
    # Before there are threads, which would get them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    sys.exit(main())
