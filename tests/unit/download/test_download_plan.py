# SPDX-License-Identifier: Apache-2.0
"""hearth.download.plan: which files make up a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.download.plan import File, add_shards, assert_fits_a_folder, choose, extras, parts_of, safe
from hearth.download.request import ExtraFile
from hearth.errors import HearthError


def files(*paths: str) -> list[File]:
    return [File(path=path, size=1, digest="git:0") for path in paths]


def names(chosen: list[File]) -> list[str]:
    return [file.path for file in chosen]


def test_without_patterns_all_is_chosen() -> None:
    assert names(choose(files("b", "a/c"), (), ())) == ["a/c", "b"]


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        (("*.json",), (), ["a.json", "sub/b.json"]),
        ((), ("*.json",), ["sub/deep/c.bin", "x.BIN"]),
        (("sub/",), (), ["sub/b.json", "sub/deep/c.bin"]),
        (("sub/",), ("sub/deep/",), ["sub/b.json"]),
        (("*.bin",), (), ["sub/deep/c.bin"]),
        (("a.json",), (), ["a.json"]),
    ],
)
def test_patterns_are_those_of_the_hub_library(
    include: tuple[str, ...], exclude: tuple[str, ...], chosen: list[str]
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    listed = ["a.json", "sub/b.json", "sub/deep/c.bin", "x.BIN"]

    assert names(choose(files(*listed), include, exclude)) == chosen
    theirs = filter_repo_objects(listed, allow_patterns=list(include) or None, ignore_patterns=list(exclude) or None)
    assert sorted(theirs) == chosen


def test_nothing_that_matches_is_an_error_with_examples() -> None:
    with pytest.raises(HearthError, match=r"none of the 2 files matches \(include \*\.gguf, .* for example, a, b"):
        choose(files("b", "a"), ("*.gguf",), ())


def test_a_pattern_that_matches_one_part_brings_all_parts() -> None:
    parts = parts_of("q4/m-00002-of-00003.gguf")

    assert names(choose(files(*parts, "q8/m-00001-of-00001.gguf"), ("q4/m-00001*",), ())) == parts


def test_a_part_that_the_repository_lacks_is_an_error() -> None:
    with pytest.raises(HearthError, match=r"has m-00001-of-00002\.gguf, but not its part m-00002-of-00002\.gguf"):
        choose(files("m-00001-of-00002.gguf"), (), ())


def test_a_part_that_is_excluded_stays_away() -> None:
    assert names(choose(files(*parts_of("m-00001-of-00002.gguf")), (), ("*-00002-*",))) == ["m-00001-of-00002.gguf"]


@pytest.mark.parametrize("path", ["model.safetensors", "m-1-of-2.gguf", "m-00001-of-00002.txt"])
def test_other_files_have_no_parts(path: str) -> None:
    assert parts_of(path) == []


def test_an_index_adds_its_shards() -> None:
    listed = files("x/i.safetensors.index.json", "x/a.safetensors", "x/b.safetensors", "c.safetensors")
    index = b'{"weight_map": {"p": "a.safetensors", "q": "b.safetensors", "r": "a.safetensors"}}'

    found = add_shards(listed[:1], listed, {"x/i.safetensors.index.json": index}, ("*b.safetensors",))

    assert names(found) == ["x/i.safetensors.index.json", "x/a.safetensors"]


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (b'{"weight_map": {"p": "a.safetensors"}}', "names a.safetensors, which the repository does not have"),
        (b"{}", "is no index of safetensors"),
        (b"\xff", "is no index of safetensors"),
        (b'{"weight_map": {"p": "../a.safetensors"}}', "climbs out of the model's folder"),
    ],
)
def test_an_index_that_leads_nowhere_is_an_error(index: bytes, words: str) -> None:
    listed = files("i.safetensors.index.json")

    with pytest.raises(HearthError, match=words):
        add_shards(listed, listed, {"i.safetensors.index.json": index}, ())


@given(st.lists(st.sampled_from(["a", "b..", ".c", "...", "ü", "x y"]), min_size=1, max_size=4))
def test_a_path_below_the_folder_is_safe(parts: list[str]) -> None:
    assert safe("/".join(parts)) == "/".join(parts)


@given(
    st.lists(st.sampled_from(["a", "b"]), max_size=3),
    st.sampled_from(["..", ".", "", "a\x00", "a\\b", "n" * 256]),
    st.lists(st.sampled_from(["a", "b"]), max_size=3),
)
def test_a_path_with_one_bad_part_is_not(before: list[str], bad: str, after: list[str]) -> None:
    with pytest.raises(HearthError, match="nothing was fetched"):
        safe("/".join([*before, bad, *after]))


def test_an_extra_file_keeps_its_checksum_and_may_not_lead_out() -> None:
    [file] = extras([ExtraFile(url="https://x/y", path="p/y", sha256="AB" * 32)])

    assert (file.path, file.digest, file.size) == ("p/y", "sha256:" + "ab" * 32, -1)
    with pytest.raises(HearthError, match="climbs out"):
        extras([ExtraFile(url="https://x/y", path="../y")])


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("x/a", "x/a/b/c")])
def test_paths_that_cannot_be_in_one_folder_are_an_error(paths: tuple[str, ...]) -> None:
    with pytest.raises(HearthError, match="rename the extra file"):
        assert_fits_a_folder(files(*paths))
