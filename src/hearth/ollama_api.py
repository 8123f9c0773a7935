# SPDX-License-Identifier: Apache-2.0
"""What Ollama's own API is spoken with: answers that come in lines.

docs/api.md of Ollama: /api/tags, /api/pull, /api/copy, /api/delete, /api/generate, /api/embed. An error may come with
its HTTP status or, once an answer has begun, as a line ``{"error": …}`` in it (docs/api/errors.mdx).
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import requests

from hearth.loopback import session
from hearth.tags import full_name

Line = dict[str, Any]

# A connection, in seconds: it does not wait for a model.
_CONNECT_S = 10.0
_OK = 200


def readable(words: str) -> str:
    """Ollama's words without the signatures in its download links, and not longer than a person reads."""
    return " ".join(re.sub(r"\?[^\s\"]{20,}", "", words).split())[:300]


def digests(answer: Line) -> dict[str, str] | None:
    """What /api/tags says: every model of the store by its full name; none where it is something else."""
    try:
        return {full_name(str(model["name"])): str(model["digest"]) for model in answer["models"]}
    except (KeyError, TypeError):
        return None


def talk(
    url: str, body: Line, look: Callable[[bool], None], *, method: str = "POST", every_s: float = 0.05
) -> Iterator[Line | None]:
    """The objects of an answer as they come, an error as ``{"error": …}``; None whenever nothing came for a moment.

    ``look`` is called after each, with True where the connection broke, and raises where the server's process is gone.
    For a caller that stops early the connection is closed at the next line, by which Ollama notices that nobody wants
    the rest; the thread that waits for one ends with the server, or with this process.
    """
    lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
    left = threading.Event()
    threading.Thread(target=_fetch, args=(method, url, body, lines, left), daemon=True).start()
    try:
        while True:
            try:
                line = lines.get(timeout=every_s)
            except queue.Empty:
                look(False)
                yield None
                continue
            look(line is not None and "broken" in line)
            if line is None:
                return
            yield line
    finally:
        left.set()


def _fetch(method: str, url: str, body: Line, lines: queue.SimpleQueue[Line | None], left: threading.Event) -> None:
    """Put every object of the answer into ``lines``, and None after the last."""
    failed = False
    try:
        with (
            session() as client,
            client.request(method, url, json=body, stream=True, timeout=(_CONNECT_S, None)) as answer,
        ):
            for raw in answer.iter_lines():
                if left.is_set():
                    return
                line = _decoded(raw)
                failed = failed or "error" in line
                lines.put(line)
            if answer.status_code != _OK and not failed:
                lines.put({"error": f"HTTP {answer.status_code}"})
    except requests.RequestException as error:
        lines.put({"error": f"the connection broke: {type(error).__name__}", "broken": True})
    lines.put(None)


def _decoded(raw: bytes) -> Line:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"error": f"{raw[:80]!r}, which is no JSON object"}
