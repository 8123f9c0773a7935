# SPDX-License-Identifier: Apache-2.0
"""The module model and Ollama's registry, run as Ansible runs it, with an Ollama that keeps its store."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from modelruns import Downloads, Run
from ollama_on_disk import OllamaOnDisk

from hearth import contract
from hearth.download import Request
from hearth.engines import units

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

pytestmark = pytest.mark.usefixtures("disk")


@pytest.fixture
def run(run_model: Run) -> Run:
    return run_model


@pytest.fixture
def store(ollama_folder: Path) -> Path:
    return ollama_folder


@pytest.fixture
def helper(
    make_engine: MakeEngine, make_state: MakeState, store: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Have an engine that serves the tag, in a state of systemd."""

    def have(active: str) -> None:
        made = make_engine("helper", engine="ollama", tag="qwen3:0.6b", image="ollama:9", model_path=str(store))
        known = contract.Contract(schema=contract.SCHEMA, key_file="/k", floor_gib=4, engines=(made,))
        contract.PATH.write_bytes(msgspec.json.encode(known))
        monkeypatch.setattr(units, "read_states", lambda names: dict.fromkeys(names, make_state(made, active=active)))

    return have


def test_it_is_brought_into_the_store_by_a_job_and_nothing_is_to_do_the_second_time(
    run: Run, store: Path, downloads: Downloads, starts: list[Request]
) -> None:
    foretold = run(check=True, path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    first = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    second = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")

    assert (foretold["changed"], first["changed"], second["changed"]) == (True, True, False)
    assert foretold["lines"] == [
        "qwen3:0.6b would come from Ollama's registry, which says how much that is when it begins"
    ]
    assert foretold["diff"]["after"] == f"{store} qwen3:0.6b: what registry.ollama.ai has\n"
    assert first["diff"]["before"] == f"{store} qwen3:0.6b: nothing\n"
    assert first["lines"][0].startswith("qwen3:0.6b: 3.0 MB came in ")
    assert (first["bytes_fetched"], first["models"][0]["ollama"]) == (3_001_100, "qwen3:0.6b")
    assert second["lines"] == [f"qwen3:0.6b is there (commit {first['commit'][:12]}, 2 files, 3.0 MB)"]
    assert (len(downloads.asked), len(starts)) == (1, 1)


def test_without_an_image_that_of_an_engine_on_the_store_is_taken(
    run: Run, store: Path, helper: Callable[[str], None], starts: list[Request]
) -> None:
    helper("inactive")

    assert run(path=str(store), ollama="qwen3:0.6b")["changed"]
    assert starts[0].image == "ollama:9"


def test_a_tag_is_looked_at_again_when_that_is_asked_for(run: Run, store: Path, disk: OllamaOnDisk) -> None:
    run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    disk.layers["qwen3:0.6b"] = {"newer weights": 10}

    said = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1", refresh=True)

    assert (said["changed"], said["bytes_fetched"]) == (True, 10)


def test_a_registry_that_is_away_is_a_warning_where_the_model_is_there(
    run: Run, store: Path, disk: OllamaOnDisk
) -> None:
    run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    disk.fails_at = {"manifest": "pull model manifest: dial tcp: i/o timeout"}
    asked = {"path": str(store), "ollama": "qwen3:0.6b", "image": "ollama:1", "refresh": True}

    kept = run(**asked, unreachable="keep")

    assert not kept["changed"]
    assert "registry.ollama.ai cannot be reached" in kept["warnings"][0]
    assert kept["warnings"][0].endswith("is whole: it is used as it is")
    assert run(**asked)["failed"]


def test_a_damaged_layer_is_brought_anew(run: Run, store: Path) -> None:
    run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    path = max((store / "blobs").iterdir(), key=lambda one: one.stat().st_size)
    path.write_bytes(bytes(3_000_000))

    said = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1", state="verified")

    assert (said["changed"], said["bytes_fetched"]) == (True, 3_000_000)


def test_a_tag_goes_with_the_names_that_engines_gave_it(
    run: Run, store: Path, disk: OllamaOnDisk, helper: Callable[[str], None]
) -> None:
    run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    disk.post("/api/copy", {"source": "qwen3:0.6b", "destination": "helper"})
    helper("inactive")
    asked = {"path": str(store), "ollama": "qwen3:0.6b", "names": ["helper"], "state": "absent"}

    foretold = run(**asked, check=True)
    real = run(**asked)

    assert foretold["diff"] == real["diff"]
    assert real["lines"][0].startswith("qwen3:0.6b is gone, 3.0 MB given back")
    assert real["warnings"][0].startswith("helper cannot start any more without qwen3:0.6b")
    assert list((store / "blobs").iterdir()) == []
    assert not run(**asked)["changed"]


@pytest.mark.parametrize("check", [True, False])
def test_a_tag_in_use_stays(run: Run, store: Path, helper: Callable[[str], None], check: bool) -> None:
    run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    helper("active")

    said = run(check=check, path=str(store), ollama="qwen3:0.6b", state="absent")

    assert said["msg"] == "qwen3:0.6b is in use by helper: stop that first (hearth stop helper), then remove it"
    # Another one of the same store may go.
    run(path=str(store), ollama="qwen3:1.7b")
    assert run(path=str(store), ollama="qwen3:1.7b", state="absent")["changed"]


def test_what_pulls_left_and_what_no_model_needs_is_pruned(run: Run, store: Path, disk: OllamaOnDisk) -> None:
    disk.fails_at = {"weights 5": "EOF"}
    run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
    (store / "blobs" / f"sha256-{'0' * 64}").write_bytes(b"old")
    os.utime(store / "blobs" / f"sha256-{'0' * 64}", (0, 0))

    foretold = run(check=True, path=str(store.parent), state="pruned")
    real = run(path=str(store.parent), state="pruned")

    assert foretold["freed"] == real["freed"] > 1_400_000
    assert real["lines"][0].startswith(
        f"1 download that was cut off and 1 layer that no model of Ollama needs below {store.parent}, "
    )
    assert not run(path=str(store.parent), state="pruned")["changed"]


def test_models_of_a_folder_and_of_ollama_are_one_job(
    run: Run, store: Path, tmp_path: Path, downloads: Downloads
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(bytes(1000))
    folder = {"path": str(tmp_path / "models" / "f" / "m"), "source": str(tmp_path / "source")}
    ollama = {"path": str(store), "ollama": "qwen3:0.6b", "image": "ollama:1"}

    said = run(models=[folder, ollama])

    assert [line.split(":")[0] for line in said["lines"]] == ["f/m", "qwen3"]
    assert len(downloads.asked) == 1
