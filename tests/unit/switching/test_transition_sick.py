# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.transition: when an engine that is up is not what it should be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hearth.contract import Engine
from hearth.engines import probe
from hearth.switching import transition

if TYPE_CHECKING:
    from fakes import ScriptedServer
    from ollama_server import OllamaServer
    from tests.unit.conftest import MakeEngine, MakeState

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


def test_an_engine_that_hangs_is_sick(
    make_engine: MakeEngine, make_state: MakeState, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(probe.is_healthy, "__defaults__", (0.1,))
    engine = make_engine(port=server.port)
    server.hangs.set()

    assert transition.is_sick(engine, make_state(engine, "active"), "")
