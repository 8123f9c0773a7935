# SPDX-License-Identifier: Apache-2.0
"""One pull by Ollama: followed line by line, bounded by the disk and by time, and its errors in our words."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from hearth.download.errors import DownloadError, no_room
from hearth.download.meter import Meter, Progress, Tell
from hearth.download.request import Request
from hearth.download.serving import Serving
from hearth.ollama_api import Line, readable
from hearth.tags import registry_of
from hearth.words import gigabytes

# What came is hashed in one go, without a word (server/images.go); a slow disk reads at least so many bytes a second.
_HASH_BYTES_PER_S = 100e6
# How often whoever waits is told how far it is, in seconds.
_TELL_EVERY_S = 0.5

# What Ollama says, and what to make of it. The first that matches counts.
_ERRORS = (
    (r"pull model manifest: file does not exist", "{registry} has no model {tag}: correct the tag in the model's file"),
    (r"no space left", "the disk is full: make room at {store} (df -h {store}), then ask again; what came is kept"),
    (r"newer version of ollama", "{tag} wants a newer Ollama than {image}: give the model a newer image"),
    (
        r"permission denied|read-only file system",
        "it may not write into {store} ({words}): give all of it to its owner (chown -R), then ask again",
    ),
    (r"digest mismatch", "what came of {tag} is damaged ({words}): ask again"),
    (
        r"dial tcp|no such host|timeout|connection re|unreachable|deadline exceeded|max retries|EOF|tls|x509|proxy",
        (
            "{registry} cannot be reached ({words}): check this box's network, DNS and proxy, then ask again; "
            "what came is kept"
        ),
    ),
    (r"", "Ollama says {words}: ask again, what came is kept"),
)


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull brought: sizes of all blobs by digest, those of them that came, bytes that did, and seconds."""

    layers: dict[str, int]
    fetched: tuple[str, ...]
    moved: int
    seconds: float


def pull(server: Serving, request: Request, tell: Tell) -> Pulled:
    """Have Ollama pull ``request.ollama`` into its store. Raises DownloadError; what came is kept."""
    tag, patience_s = request.ollama, request.patience.ollama_stall_s
    begun = moved = time.monotonic()
    told = 0.0
    layers = Layers(tag)
    for line in server.talk("/api/pull", {"model": tag}):
        now = time.monotonic()
        if line is not None:
            if "error" in line:
                raise DownloadError(_why(server, request, str(line["error"])))
            if layers.take(line):
                moved = now
                _assert_room(server, request, layers)
            if layers.succeeded:
                return Pulled(
                    layers=dict(layers.sizes),
                    fetched=layers.fetched,
                    moved=layers.moved,
                    seconds=now - begun,
                )
        wait_s = patience_s + (sum(layers.sizes.values()) / _HASH_BYTES_PER_S if layers.verifies else 0.0)
        if now - moved >= wait_s:
            raise DownloadError(
                f"the pull of {tag} has not moved for {wait_s:.0f} s at {layers.words}: check this box's way to "
                f"{registry_of(tag)}, then ask again; what came is kept"
            )
        if now - told >= _TELL_EVERY_S:
            told = now
            tell(layers.progress(now))
    raise DownloadError(_why(server, request, f"nothing more, and not that it was done, at {layers.words}"))


class Layers:
    """Where a pull is: all layers it has named so far."""

    def __init__(self, tag: str) -> None:
        self.sizes: dict[str, int] = {}
        self._tag = tag
        self._done: dict[str, int] = {}
        self._had: dict[str, int] = {}
        self._status = ""
        self._meter = Meter("fetching")

    @property
    def missing(self) -> int:
        return sum(self.sizes.values()) - sum(self._done.values())

    @property
    def moved(self) -> int:
        """Bytes that came in this pull."""
        return sum(self._done.values()) - sum(self._had.values())

    @property
    def fetched(self) -> tuple[str, ...]:
        """The layers that were not there whole."""
        return tuple(sorted(one for one, size in self.sizes.items() if self._had[one] < size))

    @property
    def verifies(self) -> bool:
        return self._status.startswith("verifying")

    @property
    def succeeded(self) -> bool:
        return self._status == "success"

    @property
    def words(self) -> str:
        total = sum(self.sizes.values())
        if total:
            return f"{gigabytes(total - self.missing)} of {gigabytes(total)} GB"
        return f"'{self._status}'" if self._status else "its begin"

    def take(self, line: Line) -> bool:
        """Note what a line says. True where that is news: Ollama repeats itself while nothing comes."""
        before = self._status, dict(self._done)
        self._status = str(line.get("status", ""))
        total, digest = line.get("total"), str(line.get("digest"))
        if isinstance(total, int):
            # Left out until something has come (docs/api.md).
            found = line.get("completed")
            done = found if isinstance(found, int) else 0
            if digest not in self.sizes:
                self.sizes[digest], self._had[digest] = total, done
                self._meter.expect(total)
                # What an earlier pull left behind is no speed of this one.
                self._meter.have(done)
            else:
                self._meter.move(done - self._done[digest])
            self._done[digest] = done
        return before != (self._status, self._done)

    def progress(self, now: float) -> Progress:
        """As it is now, in seconds of the monotonic clock."""
        found = self._meter.progress(now)
        if not self.sizes:
            return replace(found, phase="asking", note=self._tag)
        if self.missing:
            return found
        return replace(found, phase="checking", bytes_total=0, note=f"Ollama: {self._status}")


def _assert_room(server: Serving, request: Request, layers: Layers) -> None:
    """Ollama names a layer's size when it begins with it: the largest comes first."""
    free = shutil.disk_usage(server.store).free
    if layers.missing > 0 and layers.missing + request.reserve_bytes > free:
        raise no_room(server.store, layers.missing, request.reserve_bytes, free, "what came is kept")


def _why(server: Serving, request: Request, words: str) -> str:
    sentence = next(said for pattern, said in _ERRORS if re.search(pattern, words, re.IGNORECASE))
    about: Mapping[str, str] = {
        "registry": registry_of(request.ollama),
        "tag": request.ollama,
        "store": str(server.store),
        "image": request.image,
        "words": readable(words),
    }
    return f"{request.ollama} could not be pulled: {sentence.format(**about)}"
