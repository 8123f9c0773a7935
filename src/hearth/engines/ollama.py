# SPDX-License-Identifier: Apache-2.0
"""Making an Ollama engine ready: its model pulled, given Hearth's name, and loaded.

Ollama starts empty-handed: ``ollama serve`` listens at once, and everything else is asked of it over its own API
(docs/api.md of Ollama: /api/tags, /api/pull, /api/copy, /api/generate, /api/embed). An error may come with its HTTP
status or, once an answer has begun, as a line ``{"error": …}`` in it (docs/api/errors.mdx).
"""

from __future__ import annotations

import fcntl
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import requests

from hearth.contract import Engine
from hearth.engines import probe
from hearth.errors import EngineFailedError
from hearth.words import gigabytes, span

Say = Callable[[str], None]
Line = dict[str, Any]

# Ollama itself tries a part again that got nothing for 30 s (server/download.go): this leaves it three tries.
STALL_S = 120.0
# One line for the journal this often, in seconds.
REPORT_S = 5.0
# What came is hashed in one go, without a word (server/images.go); a slow disk reads at least so many bytes a second.
_HASH_BYTES_PER_S = 100e6
# Rates are told over this many reports: one minute.
_REPORTS_KEPT = 12
# Between the end of an engine's connections and that of the docker client that systemd watches, in seconds.
_END_OF_PROCESS_S = 2.0
# The list of a store, and a connection, in seconds: neither waits for a model.
_LIST_S = 30.0
_CONNECT_S = 10.0
_OK = 200
# Registry of tags that name none (types/model/name.go of Ollama).
_REGISTRY = "registry.ollama.ai"

# What Ollama says, and what to make of it. The first that matches counts.
_PULL_ERRORS = (
    (r"pull model manifest: file does not exist", "{registry} has no model {tag}: correct the tag in the model's file"),
    (r"no space left", "the disk is full: make room at {store} (df -h {store}), then start it again"),
    (r"newer version of ollama", "{tag} wants a newer Ollama than {image}: give the model a newer image"),
    (
        r"permission denied|read-only file system",
        "it may not write to {store} ({words}): site.yml gives the folder its owner",
    ),
    (r"digest mismatch", "what came of {tag} is damaged ({words}): start it again"),
    (
        r"dial tcp|no such host|timeout|connection re|unreachable|deadline exceeded|max retries|EOF|tls|x509|proxy",
        "{registry} cannot be reached ({words}): check this box's network, DNS and proxy, then start it again",
    ),
    (r"", "Ollama says {words}: see its log"),
)


def make_ready(
    engine: Engine, pid: int | None, say: Say, *, stall_s: float = STALL_S, report_s: float = REPORT_S
) -> float:
    """Wait until Ollama listens, pull the model where it is not in the store, and load it under Hearth's name.

    Returns the seconds this took without the pull. Ollama has ``start_timeout_s`` seconds to listen and as many to
    load; a pull may take its time, as long as something moves within ``stall_s`` seconds. ``say`` gets its progress,
    a line every ``report_s`` seconds. The end of process ``pid`` ends everything at once.
    Raises EngineFailedError.
    """
    with probe.ProcessWatch(pid) as watch:
        listening_s = probe.wait_until(probe.is_listening, engine, engine.start_timeout_s, watch)
        if _digest(engine, watch, engine.tag) is None:
            with _only_pull(engine, watch, say):
                # Another engine may have pulled it meanwhile.
                if _digest(engine, watch, engine.tag) is None:
                    _pull(engine, watch, say, stall_s, report_s)
        begun = time.monotonic()
        _give_name(engine, watch)
        _load(engine, watch)
        probe.assert_serves(engine, "")
        return listening_s + time.monotonic() - begun


def _full_name(name: str) -> str:
    """The name as Ollama lists it: without what it takes for granted, with the tag (types/model/name.go)."""
    short = name.removeprefix(f"{_REGISTRY}/").removeprefix("library/")
    return (short if ":" in short.rpartition("/")[2] else f"{short}:latest").casefold()


def _digest(engine: Engine, watch: probe.ProcessWatch, name: str) -> str | None:
    """The digest of a model in the store; none where it is not there. Raises EngineFailedError."""
    try:
        answer = probe.ask(engine, "GET", "/api/tags", "", _LIST_S)
    except EngineFailedError:
        _after_a_break(engine, watch, "listing its models")
        raise
    try:
        known = {_full_name(str(model["name"])): str(model["digest"]) for model in answer["models"]}
    except (KeyError, TypeError):
        raise EngineFailedError(f"engine {engine.name} answered /api/tags with something else: {answer!r}") from None
    return known.get(_full_name(name))


@contextmanager
def _only_pull(engine: Engine, watch: probe.ProcessWatch, say: Say) -> Iterator[None]:
    """Hold the store's lock: models share layers, and two Ollamas that write the same layer spoil each other's.

    The kernel gives it back when the holder dies. Raises EngineFailedError.
    """
    try:
        store = os.open(engine.model_path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise EngineFailedError(
            f"engine {engine.name}: Ollama's store {engine.model_path} cannot be opened ({error.strerror}): "
            "run site.yml again"
        ) from None
    try:
        told = False
        while True:
            try:
                fcntl.flock(store, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say(f"{engine.tag} waits: another engine pulls into {engine.model_path}")
                    told = True
            watch.sleep(probe.INTERVAL_S)
            _check_alive(engine, watch, f"waiting to pull {engine.tag}")
        yield
    finally:
        os.close(store)


def _pull(engine: Engine, watch: probe.ProcessWatch, say: Say, stall_s: float, report_s: float) -> None:
    say(f"pulling {engine.tag} from {_registry(engine)} into {engine.model_path}")
    begun = moved = reported = time.monotonic()
    progress = _Progress()
    for line in _talk(engine, watch, "/api/pull", {"model": engine.tag}, f"pulling {engine.tag}"):
        now = time.monotonic()
        if line is not None:
            if "error" in line:
                raise EngineFailedError(_why_not_pulled(engine, str(line["error"])))
            if progress.take(line):
                moved = now
            if progress.succeeded:
                say(f"pulled {engine.tag}: {gigabytes(progress.total)} GB in {span(now - begun)}")
                return
        patience_s = stall_s + (progress.total / _HASH_BYTES_PER_S if progress.verifies else 0.0)
        if now - moved >= patience_s:
            raise EngineFailedError(
                f"engine {engine.name}: the pull of {engine.tag} has not moved for {patience_s:.0f} s at {progress}: "
                f"check this box's way to {_registry(engine)}, then start it again; what is there is kept"
            )
        if now - reported >= report_s:
            reported = now
            say(f"pulling {engine.tag}: {progress.told(now)}")
    raise EngineFailedError(_why_not_pulled(engine, f"nothing more, and not that it was done, at {progress}"))


class _Progress:
    """Where a pull is: the bytes of all layers it has named so far."""

    def __init__(self) -> None:
        self._status = ""
        self._layers: dict[str, tuple[int, int]] = {}
        self._seen: deque[tuple[float, int]] = deque(maxlen=_REPORTS_KEPT)

    @property
    def completed(self) -> int:
        return sum(completed for completed, _ in self._layers.values())

    @property
    def total(self) -> int:
        return sum(total for _, total in self._layers.values())

    @property
    def verifies(self) -> bool:
        return self._status.startswith("verifying")

    @property
    def succeeded(self) -> bool:
        return self._status == "success"

    def take(self, line: Line) -> bool:
        """Note what a line says. True where that is news: Ollama repeats itself while nothing comes."""
        before = self._status, dict(self._layers)
        self._status = str(line.get("status", ""))
        total = line.get("total")
        if isinstance(total, int):
            completed = line.get("completed")
            # Left out until something has come (docs/api.md).
            self._layers[str(line.get("digest"))] = (completed if isinstance(completed, int) else 0, total)
            if not self._seen:
                # What an earlier pull left behind is no speed of this one.
                self._seen.append((time.monotonic(), self.completed))
        return before != (self._status, self._layers)

    def told(self, now: float) -> str:
        """Amount, rate and what is to come, or what else it does; ``now`` is in seconds of the monotonic clock."""
        if not self.total or self.completed >= self.total:
            return self._status or "nothing came yet"
        since, had = self._seen[0]
        self._seen.append((now, self.completed))
        rate = (self.completed - had) / max(now - since, 0.001)
        if rate <= 0:
            return f"{self}, nothing moves"
        return f"{self}, {rate / 1e6:.1f} MB/s, {span((self.total - self.completed) / rate)} to go"

    def __str__(self) -> str:
        if not self.total:
            return f"'{self._status}'" if self._status else "its begin"
        return f"{gigabytes(self.completed)} of {gigabytes(self.total)} GB"


def _give_name(engine: Engine, watch: probe.ProcessWatch) -> None:
    """Have the store know the model by Hearth's names, and by those as it is now: Ollama answers to no other."""
    wanted = _digest(engine, watch, engine.tag)
    if wanted is None:
        raise EngineFailedError(
            f"engine {engine.name}: {engine.tag} was pulled and is not in Ollama's store {engine.model_path}: "
            "see its log"
        )
    for name in (engine.served_name, *engine.aliases):
        if _digest(engine, watch, name) == wanted:
            continue
        body = {"source": engine.tag, "destination": name}
        problem = _answer(engine, watch, "/api/copy", body, f"naming {engine.tag}")
        if problem:
            raise EngineFailedError(
                f"engine {engine.name}: Ollama does not call {engine.tag} {name} ({problem}): see its log"
            )


def _load(engine: Engine, watch: probe.ProcessWatch) -> None:
    """Load the model for good. A request without a prompt does that (docs/faq.mdx, preload)."""
    # A model that only embeds is refused by /api/generate (server/routes.go).
    only_embeds = "embeddings" in engine.capabilities and "chat" not in engine.capabilities
    path = "/api/embed" if only_embeds else "/api/generate"
    body = {"model": engine.served_name, "keep_alive": -1}
    problem = _answer(engine, watch, path, body, f"loading {engine.tag}")
    if problem:
        raise EngineFailedError(f"engine {engine.name} could not load {engine.tag} ({problem}): see its log")


def _answer(engine: Engine, watch: probe.ProcessWatch, path: str, body: Line, doing: str) -> str:
    """What Ollama says against a request; empty where it did as asked. Raises EngineFailedError."""
    deadline = time.monotonic() + engine.start_timeout_s
    for line in _talk(engine, watch, path, body, doing):
        if line is not None and "error" in line:
            return _readable(str(line["error"]))
        if line is None and time.monotonic() >= deadline:
            raise EngineFailedError(
                f"engine {engine.name} was not done {doing} within {engine.start_timeout_s} s: "
                "see its log, or raise its start_timeout_s"
            )
    return ""


def _talk(engine: Engine, watch: probe.ProcessWatch, path: str, body: Line, doing: str) -> Iterator[Line | None]:
    """The objects of an answer as they come, an error as ``{"error": …}``; None whenever nothing came for a moment.

    Raises EngineFailedError when the watched process ends. A caller that stops early leaves a thread behind, which
    ends with the process: this is for the command line.
    """
    lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
    threading.Thread(target=_fetch, args=(engine.base_url + path, body, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=probe.INTERVAL_S)
        except queue.Empty:
            _check_alive(engine, watch, doing)
            yield None
            continue
        if line is not None and "broken" in line:
            _after_a_break(engine, watch, doing)
        _check_alive(engine, watch, doing)
        if line is None:
            return
        yield line


def _fetch(url: str, body: Line, lines: queue.SimpleQueue[Line | None]) -> None:
    """Put every object of the answer into ``lines``, and None after the last."""
    failed = False
    try:
        with probe.session() as client, client.post(url, json=body, stream=True, timeout=(_CONNECT_S, None)) as answer:
            for raw in answer.iter_lines():
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


def _check_alive(engine: Engine, watch: probe.ProcessWatch, doing: str) -> None:
    if watch.ended():
        raise EngineFailedError(f"engine {engine.name} ended while it was {doing}: see its log")


def _after_a_break(engine: Engine, watch: probe.ProcessWatch, doing: str) -> None:
    """Mostly the engine itself is gone, which says more than that its connection is."""
    watch.sleep(_END_OF_PROCESS_S)
    _check_alive(engine, watch, doing)


def _why_not_pulled(engine: Engine, words: str) -> str:
    sentence = next(said for pattern, said in _PULL_ERRORS if re.search(pattern, words, re.IGNORECASE))
    reason = sentence.format(
        registry=_registry(engine),
        tag=engine.tag,
        store=engine.model_path,
        image=engine.image,
        words=_readable(words),
    )
    return f"engine {engine.name}: {engine.tag} could not be pulled: {reason}"


def _readable(words: str) -> str:
    """Ollama's words without the signatures in its download links, and not longer than a person reads."""
    return " ".join(re.sub(r"\?[^\s\"]{20,}", "", words).split())[:300]


def _registry(engine: Engine) -> str:
    """Where a tag comes from: host/namespace/model names its host."""
    parts = engine.tag.split("/")
    return parts[0] if len(parts) == 3 else _REGISTRY
