# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.probe.canary: one token of what an engine is for, before it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fakes import CHAT, EMBEDDINGS, said

from hearth.contract import Engine
from hearth.engines import probe
from hearth.errors import EngineFailedError

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, ScriptedServer


@pytest.fixture
def scout(make_engine: MakeEngine, server: ScriptedServer) -> Engine:
    return make_engine("scout", port=server.port)


def asked(server: ScriptedServer) -> list[tuple[str, int | None]]:
    return [(path, body.get("max_tokens")) for _, path, _, body in server.seen]


def refusal(engine: Engine) -> str:
    with pytest.raises(EngineFailedError) as caught:
        probe.canary(engine, "", 5)
    return str(caught.value)


@pytest.mark.parametrize(
    "message",
    [{"content": "Y"}, {"content": None, "reasoning_content": "They"}, {"content": "", "reasoning": "They"}],
    ids=["content", "reasoning_content", "reasoning"],
)
def test_one_token_is_enough_also_of_reasoning(scout: Engine, server: ScriptedServer, message: dict[str, Any]) -> None:
    server.script[CHAT] = [(200, {"choices": [{"message": message}]})]

    probe.canary(scout, "", 5)

    assert asked(server) == [(CHAT, 1)]


def test_after_a_token_without_text_some_more_are_asked_for(scout: Engine, server: ScriptedServer) -> None:
    server.script[CHAT] = [(200, said("")), (200, said("Yes."))]

    probe.canary(scout, "", 5)

    assert asked(server) == [(CHAT, 1), (CHAT, 16)]


def test_an_engine_that_has_nothing_to_say_then_either_is_refused(scout: Engine, server: ScriptedServer) -> None:
    server.script[CHAT] = [(200, said(""))]

    assert refusal(scout) == "engine scout answered a chat with nothing"
    assert asked(server) == [(CHAT, 1), (CHAT, 16)]


def test_an_error_is_refused_at_once_in_the_engines_own_words(scout: Engine, server: ScriptedServer) -> None:
    server.script[CHAT] = [(500, b"CUDA error: out of memory")]

    assert refusal(scout) == f"engine scout answered POST {CHAT} with HTTP 500: CUDA error: out of memory"
    assert asked(server) == [(CHAT, 1)]


def test_an_engine_that_hangs_is_refused_when_its_time_is_up(scout: Engine, server: ScriptedServer) -> None:
    server.hangs.set()

    with pytest.raises(EngineFailedError, match=r"gave no answer to POST .* \(ReadTimeout\)"):
        probe.canary(scout, "", 0.2)


@pytest.mark.parametrize("also", [(), ("rerank",)])
def test_an_embedder_is_asked_for_an_embedding(
    make_engine: MakeEngine, server: ScriptedServer, also: tuple[str, ...]
) -> None:
    server.script[EMBEDDINGS] = [(200, {"data": [{"embedding": [0.1]}]})]

    probe.canary(make_engine(port=server.port, capabilities=("embeddings", *also)), "", 5)

    assert asked(server) == [(EMBEDDINGS, None)]


def test_an_embedder_without_an_embedding_is_refused(make_engine: MakeEngine, server: ScriptedServer) -> None:
    server.script[EMBEDDINGS] = [(200, {"data": []})]

    engine = make_engine(port=server.port, capabilities=("embeddings",))

    assert refusal(engine) == "engine scout answered an embedding with something else"


def test_an_engine_that_does_both_is_asked_to_chat(make_engine: MakeEngine, server: ScriptedServer) -> None:
    server.script[CHAT] = [(200, said("Yes."))]

    probe.canary(make_engine(port=server.port, capabilities=("embeddings", "chat")), "", 5)

    assert asked(server) == [(CHAT, 1)]


def test_a_reranker_alone_is_asked_nothing(make_engine: MakeEngine, server: ScriptedServer) -> None:
    probe.canary(make_engine(port=server.port, capabilities=("rerank",)), "", 5)

    assert server.seen == []


def test_the_key_goes_along(scout: Engine, server: ScriptedServer) -> None:
    server.script[CHAT] = [(200, said("Yes."))]

    probe.canary(scout, "s3cret", 5)

    assert server.seen[0][2]["Authorization"] == "Bearer s3cret"
