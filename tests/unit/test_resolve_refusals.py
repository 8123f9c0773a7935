# SPDX-License-Identifier: Apache-2.0
"""_resolve: what could not run is refused, in one sentence that names the variable, the model and the field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _resolve
from hearth import contract

HOST = _resolve.Host(models_dir="/m", cache_dir="/c", uid=1000, gid=1000, gpu="none")
GOOD: dict[str, Any] = {
    "engine": "llama.cpp",
    "image": "registry.example/llama.cpp@sha256:0",
    "file": "qwen3/tiny/tiny.gguf",
    "memory_gib": 1,
}
# What YAML and Jinja make of things: everything a person can put where a field is.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def refusal(models: Any) -> str:
    with pytest.raises(_resolve.ResolveError) as caught:
        _resolve.resolve(models, HOST)
    return str(caught.value)


def test_a_good_model_is_not_refused() -> None:
    _resolve.resolve({"scout": GOOD}, HOST)


@pytest.mark.parametrize("field", ["engine", "image", "file", "memory_gib"])
@pytest.mark.parametrize("null", [True, False])
def test_a_required_field_that_is_missing_or_null(field: str, null: bool) -> None:
    model = {name: value for name, value in GOOD.items() if name != field}

    assert refusal({"scout": {**model, field: None} if null else model}) == f"engines_models.scout.{field}: is required"


def test_an_unknown_field_is_told_with_the_known_ones() -> None:
    sentence = refusal({"scout": {**GOOD, "colour": "red"}})

    assert sentence.startswith("engines_models.scout.colour: unknown field; known: aliases, argv, ")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("engine", "lama.cpp", "must be one of llama.cpp, is 'lama.cpp'"),
        ("engine", ["llama.cpp"], "must be str, is ['llama.cpp']"),
        ("image", "", "is not an image reference: ''"),
        ("image", "--privileged", "is not an image reference: '--privileged'"),
        ("image", "a b", "is not an image reference: 'a b'"),
        ("image", "repo:tag\n", "is not an image reference: 'repo:tag\\n'"),
        ("file", "/etc/passwd.gguf", "must be a path below the models folder"),
        ("file", "../x/y.gguf", "must be a path below the models folder"),
        ("file", "a/../../y.gguf", "must be a path below the models folder"),
        ("file", "a//y.gguf", "must be a path below the models folder"),
        ("file", "a/./y.gguf", "must be a path below the models folder"),
        ("file", "a/b/", "must be a path below the models folder"),
        ("file", "y.gguf", "must be a path below the models folder"),
        ("file", "", "must be a path below the models folder"),
        ("file", "a/with space/y.gguf", "must be printable ASCII without spaces"),
        ("file", "a/x,readonly=false/y.gguf", "must be printable ASCII without spaces"),
        ("file", 'a/"x"/y.gguf', "must be printable ASCII without spaces"),
        ("file", "a/ü/y.gguf", "must be printable ASCII without spaces"),
        ("file", "a/x\n/y.gguf", "must be printable ASCII without spaces"),
        ("aliases", "vision", "must be list, is 'vision'"),
        ("aliases", ["Vision"], "'Vision' is not a name"),
        ("aliases", [5], "5 is not a name"),
        ("aliases", ["a", "a"], "'a' is already a name of scout"),
        ("aliases", ["scout"], "'scout' is already a name of scout"),
        ("port", "8080", "must be int, is '8080'"),
        ("port", True, "must be int, is True"),
        ("port", -1, "must be 0 to 65535, is -1"),
        ("port", 65536, "must be 0 to 65535, is 65536"),
        ("port", 80, "80 is not for engines; choose one from 1024 on, not 8009 or 12000"),
        ("port", 8009, "8009 is not for engines"),
        ("context", 0, "must be 1 to 2147483648, is 0"),
        ("context", 4096.0, "must be int, is 4096.0"),
        ("memory_gib", 0, "must be more than 0, is 0"),
        ("memory_gib", -0.5, "must be more than 0, is -0.5"),
        ("memory_gib", "16", "must be int or float, is '16'"),
        ("memory_gib", True, "must be int or float, is True"),
        ("memory_gib", float("nan"), "must be more than 0, is nan"),
        ("memory_gib", float("inf"), "must be more than 0, is inf"),
        ("lane", "fast", "must be one of main, utility, is 'fast'"),
        ("start", "never", "must be one of boot, demand, manual, is 'never'"),
        (
            "capabilities",
            ["chat", "fly"],
            "must be some of chat, tools, reasoning, vision, embeddings, rerank, has 'fly'",
        ),
        ("capabilities", {"chat": True}, "must be list, is {'chat': True}"),
        ("argv", ["--threads", 4], "must be dict, is ['--threads', 4]"),
        ("argv", {"-t": 4}, "a flag is written in full, like --threads, is '-t'"),
        ("argv", {"--threads=4": True}, "a flag is written in full, like --threads, is '--threads=4'"),
        ("argv", {7: 4}, "a flag is written in full, like --threads, is 7"),
        ("start_timeout", 0, "must be 1 to 86400, is 0"),
        ("start_timeout", 86401, "must be 1 to 86400, is 86401"),
        ("stop_timeout", 0, "must be 1 to 3600, is 0"),
        ("stop_timeout", "30", "must be int, is '30'"),
    ],
)
def test_a_bad_value_is_told_with_its_place(field: str, value: Any, words: str) -> None:
    assert refusal({"scout": {**GOOD, field: value}}).startswith(f"engines_models.scout.{field}: {words}")


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_a_flag_of_argv_has_a_plain_value(value: Any) -> None:
    assert refusal({"scout": {**GOOD, "argv": {"--threads": value}}}) == (
        "engines_models.scout.argv.--threads: must be text, a number, or true for a flag without a value"
    )


@pytest.mark.parametrize("value", [None, [], "llama", 5])
def test_a_model_is_a_mapping(value: Any) -> None:
    assert refusal({"scout": value}) == (
        f"engines_models.scout: must be a mapping of fields, is {type(value).__name__}"
    )


@pytest.mark.parametrize("name", ["", "Scout", "-scout", "scout-", ".", "a b", "a/b", "a@b", "a\n", "ü", "x" * 64])
def test_a_name_that_no_unit_and_no_container_could_have(name: str) -> None:
    assert refusal({name: GOOD}).startswith(f"engines_models.{name}: a model's name is made of ")


@pytest.mark.parametrize("name", [70, 1.5, True, None])
def test_a_name_that_yaml_took_for_something_else_is_refused_too(name: Any) -> None:
    assert refusal({name: GOOD, "scout": GOOD}).startswith(f"engines_models.{name}: a model's name ")


@pytest.mark.parametrize("flag", _resolve.OWN_FLAGS)
def test_what_hearth_sets_itself_is_not_for_argv(flag: str) -> None:
    assert refusal({"scout": {**GOOD, "argv": {flag: "x"}}}) == (
        f"engines_models.scout.argv.{flag}: is set by Hearth and cannot be changed here"
    )


def test_argv_is_text_on_one_line() -> None:
    sentence = refusal({"scout": {**GOOD, "argv": {"--grammar": "a\nb"}}})

    assert sentence == "engines_models.scout.argv.--grammar: must be printable text on one line, is 'a\\nb'"


@pytest.mark.parametrize("name", ["a", "qwen3-32b", "phi-4_mini.q8", "0", "x" * 63])
def test_names_that_are_good(name: str) -> None:
    assert _resolve.resolve({name: GOOD}, HOST)[0].contract["name"] == name


@pytest.mark.parametrize("where", ["name", "alias"])
def test_none_is_no_name_since_it_means_no_model(where: str) -> None:
    models = {"none": GOOD} if where == "name" else {"scout": {**GOOD, "aliases": ["none"]}}

    assert "the name 'none' means no model; choose another" in refusal(models)


def test_an_alias_that_is_another_models_name() -> None:
    assert refusal({"phi": GOOD, "scout": {**GOOD, "aliases": ["phi"]}}) == (
        "engines_models.scout.aliases: 'phi' is already a name of phi"
    )


def test_an_alias_that_two_models_have() -> None:
    models = {"phi": {**GOOD, "aliases": ["small"]}, "scout": {**GOOD, "aliases": ["small"]}}

    assert refusal(models) == "engines_models.scout.aliases: 'small' is already a name of phi"


def test_a_port_that_two_models_have() -> None:
    models = {"phi": {**GOOD, "port": 9000}, "scout": {**GOOD, "port": 9000}}

    assert refusal(models) == "engines_models.scout.port: 9000 is already the port of phi"


def test_two_models_of_the_main_lane_that_both_start_at_boot() -> None:
    models = {"phi": {**GOOD, "start": "boot"}, "scout": {**GOOD, "start": "boot"}}

    assert refusal(models) == (
        "engines_models: phi and scout both have start: boot, and one model of the main lane runs at a time; "
        "leave it with one of them"
    )


def test_the_utility_lane_may_start_several_at_boot() -> None:
    model = {**GOOD, "start": "boot", "lane": "utility"}

    assert len(_resolve.resolve({"embed": model, "rerank": model}, HOST)) == 2


def test_the_sentence_names_the_variable_that_was_given() -> None:
    with pytest.raises(_resolve.ResolveError, match=r"^my_models\.scout\.port: "):
        _resolve.resolve({"scout": {**GOOD, "port": -1}}, HOST, source="my_models")


@given(field=st.sampled_from(sorted(_resolve.FIELDS)), value=ANYTHING)
def test_whatever_a_field_holds_the_model_runs_or_is_refused_with_its_place(field: str, value: Any) -> None:
    try:
        resolved = _resolve.resolve({"scout": {**GOOD, field: value}}, HOST)
    except _resolve.ResolveError as error:
        sentence = str(error)
    else:
        msgspec.json.decode(_resolve.contract_json(resolved), type=contract.Contract)
        sentence = ""

    assert not sentence or sentence.startswith(f"engines_models.scout.{field}")
