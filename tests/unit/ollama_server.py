# SPDX-License-Identifier: Apache-2.0
"""An Ollama of the tests: a small HTTP server that speaks what Ollama documents of its API.

A true seam: Ollama and its registry cannot be had where the tests run, so what they are answered with is this file,
written after Ollama's docs/api.md and docs/api/errors.mdx. Its bytes are numbers only, nothing is downloaded;
``ollama_on_disk`` has some. What hangs on the real one (how long it takes, how it is loaded) is not shown by tests
against it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
# A layer comes in this many steps.
STEPS = 10


def full(name: str) -> str:
    """A name as Ollama lists it."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is no news."""


class OllamaServer:
    """``registry`` is what can be pulled: a tag's digest, and its layers with their sizes in bytes.

    ``store`` is what is there (name to digest), ``partial`` what an interrupted pull left of a layer, ``loaded`` what
    ``/api/ps`` lists. ``seen`` has the requests that change something.
    """

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.registry: dict[str, tuple[str, dict[str, int]]] = {}
        self.store: dict[str, str] = {}
        self.partial: dict[str, int] = {}
        self.loaded: list[str] = []
        self.seen: list[tuple[str, Any]] = []
        # Models that only embed; names that /v1/models keeps to itself.
        self.embedders: set[str] = set()
        self.hidden: set[str] = set()
        # By path, what is answered instead.
        self.answers: dict[str, Reply] = {}
        # A pull stops at the step that ``waits_at`` names, calls ``on_wait`` once, and goes on when told.
        self.waits_at = ""
        self.on_wait: Callable[[], None] = lambda: None
        self.goes_on = threading.Event()
        # A pull ends at that step with these words, as a raw line, or by closing the connection.
        self.fails_at: dict[str, str] = {}
        self.garbled_at: dict[str, bytes] = {}
        self.breaks_at = ""
        self.load_waits = False
        # A caller went away before the end of a pull.
        self.left = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(*server.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.seen.append((self.path, body))
                if self.path in server.answers:
                    self.reply(*server.answers[self.path])
                elif self.path == "/api/pull":
                    self.stream(server.pull(body["model"]))
                else:
                    self.reply(*server.post(self.path, body))

            do_DELETE = do_POST  # noqa: N815 - http.server's name

            def reply(self, status: int, said: Any) -> None:
                raw = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def stream(self, lines: Iterator[bytes | None]) -> None:
                """Lines in chunks, as they come; None breaks the connection off."""
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for line in lines:
                        if line is None:
                            self.close_connection = True
                            return
                        self.wfile.write(f"{len(line) + 1:x}\r\n".encode() + line + b"\n\r\n")
                        if line.startswith(b'{"error"'):
                            break
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    # The caller is gone, as after a pull that was given up.
                    self.close_connection = True
                    server.left = True

            def log_message(self, *args: object) -> None:
                """Says nothing: ``seen`` has it all."""

        self._httpd = _Quiet(address, Handler)
        self._httpd.daemon_threads = True
        self.port: int = self._httpd.server_address[1]
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def get(self, path: str) -> Reply:
        if path in self.answers:
            return self.answers[path]
        match path:
            case "/":
                return 200, b"Ollama is running"
            case "/api/tags":
                return 200, {"models": [{"name": name, "digest": digest} for name, digest in self.store.items()]}
            case "/api/ps":
                return 200, {"models": [{"name": full(name), "model": full(name)} for name in self.loaded]}
            case "/v1/models":
                names = [name for name in self.store if name not in self.hidden]
                return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
        return 404, b"404 page not found"

    def post(self, path: str, body: Any) -> Reply:
        if path == "/api/copy":
            if full(body["source"]) not in self.store:
                return 404, {"error": f"model {body['source']!r} not found"}
            self.store[full(body["destination"])] = self.store[full(body["source"])]
            return 200, b""
        if full(body["model"]) not in self.store:
            return 404, {"error": f"model '{body['model']}' not found"}
        if path == "/api/delete":
            del self.store[full(body["model"])]
            return 200, b""
        embeds = self.store[full(body["model"])] in self.embedders
        match path:
            case "/api/generate" if embeds:
                return 400, {"error": f'"{body["model"]}" does not support generate'}
            case "/api/generate" | "/api/embed":
                if self.load_waits:
                    self.wait()
                self.loaded.append(body["model"])
                done = {"model": body["model"], "done": True, "done_reason": "load", "response": ""}
                return 200, {"model": body["model"], "embeddings": []} if path == "/api/embed" else done
            case "/v1/chat/completions":
                return 200, {"model": body["model"], "choices": [{"message": {"content": "Hello."}}]}
        return 404, b"404 page not found"

    def pull(self, tag: str) -> Iterator[bytes | None]:
        """The lines of a pull; a step's name is its status, or the layer and how far it is ("weights 5")."""
        yield from self._step("manifest", {"status": "pulling manifest"})
        digest, layers = self.registry[full(tag)]
        for layer, size in layers.items():
            for step in range(STEPS + 1):
                completed = size * step // STEPS
                if completed < self.partial.get(layer, 0):
                    continue
                self.partial[layer] = completed
                line: dict[str, Any] = {"status": f"pulling {layer}", "digest": f"sha256:{layer}", "total": size}
                # Until something has come, the field may be missing.
                yield from self._step(f"{layer} {step}", {**line, "completed": completed} if completed else line)
        yield from self._step("verify", {"status": "verifying sha256 digest"}, repeats=False)
        yield from self._step("write", {"status": "writing manifest"})
        self.store[full(tag)] = digest
        yield from self._step("success", {"status": "success"})

    def _step(self, name: str, line: dict[str, Any], *, repeats: bool = True) -> Iterator[bytes | None]:
        raw = json.dumps(line).encode()
        if name == self.breaks_at:
            yield None
        if name in self.garbled_at:
            yield self.garbled_at[name]
        if name in self.fails_at:
            yield json.dumps({"error": self.fails_at[name]}).encode()
        yield raw
        if name == self.waits_at:
            self._tell()
            while not self.goes_on.wait(0.01):
                # Ollama repeats itself (every 60 ms) while a layer comes, and is silent while it hashes.
                if repeats:
                    yield raw

    def wait(self) -> None:
        self._tell()
        self.goes_on.wait(10)

    def _tell(self) -> None:
        told, self.on_wait = self.on_wait, lambda: None
        told()

    def close(self) -> None:
        self.goes_on.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()
