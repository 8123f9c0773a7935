# SPDX-License-Identifier: Apache-2.0
"""The catalog as a whole: what its entries say of each other, what they need, and what becomes of their flags."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.filter.fit_table import fit_table
from ansible_collections.hearth.spark.plugins.lookup.catalog import read
from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _engines
from ansible_collections.hearth.spark.plugins.module_utils._fields import FieldError

ROOT = Path(__file__).resolve().parents[3]
IMAGES = {
    "vllm": {"engine": "vllm", "ref": "vllm/vllm-openai:v1", "architectures": ["arm64"]},
    "forked": {"engine": "vllm", "ref": "x/vllm:v1", "architectures": ["arm64"], "fork": "x"},
    "sglang": {"engine": "sglang", "ref": "lmsysorg/sglang:v1", "architectures": ["arm64"]},
    "llama": {"engine": "llama.cpp", "ref": "x/llama:1", "architectures": ["arm64"]},
    "ollama": {"engine": "ollama", "ref": "ollama/ollama:1", "architectures": ["arm64"]},
}


def model(**fields: Any) -> dict[str, Any]:
    memory = {"weights": 20, "kv_cache": 10, "overhead": 7}
    return {"family": "x", "engine": "vllm", "image": "vllm", "repo": "a/b", "memory_gib": memory, **fields}


def checked(**fields: Any) -> Any:
    return _catalog.check_catalog({"scout": model(**fields)}, IMAGES).models["scout"]


def argv(total_gib: float = 119.7, **fields: Any) -> list[str]:
    return _engines.argv(_engines.Run(name="scout", model=checked(**fields), port=8000, total_gib=total_gib, gpu=True))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"image": "gone"}, "models/scout.yml.image: there is no image 'gone'; known: forked, llama"),
        ({"image": "sglang"}, "models/scout.yml.image: 'sglang' has the engine sglang, not vllm"),
        ({"repo": None}, "models/scout.yml.repo: is required of what the catalog offers"),
        ({"engine": "llama.cpp", "image": "llama"}, "models/scout.yml.file: is required for llama.cpp"),
        ({"engine": "ollama", "image": "ollama"}, "models/scout.yml.ollama: is required for ollama"),
        ({"argv": {"--port": 1}}, "models/scout.yml.argv.--port: is set by Hearth from other fields"),
        ({"argv": {"--x": 1}, "fork_flags": ["--x"]}, "models/scout.yml.fork_flags: the image 'vllm' is no fork"),
        ({"image": "forked", "fork_flags": ["--x"]}, "models/scout.yml.fork_flags: --x is not in argv"),
        ({"status": {"is": "broken"}}, "models/scout.yml.status.reason: is required of what is broken"),
        ({"aliases": ["phi"]}, "models/scout.yml.aliases: 'phi' is already a name of phi"),
    ],
)
def test_entries_that_do_not_fit_together_are_told_with_file_and_field(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FieldError) as caught:
        _catalog.check_catalog({"phi": model(), "scout": model(**fields)}, IMAGES)

    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("name", ["Scout", "none", "-scout"])
def test_a_file_has_a_good_name(name: str) -> None:
    with pytest.raises(FieldError, match="its name is made of"):
        _catalog.check_catalog({name: model()}, IMAGES)


@pytest.mark.parametrize(
    ("fields", "total", "why"),
    [
        ({}, 46.9, "needs 37 GiB of the host's 47, of which 10 stay free; choose a smaller model"),
        ({"nodes": 2}, 119.7, "needs 2 Sparks, and this is one"),
        ({"status": {"is": "broken", "reason": "Hangs."}}, 119.7, "is broken: Hangs. With force: true it runs anyway"),
    ],
)
def test_what_does_not_fit_says_why(fields: dict[str, Any], total: float, why: str) -> None:
    refusal = _catalog.refusal(checked(**fields), total, 10)

    assert refusal
    assert refusal.sentence.startswith(why)


@pytest.mark.parametrize(
    ("fields", "total"),
    [({}, 119.7), ({}, 47), ({"status": {"is": "broken", "reason": "hangs"}, "force": True}, 119.7)],
)
def test_what_fits_is_not_refused(fields: dict[str, Any], total: float) -> None:
    assert _catalog.refusal(checked(**fields), total, 10) is None


def test_two_sparks_share_what_a_model_needs() -> None:
    assert _catalog.refusal(checked(nodes=2, memory_gib=200), 119.7, 10, sparks=2) is None


@pytest.mark.parametrize(("total", "floor"), [(121.6, 10), (119.7, 10), (60, 10), (24, 4), (6, 1)])
def test_the_floor_is_that_of_a_spark_and_smaller_on_small_hosts(total: float, floor: float) -> None:
    assert _catalog.floor_gib(total) == pytest.approx(floor)


def test_the_table_of_fits_has_what_fits_first() -> None:
    wreck = model(status={"is": "broken", "reason": "hangs"})
    entries = {"big": model(memory_gib=500), "small": model(), "pair": model(nodes=2), "wreck": wreck}
    models = _catalog.check_catalog(entries, IMAGES).models

    assert fit_table(models, 119.7) == [
        "yes   37 GiB  vllm      small",
        "no   500 GiB  vllm      big",
        "no    37 GiB  vllm      pair (2 Sparks)",
        "no    37 GiB  vllm      wreck (broken)",
    ]


@given(total=st.floats(48, 512), weights=st.floats(1, 30), cache=st.floats(0, 10))
def test_the_share_holds_weights_and_cache_and_hardly_more(total: float, weights: float, cache: float) -> None:
    share = _engines.share(checked(memory_gib={"weights": weights, "kv_cache": cache}), total)

    assert weights + cache <= share * total + 1e-6
    assert share * total <= weights + cache + 0.001 * total + 1e-6


def test_a_smaller_spark_gives_the_same_memory_as_a_larger_share() -> None:
    large, small = (argv(total) for total in (120, 60))

    assert large[large.index("--gpu-memory-utilization") + 1] == "0.25"
    assert small[small.index("--gpu-memory-utilization") + 1] == "0.5"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ["/models", "--served-model-name", "scout", "--max-model-len", "4096"]),
        ({"engine": "sglang", "image": "sglang"}, ["--model-path", "/models", "--mem-fraction-static", "0.251"]),
        (
            {"engine": "llama.cpp", "image": "llama", "file": "x.gguf"},
            ["--model", "/models/x.gguf", "--alias", "scout"],
        ),
        ({"nodes": 2}, ["--tensor-parallel-size", "2"]),
        ({"argv": {"--a": ["b", 1], "--c": True, "--d": False}}, ["--a", "b", "1", "--c"]),
    ],
)
def test_the_engine_gets_what_its_model_says(fields: dict[str, Any], words: list[str]) -> None:
    given = argv(**fields)

    assert [word for word in given if word in words] == words
    assert "--d" not in given
    assert "0.0.0.0" in given  # noqa: S104 - inside its container; the box publishes it on the loopback


def test_ollama_is_set_by_its_environment() -> None:
    assert argv(engine="ollama", image="ollama", ollama="x:1b") == ["serve"]


@pytest.fixture(scope="module")
def workshop() -> Any:
    spec = importlib.util.spec_from_file_location("catalog_script", ROOT / "scripts/catalog.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_catalog_is_good_and_what_is_written_from_it_is_fresh(workshop: Any) -> None:
    assert workshop.check() == []
    assert [name for name, text in workshop.derived().items() if (ROOT / name).read_text("utf-8") != text] == []


def test_the_catalog_has_what_its_users_know() -> None:
    catalog = _catalog.check_catalog(**read())
    names = {*catalog.models, *(alias for model in catalog.models.values() for alias in model["aliases"])}

    assert len(catalog.models) >= 45
    assert {
        "scout",
        "qwen3-32b-nvfp4",
        "qwen3-coder-30b-nvfp4",
        "phi4-reasoning",
        "bge-m3",
        "gpt-oss-120b",
        "gemma-2-2b",
        "phi-3-mini",
        "qwen2.5-3b",
    } <= names
    assert {model["engine"] for model in catalog.models.values()} == {"sglang", "vllm", "llama.cpp", "ollama"}


def test_every_entry_says_where_it_is_from_and_for_its_editor_which_schema_it_follows() -> None:
    for path in (ROOT / "catalog").glob("*/*.yml"):
        kind = "model" if path.parent.name == "models" else "image"
        assert path.read_text("utf-8").startswith(f"# yaml-language-server: $schema=../{kind}.schema.json\n"), path
    catalog = _catalog.check_catalog(**read())
    assert [name for name, model in catalog.models.items() if not model["sources"]] == []


def test_a_typo_is_told_with_file_line_and_the_allowed_values(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for kind in ("models", "images"):
        (tmp_path / "catalog" / kind).mkdir(parents=True)
    (tmp_path / "catalog/models/scout.yml").write_text("---\nfamily: x\nengine: vlm\n")
    monkeypatch.setattr(workshop, "ROOT", tmp_path)

    assert workshop.check() == [
        "catalog/models/scout.yml:3: engine: must be one of sglang, vllm, llama.cpp, ollama, is 'vlm'"
    ]
