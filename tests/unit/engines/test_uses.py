# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.uses: which engines have a model's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hearth import contract
from hearth.engines import units, uses

MakeEngine = Callable[..., contract.Engine]
MODELS = "/home/spark/ai/models"


def names(found: list[contract.Engine]) -> list[str]:
    return [engine.name for engine in found]


@pytest.fixture
def scout(make_engine: MakeEngine) -> contract.Engine:
    return make_engine(
        "scout",
        model_path=f"{MODELS}/llama/scout/scout.gguf",
        mounts=(f"{MODELS}/llama/draft", "/home/spark/ai/parsers"),
    )


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param("llama/scout", id="the model's own"),
        pytest.param("llama", id="the family's"),
        pytest.param("llama/draft", id="one that is mounted"),
        pytest.param("llama/draft/deeper", id="below one that is mounted"),
    ],
)
def test_a_folder_is_used(scout: contract.Engine, folder: str) -> None:
    assert names(uses.among([scout], f"{MODELS}/{folder}")) == ["scout"]


@pytest.mark.parametrize("folder", ["llama/scout-2", "llama/scout/scout.gguf/x", "qwen", "llama/draft-2"])
def test_a_folder_is_not_used(scout: contract.Engine, folder: str) -> None:
    assert uses.among([scout], f"{MODELS}/{folder}") == []


def test_a_folder_is_used_by_whatever_link_leads_to_it(make_engine: MakeEngine, tmp_path: Path) -> None:
    (tmp_path / "disk" / "scout").mkdir(parents=True)
    (tmp_path / "models").symlink_to("disk")
    engine = make_engine(
        "scout", model_path=str(tmp_path / "models/scout/a.gguf"), mounts=(str(tmp_path / "models/x"),)
    )

    assert names(uses.among([engine], str(tmp_path / "disk/scout"))) == ["scout"]
    assert names(uses.among([engine], str(tmp_path / "disk/x"))) == ["scout"]


class TestOfOllama:
    @pytest.fixture
    def engines(self, make_engine: MakeEngine) -> list[contract.Engine]:
        def helper(name: str, tag: str, image: str) -> contract.Engine:
            return make_engine(name, engine="ollama", tag=tag, image=image, model_path=f"{MODELS}/ollama")

        return [helper("small", "qwen3:0.6b", "ollama:1"), helper("large", "library/qwen3:1.7b", "ollama:2")]

    def test_a_tag_is_used_by_whoever_serves_it(self, engines: list[contract.Engine]) -> None:
        assert names(uses.among(engines, f"{MODELS}/ollama", "qwen3:1.7b")) == ["large"]
        assert uses.among(engines, f"{MODELS}/ollama", "qwen3:8b") == []
        assert uses.among(engines, f"{MODELS}/other", "qwen3:1.7b") == []

    def test_the_store_is_no_models_folder(self, engines: list[contract.Engine]) -> None:
        assert uses.among(engines, f"{MODELS}/ollama") == []

    def test_the_image_is_that_of_the_tag_or_else_of_the_store(self, engines: list[contract.Engine]) -> None:
        assert uses.image_of(engines, f"{MODELS}/ollama", "qwen3:1.7b") == "ollama:2"
        assert uses.image_of(engines, f"{MODELS}/ollama", "qwen3:8b") == "ollama:1"
        assert uses.image_of(engines, f"{MODELS}/other") == ""


def test_who_runs_is_told_apart(
    make_engine: MakeEngine,
    make_state: Callable[..., units.UnitState],
    make_contract: Callable[..., contract.Contract],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = {name: make_engine(name, model_path=f"{MODELS}/llama/{name}.gguf") for name in ("up", "down")}
    (tmp_path / "engines.json").write_bytes(msgspec.json.encode(make_contract(*engines.values())))
    monkeypatch.setattr(contract, "PATH", tmp_path / "engines.json")
    states = {one.unit: make_state(one, "active" if one.name == "up" else "inactive") for one in engines.values()}
    monkeypatch.setattr(units, "read_states", lambda _: states)

    assert uses.of(f"{MODELS}/llama") == (["up"], ["down"])
    assert uses.of(f"{MODELS}/qwen") == ([], [])


def test_a_box_without_engines_uses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "PATH", tmp_path / "none")

    assert uses.of(MODELS) == ([], [])
