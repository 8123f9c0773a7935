# SPDX-License-Identifier: Apache-2.0
"""hearth.download with a healthy hub: what is brought, from where, what is asked, and what is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from downloads import Blob, Repo, Run, TestHub, ask, contents, model, noise, requests, sentence

from hearth.download import (
    ExtraFile,
    Progress,
    Request,
    present,
    read,
)


def test_a_model_comes_whole_and_nothing_else_is_left(hub: TestHub, repo: Repo, folder: Path) -> None:
    result = present(ask(hub, folder))

    assert contents(folder) == model()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert (result.changed, result.commit, result.files) == (True, repo.branches["main"], 5)
    assert result.bytes_total == result.bytes_fetched == sum(map(len, model().values()))


def test_the_manifest_has_commit_sizes_and_hashes(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))

    manifest = read(folder)
    assert manifest is not None
    assert manifest.commit == repo.branches["main"]
    tree = repo.commits[manifest.commit]
    assert {path: kept.size for path, kept in manifest.files.items()} == {path: b.size for path, b in tree.items()}
    shard = "model-00001-of-00002.safetensors"
    assert manifest.files[shard].digest == f"sha256:{hashlib.sha256(model()[shard]).hexdigest()}"
    assert manifest.files["config.json"].digest == f"git:{tree['config.json'].git}"


def test_a_second_run_asks_one_question_and_reads_no_file(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    hub.script.clear()

    result = present(ask(hub, folder))

    assert not result.changed
    assert requests(hub) == ["GET /api/models/me/model/revision/main"]


@pytest.mark.parametrize("how", ["offline", "pinned"])
def test_a_second_run_asks_nothing_when_it_need_not(hub: TestHub, repo: Repo, folder: Path, how: str) -> None:
    more = {"offline": True} if how == "offline" else {"revision": repo.branches["main"]}
    present(ask(hub, folder, **{**more, "offline": False}))
    hub.script.clear()

    result = present(ask(hub, folder, **more))

    assert not result.changed
    assert requests(hub) == []


def test_a_file_that_was_changed_since_is_noticed_and_brought_again(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    (folder / "config.json").write_bytes(b"{ }")

    result = present(ask(hub, folder))

    assert result.fetched == ("config.json",)
    assert contents(folder) == model()


def test_a_moved_revision_brings_only_what_changed(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    newer = {**model(), "config.json": b"{}", "added.txt": b"new"}
    del newer["tokenizer/vocab.json"]
    commit = repo.commit(newer)

    result = present(ask(hub, folder))

    assert (result.changed, result.commit, result.fetched) == (True, commit, ("added.txt", "config.json"))
    assert contents(folder) == newer
    assert not (folder / "tokenizer").exists()


def test_a_file_that_only_moved_is_not_fetched(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    newer = model()
    newer["vocab.json"] = newer.pop("tokenizer/vocab.json")
    repo.commit(newer)

    assert present(ask(hub, folder)).fetched == ()
    assert contents(folder) == newer


def test_the_same_content_under_two_names_is_fetched_once(hub: TestHub, folder: Path) -> None:
    same = noise(200_000)
    hub.add("me/model", {"a.bin": same, "b.bin": same})

    present(ask(hub, folder))

    assert contents(folder) == {"a.bin": same, "b.bin": same}
    assert hub.script.sent(at="cdn") == len(same)


def test_patterns_choose_files_and_a_part_brings_its_siblings(hub: TestHub, folder: Path) -> None:
    parts = {f"q4/m-0000{number}-of-00003.gguf": noise(1000, number) for number in (1, 2, 3)}
    hub.add("me/model", {**parts, "q8/m.gguf": noise(1000, 9), "README.md": b"words"})

    present(ask(hub, folder, include=("q4/m-00001*",)))

    assert contents(folder) == parts


def test_shards_that_only_the_index_names_are_brought(hub: TestHub, folder: Path) -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "one.safetensors": noise(10), "two.safetensors": noise(20)}
    hub.add("me/model", {**files, "original.pth": noise(30)})

    present(ask(hub, folder, include=("*.json",)))

    assert contents(folder) == files


def test_an_index_that_names_a_shard_nobody_has_stops_before_the_weights(hub: TestHub, folder: Path) -> None:
    files = model()
    del files["model-00002-of-00002.safetensors"]
    files["model-00001-of-00002.safetensors"] = files.pop("model-00001-of-00002.safetensors")
    hub.add("me/model", {"x.safetensors": noise(5), **{k: v for k, v in files.items() if "-of-" not in k}})

    said = sentence(ask(hub, folder))

    assert "model.safetensors.index.json names model-00001-of-00002.safetensors" in said
    assert hub.script.asked("x.safetensors") == []
    assert not folder.exists()


def test_extra_files_come_from_plain_urls_with_their_checksums(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.plain["/parser.py"] = Blob(b"print()")
    extra = ExtraFile(
        url=f"{hub.url('cdn')}/parser.py", path="extra/parser.py", sha256=hashlib.sha256(b"print()").hexdigest()
    )

    present(ask(hub, folder, extra_files=(extra,)))

    assert contents(folder) == {**model(), "extra/parser.py": b"print()"}
    assert not present(ask(hub, folder, extra_files=(extra,))).changed


def test_an_extra_file_with_another_checksum_is_not_put_in_place(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.plain["/parser.py"] = Blob(b"evil()")
    extra = ExtraFile(url=f"{hub.url('cdn')}/parser.py", path="parser.py", sha256="0" * 64)

    assert "parser.py came damaged twice" in sentence(ask(hub, folder, extra_files=(extra,)))
    assert not folder.exists()


def test_a_model_may_be_plain_urls_alone(hub: TestHub, folder: Path) -> None:
    hub.plain["/a.gguf"] = Blob(noise(5000))
    request = ask(hub, folder, repo="", extra_files=(ExtraFile(url=f"{hub.url('cdn')}/a.gguf", path="a.gguf"),))

    first, second = present(request), present(request)

    assert contents(folder) == {"a.gguf": noise(5000)}
    assert (first.changed, second.changed) == (True, False)
    assert len(hub.script.asked()) == 1


def test_a_model_may_be_a_folder_of_this_machine(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "usb"
    for path, content in model().items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    request = Request(folder=str(folder), source=str(source), reserve_bytes=0)

    assert present(request).changed
    assert contents(folder) == model()
    assert not present(request).changed
    (source / "config.json").write_bytes(b"{}")
    assert present(request).fetched == ("config.json",)
    assert (folder / "config.json").read_bytes() == b"{}"


def test_progress_goes_from_nothing_to_all(hub: TestHub, repo: Repo, folder: Path) -> None:
    told: list[Progress] = []

    present(ask(hub, folder), told.append)

    assert [told[0].phase, told[-1].phase] == ["asking", "placing"]
    fetching = [one for one in told if one.phase == "fetching"]
    assert fetching[-1].bytes_done == fetching[-1].bytes_total > 0


def test_a_process_of_its_own_takes_a_request_and_gives_lines(hub: TestHub, repo: Repo, folder: Path) -> None:
    code, result, said = Run(ask(hub, folder)).end()

    assert (code, said) == (0, "")
    assert result is not None
    assert result.files == 5
