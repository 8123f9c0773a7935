# SPDX-License-Identifier: Apache-2.0
"""_complete: what the inventory says is laid over the catalog."""

from __future__ import annotations

from typing import Any

import pytest
from resolving import CATALOG, DIGEST, SMALL_SPARK, SPARK, engine_argv, on_spark, real_catalog, values

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _complete


def fields(name: str, **own: Any) -> dict[str, Any]:
    return dict(_complete.complete({name: own}, {}, CATALOG, SPARK)[name].fields)


@pytest.mark.parametrize("own", [{}, None])
def test_a_name_of_the_catalog_is_all_that_is_needed(own: Any) -> None:
    model = _complete.complete({"qwen": own}, {}, CATALOG, SPARK)["qwen"]

    assert model.fields == CATALOG.models["qwen"]


def test_a_plain_field_replaces_the_catalogs() -> None:
    assert fields("qwen", start_timeout=5)["start_timeout"] == 5


def test_a_field_that_is_null_is_the_catalogs() -> None:
    assert fields("qwen", start_timeout=None)["start_timeout"] == CATALOG.models["qwen"]["start_timeout"]


def test_a_list_replaces_the_catalogs() -> None:
    assert fields("qwen", aliases=["other"])["aliases"] == ("other",)


def test_flags_are_laid_over_the_catalogs_one_by_one() -> None:
    assert fields("qwen", argv={"--attention-backend": "triton", "--trust-remote-code": True})["argv"] == {
        "--quantization": "modelopt_fp4",
        "--attention-backend": "triton",
        "--trust-remote-code": True,
    }


def test_false_takes_a_flag_of_the_catalog_away() -> None:
    argv = engine_argv(on_spark({"qwen": {"argv": {"--quantization": False}}})[0])

    assert "--quantization" not in argv


def test_one_part_of_the_memory_need_can_be_changed() -> None:
    assert fields("qwen", memory_gib={"kv_cache": 4})["memory_gib"] == {"weights": 20, "kv_cache": 4, "overhead": 7}


def test_a_bare_number_is_the_need_of_all_parts() -> None:
    assert _catalog.need_gib(fields("small", memory_gib=3)) == 3


def test_a_bare_number_is_the_practical_context() -> None:
    assert fields("qwen", context=8192)["context"] == {"theoretical": 40960, "practical": 8192}


def test_another_engine_drops_what_was_said_for_the_catalogs() -> None:
    own = {"engine": "llama.cpp", "image": "llama", "file": "qwen.gguf"}

    assert fields("qwen", **own)["argv"] is None
    assert fields("qwen", **own)["repo"] == "Qwen/Qwen3"


def test_an_image_is_taken_by_its_digest() -> None:
    engine = on_spark({"qwen": {}})[0]

    assert (engine.model.image["source"], engine.model.image["digest"]) == ("lmsysorg/sglang", DIGEST)
    assert engine.contract["image"] == "localhost/hearth/sglang:cdcdcdcdcdcd"


def test_an_image_can_be_pinned_in_the_inventory() -> None:
    engine = on_spark({"embed": {}}, images={"vllm": {"digest": DIGEST}})[0]

    assert (engine.model.image["source"], engine.model.image["digest"]) == ("nvcr.io/nvidia/vllm", DIGEST)


def test_an_image_of_ones_own_has_a_name_too() -> None:
    mine = {"engine": "sglang", "ref": "localhost:5000/sglang:mine", "architectures": ["arm64"]}

    engine = on_spark({"qwen": {"image": "mine"}}, images={"mine": mine})[0]

    assert engine.contract["image"] == "localhost:5000/sglang:mine"


def test_a_registrys_port_is_no_tag() -> None:
    mine = {"engine": "sglang", "ref": "localhost:5000/sglang", "architectures": ["arm64"], "digest": DIGEST}

    engine = on_spark({"qwen": {"image": "mine"}}, images={"mine": mine})[0]

    assert (engine.model.image["source"], engine.model.image["digest"]) == ("localhost:5000/sglang", DIGEST)


def test_the_share_of_memory_follows_from_gib_and_the_hosts_size() -> None:
    large = engine_argv(on_spark({"qwen": {}})[0])
    small = engine_argv(on_spark({"qwen": {}}, machine=SMALL_SPARK)[0])

    # 30 GiB of 119.7 and of 59.7, rounded up.
    assert values(large, "--mem-fraction-static") == ["0.251"]
    assert values(small, "--mem-fraction-static") == ["0.503"]


def test_slots_of_llama_cpp_each_have_the_whole_context() -> None:
    argv = engine_argv(on_spark({"small": {"context": 2048, "argv": {"--parallel": 4}}})[0])

    assert values(argv, "--ctx-size") == ["8192"]


def test_slots_that_share_one_cache_share_the_context() -> None:
    argv = engine_argv(on_spark({"small": {"context": 2048, "argv": {"--parallel": 4, "--kv-unified": True}}})[0])

    assert values(argv, "--ctx-size") == ["2048"]


def runnable() -> list[str]:
    models = real_catalog().models
    return [name for name, model in models.items() if _catalog.refusal(model, 119.7, 10) is None]


@pytest.mark.parametrize("name", runnable())
def test_every_model_of_the_catalog_that_fits_a_spark_resolves_on_one(name: str) -> None:
    assert on_spark({name: {}}, catalog=real_catalog())


def test_the_whole_catalog_side_by_side_has_no_clash_of_names_and_ports() -> None:
    models = {name: {"start": "demand"} for name in runnable()}

    engines = on_spark(models, catalog=real_catalog())

    assert len(engines) >= 45
    assert len({engine.contract["port"] for engine in engines}) == len(engines)


def test_entries_that_share_files_share_a_folder() -> None:
    wanted: dict[str, set[tuple[Any, ...]]] = {}
    for name, model in real_catalog().models.items():
        if model["repo"]:
            files = (model["repo"], model["revision"], model["include"], model["exclude"])
            wanted.setdefault(f"{model['family']}/{model['folder'] or name}", set()).add(files)

    assert [folder for folder, files in wanted.items() if len(files) > 1] == []


def test_the_same_files_are_not_fetched_into_two_folders() -> None:
    folders: dict[tuple[Any, ...], set[str]] = {}
    for name, model in real_catalog().models.items():
        if model["repo"]:
            files = (model["repo"], model["revision"], model["include"], model["exclude"])
            folders.setdefault(files, set()).add(f"{model['family']}/{model['folder'] or name}")

    assert [found for found in folders.values() if len(found) > 1] == []
