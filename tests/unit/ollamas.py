# SPDX-License-Identifier: Apache-2.0
"""The Ollama of the tests where Hearth would run one in a container."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from ollama_on_disk import OllamaOnDisk, content, digest
from ollama_server import OllamaServer

from hearth.download import Request, serving
from hearth.download.serving import Serving
from hearth.errors import HearthError

# The layers of qwen3:0.6b there.
WEIGHTS = digest(content("weights", 3_000_000))
LICENCE = digest(content("licence", 1_100))


def asked(store: Path, **fields: Any) -> Request:
    """A request for qwen3:0.6b; no space is kept free."""
    complete = {"ollama": "qwen3:0.6b", "image": "ollama/ollama:1", "reserve_bytes": 0}
    return Request(folder=str(store), **{**complete, **fields})


def sentence_of(call: Callable[[], object]) -> str:
    """Why it fails."""
    with pytest.raises(HearthError) as caught:
        call()
    return str(caught.value)


def blob(store: Path, name: str) -> Path:
    """Where a blob is: a digest, or what comes behind it."""
    return store / "blobs" / name.replace(":", "-")


@contextmanager
def on_disk(
    folder: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, starts: list[Request]
) -> Iterator[OllamaOnDisk]:
    """An Ollama for a store that need not be there yet; ``starts`` gets what it is started for."""
    elsewhere.mkdir()
    disk = OllamaOnDisk(elsewhere)
    disk.folder = folder

    class Started(Near):
        def __init__(self, store: Path, request: Request) -> None:
            super().__init__(disk, request)
            assert store == folder
            starts.append(request)
            for name in ("blobs", "manifests"):
                (folder / name).mkdir(exist_ok=True)

    monkeypatch.setattr(serving, "Serving", Started)
    yield disk
    disk.close()


class Near(Serving):
    """It is up already, and ends with ``process``, where one is given."""

    def __init__(self, ollama: OllamaServer, request: Request, process: subprocess.Popen[bytes] | None = None) -> None:
        super().__init__(Path(request.folder), request)
        self.base_url = f"http://127.0.0.1:{ollama.port}"
        self._watched = process

    def __enter__(self) -> Self:
        return self

    @property
    def is_alive(self) -> bool:
        return self._watched is None or self._watched.poll() is None

    def close(self, *, done: bool = False) -> None:
        """It stays."""
