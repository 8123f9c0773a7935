# SPDX-License-Identifier: Apache-2.0
"""_downloads: what is to be fetched for the models of a box, and when."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from resolving import CATALOG, GOOD, on_spark, one, real_catalog

from ansible_collections.hearth.spark.plugins.filter.model_request import model_request
from ansible_collections.hearth.spark.plugins.module_utils import _complete, _downloads, _resolve
from hearth import contract
from hearth.download import Request

ROOT = "/home/spark/ai"
KNOWN = {"models": CATALOG.models, "images": CATALOG.images}
OLLAMA = {"engine": "ollama", "image": "ollama", "family": "qwen3", "memory_gib": 1, "ollama": "qwen3:0.6b"}
FILE = {"url": "https://example.org/a.tiktoken", "path": "tiktoken/a", "sha256": "ab" * 32}


def plan(**models: Any) -> dict[tuple[str, str], _downloads.Download]:
    return _downloads.plan(_complete.laid_over(models, CATALOG), ROOT)


def only(**models: Any) -> _downloads.Download:
    (found,) = plan(**models).values()
    return found


def hub_model(**fields: Any) -> dict[str, Any]:
    return {"engine": "vllm", "image": "vllm", "family": "mine", "memory_gib": 1, "repo": "me/mine", **fields}


def test_a_model_of_the_catalog_goes_to_its_folder() -> None:
    download = only(qwen={})

    assert download.path == "/home/spark/ai/models/qwen3/qwen"
    assert (download.repo, download.revision) == ("Qwen/Qwen3", "main")


@pytest.mark.parametrize("model", [{"mine": GOOD}, {"qwen": {"download": "never"}}, {"helper": {"download": "never"}}])
def test_what_somebody_brings_is_not_downloaded(model: dict[str, Any]) -> None:
    assert plan(**model) == {}


def test_a_model_of_ollama_goes_into_the_store_that_all_share_by_its_tag() -> None:
    found = _downloads.plan(
        _complete.laid_over({"helper": {"aliases": ["tiny"]}, "other": {**OLLAMA, "ollama": "qwen3:1.7b"}}, CATALOG),
        ROOT,
        {"helper": "ollama/ollama@sha256:1", "other": "ollama/ollama@sha256:1"},
    )

    assert [one.request() for one in found.values()] == [
        {
            "path": "/home/spark/ai/models/ollama",
            "ollama": tag,
            "image": "ollama/ollama@sha256:1",
            "names": names,
        }
        for tag, names in (("qwen3:0.6b", ["helper", "tiny"]), ("qwen3:1.7b", ["other"]))
    ]


def test_two_engines_of_one_tag_share_its_download() -> None:
    download = only(helper={"download": "first_start"}, again=OLLAMA)

    assert (download.models, download.when, download.names) == (("helper", "again"), "site", ("helper", "again"))


def test_a_model_of_ollama_that_another_engine_serves_is_not_ollamas_to_bring() -> None:
    assert plan(helper={"engine": "vllm", "image": "vllm"}) == {}


def test_extra_files_alone_are_a_download_too() -> None:
    assert only(mine={**GOOD, "extra_files": [FILE]}).extra_files == (FILE,)


def test_of_a_repository_of_gguf_files_only_the_models_own_is_fetched() -> None:
    assert only(small={}).include == ("gemma.gguf",)


@pytest.mark.parametrize("patterns", [{"include": ["other-*.gguf"]}, {"exclude": ["*.gguf"]}])
def test_patterns_that_leave_out_the_models_own_file_are_refused(patterns: dict[str, Any]) -> None:
    with pytest.raises(
        _downloads.DownloadError, match=r"^small\.(include|exclude): .* leaves out its file gemma\.gguf"
    ):
        plan(small=patterns)


def test_models_that_share_a_folder_share_one_download_with_all_that_either_needs() -> None:
    download = only(
        a=hub_model(folder="both", include=["a*"], exclude=["x", "y"], extra_files=[FILE]),
        b=hub_model(folder="both", include=["b*"], exclude=["y", "z"]),
    )

    assert download.models == ("a", "b")
    assert download.include == ("a*", "b*")
    assert download.exclude == ("y",)
    assert download.extra_files == (FILE,)


def test_who_needs_all_files_decides_for_a_shared_folder() -> None:
    assert only(a=hub_model(folder="both", include=["a*"]), b=hub_model(folder="both")).include == ()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"repo": "you/mine"}, "which is me/mine main and not you/mine main"),
        ({"revision": "v2"}, "which is me/mine main and not me/mine v2"),
        ({"extra_files": [{**FILE, "sha256": "cd" * 32}]}, "whose tiktoken/a is another file"),
    ],
)
def test_models_that_cannot_share_a_folder_are_refused(other: dict[str, Any], why: str) -> None:
    with pytest.raises(_downloads.DownloadError, match=r"^b\.folder: is shared with a") as refused:
        plan(a=hub_model(folder="both", extra_files=[FILE]), b=hub_model(folder="both", **other))

    assert why in str(refused.value)


def test_a_shared_folder_is_filled_as_early_as_either_wants_it() -> None:
    late = hub_model(folder="both", download="first_start")

    assert only(a=late, b=late).when == "first_start"
    assert only(a=late, b=hub_model(folder="both")).when == "site"


def test_site_yml_downloads_each_folder_once_and_leaves_first_starts_to_the_box() -> None:
    resolved = on_spark(
        {"qwen": {}, "embed": {"download": "first_start"}, "small": {}, "mine": {**GOOD, "folder": "shared"}}
    )

    assert [one["repo"] for one in _resolve.downloads(resolved)] == ["Qwen/Qwen3", "google/gemma-GGUF"]
    assert [engine.contract["name"] for engine in resolved if engine.contract["fetch"]] == ["embed"]


def test_the_box_half_reads_what_it_is_to_download() -> None:
    text = _resolve.contract_json([one(repo="me/mine", download="first_start", extra_files=[FILE])], 10)

    fetch = msgspec.json.decode(text, type=contract.Contract).engines[0].fetch

    assert fetch is not None
    request = msgspec.convert(msgspec.to_builtins(fetch), Request)
    assert (request.folder, request.repo) == ("/home/spark/ai/models/tiny/scout", "me/mine")
    assert (request.uid, request.gid, request.reserve_bytes) == (1000, 1001, 10 * 2**30)
    assert request.extra_files[0].sha256 == "ab" * 32


def test_the_box_half_reads_what_ollama_is_to_pull() -> None:
    text = _resolve.contract_json(on_spark({"helper": {"download": "first_start"}}), 10)

    fetch = msgspec.json.decode(text, type=contract.Contract).engines[0].fetch

    assert fetch is not None
    request = msgspec.convert(msgspec.to_builtins(fetch), Request)
    assert (request.folder, request.ollama) == ("/home/spark/ai/models/ollama", "qwen3:0.6b")
    assert (request.image, request.uid, request.repo) == ("ollama/ollama:1", 1000, "")


def test_the_box_half_knows_what_else_an_engine_has() -> None:
    text = _resolve.contract_json([one(mounts=[{"source": "models/tiny/draft", "target": "/draft"}])], 10)

    assert msgspec.json.decode(text, type=contract.Contract).engines[0].mounts == ("/home/spark/ai/models/tiny/draft",)


def test_both_halves_mean_the_same_by_a_download() -> None:
    assert set(contract.Fetch.__struct_fields__) <= set(Request.__struct_fields__)


def test_every_model_of_the_catalog_can_be_downloaded_beside_every_other() -> None:
    catalog = real_catalog()
    planned = _downloads.plan(catalog.models, ROOT)

    assert sorted(name for download in planned.values() for name in download.models) == sorted(catalog.models)


def test_extra_files_of_the_catalog_have_checksums_and_are_not_their_repositorys_own() -> None:
    """A file of the repository comes with it, verified; a second one of its name would be refused."""
    for name, model in real_catalog().models.items():
        for file in model["extra_files"]:
            assert file["sha256"], f"{name}: {file['url']}"
            assert not file["url"].startswith(f"https://huggingface.co/{model['repo']}/"), f"{name}: {file['url']}"


class TestModelRequest:
    def test_a_model_of_the_catalog_need_not_be_in_the_inventory(self) -> None:
        found = model_request({}, KNOWN, ROOT, "qwen")

        assert found["name"] == "qwen"
        assert found["request"]["path"] == "/home/spark/ai/models/qwen3/qwen"

    def test_another_name_will_do(self) -> None:
        assert model_request({}, KNOWN, ROOT, "chatty")["name"] == "qwen"

    def test_what_the_inventory_says_counts(self) -> None:
        asked = model_request({"qwen": {"revision": "v2", "download": "never"}}, KNOWN, ROOT, "qwen")

        assert asked["request"]["revision"] == "v2"

    def test_a_folder_is_filled_for_all_who_share_it_on_this_box(self) -> None:
        own = {"a": hub_model(folder="both", include=["a*"]), "b": hub_model(folder="both", include=["b*"])}

        assert model_request(own, KNOWN, ROOT, "a")["request"]["include"] == ["a*", "b*"]

    def test_of_ollama_it_has_what_it_is_run_from_and_the_names_that_engines_give(self) -> None:
        assert model_request({}, KNOWN, ROOT, "helper")["request"] == {
            "path": "/home/spark/ai/models/ollama",
            "ollama": "qwen3:0.6b",
            "image": "ollama/ollama:1",
            "names": ["helper"],
        }

    def test_it_is_run_from_what_the_box_calls_its_image(self) -> None:
        known = {"pins": {"ollama/ollama:1": "localhost/hearth/ollama:292ee7945dfc"}}

        asked = model_request({}, KNOWN, ROOT, "helper", known=known)["request"]

        assert asked["image"] == "localhost/hearth/ollama:292ee7945dfc"

    def test_what_the_inventory_says_of_the_image_counts(self) -> None:
        own = {"ollama": {"digest": "sha256:" + "1" * 64}}

        asked = model_request({}, KNOWN, ROOT, "helper", images=own)["request"]

        assert asked["image"] == "localhost/hearth/ollama:" + "1" * 12

    def test_an_image_that_nobody_knows_is_told(self) -> None:
        own = {"helper": {"image": "olama"}}

        assert model_request(own, KNOWN, ROOT, "helper")["refused"].startswith("engines_models.helper.image: ")

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("qwenn", "model: there is no 'qwenn' in engines_models or in the catalog; did you mean qwen?"),
            ("zzz", "model: there is no 'zzz' in engines_models or in the catalog; docs/models.md has the catalog's."),
            ("mine", "mine: has no repo, so its files are yours to bring."),
        ],
    )
    def test_what_cannot_be_downloaded_is_refused(self, name: str, sentence: str) -> None:
        assert model_request({"mine": GOOD}, KNOWN, ROOT, name) == {"refused": sentence}

    def test_a_mistake_in_the_inventory_is_told(self) -> None:
        assert model_request({"qwen": {"revison": "v2"}}, KNOWN, ROOT, "qwen")["refused"].startswith(
            "engines_models.qwen.revison: unknown field"
        )
