# SPDX-License-Identifier: Apache-2.0
"""The module models_info, run as Ansible runs it, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hearth.spark.plugins.modules import models_info
from hearth import contract
from hearth.download import Request, present
from hearth.download.store import Store
from hearth.engines import units

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

LAYER = f"sha256:{'0' * 64}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One model that Hearth brought, one that somebody did, and Ollama's store with one of each kind."""
    source, models = tmp_path / "source", tmp_path / "models"
    source.mkdir()
    (source / "weights").write_bytes(bytes(1000))
    present(Request(folder=str(models / "tiny" / "mine"), source=str(source), reserve_bytes=0))
    (models / "tiny" / "theirs").mkdir()
    (models / "tiny" / "theirs" / "weights").write_bytes(bytes(5000))
    store = Store(models / "ollama")
    for path, size in ((LAYER.replace(":", "-"), 10), (f"sha256-{'1' * 64}", 20), (f"sha256-{'2' * 64}-partial", 4096)):
        made = store.blobs / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(bytes(size))
    name = store.path / "manifests/registry.ollama.ai/library/qwen3/0.6b"
    name.parent.mkdir(parents=True)
    name.touch()
    store.write_record(Request(folder=str(store.path), ollama="qwen3:0.6b"), "d1", {LAYER: 10})
    return models


@pytest.fixture
def found(
    root: Path,
    make_engine: MakeEngine,
    make_state: MakeState,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> list[dict[str, Any]]:
    """What it says of them, with an engine that runs for each of ours, and one that does not."""
    engines = (
        make_engine("mine", model_path=str(root / "tiny/mine/weights")),
        make_engine("helper", engine="ollama", tag="qwen3:0.6b", image="ollama:9", model_path=str(root / "ollama")),
        make_engine("other", engine="ollama", tag="phi", image="ollama:8", model_path=str(root / "ollama")),
    )
    path = root.parent / "engines.json"
    path.write_bytes(
        msgspec.json.encode(contract.Contract(schema=contract.SCHEMA, key_file="/k", floor_gib=4, engines=engines))
    )
    monkeypatch.setattr(contract, "PATH", path)
    states = {one.unit: make_state(one, "inactive" if one.name == "other" else "active") for one in engines}
    monkeypatch.setattr(units, "read_states", lambda _: states)
    with patch_module_args({"path": str(root)}), pytest.raises(SystemExit):
        models_info.main()
    models: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["models"]
    return models


def test_each_folder_and_each_tag_is_told_once_in_order(found: list[dict[str, Any]], root: Path) -> None:
    assert [(one["path"], one["ollama"]) for one in found] == [
        (f"{root}/ollama", ""),
        (f"{root}/ollama", "qwen3:0.6b"),
        (f"{root}/tiny/mine", ""),
        (f"{root}/tiny/theirs", ""),
    ]


def test_sizes_are_of_what_is_there_and_of_what_is_on_its_way(found: list[dict[str, Any]]) -> None:
    assert [(one["bytes_total"], one["partial"]) for one in found[:3]] == [(20, 4096), (10, 0), (1000, 0)]


def test_who_uses_it_and_who_of_them_runs_is_told(found: list[dict[str, Any]]) -> None:
    assert [(one["engines"], one["running"]) for one in found] == [
        ([], []),
        (["helper"], ["helper"]),
        (["mine"], ["mine"]),
        ([], []),
    ]


def test_what_was_asked_for_can_be_asked_for_again(found: list[dict[str, Any]]) -> None:
    by_ollama, by_hub = found[1]["asked"], found[2]["asked"]

    assert (by_ollama["ollama"], by_ollama["image"]) == ("qwen3:0.6b", "ollama:9")
    assert by_hub["source"].endswith("/source")
    assert found[0]["asked"] == found[3]["asked"] == {}


def test_whether_it_is_whole_is_told(found: list[dict[str, Any]]) -> None:
    assert [one["whole"] for one in found] == [True, True, True, True]


def test_everything_it_returns_is_documented(found: list[dict[str, Any]]) -> None:
    documented = yaml.safe_load(models_info.RETURN)

    assert set(found[0]) - {"asked"} == set(documented["models"]["sample"][0])
