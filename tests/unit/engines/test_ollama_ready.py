# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.ollama: how a model of the store gets Hearth's name and is loaded, so that ready means ready."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from hearth.contract import Engine
from hearth.engines import probe
from hearth.errors import EngineFailedError
from hearth.loopback import session

if TYPE_CHECKING:
    from ollama_server import OllamaServer
    from tests.unit.conftest import Ready


@pytest.fixture
def stored(ollama: OllamaServer) -> OllamaServer:
    """The model was pulled earlier."""
    ollama.store["qwen3:0.6b"] = "d1"
    return ollama


def sentence_of(call: Callable[[], object]) -> str:
    with pytest.raises(EngineFailedError) as caught:
        call()
    return str(caught.value)


def bodies(ollama: OllamaServer, path: str) -> list[Any]:
    return [body for asked, body in ollama.seen if asked == path]


def test_a_start_names_and_loads_and_pulls_nothing(ready: Ready, stored: OllamaServer) -> None:
    ready()

    assert [path for path, _ in stored.seen] == ["/api/copy", "/api/generate"]


def test_a_model_that_is_not_in_the_store_is_a_failure_with_what_to_do(
    ready: Ready, qwen: Engine, ollama: OllamaServer
) -> None:
    assert sentence_of(ready) == (
        f"engine qwen: Ollama has no qwen3:0.6b in its store {qwen.model_path}: bring it again "
        "(playbooks/models.yml -e do=add -e model=qwen)"
    )
    assert ollama.seen == []


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
def test_a_model_is_known_by_whatever_way_of_writing_its_name(
    ready: Ready, qwen: Engine, ollama: OllamaServer, tag: str, listed: str
) -> None:
    ollama.store[listed] = "d1"
    # Ollama finds its models whatever the case and the way of writing; the one of the tests does not.
    ollama.answers["/api/copy"] = (200, b"")
    ollama.store["qwen:latest"] = "d0"

    ready(msgspec.structs.replace(qwen, tag=tag))

    assert ollama.loaded == ["qwen"]


def test_another_tag_of_the_same_model_is_not_taken_for_it(ready: Ready, ollama: OllamaServer) -> None:
    ollama.store["qwen3:8b"] = "d8"

    assert "has no qwen3:0.6b in its store" in sentence_of(ready)


def test_what_is_ready_is_healthy_and_answers_by_hearths_name(ready: Ready, qwen: Engine, stored: OllamaServer) -> None:
    ready()

    with session() as client:
        assert probe.is_healthy(qwen, client)
    assert probe.chat(qwen, "", "Say hello.", 5, 5) == "Hello."
    assert bodies(stored, "/v1/chat/completions")[0]["model"] == "qwen"


def test_the_model_is_loaded_by_hearths_name_without_a_prompt_and_for_good(ready: Ready, stored: OllamaServer) -> None:
    ready()

    assert bodies(stored, "/api/generate") == [{"model": "qwen", "keep_alive": -1}]
    assert stored.loaded == ["qwen"]


def test_a_model_that_only_embeds_is_loaded_where_those_are(ready: Ready, qwen: Engine, stored: OllamaServer) -> None:
    stored.embedders.add("d1")

    ready(msgspec.structs.replace(qwen, capabilities=("embeddings",)))

    assert bodies(stored, "/api/embed") == [{"model": "qwen", "keep_alive": -1}]
    assert stored.loaded == ["qwen"]


def test_a_model_that_chats_and_embeds_is_loaded_as_one_that_chats(
    ready: Ready, qwen: Engine, stored: OllamaServer
) -> None:
    ready(msgspec.structs.replace(qwen, capabilities=("chat", "embeddings")))

    assert len(bodies(stored, "/api/generate")) == 1


def test_a_model_that_only_embeds_and_is_said_to_chat_is_refused_in_ollamas_words(
    ready: Ready, stored: OllamaServer
) -> None:
    stored.embedders.add("d1")

    assert sentence_of(ready) == (
        'engine qwen could not load qwen3:0.6b ("qwen" does not support generate): see its log'
    )


def test_the_model_gets_hearths_name(ready: Ready, stored: OllamaServer) -> None:
    ready()

    assert bodies(stored, "/api/copy") == [{"source": "qwen3:0.6b", "destination": "qwen"}]
    assert stored.store["qwen:latest"] == "d1"


def test_a_name_that_is_right_already_is_left_alone(ready: Ready, stored: OllamaServer) -> None:
    stored.store["qwen:latest"] = "d1"

    ready()

    assert bodies(stored, "/api/copy") == []


def test_a_name_of_an_older_pull_is_renewed(ready: Ready, stored: OllamaServer) -> None:
    stored.store["qwen:latest"] = "d0"

    ready()

    assert stored.store["qwen:latest"] == "d1"


def test_a_model_that_hearth_calls_as_ollama_does_needs_no_second_name(
    ready: Ready, qwen: Engine, ollama: OllamaServer
) -> None:
    ollama.store["phi:latest"] = "d2"

    ready(msgspec.structs.replace(qwen, tag="phi", served_name="phi"))

    assert bodies(ollama, "/api/copy") == []
    assert ollama.loaded == ["phi"]


def test_a_name_that_ollama_does_not_take_is_told(ready: Ready, stored: OllamaServer) -> None:
    stored.answers["/api/copy"] = (400, {"error": 'destination "qwen" is invalid'})

    assert sentence_of(ready) == (
        'engine qwen: Ollama does not call qwen3:0.6b qwen (destination "qwen" is invalid): see its log'
    )
    assert stored.loaded == []


def test_a_model_that_does_not_load_is_told_in_ollamas_words(ready: Ready, stored: OllamaServer) -> None:
    words = "model requires more system memory (23.1 GiB) than is available (9.8 GiB)"
    stored.answers["/api/generate"] = (500, {"error": words})

    assert sentence_of(ready) == f"engine qwen could not load qwen3:0.6b ({words}): see its log"


def test_a_model_that_takes_longer_than_its_start_timeout_to_load_is_given_up(
    ready: Ready, qwen: Engine, stored: OllamaServer
) -> None:
    stored.load_waits = True

    assert sentence_of(lambda: ready(msgspec.structs.replace(qwen, start_timeout_s=1))) == (
        "engine qwen was not done loading qwen3:0.6b within 1 s: see its log, or raise its start_timeout_s"
    )


def test_an_engine_that_ends_while_it_loads_ends_the_wait_at_once(
    ready: Ready, stored: OllamaServer, process: subprocess.Popen[bytes]
) -> None:
    stored.load_waits = True
    stored.on_wait = process.kill

    assert sentence_of(lambda: ready(pid=process.pid)) == (
        "engine qwen ended while it was loading qwen3:0.6b: see its log"
    )


def test_an_ollama_that_does_not_listen_is_given_up_after_its_start_timeout(
    ready: Ready, qwen: Engine, free_port: int
) -> None:
    assert sentence_of(lambda: ready(msgspec.structs.replace(qwen, port=free_port, start_timeout_s=1))) == (
        f"engine qwen did not become ready on port {free_port} within 1 s: see its log, or raise its start_timeout_s"
    )


def test_an_ollama_that_ended_before_it_listened_is_not_waited_for(
    ready: Ready, qwen: Engine, free_port: int, process: subprocess.Popen[bytes]
) -> None:
    process.kill()
    process.wait()

    sentence = sentence_of(lambda: ready(msgspec.structs.replace(qwen, port=free_port), pid=process.pid))

    assert sentence == "engine qwen ended while it was loading: see its log"


def test_an_ollama_that_ends_when_it_is_asked_for_its_models_is_told_as_ended(
    ready: Ready, ollama: OllamaServer, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ollama.answers["/api/tags"] = (500, {"error": "going down"})
    real = probe.ask

    def ask(*arguments: Any) -> dict[str, Any]:
        process.kill()
        return real(*arguments)

    monkeypatch.setattr(probe, "ask", ask)

    assert sentence_of(lambda: ready(pid=process.pid)) == (
        "engine qwen ended while it was listing its models: see its log"
    )


@pytest.mark.parametrize("answer", [{}, {"models": None}, {"models": [{"name": "qwen3:0.6b"}]}, {"models": ["qwen"]}])
def test_a_list_of_another_shape_is_shown(ready: Ready, ollama: OllamaServer, answer: dict[str, Any]) -> None:
    ollama.answers["/api/tags"] = (200, answer)

    assert sentence_of(ready) == f"engine qwen answered /api/tags with something else: {answer!r}"


def test_an_ollama_that_does_not_serve_the_name_in_the_end_is_a_failure(
    ready: Ready, stored: OllamaServer, qwen: Engine
) -> None:
    stored.hidden.add("qwen:latest")

    assert sentence_of(ready) == (
        f"engine qwen on port {qwen.port} serves qwen3:0.6b instead of qwen: "
        "check its argv, or who else listens on that port"
    )


def test_other_models_of_the_store_are_no_obstacle(ready: Ready, stored: OllamaServer) -> None:
    stored.store["phi:latest"] = "d2"

    ready()

    assert stored.loaded == ["qwen"]
