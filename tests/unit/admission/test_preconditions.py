# SPDX-License-Identifier: Apache-2.0
"""hearth.admission.admit.preconditions: what must hold beside memory before an engine is started."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hearth.admission import admit
from hearth.errors import EngineFailedError

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine


def test_an_engine_with_its_model_and_a_free_port_is_no_obstacle(
    make_engine: MakeEngine, tmp_path: Path, free_port: int
) -> None:
    model = tmp_path / "scout.gguf"
    model.touch()

    admit.preconditions(make_engine(model_path=str(model), port=free_port))


def test_an_engine_without_its_model_is_refused_with_the_path(make_engine: MakeEngine, tmp_path: Path) -> None:
    with pytest.raises(EngineFailedError) as caught:
        admit.preconditions(make_engine(model_path=str(tmp_path / "scout.gguf")))

    assert str(caught.value) == (
        f"engine scout: its model {tmp_path}/scout.gguf is missing; put it there, or correct the model's file"
    )


def test_an_ollama_without_its_store_is_refused_with_the_play_that_makes_it(make_engine: MakeEngine) -> None:
    with pytest.raises(EngineFailedError) as caught:
        admit.preconditions(make_engine(engine="ollama", tag="qwen3:0.6b", model_path="/nonexistent"))

    assert str(caught.value) == "engine scout: Ollama's store /nonexistent is missing; run site.yml again"


def test_an_ollama_without_its_model_is_refused_with_what_brings_it(make_engine: MakeEngine, tmp_path: Path) -> None:
    with pytest.raises(EngineFailedError) as caught:
        admit.preconditions(make_engine(engine="ollama", tag="qwen3:0.6b", model_path=str(tmp_path)))

    assert str(caught.value) == (
        f"engine scout: qwen3:0.6b is not in Ollama's store {tmp_path}; run site.yml, or playbooks/models.yml -e "
        "do=add -e model=scout"
    )


def test_an_ollama_may_start_with_a_model_that_somebody_pulled(
    make_engine: MakeEngine, tmp_path: Path, free_port: int
) -> None:
    name = tmp_path / "manifests/registry.ollama.ai/library/qwen3/0.6b"
    name.parent.mkdir(parents=True)
    name.touch()

    admit.preconditions(make_engine(engine="ollama", tag="qwen3:0.6b", model_path=str(tmp_path), port=free_port))


def test_a_store_that_may_not_be_looked_at_is_left_to_the_unit(
    make_engine: MakeEngine, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)

    admit.preconditions(make_engine(engine="ollama", tag="qwen3:0.6b", model_path=str(tmp_path), port=free_port))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - a stranger may well
def test_a_port_that_a_stranger_listens_on_is_refused_with_how_to_find_him(
    make_engine: MakeEngine, tmp_path: Path, address: str
) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind((address, 0))
        stranger.listen()
        port = stranger.getsockname()[1]

        with pytest.raises(EngineFailedError) as caught:
            admit.preconditions(make_engine(model_path=str(tmp_path), port=port))

    assert str(caught.value) == (
        f"engine scout: its port {port} is taken by another program "
        f"(ss -ltnp 'sport = :{port}' names it); stop that, or give the model another port"
    )


def test_connections_that_linger_after_the_last_run_do_not_count_as_a_stranger(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    with socket.socket() as old:
        old.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        old.bind(("127.0.0.1", 0))
        old.listen()
        port = old.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = old.accept()
            # The side that closes first keeps the pair in TIME_WAIT.
            accepted.close()

    admit.preconditions(make_engine(model_path=str(tmp_path), port=port))


def test_an_engine_that_may_be_up_itself_is_not_asked_for_its_port(make_engine: MakeEngine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as itself:
        engine = make_engine(model_path=str(tmp_path), port=itself.getsockname()[1])

        admit.preconditions(engine, port=False)


def test_a_model_that_may_not_be_looked_at_is_no_obstacle(
    make_engine: MakeEngine, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", stat)

    admit.preconditions(make_engine(model_path="/home/spark/ai/models/scout.gguf", port=free_port))
