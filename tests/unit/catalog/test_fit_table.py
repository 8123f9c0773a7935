# SPDX-License-Identifier: Apache-2.0
"""The filter fit_table: what fits, and what is on the box."""

from __future__ import annotations

from typing import Any

from resolving import CATALOG, GOOD

from ansible_collections.hearth.spark.plugins.filter.fit_table import fit_table

ROOT = "/home/spark/ai"


def held(path: str, **fields: Any) -> dict[str, Any]:
    complete: dict[str, Any] = {
        "path": f"{ROOT}/models/{path}",
        "ollama": "",
        "repo": "me/it",
        "commit": "b968826d9c46dd60",
        "bytes_total": 16_400_000_000,
        "partial": 0,
        "whole": True,
        "running": [],
    }
    return {**complete, **fields}


def lines(*folders: dict[str, Any], **own: Any) -> list[str]:
    return fit_table(CATALOG.models, 119.7, 0, own, folders, ROOT)


def test_what_is_on_the_box_comes_first_with_its_size_and_commit() -> None:
    assert lines(held("qwen3/qwen"))[:2] == [
        "yes   37 GiB   16.4 GB  sglang    qwen (commit b968826d)",
        "yes    9 GiB            vllm      embed",
    ]


def test_who_runs_and_what_the_inventory_names_is_told() -> None:
    assert (
        lines(held("qwen3/qwen", running=["qwen"]), qwen=None)[0]
        == "yes   37 GiB   16.4 GB  sglang    qwen (in engines_models, commit b968826d, runs)"
    )


def test_a_model_of_ones_own_is_in_the_table() -> None:
    assert lines(held("tiny/mine", repo="", commit=""), mine=GOOD)[0] == (
        "yes    1 GiB   16.4 GB  llama.cpp mine (in engines_models, brought by hand)"
    )


def test_a_download_that_did_not_end_and_damage_are_told() -> None:
    unfinished = held("qwen3/qwen", repo="", commit="", bytes_total=0, partial=500_000_000, whole=False)
    damaged = held("gemma/shared", whole=False)

    assert [line.split("(")[1] for line in lines(unfinished, damaged)[:2]] == [
        "a download did not end)",
        "commit b968826d, damaged)",
    ]


def test_a_folder_of_no_known_model_is_told() -> None:
    assert lines(held("old/llama"))[0] == (
        "               16.4 GB            old/llama (commit b968826d, no known model)"
    )


def test_models_in_ollamas_store_are_told_by_their_tags_and_all_else_in_it_as_one() -> None:
    known = held("ollama", ollama="qwen3:0.6b", bytes_total=520_000_000, running=["helper"])
    other = held("ollama", ollama="phi:latest", bytes_total=2_000_000_000)
    rest = held("ollama", commit="", bytes_total=1_000_000_000, partial=500_000_000)

    assert lines(known, other, rest)[:3] == [
        "yes    1 GiB    0.5 GB  ollama    helper (commit b968826d, runs)",
        "                1.5 GB            models/ollama (brought by hand, a download did not end, no known model)",
        "                2.0 GB            phi:latest (commit b968826d, no known model)",
    ]


def test_a_mistake_in_the_inventory_is_all_that_is_told() -> None:
    (line,) = lines(qwen={"revison": "v2"})

    assert line.startswith("engines_models.qwen.revison: unknown field")
