# SPDX-License-Identifier: Apache-2.0
"""hearth.download.pull: what is told of a pull by Ollama, when it is given up, and why it fails."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import pytest
from msgspec.structs import replace
from ollamas import Near, asked

from hearth.download import Patience, Progress, pull
from hearth.download.errors import DownloadError
from hearth.download.pull import Layers, Pulled

if TYPE_CHECKING:
    from pathlib import Path

    from ollama_server import OllamaServer

Pull = Callable[..., Pulled]


class Usage(NamedTuple):
    """What shutil.disk_usage gives."""

    total: int
    used: int
    free: int


@pytest.fixture
def told() -> list[Progress]:
    return []


@pytest.fixture
def pulls(ollama: OllamaServer, tmp_path: Path, told: list[Progress]) -> Pull:
    """Have qwen3:0.6b pulled, with more patience for bytes than a test lasts."""

    def call(stall_s: float = 60.0, process: subprocess.Popen[bytes] | None = None, **more: object) -> Pulled:
        request = replace(asked(tmp_path), patience=Patience(ollama_stall_s=stall_s), **more)
        with Near(ollama, request, process) as server:
            return pull.pull(server, request, told.append)

    return call


def sentence_of(call: Callable[[], object]) -> str:
    with pytest.raises(DownloadError) as caught:
        call()
    return str(caught.value)


def test_what_came_is_told_with_every_layer(pulls: Pull, ollama: OllamaServer) -> None:
    found = pulls()

    assert ollama.seen == [("/api/pull", {"model": "qwen3:0.6b"})]
    assert found.layers == {"sha256:weights": 522_000_000, "sha256:licence": 11_000}
    assert (found.moved, found.fetched) == (522_011_000, ("sha256:licence", "sha256:weights"))


def test_what_an_earlier_pull_left_did_not_come(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.partial["weights"] = 261_000_000

    assert pulls().moved == 261_011_000


def test_a_layer_that_is_there_did_not_come(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.partial["weights"] = 522_000_000

    found = pulls()

    assert (found.moved, found.fetched) == (11_000, ("sha256:licence",))


def test_progress_is_told_with_amount_rate_and_what_is_to_come(
    pulls: Pull, told: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "_TELL_EVERY_S", 0.0)

    pulls()

    done = [one.bytes_done for one in told if one.phase == "fetching"]
    assert len(done) >= 5
    assert done == sorted(done)
    assert {one.bytes_total for one in told if one.phase == "fetching"} == {522_000_000, 522_011_000}
    assert any(one.rate > 0 and one.eta_s >= 0 for one in told)


def test_what_comes_before_and_after_the_bytes_is_told_too(
    pulls: Pull, told: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "_TELL_EVERY_S", 0.0)

    pulls()

    assert told[0].words == "asking for the list of files (qwen3:0.6b)"
    assert "checking what is there (Ollama: verifying sha256 digest)" in [one.words for one in told]


def test_between_two_tells_nothing_is_told(pulls: Pull, told: list[Progress], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "_TELL_EVERY_S", 60.0)

    pulls()

    assert len(told) == 1


def test_the_rate_is_that_of_this_pull_and_not_of_what_was_there_before() -> None:
    layers, now = Layers("a"), time.monotonic()
    layers.take({"status": "pulling a", "digest": "a", "total": 20_000_000_000, "completed": 15_000_000_000})
    layers.progress(now)
    layers.take({"status": "pulling a", "digest": "a", "total": 20_000_000_000, "completed": 16_000_000_000})

    assert layers.progress(now + 10).words == "fetching 16.0 of 20.0 GB, 80 %, 100 MB/s, 40 s to go"


def test_a_part_that_ollama_fetches_again_goes_back() -> None:
    layers = Layers("a")
    for completed in (0, 500, 300, 1000):
        layers.take({"status": "pulling a", "digest": "a", "total": 1000, "completed": completed})

    assert (layers.moved, layers.missing) == (1000, 0)


def test_sizes_beyond_32_bits_are_counted() -> None:
    layers = Layers("a")
    layers.take({"status": "pulling a", "digest": "a", "total": 2**41, "completed": 2**40})

    assert layers.missing == 2**40


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
            "check this box's network, DNS and proxy, then ask again; what came is kept",
            id="no network",
        ),
        pytest.param(
            "max retries exceeded: EOF",
            "registry.ollama.ai cannot be reached (max retries exceeded: EOF): "
            "check this box's network, DNS and proxy, then ask again; what came is kept",
            id="a network that comes and goes",
        ),
        pytest.param(
            "write /models/blobs/sha256-3a4f-partial: no space left on device",
            "the disk is full: make room at STORE (df -h STORE), then ask again; what came is kept",
            id="disk full",
        ),
        pytest.param(
            "open /models/blobs/sha256-3a4f-partial: permission denied",
            "it may not write into STORE (open /models/blobs/sha256-3a4f-partial: permission denied): "
            "give all of it to its owner (chown -R), then ask again",
            id="a store of somebody else",
        ),
        pytest.param(
            "pull model manifest: 412: \n\nThe model you are attempting to pull requires a newer version of Ollama.",
            "qwen3:0.6b wants a newer Ollama than ollama/ollama:1: give the model a newer image",
            id="an old Ollama",
        ),
        pytest.param(
            "digest mismatch, file must be downloaded again: want sha256:1, got sha256:2",
            "what came of qwen3:0.6b is damaged (digest mismatch, file must be downloaded again: "
            "want sha256:1, got sha256:2): ask again",
            id="damaged",
        ),
        pytest.param(
            "the moon is full", "Ollama says the moon is full: ask again, what came is kept", id="anything else"
        ),
    ],
)
def test_an_error_in_the_stream_is_one_sentence_with_what_to_do(
    pulls: Pull, ollama: OllamaServer, tmp_path: Path, words: str, reason: str
) -> None:
    ollama.fails_at["weights 3"] = words

    sentence = sentence_of(pulls)

    assert sentence == f"qwen3:0.6b could not be pulled: {reason}".replace("STORE", str(tmp_path))
    assert "\n" not in sentence


def test_an_error_before_the_stream_is_told_alike(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.answers["/api/pull"] = (400, {"error": "invalid model name"})

    assert sentence_of(pulls) == (
        "qwen3:0.6b could not be pulled: Ollama says invalid model name: ask again, what came is kept"
    )


def test_an_error_without_words_is_told_by_its_status(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.answers["/api/pull"] = (502, b"")

    assert "could not be pulled: Ollama says HTTP 502: ask again, what came is kept" in sentence_of(pulls)


def test_a_line_that_is_no_json_object_ends_the_pull(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.garbled_at["weights 3"] = b"<html>"

    assert "Ollama says b'<html>', which is no JSON object: ask again, what came is kept" in sentence_of(pulls)


def test_the_signature_in_a_download_link_does_not_reach_the_log(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.fails_at["weights 3"] = (
        'max retries exceeded: Get "https://cdn.example/blob?X-Amz-Credential=66040c77&X-Amz-Signature=1344": dial tcp'
    )

    assert '(max retries exceeded: Get "https://cdn.example/blob": dial tcp)' in sentence_of(pulls)


def test_a_stream_that_ends_without_success_is_a_failure(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.answers["/api/pull"] = (200, {"status": "pulling manifest"})

    assert sentence_of(pulls) == (
        "qwen3:0.6b could not be pulled: Ollama says nothing more, and not that it was done, "
        "at 'pulling manifest': ask again, what came is kept"
    )


def test_a_pull_in_which_nothing_moves_is_given_up_though_ollama_repeats_itself(
    pulls: Pull, ollama: OllamaServer
) -> None:
    ollama.waits_at = "weights 5"

    assert sentence_of(lambda: pulls(stall_s=1.0)) == (
        "the pull of qwen3:0.6b has not moved for 1 s at 0.26 of 0.52 GB: "
        "check this box's way to registry.ollama.ai, then ask again; what came is kept"
    )


def test_a_pull_that_never_begins_is_given_up(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.waits_at = "manifest"

    assert "has not moved for 1 s at 'pulling manifest': " in sentence_of(lambda: pulls(stall_s=1.0))


def test_to_hash_what_came_may_take_as_long_as_a_slow_disk_needs_for_it(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.waits_at = "verify"
    # 0.52 GB: five seconds more than the stall time, of which a part is enough to see it.
    ollama.on_wait = threading.Timer(1.5, ollama.goes_on.set).start

    assert pulls(stall_s=0.5).moved


def test_hashing_that_never_ends_is_given_up(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.registry["qwen3:0.6b"] = ("d1", {"weights": 1_000_000})
    ollama.waits_at = "verify"

    assert "has not moved for 1 s at 0.00 of 0.00 GB: " in sentence_of(lambda: pulls(stall_s=1.0))


def test_a_layer_for_which_there_is_no_room_is_stopped_when_its_size_is_known(
    pulls: Pull, ollama: OllamaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 600_000_000))

    assert sentence_of(lambda: pulls(reserve_bytes=100_000_000)) == (
        f"0.52 GB are to come below {tmp_path} and 0.10 GB are to stay free, but only 0.60 GB are free: remove a model "
        "you do not need, or take another disk; what came is kept"
    )


def test_an_ollama_that_ends_while_it_pulls_ends_the_wait_at_once(
    pulls: Pull, ollama: OllamaServer, process: subprocess.Popen[bytes]
) -> None:
    ollama.waits_at = "weights 5"
    ollama.on_wait = process.kill
    begun = time.monotonic()

    sentence = sentence_of(lambda: pulls(process=process))

    assert sentence == "Ollama (ollama/ollama:1) ended while it was asked: its log is empty; ask again"
    assert time.monotonic() - begun < 15


def test_a_connection_that_breaks_because_ollama_ended_is_told_as_its_end(
    pulls: Pull, ollama: OllamaServer, process: subprocess.Popen[bytes]
) -> None:
    ollama.waits_at = "weights 4"
    ollama.breaks_at = "weights 5"

    def ends() -> None:
        ollama.goes_on.set()
        process.kill()

    ollama.on_wait = ends

    assert sentence_of(lambda: pulls(process=process)).startswith("Ollama (ollama/ollama:1) ended while it was asked")


def test_a_connection_that_breaks_fails_and_the_next_pull_goes_on_where_it_was(
    pulls: Pull, ollama: OllamaServer, process: subprocess.Popen[bytes]
) -> None:
    ollama.breaks_at = "weights 5"

    assert sentence_of(lambda: pulls(process=process)) == (
        "qwen3:0.6b could not be pulled: Ollama says the connection broke: ChunkedEncodingError: ask again, what came "
        "is kept"
    )
    assert ollama.store == {}

    ollama.breaks_at = ""

    assert pulls().moved < 400_000_000


def test_a_pull_that_is_given_up_is_given_up_with_ollama_too(pulls: Pull, ollama: OllamaServer) -> None:
    ollama.waits_at = "weights 5"

    sentence_of(lambda: pulls(stall_s=0.5))

    # It goes on, and finds that nobody listens any more.
    deadline = time.monotonic() + 10
    while not ollama.left:
        assert time.monotonic() < deadline
        time.sleep(0.02)
