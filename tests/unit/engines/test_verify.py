# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.verify: which engines should run, and whether they are well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth import contract
from hearth.engines import units, verify

if TYPE_CHECKING:
    from tests.unit.conftest import FakeSystemd, MakeEngine, MakeState, ScriptedServer

QUESTIONS = verify.Questions(chat="Say hello.", embedding="hello", max_tokens=4, timeout_s=0.1)
ANSWER = {"choices": [{"message": {"content": "Hello."}}]}
VECTOR = {"data": [{"embedding": [0.1, 0.2, 0.3]}]}


@pytest.fixture(autouse=True)
def logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "log_tail", lambda unit: (f"last words of {unit}",))


class TestWhatShouldRun:
    """``should_run``, by states of systemd and lanes."""

    @pytest.fixture
    def names(self, make_engine: MakeEngine, make_state: MakeState) -> Callable[..., tuple[list[str], list[str]]]:
        """The names of what runs and of what is missing; each engine is (lane, state, starts at boot) by its name."""

        def of(**engines: tuple[str, str, bool]) -> tuple[list[str], list[str]]:
            made = [make_engine(name, lane=lane) for name, (lane, _, _) in engines.items()]
            states = {
                engine.unit: make_state(engine, active, enabled=enabled)
                for engine, (_, active, enabled) in zip(made, engines.values(), strict=True)
            }
            running, missing = verify.should_run(made, states)
            return [engine.name for engine in running], [engine.name for engine in missing]

        return of

    @pytest.mark.parametrize("state", ["active", "activating", "reloading"])
    def test_an_engine_that_is_up_or_coming(
        self, names: Callable[..., tuple[list[str], list[str]]], state: str
    ) -> None:
        assert names(scout=("main", state, False)) == (["scout"], [])

    @pytest.mark.parametrize("state", ["inactive", "failed", "deactivating"])
    def test_an_engine_that_starts_at_boot_and_is_down_is_missing(
        self, names: Callable[..., tuple[list[str], list[str]]], state: str
    ) -> None:
        assert names(scout=("main", state, True)) == ([], ["scout"])

    @pytest.mark.parametrize("state", ["inactive", "failed"])
    def test_an_engine_on_demand_may_be_down(
        self, names: Callable[..., tuple[list[str], list[str]]], state: str
    ) -> None:
        assert names(scout=("main", state, False)) == ([], [])

    def test_one_of_the_main_lane_may_give_way_to_another(
        self, names: Callable[..., tuple[list[str], list[str]]]
    ) -> None:
        assert names(scout=("main", "inactive", True), phi=("main", "active", False)) == (["phi"], [])

    def test_a_pinned_engine_gives_way_to_nobody(self, make_engine: MakeEngine, make_state: MakeState) -> None:
        scout, phi = make_engine("scout", pinned=True), make_engine("phi")
        states = {scout.unit: make_state(scout, enabled=True), phi.unit: make_state(phi, "active")}

        assert verify.should_run([scout, phi], states) == ((phi,), (scout,))

    def test_nobody_gives_way_in_the_utility_lane(self, names: Callable[..., tuple[list[str], list[str]]]) -> None:
        engines = {
            "scout": ("main", "active", True),
            "bge": ("utility", "inactive", True),
            "rerank": ("utility", "active", True),
        }

        assert names(**engines) == (["scout", "rerank"], ["bge"])


class TestOneEngine:
    """``check``: steps in order, up to the first that fails."""

    @pytest.fixture
    def scout(self, make_engine: MakeEngine, server: ScriptedServer) -> contract.Engine:
        server.serves("scout")
        server.script["/v1/chat/completions"] = [(200, ANSWER)]
        server.script["/v1/embeddings"] = [(200, VECTOR)]
        return make_engine("scout", port=server.port)

    def test_all_that_is_asked_is_checked(self, scout: contract.Engine) -> None:
        health = verify.check(scout, "", QUESTIONS)

        assert health.checked == ("health", "model id", "chat", "embedding")
        assert (health.answer, health.dimensions) == ("Hello.", 3)
        assert (health.failed, health.failure, health.log) == ("", "", ())
        assert sorted(health.seconds) == ["chat", "embedding", "models", "ready"]

    def test_what_is_not_asked_is_not_checked(self, scout: contract.Engine, server: ScriptedServer) -> None:
        health = verify.check(scout, "", verify.Questions())

        assert health.checked == ("health", "model id")
        assert [path for _, path, _, _ in server.seen] == ["/health", "/v1/models"]

    @pytest.mark.parametrize(
        ("path", "checked", "failed"),
        [
            ("/health", (), "health"),
            ("/v1/models", ("health",), "model id"),
            ("/v1/chat/completions", ("health", "model id"), "chat"),
            ("/v1/embeddings", ("health", "model id", "chat"), "embedding"),
        ],
    )
    def test_the_first_failure_ends_it_with_the_log(
        self, scout: contract.Engine, server: ScriptedServer, path: str, checked: tuple[str, ...], failed: str
    ) -> None:
        server.script[path] = [(500, b"broken")]

        health = verify.check(scout, "", QUESTIONS)

        assert (health.checked, health.failed) == (checked, failed)
        assert "scout" in health.failure
        assert health.log == ("last words of hearth-engine-scout.service",)


class TestAllEngines:
    """``check_all``: the engines of a box at the same time."""

    @pytest.fixture
    def other(self, server: ScriptedServer) -> Iterator[ScriptedServer]:
        scripted = type(server)()
        yield scripted
        scripted.close()

    def test_each_is_asked_what_it_can_answer(
        self,
        make_engine: MakeEngine,
        make_state: MakeState,
        make_contract: Callable[..., contract.Contract],
        fake_systemd: Callable[..., FakeSystemd],
        monkeypatch: pytest.MonkeyPatch,
        server: ScriptedServer,
        other: ScriptedServer,
    ) -> None:
        scout = make_engine("scout", port=server.port)
        bge = make_engine("bge", port=other.port, lane="utility", capabilities=("embeddings",))
        gone = make_engine("gone", lane="utility")
        monkeypatch.setattr(
            units,
            "Systemd",
            fake_systemd(
                make_state(scout, "active"), make_state(bge, "active"), make_state(gone, "failed", enabled=True)
            ),
        )
        server.serves("scout")
        server.script["/v1/chat/completions"] = [(200, ANSWER)]
        other.serves("bge")
        other.script["/v1/embeddings"] = [(200, VECTOR)]

        found = asyncio.run(verify.check_all(make_contract(scout, bge, gone), QUESTIONS))

        assert [(one.name, one.checked, one.failed) for one in found] == [
            ("scout", ("health", "model id", "chat"), ""),
            ("bge", ("health", "model id", "embedding"), ""),
            ("gone", (), "running"),
        ]
        assert found[2].failure == (
            "engine gone starts at boot and is failed now: start it with systemctl start hearth-engine-gone"
        )

    def test_the_key_of_the_box_is_used(
        self,
        make_engine: MakeEngine,
        make_state: MakeState,
        make_contract: Callable[..., contract.Contract],
        fake_systemd: Callable[..., FakeSystemd],
        monkeypatch: pytest.MonkeyPatch,
        server: ScriptedServer,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        scout = make_engine("scout", port=server.port)
        monkeypatch.setattr(units, "Systemd", fake_systemd(make_state(scout, "active")))
        server.serves("scout")
        key_file = tmp_path_factory.mktemp("secrets") / "engine.env"
        key_file.write_text("LLAMA_API_KEY=of-the-test\n")

        asyncio.run(verify.check_all(make_contract(scout, key_file=key_file), verify.Questions()))

        assert [headers.get("Authorization") for _, path, headers, _ in server.seen if path == "/v1/models"] == [
            "Bearer of-the-test"
        ]


WELL = verify.Health(
    name="scout",
    url="http://127.0.0.1:8080",
    unit="hearth-engine-scout.service",
    lane="main",
    checked=("health", "model id", "chat"),
    seconds={"ready": 0.01, "models": 0.002, "chat": 0.3, "embedding": 0.0},
    answer="Hello.",
    dimensions=0,
    failed="",
    failure="",
    log=(),
)
EMBEDS = msgspec.structs.replace(
    WELL, name="bge-m3", url="http://127.0.0.1:8081", checked=("health", "model id", "embedding"), dimensions=1024
)
DOWN = msgspec.structs.replace(
    WELL,
    name="phi",
    unit="hearth-engine-phi.service",
    checked=(),
    seconds={},
    failed="running",
    failure="engine phi starts at boot and is failed now",
)
MUTE = msgspec.structs.replace(WELL, checked=("health",), failed="model id", failure="engine scout serves nothing")


def test_the_table_has_a_line_for_each_engine() -> None:
    assert verify.table([WELL, EMBEDS, DOWN, MUTE]) == [
        "MODEL   ADDRESS                CHECKED                                        SECONDS  VERDICT",
        "scout   http://127.0.0.1:8080  health, model id, chat                         0.31     well",
        "bge-m3  http://127.0.0.1:8081  health, model id, embedding (1024 dimensions)  0.31     well",
        "phi     http://127.0.0.1:8080  -                                              0.00     down",
        "scout   http://127.0.0.1:8080  health                                         0.31     fails at model id",
    ]


def test_the_table_of_nothing_is_a_sentence() -> None:
    assert verify.table([]) == ["Nothing should run: no engine is up, and none starts at boot."]


def test_a_complaint_names_each_engine_and_its_log() -> None:
    assert verify.complaint([WELL, DOWN, MUTE]) == (
        "Of 3 that should run, 2 are not well: engine phi starts at boot and is failed now "
        "(its log: journalctl -u hearth-engine-phi -n 50); engine scout serves nothing "
        "(its log: journalctl -u hearth-engine-scout -n 50)"
    )


@pytest.mark.parametrize("found", [[], [WELL, EMBEDS]])
def test_where_all_is_well_there_is_no_complaint(found: list[verify.Health]) -> None:
    assert verify.complaint(found) == ""
