# SPDX-License-Identifier: Apache-2.0
"""hearth.admission.admit: an engine starts where it fits beside the floor, and a refusal says who holds what."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth import memory
from hearth.admission import admit, holders
from hearth.errors import EngineFailedError, HearthError
from hearth.memory import Memory

if TYPE_CHECKING:
    from tests.unit.admission.conftest import Box


def test_an_engine_that_fits_is_admitted_at_once_and_systemd_is_not_asked(box: Box) -> None:
    assert box.admit().admitted
    assert (box.clock.passed, box.asked, box.said) == (0, 0, [])


def test_an_admitted_start_is_written_down_with_its_run_and_figures(box: Box) -> None:
    box.admit()

    assert json.loads(box.starting.read_text()) == {
        "engine": "scout",
        "unit": "hearth-engine-scout.service",
        "invocation": box.RUN,
        "need_gib": 60.0,
        "available_before_gib": 110.0,
        "at": "2026-11-21T05:00:00Z",
    }


def test_a_person_who_asks_reserves_nothing(box: Box) -> None:
    assert box.admit(invocation="").admitted
    assert not box.starting.exists()


def test_what_was_measured_decides_and_not_the_contract(box: Box) -> None:
    box.host.ledger.record(box.engine("scout"), 101.0, 1.0, "")

    with pytest.raises(EngineFailedError, match=r"^engine scout needs 101\.0 GiB \(measured\), but of the 110\.0 GiB"):
        box.admit()


def test_a_refusal_reserves_nothing(box: Box) -> None:
    box.available = 69.0

    with pytest.raises(EngineFailedError):
        box.admit()

    assert not box.starting.exists()


def test_a_refusal_names_engines_and_strangers_biggest_first(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = holders.Holder(name="python3 main.py", gib=45.0, pid=42)
    monkeypatch.setattr(holders, "programs", lambda ours, **_: (stranger,) if "hearth-qwen" in ours else ())
    box.set("qwen", "active")
    box.set("phi", "activating", sub="auto-restart")
    box.available = 25.0

    with pytest.raises(EngineFailedError) as caught:
        box.admit()

    assert str(caught.value) == (
        "engine scout needs 60.0 GiB, but of the 25.0 GiB available 10.0 GiB stay with the host, so 45.0 GiB are "
        "missing; python3 main.py (pid 42) holds 45.0 GiB, qwen holds 40.0 GiB: "
        "end python3 main.py (pid 42); hearth stop qwen"
    )


def test_a_refusal_does_not_name_the_engine_itself(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    ours: list[set[str]] = []

    def programs(names: set[str], **_: object) -> tuple[holders.Holder, ...]:
        ours.append(names)
        return ()

    monkeypatch.setattr(holders, "programs", programs)
    box.set("scout", "activating", sub="start-pre", invocation=box.RUN)
    box.available = 25.0

    with pytest.raises(EngineFailedError, match="nobody is seen"):
        box.admit()

    assert ours == [{"hearth-scout", "hearth-engine-scout.service"}]


def test_what_is_left_of_an_engine_that_is_down_is_a_stranger(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    left = holders.Holder(name="llama-server", gib=40.0, pid=42, container="hearth-qwen")
    monkeypatch.setattr(holders, "programs", lambda ours, **_: () if "hearth-qwen" in ours else (left,))
    box.available = 25.0

    with pytest.raises(EngineFailedError, match=r"docker stop hearth-qwen$"):
        box.admit()


def test_a_damaged_reservation_is_nobodys(box: Box) -> None:
    box.starting.parent.mkdir()
    box.starting.write_text('{"engine": "qw')

    assert box.admit().admitted


def test_a_missing_model_is_named(box: Box) -> None:
    Path(box.engine("scout").model_path).unlink()

    with pytest.raises(EngineFailedError) as caught:
        box.admit()

    assert str(caught.value) == (
        f"engine scout: its model {box.folder}/models/scout.gguf is missing; put it there, or correct the model's file"
    )


def test_a_missing_store_of_ollama_is_made_by_the_play(box: Box) -> None:
    engine = msgspec.structs.replace(box.engine("scout"), engine="ollama", model_path=str(box.folder / "gone"))

    with pytest.raises(EngineFailedError, match=r"Ollama's store .*/gone is missing; run site\.yml again$"):
        admit.preconditions(engine)


def test_a_port_that_somebody_has_is_named(box: Box) -> None:
    port = box.engine("scout").port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()

        with pytest.raises(EngineFailedError, match=rf"its port {port} is taken by another program \(ss -ltnp"):
            box.admit()


@pytest.mark.usefixtures("gpu")
def test_with_too_little_free_for_a_gpu_the_page_cache_of_other_models_goes_first(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[list[str]] = []

    def drop(paths: list[Path], **_: object) -> float:
        dropped.append([path.name for path in paths])
        box.free += 20
        return 20.0

    monkeypatch.setattr(memory, "drop_page_cache", drop)
    box.free = 45.0

    assert box.admit().drops_cache
    assert dropped == [["qwen.gguf", "phi.gguf"]]
    assert box.said == ["engine scout: too little memory was free for a GPU; 20.0 GiB of page cache given back"]


@pytest.mark.usefixtures("gpu")
def test_the_engines_own_page_cache_goes_where_the_others_was_not_enough(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[str] = []

    def drop(paths: list[Path], **_: object) -> float:
        dropped.extend(path.name for path in paths)
        return 0.5

    monkeypatch.setattr(memory, "drop_page_cache", drop)
    box.free = 45.0
    box.admit()

    assert dropped == ["qwen.gguf", "phi.gguf", "scout.gguf"]
    assert box.said[0].endswith("; 1.0 GiB of page cache given back")


def test_without_a_gpu_page_cache_stays(box: Box) -> None:
    box.free = 1.0

    assert not box.admit().drops_cache


def test_an_engine_that_is_up_may_have_its_port(box: Box) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", box.engine("scout").port))
        taken.listen()

        admit.preconditions(box.engine("scout"), port=False)


def test_without_a_meminfo_nothing_is_admitted(box: Box) -> None:
    def broken() -> Memory:
        raise HearthError("no meminfo")

    box.host = msgspec.structs.replace(box.host, read_memory=broken)

    with pytest.raises(HearthError, match="no meminfo"):
        box.admit()
    assert not box.starting.exists()
