# SPDX-License-Identifier: Apache-2.0
"""What an engine says of itself over HTTP: is it ready, what does it serve, does it answer.

Endpoints: llama-server (tools/server/README.md), vLLM (OpenAI-compatible server) and SGLang answer ``GET /health``
with 200 once the model is loaded. Ollama has no /health: ``GET /api/ps`` lists what is loaded (docs/api.md), and
``GET /v1/models`` everything in its store, with the tag (docs/api.md, List Local Models), so that Hearth's own name
for a model appears as ``name:latest`` there.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import requests

from hearth.admission import holders
from hearth.contract import Engine
from hearth.engines import images
from hearth.errors import EmptyAnswerError, EngineFailedError
from hearth.loopback import session

# Readiness is to be noticed within 100 ms; one probe costs about 2 ms (measured on loopback).
INTERVAL_S = 0.05
# A loaded engine answers /health at once; a hung one must not hold the caller.
PROBE_TIMEOUT_S = 5.0
# Nobody is asked before its container's process runs. Docker's proxy listens earlier, and who connects makes the kernel
# look for an address that nobody has yet; it looks again after 1 s only (net.ipv4.neigh.*.retrans_time_ms), and until
# then every connection waits (measured with a tiny model: 1.1 s until the first answer, 0.4 s when nobody asks early).
_RUNNING_INTERVAL_S = 0.02
_FIRST_TIMEOUT_S = 0.2
# No try may be longer: the end of the process is looked for between two of them.
_LAST_TIMEOUT_S = 1.0
_OK = 200


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def is_healthy(engine: Engine, client: requests.Session, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """True when the engine says within ``timeout_s`` seconds that its model is loaded.

    Raises TimeoutError when it says nothing, neither yes nor no.
    """
    if engine.engine != "ollama":
        return _get(engine, "/health", client, timeout_s) is not None
    answer = _get(engine, "/api/ps", client, timeout_s)
    return answer is not None and bool(_own_names(engine) & _loaded_names(answer))


def is_listening(engine: Engine, client: requests.Session, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """True when an Ollama answers within ``timeout_s`` seconds, with a model or without one.

    Raises TimeoutError when it says nothing.
    """
    return _get(engine, "/", client, timeout_s) is not None


def _get(engine: Engine, path: str, client: requests.Session, timeout_s: float) -> requests.Response | None:
    """The answer, where it is a 200. Raises TimeoutError."""
    try:
        answer = client.get(engine.base_url + path, timeout=timeout_s)
    except requests.Timeout:
        raise TimeoutError(f"no answer from {engine.base_url} within {timeout_s:g} s") from None
    except requests.RequestException:
        return None
    return answer if answer.status_code == _OK else None


def _own_names(engine: Engine) -> set[str]:
    """What the engine may call its model in a list."""
    return {engine.served_name, f"{engine.served_name}:latest"} if engine.engine == "ollama" else {engine.served_name}


def _loaded_names(answer: requests.Response) -> set[str]:
    try:
        return {str(model["name"]) for model in answer.json()["models"]}
    except (ValueError, KeyError, TypeError):
        return set()


def wait_ready(engine: Engine, timeout_s: float, pid: int | None = None) -> float:
    """Wait until the engine is healthy; returns the seconds that took.

    Where ``pid`` is given, its end ends the wait at once: systemd does not stop an ExecStartPost when the main process
    dies. Raises EngineFailedError when the process ends, or after ``timeout_s`` seconds.
    """
    with ProcessWatch(pid) as watch:
        return wait_until(is_healthy, engine, timeout_s, watch)


def wait_until(
    holds: Callable[[Engine, requests.Session, float], bool], engine: Engine, timeout_s: float, watch: ProcessWatch
) -> float:
    """Wait until ``holds`` (is_healthy, is_listening) is true of the engine; returns the seconds that took.

    Raises EngineFailedError when the watched process ends, or after ``timeout_s`` seconds.
    """
    begun = time.monotonic()
    patience_s = _FIRST_TIMEOUT_S
    # Where Docker does not say, there is nothing better than to ask.
    while images.is_running(engine.container, holders.DOCKER_SOCKET) is False:
        if watch.ended() or time.monotonic() - begun >= timeout_s:
            break
        watch.sleep(_RUNNING_INTERVAL_S)
    with session() as client:
        while True:
            try:
                held = holds(engine, client, patience_s)
            except TimeoutError:
                held = False
                patience_s = min(patience_s * 1.5, _LAST_TIMEOUT_S)
            # Asked after the probe: a stranger on the port may have answered it while our process died.
            if watch.ended():
                raise EngineFailedError(f"engine {engine.name} ended while it was loading: see its log")
            elapsed = time.monotonic() - begun
            if held:
                return elapsed
            if elapsed >= timeout_s:
                raise EngineFailedError(
                    f"engine {engine.name} did not become ready on port {engine.port} within {timeout_s:g} s: "
                    "see its log, or raise its start_timeout_s"
                )
            watch.sleep(min(INTERVAL_S, max(0.0, timeout_s - elapsed)))


class ProcessWatch:
    """Sleeps that end early when a process does (by pidfd, so that a reused pid cannot fool it)."""

    def __init__(self, pid: int | None) -> None:
        self._fd: int | None = None
        self._gone = False
        self._poll = select.poll()
        if pid is not None:
            try:
                self._fd = os.pidfd_open(pid)
            except OSError:  # ended already, or never was one
                self._gone = True
            else:
                self._poll.register(self._fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ended(self) -> bool:
        return self._gone or bool(self._fd is not None and self._poll.poll(0))

    def sleep(self, seconds: float) -> None:
        self._poll.poll(seconds * 1000)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


def served_names(engine: Engine, key: str) -> list[str]:
    """The model ids of ``GET /v1/models``, sorted. Raises EngineFailedError."""
    answer = ask(engine, "GET", "/v1/models", key, timeout_s=PROBE_TIMEOUT_S)
    try:
        return sorted(str(item["id"]) for item in answer["data"])
    except (KeyError, TypeError):
        raise EngineFailedError(f"engine {engine.name} answered /v1/models with something else: {answer!r}") from None


def assert_serves(engine: Engine, key: str) -> None:
    """Raises EngineFailedError unless the engine serves the name it should, and no other than its aliases besides.

    For Ollama, which lists its whole store: unless that name is among them.
    """
    names = served_names(engine, key)
    if engine.engine == "ollama":
        right = bool(_own_names(engine) & set(names))
    else:
        right = names.count(engine.served_name) == 1 and {*names} <= {engine.served_name, *engine.aliases}
    if not right:
        raise EngineFailedError(
            f"engine {engine.name} on port {engine.port} serves {', '.join(names) or 'nothing'} "
            f"instead of {engine.served_name}: check its argv, or who else listens on that port"
        )


def chat(engine: Engine, key: str, prompt: str, max_tokens: int, timeout_s: float) -> str:
    """The text of one chat completion. Raises EngineFailedError: EmptyAnswerError where there is no text in it."""
    body = {
        "model": engine.served_name,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
    }
    answer = ask(engine, "POST", "/v1/chat/completions", key, timeout_s, body)
    try:
        message = answer["choices"][0]["message"]
        # A reasoning model may spend the whole budget thinking: that is an answer too. The field's name differs:
        # reasoning_content of llama-server and SGLang, reasoning of Ollama and, since 0.11, vLLM.
        text = message.get("content") or message.get("reasoning_content") or message.get("reasoning") or ""
        if not isinstance(text, str):
            raise TypeError
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EngineFailedError(f"engine {engine.name} answered a chat with something else: {answer!r}") from None
    if not text:
        raise EmptyAnswerError(f"engine {engine.name} answered a chat with nothing")
    return text


def embed(engine: Engine, key: str, text: str, timeout_s: float) -> int:
    """The number of dimensions of one embedding. Raises EngineFailedError where there is none."""
    answer = ask(engine, "POST", "/v1/embeddings", key, timeout_s, {"model": engine.served_name, "input": text})
    try:
        vector = answer["data"][0]["embedding"]
        if not vector or not all(isinstance(value, (int, float)) for value in vector):
            raise TypeError
    except (KeyError, IndexError, TypeError):
        raise EngineFailedError(f"engine {engine.name} answered an embedding with something else") from None
    return len(vector)


def ask(
    engine: Engine, method: str, path: str, key: str, timeout_s: float, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON object that the engine answers with. Raises EngineFailedError."""
    url = engine.base_url + path
    try:
        with session() as client:
            answer = client.request(method, url, json=body, headers=_headers(key), timeout=timeout_s)
    except requests.RequestException as error:
        raise EngineFailedError(
            f"engine {engine.name} gave no answer to {method} {url} ({type(error).__name__}): see its log"
        ) from None
    if answer.status_code != _OK:
        raise EngineFailedError(
            f"engine {engine.name} answered {method} {path} with HTTP {answer.status_code}: {answer.text[:200].strip()}"
        )
    try:
        decoded = answer.json()
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise EngineFailedError(f"engine {engine.name} answered {method} {path} with no JSON object")
    return decoded


# What each engine's /metrics calls the requests that it works on, and those that wait in it: llama-server's README,
# vllm/v1/metrics/loggers.py (0.32), sglang/srt/observability/metrics_collector.py (0.5.23).
_IN_FLIGHT = {
    "llama.cpp": ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    "sglang": ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
}
# With priorities, SGLang tells the total first, and then each priority's part of it again.
_PART = re.compile(r'[{,]priority="[^"]')


def in_flight(engine: Engine, key: str, timeout_s: float = PROBE_TIMEOUT_S) -> int:
    """How many requests the engine works on or has waiting, by its own metrics; 0 where it does not tell.

    One that says nothing within ``timeout_s`` seconds has at least one: it is too busy to answer.
    """
    names = _IN_FLIGHT.get(engine.engine, ())
    if not names:
        return 0
    try:
        with session() as client:
            answer = client.get(f"{engine.base_url}/metrics", headers=_headers(key), timeout=timeout_s)
    except requests.Timeout:
        return 1
    except requests.RequestException:
        return 0
    if answer.status_code != _OK:
        return 0
    lines = [line for line in answer.text.splitlines() if line.split("{")[0].split(" ")[0] in names]
    return sum(_count(line.rpartition(" ")[2]) for line in lines if not _PART.search(line))


def _count(text: str) -> int:
    """A gauge's value; 0 where it is no number, or none that can be counted (Prometheus has NaN and +Inf)."""
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return 0


def canary(engine: Engine, key: str, timeout_s: float) -> None:
    """One token of what the engine is for. Raises EngineFailedError where nothing sensible comes.

    A first token may be half a character, or one that is not shown: then some more are asked for.
    """
    if "chat" in engine.capabilities:
        try:
            chat(engine, key, "Say yes.", 1, timeout_s)
        except EmptyAnswerError:
            chat(engine, key, "Say yes.", 16, timeout_s)
    elif "embeddings" in engine.capabilities:
        embed(engine, key, "yes", timeout_s)
