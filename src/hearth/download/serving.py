# SPDX-License-Identifier: Apache-2.0
"""An Ollama that serves no model: for as long as a store is written into, without a GPU, on the box's loopback.

The registry's protocol is Ollama's own business, and so is how its store is written. It needs no admission: no model is
loaded, and its memory is bounded.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import requests

from hearth import ollama_api
from hearth.download.errors import DownloadError
from hearth.download.request import Request
from hearth.loopback import session
from hearth.ollama_api import Line

DOCKER = "/usr/bin/docker"
_PORT = 11434
_MODELS = "/models"
# Ends Ollama when it is told to by a line, or when this process ends, however it does: stdin is closed then. That comes
# a second after Ollama finds the connection closed, at which it notes how far its parts came (server/download.go).
_PROGRAM = 'ollama serve & server=$!; exec 3<&0; { read -r line <&3 || sleep 1; kill "$server"; } & wait "$server"'
_ENOUGH = b"enough\n"
# The way out, where a box has one of its own (docs/faq.mdx of Ollama). By name: a password is on no command line.
_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
_LOOK_EVERY_S = 0.1
_ANSWER_S = 30.0
_END_S = 20.0
_OK = 200


class Serving:
    """Ollama on a store, from its image; a context. Whoever makes one holds the store's lock.

    Entering raises DownloadError where it does not come up.
    """

    def __init__(self, store: Path, request: Request) -> None:
        self.store = store
        self.image = request.image
        self.base_url = ""
        self._name = container_of(store)
        self._patience_s = request.patience.ollama_start_s
        self._log: IO[bytes] | None = None
        self._command = command(store, request, os.environ)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self.image:
            raise DownloadError(
                f"no image is named to run Ollama from, which has to be asked for what is in {self.store}: give image"
            )
        # Left by a power cut.
        self._remove()
        self._log = log = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=log)
            self._wait()
        except OSError as error:
            self.close()
            raise DownloadError(f"{DOCKER} cannot be run ({error.strerror}): site.yml brings it") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(done=kind is None)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self, *, done: bool = False) -> None:
        """End it, and what is left of it; with ``done``, nothing is under way in it."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                if done:
                    self._process.stdin.write(_ENOUGH)
                self._process.stdin.close()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._remove()
        if self._log is not None:
            self._log.close()

    def talk(self, path: str, body: Line, *, method: str = "POST") -> Iterator[Line | None]:
        """ollama_api.talk with it. Raises DownloadError where it ended."""
        return ollama_api.talk(self.base_url + path, body, self._look, method=method, every_s=_LOOK_EVERY_S)

    def digests(self) -> dict[str, str]:
        """Every model in the store, by its full name. Raises DownloadError."""
        try:
            with session() as client:
                answer = client.get(f"{self.base_url}/api/tags", timeout=_ANSWER_S).json()
        except (requests.RequestException, ValueError) as error:
            raise DownloadError(f"Ollama did not list its store ({type(error).__name__}): {self.why()}") from None
        known = ollama_api.digests(answer)
        if known is None:
            raise DownloadError(f"Ollama ({self.image}) lists its store in another way than is known: {answer!r:.200}")
        return known

    def why(self) -> str:
        """The last that its log says."""
        lines = self._said()
        return f"its log ends with: {ollama_api.readable(lines[-1])}" if lines else "its log is empty"

    def _said(self) -> list[str]:
        """The lines of its log, and of the client's."""
        if self._log is None:
            return []
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        # The client's last words after whatever went wrong.
        return [line for line in lines if line and "docker run --help" not in line]

    def _look(self, broken: bool) -> None:
        deadline = time.monotonic() + (2.0 if broken else 0.0)
        while self.is_alive and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        if not self.is_alive:
            raise DownloadError(f"Ollama ({self.image}) ended while it was asked: {self.why()}; ask again")

    def _wait(self) -> None:
        deadline = time.monotonic() + self._patience_s
        while not self._answers():
            if not self.is_alive:
                raise DownloadError(self._why_not_up())
            if time.monotonic() >= deadline:
                raise DownloadError(
                    f"Ollama ({self.image}) did not listen within {self._patience_s:g} s: {self.why()}; ask again"
                )
            time.sleep(_LOOK_EVERY_S)

    def _answers(self) -> bool:
        if not self.base_url:
            # The port is Docker's choice, of those that nobody has.
            address = _docker("port", self._name, f"{_PORT}/tcp").split()
            if not address:
                return False
            self.base_url = f"http://{address[0]}"
        with suppress(requests.RequestException), session() as client:
            return client.get(self.base_url, timeout=1.0).status_code == _OK
        return False

    def _why_not_up(self) -> str:
        if any(said in line for line in self._said() for said in ("No such image", "Unable to find image")):
            return f"Ollama's image {self.image} is not on this box: run site.yml, which brings it, then ask again"
        return f"Ollama ({self.image}) did not start: {self.why()}"

    def _remove(self) -> None:
        _docker("rm", "--force", self._name)


def _docker(*words: str) -> str:
    """What the client says; empty where it fails."""
    try:
        return subprocess.run((DOCKER, *words), capture_output=True, text=True, check=True, timeout=_ANSWER_S).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def container_of(store: Path) -> str:
    """The name of the container, of which there is one a store at a time."""
    return f"hearth-pull-{hashlib.sha256(os.fsencode(store)).hexdigest()[:8]}"


def command(store: Path, request: Request, environment: os._Environ[str] | dict[str, str]) -> tuple[str, ...]:
    """The whole ``docker run``: as the store's owner, nothing writable but the store, published on the loopback."""
    words = [DOCKER, "run", "--rm", "--interactive", "--name", container_of(store), "--pull", "never"]
    words += ["--log-driver", "none", "--label", "hearth.pull=ollama"]
    words += ["--user", f"{request.uid}:{request.gid}", "--cap-drop", "ALL"]
    words += ["--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp:rw,nosuid,nodev"]  # noqa: S108
    # What serves goes first.
    words += ["--memory", "2g", "--memory-swap", "2g", "--cpu-shares", "256", "--oom-score-adj", "500"]
    words += ["--publish", f"127.0.0.1::{_PORT}", "--mount", f"type=bind,source={store},target={_MODELS}"]
    settings = {
        "HOME": "/tmp",  # noqa: S108
        "OLLAMA_HOST": f"0.0.0.0:{_PORT}",
        "OLLAMA_MODELS": _MODELS,
        # Else it deletes at its start what was half fetched (its server/routes.go).
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
    }
    words += [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    words += [word for name in _VARIABLES if environment.get(name) for word in ("--env", name)]
    return (*words, "--entrypoint", "/bin/sh", request.image, "-c", _PROGRAM)
