# SPDX-License-Identifier: Apache-2.0
"""hearth.transition: when an engine is sick, how one is stopped and started, and what is asked before a start."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hearth import transition
from hearth.contract import Engine
from hearth.errors import EngineFailedError

if TYPE_CHECKING:
    from ollama_server import OllamaServer
    from tests.unit.conftest import FakeSystemd, MakeEngine, MakeState, ScriptedServer

YEAR_2020_US = 1_577_836_800_000_000


@pytest.fixture
def unit_file(tmp_path: Path) -> Path:
    """A unit file, written in 2020."""
    path = tmp_path / "hearth-engine-scout.service"
    path.write_text("[Service]\n")
    os.utime(path, ns=(YEAR_2020_US * 1000, YEAR_2020_US * 1000))
    return path


@pytest.mark.parametrize(
    ("active", "started_us", "newer"),
    [
        ("active", YEAR_2020_US - 1, True),
        ("active", YEAR_2020_US, False),
        ("active", YEAR_2020_US + 1, False),
        ("activating", YEAR_2020_US - 1, True),
        ("inactive", YEAR_2020_US - 1, False),
        ("active", 0, False),
    ],
)
def test_a_unit_file_is_newer_where_it_was_written_after_the_start_of_what_runs(
    make_engine: MakeEngine, make_state: MakeState, unit_file: Path, active: str, started_us: int, newer: bool
) -> None:
    state = make_state(make_engine(), active, started_us=started_us, fragment=str(unit_file))

    assert transition.unit_is_newer(state) is newer


def test_without_a_unit_file_nothing_is_newer(make_engine: MakeEngine, make_state: MakeState, tmp_path: Path) -> None:
    state = make_state(make_engine(), "active", started_us=1, fragment=str(tmp_path / "gone"))

    assert not transition.unit_is_newer(state)


def test_an_engine_that_is_healthy_and_serves_its_name_is_well(
    make_engine: MakeEngine, make_state: MakeState, server: ScriptedServer
) -> None:
    engine = make_engine(port=server.port)
    server.serves("scout")

    assert not transition.is_sick(engine, make_state(engine, "active"), "")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param({"/health": [(503, {})]}, id="unhealthy"),
        pytest.param({"/health": [(200, {})]}, id="no list of models"),
        pytest.param({"/health": [(200, {})], "/v1/models": [(200, {"data": [{"id": "phi"}]})]}, id="another name"),
        pytest.param({"/health": [(200, {})], "/v1/models": [(401, {})]}, id="another key"),
    ],
)
def test_an_engine_that_is_up_but_not_what_it_should_be_is_sick(
    make_engine: MakeEngine, make_state: MakeState, server: ScriptedServer, script: dict[str, Any]
) -> None:
    engine = make_engine(port=server.port)
    server.script = script

    assert transition.is_sick(engine, make_state(engine, "active"), "")


def test_an_engine_that_is_up_and_does_not_listen_is_sick(
    make_engine: MakeEngine, make_state: MakeState, free_port: int
) -> None:
    engine = make_engine(port=free_port)

    assert transition.is_sick(engine, make_state(engine, "active"), "")


@pytest.mark.parametrize("active", ["inactive", "failed", "activating"])
def test_what_is_down_or_loading_is_not_asked_and_not_sick(
    make_engine: MakeEngine, make_state: MakeState, server: ScriptedServer, active: str
) -> None:
    engine = make_engine(port=server.port)

    assert not transition.is_sick(engine, make_state(engine, active), "")
    assert not server.seen


def test_an_engine_that_loads_from_an_older_unit_file_is_sick(
    make_engine: MakeEngine, make_state: MakeState, unit_file: Path
) -> None:
    engine = make_engine()

    assert transition.is_sick(engine, make_state(engine, "activating", started_us=1, fragment=str(unit_file)), "")


def test_an_ollama_with_its_model_loaded_is_well(qwen: Engine, make_state: MakeState, ollama: OllamaServer) -> None:
    ollama.store["qwen:latest"] = "d1"
    ollama.loaded.append("qwen")

    assert not transition.is_sick(qwen, make_state(qwen, "active"), "")


def test_an_ollama_that_has_unloaded_its_model_is_sick(
    qwen: Engine, make_state: MakeState, ollama: OllamaServer
) -> None:
    ollama.store["qwen:latest"] = "d1"

    assert transition.is_sick(qwen, make_state(qwen, "active"), "")


def test_an_ollama_that_lost_its_name_for_the_model_is_sick(
    qwen: Engine, make_state: MakeState, ollama: OllamaServer
) -> None:
    ollama.store["qwen3:0.6b"] = "d1"
    ollama.loaded.append("qwen")

    assert transition.is_sick(qwen, make_state(qwen, "active"), "")


@pytest.mark.parametrize(("kind", "at_least_s"), [("llama.cpp", 5), ("ollama", 24 * 3600)])
async def test_an_engine_that_may_pull_is_given_the_time_for_it(
    make_engine: MakeEngine,
    make_state: MakeState,
    fake_systemd: Callable[..., FakeSystemd],
    server: ScriptedServer,
    kind: str,
    at_least_s: float,
) -> None:
    engine = make_engine(engine=kind, port=server.port)
    server.serves("scout")
    systemd = fake_systemd(make_state(engine))

    await transition.start(systemd, engine, "")  # type: ignore[arg-type]

    [limit_s] = systemd.limits
    assert at_least_s < limit_s < at_least_s + 60


async def test_an_engine_that_stays_up_after_its_stop_is_an_error_with_its_log(
    make_engine: MakeEngine, make_state: MakeState, fake_systemd: Callable[..., FakeSystemd]
) -> None:
    engine = make_engine()
    systemd = fake_systemd(make_state(engine, "active"))
    systemd.stop_ends[engine.unit] = "deactivating"

    with pytest.raises(EngineFailedError) as caught:
        await transition.stop(systemd, engine)  # type: ignore[arg-type]

    assert str(caught.value) == (
        "engine scout did not stop: it is deactivating; see systemctl status hearth-engine-scout.service"
    )
    assert caught.value.log == ("last words of hearth-engine-scout.service",)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("timeout", "engine scout was not ready within 5 s"),
        ("exit-code", "engine scout failed to start"),
        ("start-limit-hit", "engine scout failed to start"),
    ],
)
async def test_an_engine_that_does_not_start_is_stopped_and_told_of_with_its_log(
    make_engine: MakeEngine,
    make_state: MakeState,
    fake_systemd: Callable[..., FakeSystemd],
    result: str,
    why: str,
) -> None:
    engine = make_engine()
    systemd = fake_systemd(make_state(engine))
    systemd.start_ends[engine.unit] = ("activating", result)

    with pytest.raises(EngineFailedError) as caught:
        await transition.start(systemd, engine, "")  # type: ignore[arg-type]

    assert str(caught.value) == why
    assert caught.value.log == ("last words of hearth-engine-scout.service",)
    assert systemd.calls == [("start", engine.unit), ("stop", engine.unit)]


def test_an_engine_with_its_model_and_a_free_port_is_admitted(
    make_engine: MakeEngine, tmp_path: Path, free_port: int
) -> None:
    model = tmp_path / "scout.gguf"
    model.touch()

    transition.admit(make_engine(model_path=str(model), port=free_port))


def test_an_engine_without_its_model_is_refused_with_the_path(make_engine: MakeEngine, tmp_path: Path) -> None:
    with pytest.raises(EngineFailedError) as caught:
        transition.admit(make_engine(model_path=str(tmp_path / "scout.gguf")))

    assert str(caught.value) == (
        f"engine scout: its model {tmp_path}/scout.gguf is missing; put it there, or correct the model's file"
    )


def test_an_ollama_without_its_store_is_refused_with_the_play_that_makes_it(make_engine: MakeEngine) -> None:
    with pytest.raises(EngineFailedError) as caught:
        transition.admit(make_engine(engine="ollama", tag="qwen3:0.6b", model_path="/nonexistent"))

    assert str(caught.value) == "engine scout: Ollama's store /nonexistent is missing; run site.yml again"


def test_an_ollama_is_admitted_with_an_empty_store(make_engine: MakeEngine, tmp_path: Path, free_port: int) -> None:
    transition.admit(make_engine(engine="ollama", tag="qwen3:0.6b", model_path=str(tmp_path), port=free_port))


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
            transition.admit(make_engine(model_path=str(tmp_path), port=port))

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

    transition.admit(make_engine(model_path=str(tmp_path), port=port))
