# SPDX-License-Identifier: Apache-2.0
"""Models of Ollama's registry: present and verified, with an Ollama that keeps its store."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from ollama_on_disk import OllamaOnDisk, digest
from ollamas import LICENCE, WEIGHTS, Near, blob, sentence_of

from hearth.download import (
    ExtraFile,
    Progress,
    Request,
    foretell,
    present,
    serving,
    settled,
    verify,
)
from hearth.download.errors import UncheckedError
from hearth.download.store import Store


@pytest.fixture
def folder(ollama_folder: Path) -> Path:
    return ollama_folder


class TestPresent:
    def test_a_model_that_is_nowhere_is_pulled_and_put_on_record(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        result = present(request_)

        assert (result.changed, result.files, result.bytes_total) == (True, 2, 3_001_100)
        assert (result.bytes_fetched, result.fetched) == (3_001_100, tuple(sorted((LICENCE, WEIGHTS))))
        known = Store(folder).record("qwen3:0.6b")
        assert known is not None
        assert known.commit == result.commit == disk.get("/api/tags")[1]["models"][0]["digest"]

    def test_what_is_there_is_seen_without_ollama(
        self, disk: OllamaOnDisk, request_: Request, starts: list[Request]
    ) -> None:
        first = present(request_)
        again = present(request_)

        assert len(starts) == 1
        assert (again.changed, again.commit, again.bytes_total) == (False, first.commit, 3_001_100)
        found = settled(request_)
        assert found is not None
        assert replace(found, seconds=0.0) == replace(again, seconds=0.0)

    def test_a_model_that_somebody_pulled_is_adopted_without_a_byte(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)
        Store(folder).drop_record("qwen3:0.6b")
        disk.given = 0

        result = present(request_)

        assert (result.changed, result.bytes_fetched, disk.given) == (True, 0, 0)
        assert settled(request_) is not None

    def test_a_layer_that_is_gone_comes_again_and_no_other(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)
        blob(folder, LICENCE).unlink()

        result = present(request_)

        assert (result.changed, result.fetched, result.bytes_fetched) == (True, (LICENCE,), 1_100)

    def test_a_layer_that_two_models_share_comes_once(self, disk: OllamaOnDisk, request_: Request) -> None:
        present(request_)

        result = present(replace(request_, ollama="qwen3:1.7b"))

        assert result.bytes_fetched == 2_000_000
        assert result.bytes_total == 2_001_100

    def test_a_pull_that_failed_goes_on_where_it_was(self, disk: OllamaOnDisk, request_: Request, folder: Path) -> None:
        disk.fails_at = {"weights 5": "max retries exceeded: EOF"}
        assert "registry.ollama.ai cannot be reached" in sentence_of(lambda: present(request_))
        assert Store(folder).record("qwen3:0.6b") is None
        disk.fails_at = {}

        result = present(request_)

        assert result.bytes_fetched == 1_501_100
        assert disk.given == 3_001_100

    def test_damage_that_ollama_finds_is_told_and_the_next_call_mends_it(
        self, disk: OllamaOnDisk, request_: Request, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = disk._layer

        def damaged(layer: str, data: bytes, path: Path, line: dict[str, object]) -> Iterator[bytes | None]:
            yield from real(layer, data, path, line)
            path.write_bytes(bytes(len(data)))

        monkeypatch.setattr(disk, "_layer", damaged)
        assert "what came of qwen3:0.6b is damaged" in sentence_of(lambda: present(request_))
        monkeypatch.undo()
        monkeypatch.setattr(serving, "Serving", lambda _, request: Near(disk, request))

        assert present(request_).changed

    def test_the_store_and_what_is_above_it_are_its_owners(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(replace(request_, uid=1000, gid=1001))

        for path in (folder, folder.parent):
            assert (path.stat().st_uid, path.stat().st_gid) == (1000, 1001)

    def test_ollama_runs_as_the_stores_owner_where_none_is_named(
        self, disk: OllamaOnDisk, request_: Request, folder: Path, starts: list[Request]
    ) -> None:
        folder.mkdir(parents=True)
        os.chown(folder, 1000, 1001)

        present(request_)

        assert (starts[0].uid, starts[0].gid) == (1000, 1001)

    def test_who_waits_is_told_how_far_it_is(self, disk: OllamaOnDisk, request_: Request) -> None:
        told: list[Progress] = []

        present(request_, told.append)

        assert [one.phase for one in told] == ["starting", "asking", "placing"]
        assert told[0].words == "starting Ollama (ollama/ollama:1)"

    def test_a_tag_that_moved_is_followed_when_it_is_asked_to(
        self, disk: OllamaOnDisk, request_: Request, starts: list[Request]
    ) -> None:
        first = present(request_)
        disk.layers["qwen3:0.6b"] = {"newer weights": 10, "licence": 1_100}

        assert not present(request_).changed
        moved = present(replace(request_, refresh=True))

        assert (moved.changed, moved.bytes_fetched) == (True, 10)
        assert moved.commit != first.commit

    def test_a_tag_that_did_not_move_is_no_change(self, disk: OllamaOnDisk, request_: Request) -> None:
        present(request_)

        result = present(replace(request_, refresh=True))

        assert (result.changed, result.bytes_fetched) == (False, 0)

    def test_a_registry_that_is_away_is_told_apart_where_the_model_is_there(
        self, disk: OllamaOnDisk, request_: Request
    ) -> None:
        present(request_)
        disk.fails_at = {"manifest": "pull model manifest: dial tcp: i/o timeout"}

        with pytest.raises(UncheckedError, match="is whole"):
            present(replace(request_, refresh=True))

    def test_offline_what_is_there_will_do(self, disk: OllamaOnDisk, request_: Request, starts: list[Request]) -> None:
        present(request_)

        assert not present(replace(request_, offline=True, refresh=True)).changed
        assert len(starts) == 1

    def test_offline_what_is_not_there_is_an_error(self, disk: OllamaOnDisk, request_: Request, folder: Path) -> None:
        offline = replace(request_, offline=True)

        assert (
            sentence_of(lambda: present(offline))
            == sentence_of(lambda: foretell(offline))
            == (f"qwen3:0.6b is not in Ollama's store {folder}, and nothing may be fetched: ask again without offline")
        )
        assert not folder.exists()

    def test_of_two_at_once_one_pulls_and_the_other_waits(
        self, disk: OllamaOnDisk, request_: Request, starts: list[Request]
    ) -> None:
        disk.waits_at = "weights 5"
        waits = threading.Event()

        def tell(progress: Progress) -> None:
            if progress.phase == "waiting":
                disk.goes_on.set()
                waits.set()

        first = threading.Thread(target=present, args=(request_,))
        first.start()
        while not starts:
            time.sleep(0.01)
        second = present(request_, tell)
        first.join()

        assert waits.is_set()
        assert (second.changed, len(starts)) == (False, 1)

    def test_a_model_that_ollama_does_not_list_after_its_pull_is_a_failure(
        self, disk: OllamaOnDisk, request_: Request
    ) -> None:
        disk.answers["/api/tags"] = (200, {"models": []})

        assert sentence_of(lambda: present(request_)) == (
            "qwen3:0.6b was pulled and Ollama does not list it: see what ollama/ollama:1 is"
        )

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"repo": "me/it"}, "leave out repo"),
            (
                {"extra_files": (ExtraFile(url="https://x", path="x"),), "source": "/s"},
                "leave out source and extra_files",
            ),
            ({"folder": "models"}, "'models' is no folder for Ollama's store"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, request_: Request, more: dict[str, object], words: str) -> None:
        assert words in sentence_of(lambda: present(replace(request_, **more)))


class TestForetell:
    def test_nothing_is_written_and_ollama_is_not_started(
        self, disk: OllamaOnDisk, request_: Request, folder: Path, starts: list[Request]
    ) -> None:
        assert foretell(request_).changed
        assert not folder.exists()

        present(request_)

        assert not foretell(request_).changed
        assert len(starts) == 1


class TestVerify:
    def test_a_whole_model_is_read_and_ollama_is_not_asked(
        self, disk: OllamaOnDisk, request_: Request, starts: list[Request]
    ) -> None:
        present(request_)
        told: list[Progress] = []

        assert not verify(request_, told.append).changed
        assert told[-1].phase == "checking"
        assert len(starts) == 1

    def test_what_size_and_time_do_not_show_is_found_and_brought_anew(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)
        path = blob(folder, WEIGHTS)
        status = path.stat()
        path.write_bytes(bytes(3_000_000))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert not present(request_).changed

        result = verify(request_)

        assert (result.changed, result.fetched) == (True, (WEIGHTS,))
        assert digest(path.read_bytes()) == WEIGHTS

    def test_offline_damage_is_told_and_left_as_it_is(
        self, disk: OllamaOnDisk, request_: Request, folder: Path
    ) -> None:
        present(request_)
        blob(folder, WEIGHTS).write_bytes(b"damaged")

        assert sentence_of(lambda: verify(replace(request_, offline=True))) == (
            f"1 of 2 layers of qwen3:0.6b in {folder} are damaged or gone: ask again without offline to have it "
            "brought anew"
        )
        assert blob(folder, WEIGHTS).exists()

    def test_what_is_not_on_record_is_made_present(self, disk: OllamaOnDisk, request_: Request) -> None:
        assert verify(request_).changed

    def test_a_model_that_ollama_forgot_is_made_known_to_it_again(self, disk: OllamaOnDisk, request_: Request) -> None:
        present(request_)
        disk._name_path("qwen3:0.6b").unlink()

        assert verify(request_).bytes_fetched == 0
        assert disk._name_path("qwen3:0.6b").exists()
