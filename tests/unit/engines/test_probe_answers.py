# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.probe: what an engine serves and answers, and the one sentence for everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hearth.contract import Engine
from hearth.engines import probe
from hearth.errors import EngineFailedError

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, ScriptedServer

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"


@pytest.fixture
def scout(make_engine: MakeEngine, server: ScriptedServer) -> Engine:
    return make_engine("scout", port=server.port)


def said(message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message}]}


def ask(engine: Engine) -> str:
    return probe.chat(engine, "", "Say hello.", 16, 5)


def sentence_of(call: Callable[[], Any]) -> str:
    with pytest.raises(EngineFailedError) as caught:
        call()
    return str(caught.value)


def test_an_engine_serves_exactly_its_name(scout: Engine, server: ScriptedServer) -> None:
    server.serves("scout")

    probe.assert_serves(scout, "")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["phi"], "phi"),
        (["scout", "phi"], "phi, scout"),
        (["scout", "scout"], "scout, scout"),
        ([], "nothing"),
    ],
)
def test_other_names_are_listed_beside_the_one_that_should_be_there(
    scout: Engine, server: ScriptedServer, names: list[str], words: str
) -> None:
    server.serves(*names)

    assert sentence_of(lambda: probe.assert_serves(scout, "")) == (
        f"engine scout on port {server.port} serves {words} instead of scout: "
        "check its argv, or who else listens on that port"
    )


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="no data"),
        pytest.param({"data": None}, id="data is null"),
        pytest.param({"data": ["scout"]}, id="names without objects"),
        pytest.param({"data": [{"name": "scout"}]}, id="no id"),
        pytest.param({"data": 3}, id="a number"),
    ],
)
def test_a_model_list_of_another_shape_is_shown(scout: Engine, server: ScriptedServer, answer: Any) -> None:
    server.script["/v1/models"] = [(200, answer)]

    assert sentence_of(lambda: probe.assert_serves(scout, "")) == (
        f"engine scout answered /v1/models with something else: {answer!r}"
    )


def test_the_key_goes_along_as_a_bearer(scout: Engine, server: ScriptedServer) -> None:
    server.serves("scout")

    probe.assert_serves(scout, "s3cret")

    assert server.seen[0][2]["Authorization"] == "Bearer s3cret"


def test_without_a_key_no_authorization_is_sent(scout: Engine, server: ScriptedServer) -> None:
    server.serves("scout")

    probe.assert_serves(scout, "")

    assert "Authorization" not in server.seen[0][2]


def test_a_netrc_of_the_user_does_not_replace_the_key(
    scout: Engine, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.serves("scout")

    probe.assert_serves(scout, "s3cret")

    assert server.seen[0][2]["Authorization"] == "Bearer s3cret"


def test_a_chat_asks_by_the_served_name_and_with_the_limit_it_was_given(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    server.script[CHAT] = [(200, said({"content": "Hello."}))]

    probe.chat(make_engine(served_name="the-scout", port=server.port), "", "Say hello.", 7, 5)

    method, _, _, body = server.seen[0]
    assert method == "POST"
    assert body == {
        "model": "the-scout",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 7,
    }


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "Hello."}, "Hello."),
        ({"content": "Hello.", "reasoning_content": "They want a greeting."}, "Hello."),
        ({"content": "", "reasoning_content": "They want"}, "They want"),
        ({"content": None, "reasoning_content": "They want"}, "They want"),
        ({"content": "", "reasoning": "They want"}, "They want"),
    ],
)
def test_the_answer_is_the_content_and_else_the_reasoning(
    scout: Engine, server: ScriptedServer, message: dict[str, Any], text: str
) -> None:
    server.script[CHAT] = [(200, said(message))]

    assert ask(scout) == text


@pytest.mark.parametrize("message", [{"content": ""}, {"content": None}, {}, {"content": "", "reasoning_content": ""}])
def test_an_empty_answer_is_a_failure(scout: Engine, server: ScriptedServer, message: dict[str, Any]) -> None:
    server.script[CHAT] = [(200, said(message))]

    assert sentence_of(lambda: ask(scout)) == "engine scout answered a chat with nothing"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="no choices"),
        pytest.param({"choices": []}, id="an empty list of choices"),
        pytest.param({"choices": {}}, id="choices by name"),
        pytest.param({"choices": [{"text": "Hello."}]}, id="a completion, not a chat"),
        pytest.param(said(None), id="no message"),
        pytest.param(said("Hello."), id="a message that is text"),
        pytest.param(said({"content": [{"type": "text", "text": "Hello."}]}), id="content in parts"),
    ],
)
def test_a_chat_of_another_shape_is_shown(scout: Engine, server: ScriptedServer, answer: Any) -> None:
    server.script[CHAT] = [(200, answer)]

    assert sentence_of(lambda: ask(scout)) == f"engine scout answered a chat with something else: {answer!r}"


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        pytest.param(
            401, {"error": "Invalid API Key"}, 'with HTTP 401: {"error": "Invalid API Key"}', id="a wrong key"
        ),
        pytest.param(500, b"  out of memory\n", "with HTTP 500: out of memory", id="its own failure"),
        pytest.param(500, b"x" * 1000, f"with HTTP 500: {'x' * 200}", id="a long one, cut"),
        pytest.param(200, b"<html>", "with no JSON object", id="not JSON"),
        pytest.param(200, b"", "with no JSON object", id="nothing"),
        pytest.param(200, [1], "with no JSON object", id="a list"),
        pytest.param(200, b"\xff\xfe{", "with no JSON object", id="bytes that are no text"),
    ],
)
def test_an_answer_that_is_none_says_the_request_and_what_came_back(
    scout: Engine, server: ScriptedServer, status: int, body: Any, sentence: str
) -> None:
    server.script[CHAT] = [(status, body)]

    assert sentence_of(lambda: ask(scout)) == f"engine scout answered POST {CHAT} {sentence}"


def test_no_answer_in_time_says_what_was_asked(scout: Engine, server: ScriptedServer) -> None:
    server.hangs.set()

    assert sentence_of(lambda: probe.chat(scout, "", "Hello?", 16, 0.2)) == (
        f"engine scout gave no answer to POST {scout.base_url}{CHAT} (ReadTimeout): see its log"
    )


def test_an_embedding_counts_its_dimensions(scout: Engine, server: ScriptedServer) -> None:
    server.script[EMBEDDINGS] = [(200, {"data": [{"embedding": [0.5, -1, 2e-3]}]})]

    assert probe.embed(scout, "", "text", 5) == 3
    assert server.seen[0][3] == {"model": "scout", "input": "text"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="no data"),
        pytest.param({"data": []}, id="an empty list"),
        pytest.param({"data": [None]}, id="null"),
        pytest.param({"data": [{"embedding": []}]}, id="no dimensions"),
        pytest.param({"data": [{"embedding": ["a"]}]}, id="text in it"),
        pytest.param({"data": [{"embedding": "AAAA"}]}, id="base64"),
        pytest.param({"data": [{"embedding": [0.1, None]}]}, id="a hole"),
        pytest.param({"data": [{"embedding": {"0": 0.1}}]}, id="a mapping"),
    ],
)
def test_what_is_no_vector_of_numbers_is_a_failure(scout: Engine, server: ScriptedServer, answer: Any) -> None:
    server.script[EMBEDDINGS] = [(200, answer)]

    assert sentence_of(lambda: probe.embed(scout, "", "text", 5)) == (
        "engine scout answered an embedding with something else"
    )
