# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.probe: waiting until an engine is ready, and noticing at once when it never will be."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from hearth.engines import probe
from hearth.errors import EngineFailedError
from hearth.loopback import session

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, ScriptedServer


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something happen between the first probe and the second."""

    def arrange(happening: Callable[[], None]) -> None:
        real, first = probe.ProcessWatch.sleep, [True]

        def sleep(self: probe.ProcessWatch, seconds: float) -> None:
            if first:
                first.clear()
                happening()
            real(self, seconds)

        monkeypatch.setattr(probe.ProcessWatch, "sleep", sleep)

    return arrange


def test_an_engine_that_is_up_is_ready_at_once(make_engine: MakeEngine, server: ScriptedServer) -> None:
    server.serves("scout")

    assert probe.wait_ready(make_engine(port=server.port), 5) < 1
    assert [(method, path) for method, path, _, _ in server.seen] == [("GET", "/health")]


@pytest.mark.parametrize("name", ["qwen", "qwen:latest"])
def test_ollama_has_no_health_so_it_is_asked_what_it_has_loaded(
    make_engine: MakeEngine, server: ScriptedServer, name: str
) -> None:
    server.script["/api/ps"] = [(200, {"models": [{"name": "phi:latest"}, {"name": name}]})]

    probe.wait_ready(make_engine("qwen", engine="ollama", port=server.port), 5)

    assert [path for _, path, _, _ in server.seen] == ["/api/ps"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((200, {"models": []}), id="nothing is loaded"),
        pytest.param((200, {"models": [{"name": "qwen3:latest"}]}), id="another model is"),
        pytest.param((200, {"models": [{"name": "qwen:8b"}]}), id="another tag is"),
        pytest.param((200, {"models": None}), id="no list"),
        pytest.param((200, {"models": ["qwen"]}), id="a list of text"),
        pytest.param((200, ["qwen"]), id="no mapping"),
        pytest.param((200, b"Ollama is running"), id="no JSON"),
        pytest.param((500, {"models": [{"name": "qwen:latest"}]}), id="an error"),
    ],
)
def test_an_ollama_that_has_not_loaded_our_model_is_not_healthy(
    make_engine: MakeEngine, server: ScriptedServer, answer: tuple[int, object]
) -> None:
    server.script["/api/ps"] = [answer]

    with session() as client:
        assert not probe.is_healthy(make_engine("qwen", engine="ollama", port=server.port), client)


def test_an_engine_that_loads_is_waited_for(make_engine: MakeEngine, server: ScriptedServer) -> None:
    server.script["/health"] = [(503, {"error": "Loading model"}), (503, {}), (200, {})]

    seconds = probe.wait_ready(make_engine(port=server.port), 5)

    assert len(server.seen) == 3
    assert seconds >= 2 * probe.INTERVAL_S * 0.9


def test_an_engine_that_does_not_listen_yet_is_waited_for(
    make_engine: MakeEngine, free_port: int, process: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(EngineFailedError, match="did not become ready"):
        probe.wait_ready(make_engine(port=free_port), 0.2, process.pid)


def test_the_end_of_the_wait_says_engine_port_limit_and_what_to_do(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    server.script["/health"] = [(503, {})]

    with pytest.raises(EngineFailedError) as caught:
        probe.wait_ready(make_engine(port=server.port), 0.2)

    assert str(caught.value) == (
        f"engine scout did not become ready on port {server.port} within 0.2 s: "
        "see its log, or raise its start_timeout_s"
    )


def test_an_engine_that_hangs_does_not_stretch_the_limit(make_engine: MakeEngine, server: ScriptedServer) -> None:
    server.hangs.set()
    begun = time.monotonic()

    with pytest.raises(EngineFailedError, match="did not become ready"):
        probe.wait_ready(make_engine(port=server.port), 0.2)

    assert time.monotonic() - begun < 1


def test_a_process_that_ends_while_loading_ends_the_wait_at_once(
    make_engine: MakeEngine,
    server: ScriptedServer,
    process: subprocess.Popen[bytes],
    naps: Callable[[Callable[[], None]], None],
) -> None:
    server.script["/health"] = [(503, {})]
    naps(process.kill)
    begun = time.monotonic()

    with pytest.raises(EngineFailedError, match=r"^engine scout ended while it was loading: see its log$"):
        probe.wait_ready(make_engine(port=server.port), 30, process.pid)

    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_a_process_that_had_ended_before_ends_the_wait_at_once(
    make_engine: MakeEngine, free_port: int, process: subprocess.Popen[bytes], reaped: bool
) -> None:
    process.kill()
    if reaped:
        process.wait()
    begun = time.monotonic()

    with pytest.raises(EngineFailedError, match="ended while it was loading"):
        probe.wait_ready(make_engine(port=free_port), 30, process.pid)

    assert time.monotonic() - begun < 5


def test_what_is_no_process_has_ended(make_engine: MakeEngine, free_port: int) -> None:
    with pytest.raises(EngineFailedError, match="ended while it was loading"):
        probe.wait_ready(make_engine(port=free_port), 30, 0)


def test_a_stranger_who_answers_in_place_of_our_dead_process_is_not_taken_for_it(
    make_engine: MakeEngine, server: ScriptedServer, process: subprocess.Popen[bytes]
) -> None:
    server.serves("scout")
    process.kill()
    process.wait()

    with pytest.raises(EngineFailedError, match="ended while it was loading"):
        probe.wait_ready(make_engine(port=server.port), 30, process.pid)


def test_a_living_process_is_no_obstacle(
    make_engine: MakeEngine, server: ScriptedServer, process: subprocess.Popen[bytes]
) -> None:
    server.serves("scout")

    assert probe.wait_ready(make_engine(port=server.port), 5, process.pid) < 1


@pytest.mark.parametrize("status", [204, 401, 404, 500, 503])
def test_only_200_is_healthy(make_engine: MakeEngine, server: ScriptedServer, status: int) -> None:
    server.script["/health"] = [(status, b"")]

    with session() as client:
        assert not probe.is_healthy(make_engine(port=server.port), client)


def test_an_engine_that_says_nothing_is_neither_healthy_nor_not(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    server.hangs.set()

    with session() as client, pytest.raises(TimeoutError, match=rf":{server.port} within 0\.1 s$"):
        probe.is_healthy(make_engine(port=server.port), client, 0.1)


def test_a_proxy_of_the_environment_does_not_come_between_the_box_and_its_own_engine(
    make_engine: MakeEngine, server: ScriptedServer, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serves("scout")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    engine = make_engine(port=server.port)

    probe.wait_ready(engine, 1)
    probe.assert_serves(engine, "")
