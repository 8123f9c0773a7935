# SPDX-License-Identifier: Apache-2.0
"""The filters, as a play uses them."""

from __future__ import annotations

import json
import posixpath
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from resolving import CATALOG, GOOD

from ansible_collections.hearth.spark.plugins.filter import (
    fit_table,
    misspelt,
    model_paths,
    model_request,
    resolve_engines,
    tree,
)

SPARK = {"name": "spark", "uid": 1000, "gid": 1001, "home": "/home/spark"}
FACTS = {"user": SPARK, "memory": {"total_gib": 16.0}, "arch": "x86_64"}
KNOWN = {"models": CATALOG.models, "images": CATALOG.images}


@pytest.mark.parametrize("module", [fit_table, misspelt, model_paths, model_request, resolve_engines, tree])
def test_a_filter_is_found_by_the_name_that_its_documentation_has(module: Any) -> None:
    name = yaml.safe_load(module.DOCUMENTATION)["name"]

    assert list(module.FilterModule().filters()) == [name]


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        ("engines_modles", ["engines_modles: unknown variable; did you mean engines_models?"]),
        ("layout_usr", ["layout_usr: unknown variable; did you mean layout_user?"]),
        ("engines_models", []),
        ("engines_port", []),
        ("ansible_user", []),
        ("my_own", []),
    ],
)
def test_misspelt_finds_slips_and_leaves_other_peoples_names_alone(name: str, sentences: list[str]) -> None:
    known = ["engines_models", "engines_images", "engines_gpu", "layout_user", "layout_root"]

    assert misspelt.misspelt([name], known) == sentences


def test_misspelt_tells_each_slip_once_and_in_order() -> None:
    slips = misspelt.misspelt(["layout_usr", "engines_modles", "layout_usr"], ["layout_user", "engines_models"])

    assert [slip.split(":")[0] for slip in slips] == ["engines_modles", "layout_usr"]


def test_model_paths_are_below_the_models_folder_sorted_and_each_named_once() -> None:
    models = {"b": GOOD, "a": {**GOOD, "folder": "c"}, "c": GOOD, "qwen": None, "small": {"file": "other.gguf"}}

    assert model_paths.model_paths(models, KNOWN, "~/ai") == [
        "~/ai/models/gemma/shared/other.gguf",
        "~/ai/models/qwen3/qwen",
        "~/ai/models/tiny/b/tiny.gguf",
        "~/ai/models/tiny/c/tiny.gguf",
    ]


@pytest.mark.parametrize(
    "models",
    [
        None,
        "scout",
        ["scout"],
        {},
        {"scout": None},
        {"scout": "x/a.gguf"},
        {"scout": {}},
        {"scout": {**GOOD, "file": None}},
        {"scout": {**GOOD, "file": ["x/a.gguf"]}},
        {"scout": {**GOOD, "family": {"path": "x"}}},
        {"scout": {**GOOD, "folder": True}},
        {5: GOOD},
        {"helper": {}},
    ],
)
def test_model_paths_leaves_out_what_is_not_well_formed_and_what_ollama_fetches(models: Any) -> None:
    assert model_paths.model_paths(models, KNOWN, "~/ai") == []


def paths(folders: list[str], root: str = "~/ai") -> list[str]:
    return [entry["path"] for entry in tree.tree(folders, root, SPARK)]


def test_a_tree_names_every_folder_on_the_way_parents_first() -> None:
    assert paths(["models/qwen3", "logs"]) == [
        "/home/spark/ai",
        "/home/spark/ai/logs",
        "/home/spark/ai/models",
        "/home/spark/ai/models/qwen3",
    ]


def test_the_folders_of_a_tree_are_adopted_for_its_user() -> None:
    assert tree.tree([], "/srv/ai", SPARK, "0750") == [
        {"path": "/srv/ai", "state": "directory", "owner": "spark", "mode": "0750", "adopt": True}
    ]


@pytest.mark.parametrize(
    "root", ["~/ai/", "~/ai//", "~/./ai", "/home/spark/ai/", "/home/spark//ai", "/home/./spark/ai"]
)
def test_however_the_root_of_a_tree_is_written_nothing_outside_it_is_named(root: str) -> None:
    assert paths(["models/qwen3"], root) == [
        "/home/spark/ai",
        "/home/spark/ai/models",
        "/home/spark/ai/models/qwen3",
    ]


@given(
    folders=st.lists(
        st.lists(st.sampled_from(["a", "b", ".", "c d"]), min_size=1, max_size=4).map("/".join), max_size=5
    ),
    root=st.sampled_from(["~/ai", "~/ai/", "/srv", "/srv/", "/srv/ai"]),
)
def test_a_tree_stays_below_its_root_is_complete_and_has_parents_first(folders: list[str], root: str) -> None:
    top = posixpath.normpath(root.replace("~", "/home/spark"))

    named = paths(folders, root)

    assert [posixpath.normpath(path) for path in named] == named
    assert len(set(named)) == len(named)
    assert named[0] == top
    assert all(posixpath.dirname(path) in named[:index] for index, path in enumerate(named) if index)
    assert {posixpath.normpath(f"{top}/{folder}") for folder in folders} <= set(named)


def resolve(**models: Any) -> dict[str, Any]:
    return resolve_engines.resolve_engines(models, KNOWN, FACTS, "/home/spark/ai", "none")


def test_resolved_engines_have_a_unit_each_and_a_cache_of_the_users() -> None:
    resolved = resolve(scout=GOOD, phi=GOOD)

    assert [entry["path"] for entry in resolved["entries"]] == [
        "/home/spark/ai/cache/llama.cpp",
        "/etc/systemd/system/hearth-engine-scout.service",
        "/etc/systemd/system/hearth-engine-phi.service",
    ]
    assert resolved["entries"][0]["owner"] == "spark"
    assert resolved["entries"][1]["vars"]["engine"] == resolved["engines"][0]


def test_resolved_engines_run_as_the_user() -> None:
    assert "--user 1000:1001" in resolve(scout=GOOD)["engines"][0]["exec_start"]


@pytest.mark.parametrize(
    ("models", "default", "beside"),
    [
        ({"scout": GOOD, "phi": GOOD}, "", []),
        ({"scout": {**GOOD, "start": "boot"}, "phi": GOOD}, "scout", []),
        (
            {
                "scout": {**GOOD, "start": "boot"},
                "embedder": {**GOOD, "start": "boot", "lane": "utility"},
                "rerank": {**GOOD, "start": "boot", "lane": "utility"},
                "other": {**GOOD, "lane": "utility"},
            },
            "scout",
            ["embedder", "rerank"],
        ),
        ({"embedder": {**GOOD, "start": "boot", "lane": "utility"}}, "", ["embedder"]),
        ({"scout": {**GOOD, "start": "boot"}, "phi": {**GOOD, "start": "boot", "pinned": True}}, "scout", ["phi"]),
        ({}, "", []),
    ],
)
def test_resolved_engines_tell_what_starts_at_boot(models: dict[str, Any], default: str, beside: list[str]) -> None:
    resolved = resolve(**models)

    assert (resolved["default"], resolved["beside"]) == (default, beside)


def test_resolved_engines_can_be_kept_in_a_variable() -> None:
    resolved = resolve(scout=GOOD)

    assert json.loads(json.dumps(resolved)) == resolved


def test_the_store_of_ollama_is_a_folder_of_the_users() -> None:
    folders = [entry["path"] for entry in resolve(helper={})["entries"] if entry.get("state") == "directory"]

    assert folders == ["/home/spark/ai/cache/ollama", "/home/spark/ai/models/ollama"]


@pytest.mark.parametrize(("said", "floor"), [(0, 2.667), (1.5, 1.5)])
def test_the_floor_fits_the_host_unless_it_is_named(said: float, floor: float) -> None:
    resolved = resolve_engines.resolve_engines({}, KNOWN, FACTS, "/ai", "none", floor_gib=said)

    assert json.loads(resolved["contract"])["floor_gib"] == floor


def test_no_models_at_all_is_no_mistake() -> None:
    assert resolve_engines.resolve_engines(None, KNOWN, FACTS, "/ai", "none")["engines"] == []


def test_a_model_that_could_not_run_is_refused_with_its_sentence() -> None:
    refused = resolve(scout={**GOOD, "file": None})

    assert refused == {"refused": "engines_models.scout.file: is required for llama.cpp", "engines": []}
