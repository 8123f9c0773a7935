# SPDX-License-Identifier: Apache-2.0
"""A hub of the tests: speaks what the real huggingface_hub asks of huggingface.co, with faults by script.

Large files are redirected to another port, as the real hub redirects to its CDN. As a program it serves a folder of
``<owner>/<name>/<files>``; faults come as JSON by POST to /_hub/faults, GET /_hub/seen gives the record,
DELETE /_hub/faults forgets both, POST /_hub/commit with ``{"repo": …}`` reads a repository's folder again.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import struct
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from cas import Cas
from faults import Fault, Script, Seen
from repos import Blob, Repo

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_XET_TOKEN = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/xet-read-token/(?P<revision>[^/]+)")
_STEP = 64 * 1024


class TestHub:
    """A hub on two ports of the loopback. ``token`` names who may read what; a repository may be added at any time."""

    __test__ = False

    def __init__(self, port: int = 0, host: str = "127.0.0.1", send_buffer: int = 0, *, xet: bool = False) -> None:
        self.repos: dict[str, Repo] = {}
        # Tokens the hub knows at all.
        self.tokens: set[str] = set()
        self.script = Script()
        self.cas = Cas() if xet else None
        # Extra files, by path on the CDN's port.
        self.plain: dict[str, Blob] = {}
        self.root: Path | None = None
        self._host = host
        self._servers = {
            at: _Server((host, number), _handler(self, at), send_buffer) for at, number in (("hub", port), ("cdn", 0))
        }
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return self.url("hub")

    def url(self, at: str) -> str:
        # The two differ in their names as well, as hosts would.
        name = "localhost" if at == "hub" and self._host == "127.0.0.1" else self._host
        return f"http://{name}:{self._servers[at].server_address[1]}"

    def add(self, name: str, files: dict[str, bytes | Path | Blob]) -> Repo:
        repo = self.repos[name] = Repo(name)
        repo.commit(files)
        return repo

    def load(self, root: Path) -> None:
        """Every ``<owner>/<name>`` below ``root`` as a repository with one commit."""
        self.root = root
        for folder in sorted(root.glob("*/*")):
            if folder.is_dir():
                self.add(f"{folder.parent.name}/{folder.name}", _files_of(folder))

    def close(self) -> None:
        self.script.released.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def blob_of(self, sha256: str) -> Blob | None:
        for repo in self.repos.values():
            for tree in repo.commits.values():
                for blob in tree.values():
                    if blob.is_large and blob.sha256 == sha256:
                        return blob
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], send_buffer: int) -> None:
        self._send_buffer = send_buffer
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._send_buffer:
            # What is under way in the kernel when a client dies is sent, and lost: a test wants to know how much.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what these tests do."""


def _handler(hub: TestHub, at: str) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    Handler.at = at
    return Handler


class _Handler(BaseHTTPRequestHandler):
    hub: TestHub
    at: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        path = urlsplit(self.path).path
        if path == "/_hub/faults":
            self.hub.script.add(*(Fault(**one) for one in body))
        elif path == "/_hub/commit" and self.hub.root is not None:
            self.hub.repos[body["repo"]].commit(_files_of(self.hub.root / body["repo"]))
        self._json(200, {"ok": True})

    def do_DELETE(self) -> None:
        self.hub.script.clear()
        self._json(200, {"ok": True})

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/_hub/seen":
            self._json(200, [asdict(one) for one in self.hub.script.asked()])
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        at = "cas" if self.at == "cdn" and path.startswith("/cas/") else self.at
        self.seen = Seen(at=at, method=self.command, path=path, headers=headers, start=_start(headers))
        fault = self.hub.script.take(self.seen)
        if fault is not None and fault.hang == 0:
            self.hub.script.released.wait(600)
            self.close_connection = True
            return
        if fault is not None and (fault.status or fault.location):
            more = {**fault.headers, **({"Location": fault.location} if fault.location else {})}
            self._json(fault.status or 302, {"error": "of the test"}, more)
            return
        if self.at == "cdn":
            self._cdn(path, fault)
        else:
            self._hub(path, fault)

    def _hub(self, path: str, fault: Fault | None) -> None:
        for pattern, answer in (
            (_RESOLVE, self._resolve),
            (_TREE, self._tree),
            (_XET_TOKEN, self._xet_token),
            (_INFO, self._info),
        ):
            found = pattern.fullmatch(path)
            if found is not None:
                groups = found.groupdict()
                repo = self._repo(groups["repo"], files=answer == self._resolve)
                if repo is None:
                    return
                commit = repo.resolve(groups["revision"] or "main")
                if commit is None:
                    self._refuse(404, "RevisionNotFound", f"Invalid rev id: {groups['revision']}")
                    return
                answer(repo, commit, groups.get("path") or "", fault)
                return
        self._refuse(404, "", "Not Found")

    def _repo(self, name: str, *, files: bool) -> Repo | None:
        """The repository, where this caller may read it; else answers as the hub would."""
        repo, token = self.hub.repos.get(name), self.seen.token
        if token and token not in self.hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and token not in repo.allowed):
            if token:
                self._refuse(404, "RepoNotFound", "Repository not found")
            else:
                self._refuse(401, "", "Invalid username or password.")
        elif repo.gated and files and token not in repo.allowed:
            words = "you are not in the authorized list" if token else "you must be authenticated. Please log in"
            self._refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted: {words}.")
        else:
            return repo
        return None

    def _info(self, repo: Repo, commit: str, _: str, __: Fault | None) -> None:
        blobs = parse_qs(urlsplit(self.path).query).get("blobs", [""])[0].lower() == "true"
        self._json(200, repo.info(commit, blobs=blobs))

    def _tree(self, repo: Repo, commit: str, _: str, __: Fault | None) -> None:
        self._json(200, repo.tree(commit, self.hub.cas.hashes if self.hub.cas else {}))

    def _xet_token(self, repo: Repo, commit: str, _: str, __: Fault | None) -> None:
        expires, url = int(time.time()) + 3600, f"{self.hub.url('cdn')}/cas"
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet-token", "X-Xet-Token-Expiration": str(expires)}
        self._json(200, {"casUrl": url, "accessToken": "xet-token", "exp": expires}, headers)

    def _resolve(self, repo: Repo, commit: str, path: str, fault: Fault | None) -> None:
        blob = repo.commits[commit].get(path)
        if blob is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not blob.is_large:
            self._body(blob, fault, {**headers, "ETag": f'"{blob.etag}"'})
            return
        headers |= {
            "X-Linked-Size": str(blob.size),
            "X-Linked-Etag": f'"{blob.sha256}"',
            "ETag": f'"{blob.git}"',
            "Location": f"{self.hub.url('cdn')}/{blob.sha256}?name={quote(path)}",
        }
        if self.hub.cas is not None:
            route = f"{self.hub.endpoint}/api/models/{repo.name}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": self.hub.cas.register(blob), "Link": f'<{route}>; rel="xet-auth"'}
        self._json(302, {}, headers)

    def _cdn(self, path: str, fault: Fault | None) -> None:
        if self.seen.at == "cas" and self.hub.cas is not None:
            answer = self.hub.cas.answer(path, self.seen.headers, f"{self.hub.url('cdn')}/cas")
            if isinstance(answer, bytes):
                self._bytes(206, answer, fault)
            else:
                self._json(200 if answer else 404, answer)
            return
        blob = self.hub.plain.get(path) or self.hub.blob_of(path.lstrip("/"))
        if blob is None:
            self._refuse(404, "", "Not Found")
            return
        self._body(blob, fault, {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"})

    def _body(self, blob: Blob, fault: Fault | None, headers: dict[str, str]) -> None:
        total = blob.size if fault is None or fault.size < 0 else fault.size
        start = 0 if fault is not None and fault.no_range else self.seen.start
        wanted = self.seen.headers.get("if-range")
        if wanted is not None and wanted != headers["ETag"]:
            start = 0
        if start >= total and start:
            self._json(416, {}, {"Content-Range": f"bytes */{total}"})
            return
        self.seen.start = start
        if start:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self._head(206 if start else 200, total - start, headers)
        if self.command == "HEAD":
            return
        if fault is None and isinstance(blob.content, Path):
            with blob.content.open("rb") as file:
                try:
                    self.connection.sendfile(file, start)
                finally:
                    self.seen.sent = max(0, file.tell() - start)
            return
        self._send(lambda at, count: blob.read(start + at, count), total - start, fault, start)

    def _bytes(self, status: int, content: bytes, fault: Fault | None) -> None:
        self._head(status, len(content), {})
        self._send(lambda at, count: content[at : at + count], len(content), fault, 0)

    def _send(self, read: Any, length: int, fault: Fault | None, start: int) -> None:
        """The body, with what the fault does to it."""
        begun, at = time.monotonic(), 0
        stop = length if fault is None or fault.cut < 0 else min(length, fault.cut)
        step = _STEP if fault is None or not fault.rate else max(1, min(_STEP, int(fault.rate / 20)))
        while at < stop:
            if fault is not None and 0 < fault.hang <= at:
                self.hub.script.released.wait(600)
                self.close_connection = True
                return
            piece = bytearray(read(at, min(step, stop - at)))
            if fault is not None and 0 <= fault.flip - start - at < len(piece):
                piece[fault.flip - start - at] ^= 0xFF
            self.connection.sendall(piece)
            at += len(piece)
            self.seen.sent = at
            if fault is not None and fault.rate:
                time.sleep(max(0.0, at / fault.rate - (time.monotonic() - begun)))
        if stop < length:
            if fault is not None and fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    def _refuse(self, status: int, code: str, words: str) -> None:
        headers = {"X-Error-Message": words, **({"X-Error-Code": code} if code else {})}
        self._json(status, {"error": words}, headers)

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self._head(status, len(raw), {"Content-Type": "application/json", **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        if hasattr(self, "seen"):
            self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing: the script has the record."""


def _start(headers: dict[str, str]) -> int:
    found = re.fullmatch(r"bytes=(\d+)-\d*", headers.get("range", ""))
    return int(found[1]) if found else 0


def _files_of(folder: Path) -> dict[str, bytes | Path | Blob]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of <owner>/<name>/<files>")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on, and to be redirected to")
    parser.add_argument("--xet", action="store_true", help="offer large files by Xet as well")
    parser.add_argument("--token", action="append", default=[], help="a token the hub knows")
    options = parser.parse_args()
    hub = TestHub(options.port, options.host, xet=options.xet)
    hub.tokens.update(options.token)
    hub.load(options.root)
    print(hub.endpoint, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
