# SPDX-License-Identifier: Apache-2.0
"""hearth.download and a model's folder: what was there before, what is checked, and what is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from downloads import ROOT, Fault, Repo, TestHub, ask, contents, model, noise, requests, sentence

from hearth.download import (
    absent,
    foretell,
    held,
    present,
    prune,
    verify,
)
from hearth.errors import HearthError

pytestmark = pytest.mark.thorough


def test_nothing_to_do_offline_does_not_even_import_the_hub_library(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    request = msgspec.json.encode(ask(hub, folder, offline=True)).decode()
    code = (
        "import msgspec, sys; from hearth.download import Request, present;"
        f"assert not present(msgspec.json.decode({request!r}, type=Request)).changed;"
        "print([name for name in ('huggingface_hub', 'httpx2', 'hf_xet') if name in sys.modules])"
    )

    said = subprocess.run(
        (sys.executable, "-c", code),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )

    assert said.stdout.strip() == "[]"


def test_verify_finds_what_sizes_and_times_do_not_show(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    shard = folder / "model-00002-of-00002.safetensors"
    status = shard.stat()
    shard.write_bytes(noise(status.st_size, 99))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not present(ask(hub, folder)).changed

    result = verify(ask(hub, folder))

    assert result.fetched == (shard.name,)
    assert contents(folder) == model()
    assert not verify(ask(hub, folder)).changed


def test_verify_of_a_whole_model_asks_nothing(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    hub.script.clear()

    assert not verify(ask(hub, folder)).changed
    assert requests(hub) == []


def test_verify_offline_names_what_is_damaged(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    (folder / "config.json").write_bytes(b"")

    with pytest.raises(HearthError, match=r"1 of 5 files .*config\.json.* without offline"):
        verify(ask(hub, folder, offline=True))


def test_files_of_somebody_else_stay_through_an_update(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    (folder / "notes.txt").write_text("mine")
    (folder / "tokenizer" / "mine").mkdir()
    (folder / "tokenizer" / "mine" / "x").write_text("mine too")
    (folder / "link").symlink_to("notes.txt")
    repo.commit({"config.json": b"{}"})

    present(ask(hub, folder))

    assert contents(folder) == {
        "config.json": b"{}",
        "notes.txt": b"mine",
        "tokenizer/mine/x": b"mine too",
        "link": b"mine",
    }
    assert (folder / "link").is_symlink()


def test_a_copy_of_somebody_else_is_adopted_without_fetching_it(hub: TestHub, repo: Repo, folder: Path) -> None:
    for path, content in {**model(), "own.txt": b"mine"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    inode = folder.stat().st_ino

    result = present(ask(hub, folder))

    assert (result.changed, result.fetched, result.bytes_fetched) == (True, (), 0)
    assert folder.stat().st_ino == inode
    assert contents(folder) == {**model(), "own.txt": b"mine"}
    assert not present(ask(hub, folder)).changed


def test_of_a_copy_only_what_is_missing_or_wrong_is_fetched(hub: TestHub, repo: Repo, folder: Path) -> None:
    files = model()
    del files["config.json"]
    files["model-00002-of-00002.safetensors"] = noise(150_000, 77)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    result = present(ask(hub, folder))

    assert result.fetched == ("config.json", "model-00002-of-00002.safetensors")
    assert contents(folder) == model()


def test_a_copy_made_of_links_is_adopted_as_it_is(hub: TestHub, repo: Repo, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for number, (path, content) in enumerate(model().items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        cache.mkdir(exist_ok=True)
        (cache / str(number)).write_bytes(content)
        (folder / path).symlink_to(cache / str(number))

    assert present(ask(hub, folder)).fetched == ()
    assert (folder / "config.json").is_symlink()


def test_offline_a_copy_without_a_manifest_is_taken_as_it_is(hub: TestHub, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "a.gguf").write_bytes(b"x")

    result = present(ask(hub, folder, offline=True))

    assert (result.changed, result.verified, result.files) == (False, False, 1)
    assert requests(hub) == []


def test_offline_a_model_that_is_not_there_is_an_error(hub: TestHub, folder: Path) -> None:
    assert sentence(ask(hub, folder, offline=True)) == (
        f"{folder} is not there, and nothing may be fetched: ask again without offline"
    )


def test_the_family_folder_may_be_a_link_and_so_may_the_model(hub: TestHub, repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")

    present(ask(hub, tmp_path / "link"))

    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "disk" / "model") == model()


def test_foretelling_says_what_would_come_and_writes_nothing(hub: TestHub, repo: Repo, folder: Path) -> None:
    result = foretell(ask(hub, folder))

    assert (result.changed, result.files) == (True, 5)
    assert result.bytes_fetched == sum(map(len, model().values()))
    assert not folder.parent.exists()
    assert hub.script.asked("resolve") == []


def test_without_room_for_it_and_the_reserve_not_a_byte_is_fetched(hub: TestHub, repo: Repo, folder: Path) -> None:
    said = sentence(ask(hub, folder, reserve_bytes=10**18))

    assert "are to stay free, but only" in said
    assert "nothing was fetched" in said
    assert hub.script.asked("resolve") == []
    assert list(folder.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_get_their_owner_and_modes(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder, uid=12345, gid=23456))

    for path in (folder.parent, folder, folder / "tokenizer", folder / "config.json", folder / ".hearth.json"):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (12345, 23456), path
        assert status.st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_a_removed_model_is_gone_and_what_it_held_is_told(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))

    result = absent(ask(hub, folder))

    assert result.changed
    assert result.freed >= sum(map(len, model().values()))
    assert list(folder.parent.iterdir()) == []
    assert not absent(ask(hub, folder)).changed


def test_removing_leaves_what_somebody_else_put_there(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    (folder / "notes.txt").write_text("mine")

    assert absent(ask(hub, folder)).kept == ("notes.txt",)
    assert contents(folder) == {"notes.txt": b"mine"}


def test_a_folder_that_hearth_did_not_bring_is_not_removed(hub: TestHub, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "a.gguf").write_bytes(b"x")

    with pytest.raises(HearthError, match="was not brought by Hearth"):
        absent(ask(hub, folder))


def test_pruning_removes_what_a_cut_download_left_and_no_model(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    hub.add("me/other", model(50))
    hub.script.add(Fault(path="", at="cdn", status=500, times=-1))
    sentence(ask(hub, folder.with_name("other"), repo="me/other"))
    assert [one.partial > 0 for one in held(folder.parents[1])] == [False, True]

    result = prune(str(folder.parents[1]))

    assert result.changed
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert contents(folder) == model()


def test_what_is_held_is_listed_with_its_sizes(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    (folder.parent / "own").mkdir()

    listed = held(folder.parents[1])

    assert [(one.folder, one.manifest and one.manifest.bytes_total) for one in listed] == [
        (str(folder), sum(map(len, model().values()))),
        (str(folder.parent / "own"), None),
    ]
