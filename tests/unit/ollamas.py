# SPDX-License-Identifier: Apache-2.0
"""The Ollama of the tests where Hearth would run one in a container."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hearth.download import Request
from hearth.download.serving import Serving

if TYPE_CHECKING:
    from ollama_server import OllamaServer


def asked(store: Path, **fields: Any) -> Request:
    """A request for qwen3:0.6b; no space is kept free."""
    complete = {"ollama": "qwen3:0.6b", "image": "ollama/ollama:1", "reserve_bytes": 0}
    return Request(folder=str(store), **{**complete, **fields})


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
