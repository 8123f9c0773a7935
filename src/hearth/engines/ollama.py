# SPDX-License-Identifier: Apache-2.0
"""Making an Ollama engine ready: its model given Hearth's name, and loaded.

``ollama serve`` listens at once, and everything else is asked of it over its own API (hearth.ollama_api). The model is
in its store by then: hearth.download.ollama brings it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from hearth import ollama_api
from hearth.contract import Engine
from hearth.engines import probe
from hearth.errors import EngineFailedError
from hearth.ollama_api import Line
from hearth.tags import full_name

# Between the end of an engine's connections and that of the docker client that systemd watches, in seconds.
_END_OF_PROCESS_S = 2.0
# The list of a store, in seconds: it does not wait for a model.
_LIST_S = 30.0


def make_ready(engine: Engine, pid: int | None) -> float:
    """Wait until Ollama listens, and load the model under Hearth's name.

    Returns the seconds this took. Ollama has ``start_timeout_s`` seconds to listen and as many to load. The end of
    process ``pid`` ends everything at once. Raises EngineFailedError.
    """
    with probe.ProcessWatch(pid) as watch:
        begun = time.monotonic()
        probe.wait_until(probe.is_listening, engine, engine.start_timeout_s, watch)
        _give_name(engine, watch)
        _load(engine, watch)
        probe.assert_serves(engine, "")
        return time.monotonic() - begun


def _digest(engine: Engine, watch: probe.ProcessWatch, name: str) -> str | None:
    """The digest of a model in the store; none where it is not there. Raises EngineFailedError."""
    try:
        answer = probe.ask(engine, "GET", "/api/tags", "", _LIST_S)
    except EngineFailedError:
        _after_a_break(engine, watch, "listing its models")
        raise
    known = ollama_api.digests(answer)
    if known is None:
        raise EngineFailedError(f"engine {engine.name} answered /api/tags with something else: {answer!r}")
    return known.get(full_name(name))


def _give_name(engine: Engine, watch: probe.ProcessWatch) -> None:
    """Have the store know the model by Hearth's names, and by those as it is now: Ollama answers to no other."""
    wanted = _digest(engine, watch, engine.tag)
    if wanted is None:
        raise EngineFailedError(
            f"engine {engine.name}: Ollama has no {engine.tag} in its store {engine.model_path}: bring it again "
            f"(playbooks/models.yml -e do=add -e model={engine.name})"
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
            return ollama_api.readable(str(line["error"]))
        if line is None and time.monotonic() >= deadline:
            raise EngineFailedError(
                f"engine {engine.name} was not done {doing} within {engine.start_timeout_s} s: "
                "see its log, or raise its start_timeout_s"
            )
    return ""


def _talk(engine: Engine, watch: probe.ProcessWatch, path: str, body: Line, doing: str) -> Iterator[Line | None]:
    """ollama_api.talk with the engine; raises EngineFailedError when the watched process ends."""

    def look(broken: bool) -> None:
        if broken:
            _after_a_break(engine, watch, doing)
        _check_alive(engine, watch, doing)

    return ollama_api.talk(engine.base_url + path, body, look, every_s=probe.INTERVAL_S)


def _check_alive(engine: Engine, watch: probe.ProcessWatch, doing: str) -> None:
    if watch.ended():
        raise EngineFailedError(f"engine {engine.name} ended while it was {doing}: see its log")


def _after_a_break(engine: Engine, watch: probe.ProcessWatch, doing: str) -> None:
    """Mostly the engine itself is gone, which says more than that its connection is."""
    watch.sleep(_END_OF_PROCESS_S)
    _check_alive(engine, watch, doing)
