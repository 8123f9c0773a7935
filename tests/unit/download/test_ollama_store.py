# SPDX-License-Identifier: Apache-2.0
"""hearth.download.store: what is in Ollama's store, whoever put it there, and who may write into it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ollama_on_disk import OllamaOnDisk, content, digest
from ollamas import asked

from hearth.download import Progress, say_nothing
from hearth.download.errors import DownloadError
from hearth.download.store import Store, below, is_store
from hearth.errors import BusyError

WEIGHTS = "blobs/" + digest(content("weights", 3_000_000)).replace(":", "-")
LONG_AGO = time.time() - 86_400


@pytest.fixture(params=[False, True], ids=["manifests", "manifests-v2"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OllamaOnDisk]:
    """An Ollama on the store, of either layout."""
    made = OllamaOnDisk(tmp_path, v2=request.param)
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def pulled(disk: OllamaOnDisk, tag: str = "qwen3:0.6b") -> dict[str, int]:
    """Have Ollama pull it; returns its layers."""
    for line in disk.pull(tag):
        if line is not None and line.startswith(b'{"error"'):
            break
    return {digest(content(layer, size)): size for layer, size in disk.layers[tag].items()}


def brought(disk: OllamaOnDisk, store: Store, tag: str = "qwen3:0.6b") -> None:
    """As Hearth brings it."""
    store.write_record(asked(store.path, ollama=tag), "d1", pulled(disk, tag))


@pytest.mark.parametrize(
    "name", ["qwen3:0.6b", "QWEN3:0.6B", "library/qwen3:0.6b", "registry.ollama.ai/library/qwen3:0.6b"]
)
def test_a_model_is_known_by_every_way_of_writing_its_name(disk: OllamaOnDisk, store: Store, name: str) -> None:
    pulled(disk)

    assert store.knows(name)
    assert not store.knows("qwen3:8b")


@pytest.mark.parametrize("name", ["mine/model:v1", "hf.co/somebody/some-gguf:q4", "localhost:5000/mine/model:latest"])
def test_a_name_of_another_registry_or_namespace_is_known(disk: OllamaOnDisk, store: Store, name: str) -> None:
    disk.layers[name] = {"weights": 10}
    pulled(disk, name)

    assert store.names() == {name}


def test_a_link_to_a_blob_that_is_gone_is_no_name(tmp_path: Path, store: Store) -> None:
    link = tmp_path / "manifests-v2/ollama.com/library/qwen3/0.6b"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../../../blobs/sha256-" + "0" * 64)

    assert not store.knows("qwen3:0.6b")


def test_what_hearth_brought_is_there_while_every_layer_and_its_name_are(disk: OllamaOnDisk, store: Store) -> None:
    brought(disk, store)
    assert store.has("qwen3:0.6b")

    (store.path / WEIGHTS).write_bytes(b"shorter")

    assert not store.has("qwen3:0.6b")


def test_a_model_that_somebody_removed_from_ollama_is_not_there_though_its_layers_are(
    disk: OllamaOnDisk, store: Store
) -> None:
    brought(disk, store)
    disk._name_path("qwen3:0.6b").unlink()

    assert not store.has("qwen3:0.6b")


def test_a_model_that_somebody_else_pulled_is_known_but_not_on_record(disk: OllamaOnDisk, store: Store) -> None:
    pulled(disk)

    assert (store.knows("qwen3:0.6b"), store.has("qwen3:0.6b"), store.record("qwen3:0.6b")) == (True, False, None)


def test_layers_that_are_not_where_they_are_looked_for_are_not_on_record(disk: OllamaOnDisk, store: Store) -> None:
    layers = pulled(disk)

    made = store.write_record(asked(store.path), "d1", {**layers, "sha256:model": 7})

    assert made.files == {}
    assert not store.has("qwen3:0.6b")


def test_a_record_is_its_owners_and_says_what_was_asked_for(disk: OllamaOnDisk, store: Store) -> None:
    store.write_record(asked(store.path, uid=1000, gid=1001), "d1", pulled(disk))

    (path,) = (store.path / ".hearth").iterdir()
    status = path.stat()
    assert (status.st_uid, status.st_gid, oct(status.st_mode & 0o777)) == (1000, 1001, oct(0o644))
    (known,) = store.records()
    assert (known.asked.ollama, known.commit, known.bytes_total) == ("qwen3:0.6b", "d1", 3_001_100)


class TestMayHave:
    """What is asked before an engine is started: no start is refused that could succeed."""

    def test_a_model_that_somebody_pulled(self, disk: OllamaOnDisk, store: Store) -> None:
        pulled(disk)

        assert store.may_have("qwen3:0.6b")

    def test_not_one_that_nobody_pulled(self, disk: OllamaOnDisk, store: Store) -> None:
        pulled(disk)

        assert not store.may_have("qwen3:1.7b")

    def test_none_in_an_empty_store(self, store: Store) -> None:
        assert not store.may_have("qwen3:0.6b")

    def test_what_is_on_record_where_the_store_looks_like_none_that_is_known(
        self, disk: OllamaOnDisk, store: Store
    ) -> None:
        brought(disk, store)
        disk._root.rename(store.path / "manifests-v9")

        assert store.may_have("qwen3:0.6b")
        assert not store.may_have("qwen3:1.7b")


class TestUseless:
    def test_nothing_of_models_that_are_there(self, disk: OllamaOnDisk, store: Store) -> None:
        brought(disk, store)
        pulled(disk, "qwen3:1.7b")
        for path in store.blobs.iterdir():
            os.utime(path, (LONG_AGO, LONG_AGO))

        assert store.useless() == []

    def test_what_an_interrupted_pull_left(self, disk: OllamaOnDisk, store: Store) -> None:
        disk.fails_at = {"weights 5": "the moon is full"}
        pulled(disk)

        assert [path.name for path in store.useless()] == [
            f"{Path(WEIGHTS).name}-partial",
            f"{Path(WEIGHTS).name}-partial-0",
        ]
        assert list(store.partial()) == [Path(WEIGHTS).name]

    def test_layers_of_a_tag_that_moved(self, disk: OllamaOnDisk, store: Store) -> None:
        brought(disk, store)
        disk.layers["qwen3:0.6b"] = {"newer weights": 10, "licence": 1_100}
        brought(disk, store)
        for path in store.blobs.iterdir():
            os.utime(path, (LONG_AGO, LONG_AGO))

        assert Path(WEIGHTS).name in [path.name for path in store.useless()]
        assert len(store.useless()) == (2 if disk._v2 else 1)

    def test_not_what_came_just_now(self, disk: OllamaOnDisk, store: Store) -> None:
        pulled(disk)
        disk._name_path("qwen3:0.6b").unlink()

        assert store.useless() == []
        assert len(store.unnamed(now=time.time() + 7200)) == (3 if disk._v2 else 2)

    def test_nothing_that_is_named_in_whatever_way(self, disk: OllamaOnDisk, store: Store) -> None:
        layers = pulled(disk)
        disk._name_path("qwen3:0.6b").unlink()
        (store.path / "models.db").write_bytes(b"\x00" + " ".join(layers).encode())

        assert [path for path in store.unnamed(now=time.time() + 7200) if path.stat().st_size > 1000] == []

    def test_nothing_that_a_list_of_lists_names(self, disk: OllamaOnDisk, store: Store) -> None:
        layers = pulled(disk)
        disk._name_path("qwen3:0.6b").unlink()
        child = " ".join(layers).encode()
        (store.blobs / digest(child).replace(":", "-")).write_bytes(child)
        (disk._root / "list").write_text(digest(child))

        assert [path.name for path in store.unnamed(now=time.time() + 7200) if path.stat().st_size > 1000] == []


def test_bytes_that_another_model_shares_would_not_be_given_back(disk: OllamaOnDisk, store: Store) -> None:
    for tag in ("qwen3:0.6b", "qwen3:1.7b"):
        brought(disk, store, tag)
    known = store.record("qwen3:0.6b")

    assert known is not None
    assert store.own_size(known) == 3_000_000


def test_blobs_of_models_that_are_not_on_record_are_counted_apart(disk: OllamaOnDisk, store: Store) -> None:
    brought(disk, store)
    pulled(disk, "qwen3:1.7b")

    assert store.size_of_others() - 2_000_000 in range(1000)


def test_a_file_that_a_process_has_open_is_in_use(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")

    assert not store.in_use([path])
    with path.open("rb"):
        assert store.in_use([tmp_path / "other", path])


def test_stores_are_found_below_the_folder_of_all_models(tmp_path: Path) -> None:
    (tmp_path / "ollama" / "blobs").mkdir(parents=True)
    (tmp_path / "ollama" / "manifests").mkdir()
    (tmp_path / "qwen" / "blobs").mkdir(parents=True)

    assert [store.path.name for store in below(tmp_path)] == ["ollama"]
    assert below(tmp_path / "nothing") == []
    assert not is_store(tmp_path / "qwen")


class TestLock:
    def test_one_at_a_time_writes_and_who_waits_is_told(self, store: Store) -> None:
        told: list[Progress] = []
        held = os.open(store.path, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)

        def tell(progress: Progress) -> None:
            told.append(progress)
            fcntl.flock(held, fcntl.LOCK_UN)

        with store.locked(60.0, tell) as waited:
            assert waited
        os.close(held)

        assert [one.words for one in told] == [
            f"waiting for another process to bring it (one at a time writes into {store.path})"
        ]

    def test_who_does_not_wait_is_refused(self, store: Store) -> None:
        with store.locked(0.0, say_nothing), pytest.raises(BusyError, match="ask again when it is done"):
            store.locked(0.0, say_nothing).__enter__()

    def test_it_is_free_again_after_a_failure(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.locked(0.0, say_nothing):
            raise ZeroDivisionError

        with store.locked(0.0, say_nothing) as waited:
            assert not waited

    def test_a_store_that_is_not_there_is_told(self) -> None:
        with pytest.raises(DownloadError, match=r"/nonexistent cannot be opened \(No such file or directory\)"):
            Store(Path("/nonexistent")).locked(0.0, say_nothing).__enter__()
