# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.ollama: how a model comes into Ollama's store, what is told of it, and why it does not come."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
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


def test_a_model_that_is_not_in_the_store_is_pulled(ready: Ready, ollama: OllamaServer) -> None:
    ready()

    assert ollama.seen[0] == ("/api/pull", {"model": "qwen3:0.6b"})
    assert ollama.store["qwen3:0.6b"] == "d1"


@pytest.mark.parametrize(
    ("tag", "listed"),
    [
        ("qwen3:0.6b", "qwen3:0.6b"),
        ("library/qwen3:0.6b", "qwen3:0.6b"),
        ("registry.ollama.ai/library/qwen3:0.6b", "qwen3:0.6b"),
        ("nomic-embed-text", "nomic-embed-text:latest"),
        ("hf.co/somebody/some-gguf:q4_k_m", "hf.co/Somebody/Some-GGUF:Q4_K_M"),
        ("localhost:5000/mine/model", "localhost:5000/mine/model:latest"),
    ],
)
def test_a_model_that_is_in_the_store_is_not_pulled(
    ready: Ready, qwen: Engine, ollama: OllamaServer, said: list[str], tag: str, listed: str
) -> None:
    ollama.store[listed] = "d1"
    # Ollama finds its models whatever the case and the way of writing; the one of the tests does not.
    ollama.answers["/api/copy"] = (200, b"")
    ollama.store["qwen:latest"] = "d0"

    ready(msgspec.structs.replace(qwen, tag=tag))

    assert pulls(ollama) == 0
    assert said == []


def test_another_tag_of_the_same_model_is_not_taken_for_it(ready: Ready, ollama: OllamaServer) -> None:
    ollama.store["qwen3:8b"] = "d8"

    ready()

    assert pulls(ollama) == 1


def test_the_first_line_says_what_comes_from_where_and_the_last_how_much_it_was(
    ready: Ready, qwen: Engine, said: list[str]
) -> None:
    ready()

    assert said[0] == f"pulling qwen3:0.6b from registry.ollama.ai into {qwen.model_path}"
    assert re.fullmatch(r"pulled qwen3:0\.6b: 0\.52 GB in \d s", said[-1])


def test_a_tag_of_another_registry_is_told_to_come_from_there(
    ready: Ready, qwen: Engine, ollama: OllamaServer, said: list[str]
) -> None:
    ollama.registry["hf.co/somebody/model:q4"] = ("d4", {"weights": 10})

    ready(msgspec.structs.replace(qwen, tag="hf.co/somebody/model:q4"))

    assert said[0].startswith("pulling hf.co/somebody/model:q4 from hf.co into ")


def test_progress_is_told_with_amount_rate_and_what_is_to_come(ready: Ready, said: list[str]) -> None:
    ready(report_s=0.0)

    line = re.compile(r"pulling qwen3:0\.6b: 0\.(\d\d) of 0\.52 GB, [\d.]+ MB/s, \d+ s to go")
    amounts = [int(found[1]) for found in map(line.fullmatch, said) if found]
    assert len(amounts) >= 5
    assert amounts == sorted(amounts)


def test_between_two_reports_nothing_is_told(ready: Ready, said: list[str]) -> None:
    ready(report_s=60.0)

    assert len(said) == 2


def test_what_follows_the_bytes_is_told_in_ollamas_words(ready: Ready, said: list[str]) -> None:
    ready(report_s=0.0)

    assert "pulling qwen3:0.6b: verifying sha256 digest" in said


def test_the_rate_is_that_of_this_pull_and_not_of_what_was_there_before() -> None:
    progress = hearth_ollama._Progress()
    now = time.monotonic()
    progress.take({"status": "pulling a", "digest": "a", "total": 20_000_000_000, "completed": 15_000_000_000})
    progress.take({"status": "pulling a", "digest": "a", "total": 20_000_000_000, "completed": 16_000_000_000})

    assert progress.told(now + 10) == "16.0 of 20.0 GB, 100.0 MB/s, 40 s to go"


def test_a_pull_that_stands_still_is_told_so_before_it_is_given_up() -> None:
    progress = hearth_ollama._Progress()
    progress.take({"status": "pulling a", "digest": "a", "total": 20_000_000_000, "completed": 15_000_000_000})

    assert progress.told(time.monotonic() + 10) == "15.0 of 20.0 GB, nothing moves"


def test_an_interrupted_pull_fails_and_the_next_goes_on_where_it_was(
    ready: Ready, ollama: OllamaServer, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No process is watched here that could turn out to have ended.
    monkeypatch.setattr(hearth_ollama, "_END_OF_PROCESS_S", 0.0)
    ollama.breaks_at = "weights 5"

    assert sentence_of(ready) == (
        "engine qwen: qwen3:0.6b could not be pulled: Ollama says the connection broke: ChunkedEncodingError: "
        "see its log"
    )
    assert ollama.store == {}

    ollama.breaks_at = ""
    said.clear()
    ready(report_s=0.0)

    assert "qwen3:0.6b" in ollama.store
    amounts = [float(found[1]) for found in map(re.compile(r".*: ([\d.]+) of 0\.52 GB.*").fullmatch, said) if found]
    assert min(amounts) >= 0.26


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param(
            "pull model manifest: file does not exist",
            "registry.ollama.ai has no model qwen3:0.6b: correct the tag in the model's file",
            id="unknown tag",
        ),
        pytest.param(
            'pull model manifest: Get "https://registry.ollama.ai/v2/library/qwen3/manifests/0.6b": '
            "dial tcp: lookup registry.ollama.ai on 127.0.0.11:53: no such host",
            'registry.ollama.ai cannot be reached (pull model manifest: Get "https://registry.ollama.ai/v2/library/'
            'qwen3/manifests/0.6b": dial tcp: lookup registry.ollama.ai on 127.0.0.11:53: no such host): '
            "check this box's network, DNS and proxy, then start it again",
            id="no network",
        ),
        pytest.param(
            "max retries exceeded: EOF",
            "registry.ollama.ai cannot be reached (max retries exceeded: EOF): "
            "check this box's network, DNS and proxy, then start it again",
            id="a network that comes and goes",
        ),
        pytest.param(
            "write /models/blobs/sha256-3a4f-partial: no space left on device",
            "the disk is full: make room at STORE (df -h STORE), then start it again",
            id="disk full",
        ),
        pytest.param(
            "open /models/blobs/sha256-3a4f-partial: permission denied",
            "it may not write to STORE (open /models/blobs/sha256-3a4f-partial: permission denied): "
            "site.yml gives the folder its owner",
            id="a store of somebody else",
        ),
        pytest.param(
            "pull model manifest: 412: \n\nThe model you are attempting to pull requires a newer version of Ollama.",
            "qwen3:0.6b wants a newer Ollama than registry.example/llama.cpp@sha256:0: give the model a newer image",
            id="an old Ollama",
        ),
        pytest.param(
            "digest mismatch, file must be downloaded again: want sha256:1, got sha256:2",
            "what came of qwen3:0.6b is damaged (digest mismatch, file must be downloaded again: "
            "want sha256:1, got sha256:2): start it again",
            id="damaged",
        ),
        pytest.param("the moon is full", "Ollama says the moon is full: see its log", id="anything else"),
    ],
)
def test_an_error_in_the_stream_is_one_sentence_with_what_to_do(
    ready: Ready, qwen: Engine, ollama: OllamaServer, words: str, reason: str
) -> None:
    ollama.fails_at["weights 3"] = words

    sentence = sentence_of(ready)

    assert sentence == f"engine qwen: qwen3:0.6b could not be pulled: {reason}".replace("STORE", qwen.model_path)
    assert "\n" not in sentence


def test_an_error_before_the_stream_is_told_alike(ready: Ready, ollama: OllamaServer) -> None:
    ollama.answers["/api/pull"] = (400, {"error": "invalid model name"})

    assert sentence_of(ready) == (
        "engine qwen: qwen3:0.6b could not be pulled: Ollama says invalid model name: see its log"
    )


def test_an_error_without_words_is_told_by_its_status(ready: Ready, ollama: OllamaServer) -> None:
    ollama.answers["/api/pull"] = (502, b"")

    assert "could not be pulled: Ollama says HTTP 502: see its log" in sentence_of(ready)


def test_a_line_that_is_no_json_object_ends_the_pull(ready: Ready, ollama: OllamaServer) -> None:
    ollama.garbled_at["weights 3"] = b"<html>"

    assert "Ollama says b'<html>', which is no JSON object: see its log" in sentence_of(ready)


def test_the_signature_in_a_download_link_does_not_reach_the_log(ready: Ready, ollama: OllamaServer) -> None:
    ollama.fails_at["weights 3"] = (
        'max retries exceeded: Get "https://cdn.example/blob?X-Amz-Credential=66040c77&X-Amz-Signature=1344": dial tcp'
    )

    assert '(max retries exceeded: Get "https://cdn.example/blob": dial tcp)' in sentence_of(ready)


def test_a_stream_that_ends_without_success_is_a_failure(ready: Ready, ollama: OllamaServer) -> None:
    ollama.answers["/api/pull"] = (200, {"status": "pulling manifest"})

    assert sentence_of(ready) == (
        "engine qwen: qwen3:0.6b could not be pulled: Ollama says nothing more, and not that it was done, "
        "at 'pulling manifest': see its log"
    )


def test_a_pull_that_succeeds_without_a_model_is_a_failure(ready: Ready, qwen: Engine, ollama: OllamaServer) -> None:
    ollama.answers["/api/pull"] = (200, {"status": "success"})

    assert sentence_of(ready) == (
        f"engine qwen: qwen3:0.6b was pulled and is not in Ollama's store {qwen.model_path}: see its log"
    )


def test_a_pull_in_which_nothing_moves_is_given_up_though_ollama_repeats_itself(
    ready: Ready, ollama: OllamaServer
) -> None:
    ollama.waits_at = "weights 5"

    assert sentence_of(lambda: ready(stall_s=1.0)) == (
        "engine qwen: the pull of qwen3:0.6b has not moved for 1 s at 0.26 of 0.52 GB: "
        "check this box's way to registry.ollama.ai, then start it again; what is there is kept"
    )


def test_a_pull_that_never_begins_is_given_up(ready: Ready, ollama: OllamaServer) -> None:
    ollama.waits_at = "manifest"

    assert "has not moved for 1 s at 'pulling manifest': " in sentence_of(lambda: ready(stall_s=1.0))


def test_to_hash_what_came_may_take_as_long_as_a_slow_disk_needs_for_it(
    qwen: Engine, ollama: OllamaServer, said: list[str]
) -> None:
    ollama.waits_at = "verify"
    begun = time.monotonic()

    def say(line: str) -> None:
        said.append(line)
        # 0.52 GB: five seconds more than the stall time, of which a part is enough to see it.
        if time.monotonic() - begun > 1.0:
            ollama.goes_on.set()

    hearth_ollama.make_ready(qwen, None, say, stall_s=0.5, report_s=0.05)

    assert said[-1].startswith("pulled ")


def test_hashing_that_never_ends_is_given_up(ready: Ready, ollama: OllamaServer) -> None:
    ollama.registry["qwen3:0.6b"] = ("d1", {"weights": 1_000_000})
    ollama.waits_at = "verify"

    assert "has not moved for 1 s at 0.00 of 0.00 GB: " in sentence_of(lambda: ready(stall_s=1.0))


def test_an_engine_that_ends_while_it_pulls_ends_the_wait_at_once(
    ready: Ready, ollama: OllamaServer, process: subprocess.Popen[bytes]
) -> None:
    ollama.waits_at = "weights 5"
    ollama.on_wait = process.kill
    begun = time.monotonic()

    sentence = sentence_of(lambda: ready(pid=process.pid))

    assert sentence == "engine qwen ended while it was pulling qwen3:0.6b: see its log"
    assert time.monotonic() - begun < 15


def test_a_connection_that_breaks_because_the_engine_ended_is_told_as_its_end(
    ready: Ready, ollama: OllamaServer, process: subprocess.Popen[bytes]
) -> None:
    ollama.waits_at = "weights 4"
    ollama.breaks_at = "weights 5"

    def ends() -> None:
        ollama.goes_on.set()
        process.kill()

    ollama.on_wait = ends

    assert sentence_of(lambda: ready(pid=process.pid)).endswith(" ended while it was pulling qwen3:0.6b: see its log")
