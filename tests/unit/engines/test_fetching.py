# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.fetching: a model that the box downloads itself."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hearth import contract, download, errors
from hearth.download import Progress, Request, Result
from hearth.download.store import Store
from hearth.engines import fetching

MakeEngine = Callable[..., contract.Engine]


@pytest.fixture
def scout(make_engine: MakeEngine, tmp_path: Path) -> contract.Engine:
    folder = tmp_path / "models" / "scout"
    fetch = contract.Fetch(
        folder=str(folder),
        repo="me/scout",
        revision="main",
        include=("scout.gguf",),
        exclude=(),
        extra_files=({"url": "https://example.org/x", "path": "x", "sha256": ""},),
        endpoint="https://hub.example.org",
        token_file="/etc/hearth/secrets/hf_token",
        offline=False,
        uid=-1,
        gid=-1,
        reserve_bytes=7,
    )
    return make_engine("scout", model_path=str(folder / "scout.gguf"), fetch=fetch)


@pytest.fixture
def helper(make_engine: MakeEngine, scout: contract.Engine, tmp_path: Path) -> contract.Engine:
    """An engine whose model is in Ollama's registry."""
    assert scout.fetch is not None
    store = tmp_path / "models" / "ollama"
    fetch = msgspec.structs.replace(
        scout.fetch, folder=str(store), repo="", include=(), extra_files=(), ollama="qwen3:0.6b", image="ollama:1"
    )
    return make_engine("helper", engine="ollama", tag="qwen3:0.6b", model_path=str(store), fetch=fetch)


def put_there(scout: contract.Engine, name: str = "scout.gguf") -> None:
    assert scout.fetch is not None
    folder = Path(scout.fetch.folder)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"GGUF")


def test_a_model_that_is_nowhere_has_to_be_fetched(scout: contract.Engine) -> None:
    assert not fetching.is_there(scout)


def test_files_that_somebody_put_there_count(scout: contract.Engine) -> None:
    put_there(scout)

    assert fetching.is_there(scout)


def test_a_folder_without_what_the_engine_loads_does_not_count(scout: contract.Engine) -> None:
    put_there(scout, "notes.txt")

    assert not fetching.is_there(scout)


def test_a_model_of_ollama_is_there_when_it_is_in_the_store_by_its_tag(helper: contract.Engine) -> None:
    store = Path(helper.model_path)
    assert not fetching.is_there(helper)

    layer = store / "blobs" / f"sha256-{'0' * 64}"
    name = store / "manifests/registry.ollama.ai/library/qwen3/0.6b"
    for path in (layer, name):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"1")
    request = Request(folder=str(store), ollama="qwen3:0.6b")
    Store(store).write_record(request, "d1", {f"sha256:{'0' * 64}": 1})

    assert fetching.is_there(helper)
    name.unlink()
    assert not fetching.is_there(helper)


def test_what_is_there_is_not_fetched_and_no_hub_is_asked(
    scout: contract.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_there(scout)
    monkeypatch.delattr(download, "present")

    assert fetching.fetch(scout, download.say_nothing, tmp_path) is None


def test_all_that_the_contract_says_is_asked_for(
    scout: contract.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def present(request: Request, _: download.Tell) -> Result:
        asked.append(request)
        return Result(changed=True)

    monkeypatch.setattr(download, "present", present)

    fetching.fetch(scout, download.say_nothing, tmp_path)

    assert (asked[0].repo, asked[0].token_file) == ("me/scout", "/etc/hearth/secrets/hf_token")
    assert asked[0].extra_files[0].path == "x"
    assert asked[0].reserve_bytes == 7


def test_how_far_it_is_is_told_while_it_lasts_and_no_longer(
    scout: contract.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []

    def present(_: Request, tell: download.Tell) -> Result:
        tell(Progress(phase="fetching", bytes_done=10**9, bytes_total=4 * 10**9))
        words.append(fetching.told(scout, tmp_path))
        return Result(changed=True)

    monkeypatch.setattr(download, "present", present)
    told: list[Progress] = []

    fetching.fetch(scout, told.append, tmp_path)

    assert words == [told[0].words] == ["fetching 1.00 of 4.00 GB, 25 %"]
    assert fetching.told(scout, tmp_path) == ""


def test_that_nobody_can_be_told_is_no_reason_to_stop(
    scout: contract.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def present(_: Request, tell: download.Tell) -> Result:
        tell(Progress(phase="asking"))
        return Result(changed=True)

    monkeypatch.setattr(download, "present", present)
    (tmp_path / "run").write_bytes(b"")

    result = fetching.fetch(scout, download.say_nothing, tmp_path / "run")

    assert result is not None


def test_a_model_that_is_not_the_boxs_to_fetch_is_refused(make_engine: MakeEngine, tmp_path: Path) -> None:
    with pytest.raises(errors.HearthError, match="are not for the box to fetch"):
        fetching.fetch(make_engine(), download.say_nothing, tmp_path)


def test_the_file_that_tells_may_be_read_by_everybody(
    scout: contract.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []

    def present(_: Request, tell: download.Tell) -> Result:
        tell(Progress(phase="asking"))
        modes.append(stat.S_IMODE((tmp_path / "fetch" / "scout.json").stat().st_mode))
        return Result(changed=True)

    monkeypatch.setattr(download, "present", present)

    fetching.fetch(scout, download.say_nothing, tmp_path)

    assert modes == [0o644]


def test_what_is_told_of_an_unreadable_file_is_nothing(scout: contract.Engine, tmp_path: Path) -> None:
    (tmp_path / "fetch").mkdir()
    (tmp_path / "fetch" / "scout.json").write_bytes(msgspec.json.encode({"phase": "dancing"}))

    assert fetching.told(scout, tmp_path) == ""
