# SPDX-License-Identifier: Apache-2.0
"""Models of Ollama's registry: removed, pruned and listed, with an Ollama that keeps its store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace
from ollama_on_disk import OllamaOnDisk
from ollamas import LICENCE, WEIGHTS, blob, sentence_of

from hearth.download import (
    Request,
    absent,
    held,
    present,
    prune,
    say_nothing,
    settled,
)
from hearth.download.errors import DownloadError
from hearth.download.store import Store
from hearth.errors import BusyError


@pytest.fixture
def folder(ollama_folder: Path) -> Path:
    return ollama_folder


class TestAbsent:
    def test_a_model_goes_with_its_layers_and_its_record(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)

        result = absent(request_)

        assert (result.changed, result.files) == (True, 2)
        assert result.freed >= 3_001_100
        assert list((folder / "blobs").iterdir()) == []
        assert not (folder / ".hearth").exists()
        assert not absent(request_).changed

    def test_the_names_that_engines_gave_it_go_too(self, disk: OllamaOnDisk, request_: Request) -> None:
        present(request_)
        for name in ("qwen", "helper"):
            disk.post("/api/copy", {"source": "qwen3:0.6b", "destination": name})

        result = absent(replace(request_, names=("qwen", "helper", "other")))

        assert disk.get("/api/tags")[1]["models"] == []
        assert result.kept == ()

    def test_a_name_that_means_another_model_by_now_stays(self, disk: OllamaOnDisk, request_: Request) -> None:
        present(request_)
        present(replace(request_, ollama="qwen3:1.7b"))
        disk.post("/api/copy", {"source": "qwen3:1.7b", "destination": "helper"})

        absent(replace(request_, names=("helper",)))

        assert [one["name"] for one in disk.get("/api/tags")[1]["models"]] == ["helper:latest", "qwen3:1.7b"]

    def test_a_name_that_somebody_else_gave_it_keeps_the_layers_and_is_told(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)
        disk.post("/api/copy", {"source": "qwen3:0.6b", "destination": "mine"})

        result = absent(request_)

        assert (result.freed, result.kept) == (0, ("mine:latest",))
        assert blob(folder, WEIGHTS).exists()

    def test_a_layer_that_another_model_needs_stays(self, disk: OllamaOnDisk, request_: Request, folder: Path) -> None:
        present(request_)
        present(replace(request_, ollama="qwen3:1.7b"))

        foretold = absent(request_, foretell=True)
        absent(request_)

        assert foretold.freed == 3_000_000
        assert blob(folder, LICENCE).exists()
        assert not blob(folder, WEIGHTS).exists()

    def test_a_model_that_somebody_pulled_by_hand_goes_as_well(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)
        Store(folder).drop_record("qwen3:0.6b")

        assert absent(request_).changed
        assert list((folder / "blobs").iterdir()) == []

    def test_while_something_is_brought_it_is_refused(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)

        with Store(folder).locked(0.0, say_nothing), pytest.raises(BusyError):
            absent(request_)

    def test_what_ollama_says_against_it_is_told(self, disk: OllamaOnDisk, request_: Request) -> None:
        present(request_)
        disk.answers["/api/delete"] = (500, {"error": "the moon is full"})

        with pytest.raises(DownloadError, match=r"does not remove qwen3:0\.6b \(the moon is full\)"):
            absent(request_)
        assert settled(request_) is not None


class TestPrune:
    def test_what_a_pull_left_goes_and_no_model(self, disk: OllamaOnDisk, request_: Request, folder: Path) -> None:
        present(request_)
        disk.fails_at = {"more weights 5": "EOF"}
        sentence_of(lambda: present(replace(request_, ollama="qwen3:1.7b")))

        foretold = prune(str(folder.parent), foretell=True)
        result = prune(str(folder.parent))

        assert (foretold.files, foretold.freed) == (result.files, result.freed)
        assert (result.changed, result.files, result.freed > 900_000) == (True, 1, True)
        assert settled(request_) is not None
        assert not prune(str(folder.parent)).changed

    def test_what_is_under_way_is_left_alone(self, disk: OllamaOnDisk, request_: Request, folder: Path) -> None:
        disk.fails_at = {"weights 5": "EOF"}
        sentence_of(lambda: present(request_))

        with Store(folder).locked(0.0, say_nothing):
            result = prune(str(folder.parent))

        assert (result.changed, result.kept) == (False, (str(folder),))

    def test_what_somebody_pulls_by_hand_is_left_alone(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        disk.fails_at = {"weights 5": "EOF"}
        sentence_of(lambda: present(request_))

        with blob(folder, f"{WEIGHTS}-partial").open("rb"):
            assert prune(str(folder.parent)).kept == (str(folder),)

    def test_layers_that_no_model_needs_go(self, disk: OllamaOnDisk, request_: Request, folder: Path) -> None:
        present(request_)
        disk.layers["qwen3:0.6b"] = {"newer weights": 10, "licence": 1_100}
        present(replace(request_, refresh=True))
        os.utime(blob(folder, WEIGHTS), (0, 0))

        result = prune(str(folder.parent))

        assert (result.files, result.unnamed) == (0, 1)
        assert not blob(folder, WEIGHTS).exists()
        assert settled(request_) is not None


def test_models_in_the_store_are_listed_with_their_sizes_and_all_else_in_one(
    disk: OllamaOnDisk, request_: Request, folder: Path
) -> None:
    present(request_)
    present(replace(request_, ollama="qwen3:1.7b"))
    Store(folder).drop_record("qwen3:1.7b")
    (folder.parent / "qwen" / "scout").mkdir(parents=True)

    found = held(folder.parent)

    assert [(one.folder, one.ollama, one.size, one.whole) for one in found] == [
        (str(folder), "", 2_000_000, True),
        (str(folder), "qwen3:0.6b", 3_001_100, True),
        (str(folder.parent / "qwen" / "scout"), "", 0, True),
    ]


def test_a_record_holds_nothing_but_what_was_asked_for_and_came(
    disk: OllamaOnDisk, request_: Request, folder: Path
) -> None:
    present(replace(request_, token_file="/etc/hearth/secrets/hf_token", names=("helper",)))

    (path,) = (folder / ".hearth").iterdir()
    assert set(json.loads(path.read_bytes())) == {"schema", "asked", "endpoint", "commit", "at", "files"}
    assert "secrets" not in path.read_text()
