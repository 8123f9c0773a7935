# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.ollama: engines share a store, and models share layers, so there is one pull at a time."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth.contract import Engine
from hearth.engines import ollama as hearth_ollama
from hearth.errors import EngineFailedError

if TYPE_CHECKING:
    from ollama_server import OllamaServer
    from tests.unit.conftest import Ready


def sentence_of(call: Callable[[], object]) -> str:
    with pytest.raises(EngineFailedError) as caught:
        call()
    return str(caught.value)


def pulls(ollama: OllamaServer) -> int:
    return [path for path, _ in ollama.seen].count("/api/pull")


@pytest.fixture
def store(qwen: Engine) -> Iterator[int]:
    """The store, in which another engine pulls."""
    descriptor = os.open(qwen.model_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


def test_a_pull_waits_for_that_of_another_engine_and_says_so(qwen: Engine, ollama: OllamaServer, store: int) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        fcntl.flock(store, fcntl.LOCK_UN)

    hearth_ollama.make_ready(qwen, None, say)

    assert said[0] == f"qwen3:0.6b waits: another engine pulls into {qwen.model_path}"
    assert said[1].startswith("pulling qwen3:0.6b from ")
    assert pulls(ollama) == 1


def test_what_the_other_engine_pulled_is_not_pulled_again(qwen: Engine, ollama: OllamaServer, store: int) -> None:
    def say(line: str) -> None:
        ollama.store["qwen3:0.6b"] = "d1"
        fcntl.flock(store, fcntl.LOCK_UN)

    hearth_ollama.make_ready(qwen, None, say)

    assert pulls(ollama) == 0


def test_an_engine_that_ends_while_it_waits_waits_no_longer(
    qwen: Engine, store: int, process: subprocess.Popen[bytes]
) -> None:
    def wait() -> float:
        return hearth_ollama.make_ready(qwen, process.pid, lambda _: process.kill())

    assert sentence_of(wait) == ("engine qwen ended while it was waiting to pull qwen3:0.6b: see its log")


def test_the_lock_is_free_again_after_a_failure(ready: Ready, qwen: Engine, ollama: OllamaServer) -> None:
    ollama.fails_at["manifest"] = "the moon is full"
    sentence_of(ready)

    descriptor = os.open(qwen.model_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_store_that_is_not_there_is_told_with_what_to_run(ready: Ready, qwen: Engine) -> None:
    assert sentence_of(lambda: ready(msgspec.structs.replace(qwen, model_path="/nonexistent"))) == (
        "engine qwen: Ollama's store /nonexistent cannot be opened (No such file or directory): run site.yml again"
    )
