# SPDX-License-Identifier: Apache-2.0
"""_resolve: what could not run is refused, in one sentence that names the variable, the model and the field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resolving import GOOD, on_spark, resolve

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _complete, _fields, _resolve
from hearth import contract

# What YAML and Jinja make of things: everything a person can put where a field is.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def refusal(models: Any, **where: Any) -> str:
    with pytest.raises(_complete.ResolveError) as caught:
        resolve(models, **where)
    return str(caught.value)


def spark_refusal(models: Any, **where: Any) -> str:
    with pytest.raises(_complete.ResolveError) as caught:
        on_spark(models, **where)
    return str(caught.value)


def test_a_good_model_is_not_refused() -> None:
    assert resolve({"scout": GOOD})


@pytest.mark.parametrize("field", ["image", "family", "file", "memory_gib"])
@pytest.mark.parametrize("null", [True, False])
def test_a_required_field_that_is_missing_or_null(field: str, null: bool) -> None:
    model = {name: value for name, value in GOOD.items() if name != field}

    assert refusal({"scout": {**model, field: None} if null else model}).startswith(
        f"engines_models.scout.{field}: is required"
    )


def test_an_unknown_field_is_told_with_the_known_ones() -> None:
    sentence = refusal({"scout": {**GOOD, "colour": "red"}})

    assert sentence.startswith("engines_models.scout.colour: unknown field; known: aliases, argv, ")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("engine", "lama.cpp", "must be one of sglang, vllm, llama.cpp, ollama, is 'lama.cpp'"),
        ("engine", ["llama.cpp"], "must be text, is ['llama.cpp']"),
        ("image", "", "is not well formed: ''"),
        ("image", "--privileged", "is not well formed: '--privileged'"),
        ("image", "a/b c", "is not well formed: 'a/b c'"),
        ("image", "repo:tag\n", "is not well formed: 'repo:tag\\n'"),
        ("image", "lama", "there is no image 'lama' in the catalog or engines_images; did you mean llama?"),
        ("image", "sglang", "'sglang' has the engine sglang, not llama.cpp"),
        ("family", "../x", "is not well formed: '../x'"),
        ("folder", "a/b", "is not well formed: 'a/b'"),
        ("file", "/etc/passwd.gguf", "is not well formed"),
        ("file", "../y.gguf", "is not well formed"),
        ("file", "a/../../y.gguf", "is not well formed"),
        ("file", "", "is not well formed"),
        ("file", "with space.gguf", "is not well formed"),
        ("file", "x,readonly=false.gguf", "is not well formed"),
        ("file", '"x".gguf', "is not well formed"),
        ("file", "ü.gguf", "is not well formed"),
        ("file", "x\n.gguf", "is not well formed"),
        ("aliases", "vision", "must be a list, is 'vision'"),
        ("aliases", ["a", "a"], "'a' is already a name of scout"),
        ("aliases", ["scout"], "'scout' is already a name of scout"),
        ("port", "8080", "must be a whole number, is '8080'"),
        ("port", True, "must be a whole number, is True"),
        ("port", -1, "must be 0 to 65535, is -1"),
        ("port", 65536, "must be 0 to 65535, is 65536"),
        ("port", 80, "80 is not for engines; choose one from 1024 on, not 8009 or 12000"),
        ("port", 8009, "8009 is not for engines"),
        ("context", 0, "practical: must be 1 to 2.14748e+09, is 0"),
        ("context", 4096.0, "practical: must be a whole number, is 4096.0"),
        ("memory_gib", 0, "must be more than 0"),
        ("memory_gib", -0.5, "weights: must be 0 to 4096, is -0.5"),
        ("memory_gib", "16", "must be a mapping of fields, is '16'"),
        ("memory_gib", True, "must be a mapping of fields, is True"),
        ("memory_gib", float("nan"), "weights: must be 0 to 4096, is nan"),
        ("memory_gib", float("inf"), "weights: must be 0 to 4096, is inf"),
        ("memory_gib", 15, "needs 15 GiB of the host's 16, of which 2 stay free; choose a smaller model"),
        ("lane", "fast", "must be one of main, utility, is 'fast'"),
        ("start", "never", "must be one of boot, demand, manual, is 'never'"),
        ("capabilities", {"chat": True}, "must be a list, is {'chat': True}"),
        ("argv", ["--threads", 4], "must be a mapping, is ['--threads', 4]"),
        ("argv", {"-t": 4}, "a flag is written in full, like --threads, is '-t'"),
        ("argv", {"--threads=4": True}, "a flag is written in full, like --threads, is '--threads=4'"),
        ("argv", {7: 4}, "a flag is written in full, like --threads, is 7"),
        ("start_timeout", 0, "must be 1 to 86400, is 0"),
        ("start_timeout", 86401, "must be 1 to 86400, is 86401"),
        ("stop_timeout", 0, "must be 1 to 3600, is 0"),
        ("stop_timeout", "30", "must be a whole number, is '30'"),
        ("mounts", [{"source": "a,b", "target": "/c"}], "0.source: is not well formed: 'a,b'"),
        ("mounts", [{"source": "../a", "target": "/c"}], "0.source: is not well formed: '../a'"),
        ("mounts", [{"source": "a", "target": "c"}], "0.target: is not well formed: 'c'"),
        ("mounts", [{"source": "a"}], "0.target: is required"),
        ("limits", {"cpus": -1}, "cpus: must be 0 to 1024, is -1"),
        ("status", {"is": "broken", "reason": "It fails."}, "is broken: It fails. With force: true it runs anyway"),
        ("nodes", 2, "needs 2 Sparks, and this is one; choose a smaller model"),
    ],
)
def test_a_bad_value_is_told_with_its_place(field: str, value: Any, words: str) -> None:
    sentence = refusal({"scout": {**GOOD, field: value}})

    # A table's own field stands between: "memory_gib.weights: …".
    assert sentence.startswith((f"engines_models.scout.{field}: {words}", f"engines_models.scout.{field}.{words}"))


@pytest.mark.parametrize("value", [None, {"a": 1}])
def test_a_flag_of_argv_has_a_plain_value(value: Any) -> None:
    assert refusal({"scout": {**GOOD, "argv": {"--threads": value}}}) == (
        "engines_models.scout.argv.--threads: must be text, a number, a list, or true for a flag without a value"
    )


@pytest.mark.parametrize("value", [[], "llama", 5])
def test_a_model_is_a_mapping(value: Any) -> None:
    assert refusal({"scout": value}) == f"engines_models.scout: must be a mapping of fields, is {value!r}"


@pytest.mark.parametrize("name", ["", "Scout", "-scout", "scout-", ".", "a b", "a/b", "a@b", "a\n", "ü", "x" * 64])
def test_a_name_that_no_unit_and_no_container_could_have(name: str) -> None:
    assert refusal({name: GOOD}).startswith(f"engines_models.{name}: a model's name is made of ")


@pytest.mark.parametrize("name", [70, 1.5, True, None])
def test_a_name_that_yaml_took_for_something_else_is_refused_too(name: Any) -> None:
    assert refusal({name: GOOD, "scout": GOOD}).startswith(f"engines_models.{name}: a model's name ")


@pytest.mark.parametrize("flag", _catalog.OWN_FLAGS["llama.cpp"])
def test_what_hearth_sets_itself_is_not_for_argv(flag: str) -> None:
    assert refusal({"scout": {**GOOD, "argv": {flag: "x"}}}) == (
        f"engines_models.scout.argv.{flag}: is set by Hearth from other fields and cannot be said here"
    )


def test_argv_is_text_on_one_line() -> None:
    sentence = refusal({"scout": {**GOOD, "argv": {"--grammar": "a\nb"}}})

    assert sentence == "engines_models.scout.argv.--grammar: must be printable text on one line, is 'a\\nb'"


@pytest.mark.parametrize("name", ["a", "qwen3-32b", "phi-4_mini.q8", "0", "x" * 63])
def test_names_that_are_good(name: str) -> None:
    assert resolve({name: GOOD})[0].contract["name"] == name


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
        "leave it with one of them, or pin all but one"
    )


def test_pinned_ones_may_start_at_boot_beside_the_one_that_changes() -> None:
    models = {"phi": {**GOOD, "start": "boot", "pinned": True}, "scout": {**GOOD, "start": "boot"}}

    assert len(resolve(models)) == 2


def test_the_utility_lane_may_start_several_at_boot() -> None:
    model = {**GOOD, "start": "boot", "lane": "utility"}

    assert len(resolve({"embedder": model, "rerank": model})) == 2


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (
            {"qwem": {}},
            "engines_models.qwem: is not in the catalog; did you mean qwen? A model of your own needs engine,",
        ),
        ({"qwem": None}, "engines_models.qwem: is not in the catalog; did you mean qwen?"),
        (
            {"zzz": {"context": 5}},
            "engines_models.zzz: is not in the catalog. A model of your own needs engine, image,",
        ),
        ({"chatty": {}}, "engines_models.chatty: is another name of qwen in the catalog: write qwen here; clients may"),
        ({"qwen": {"engine": "vllm"}}, "engines_models.qwen.image: is required, since the engine is not the catalog's"),
        ({"huge": {}}, "engines_models.huge.nodes: needs 2 Sparks, and this is one; choose a smaller model"),
        ({"bad": {}}, "engines_models.bad.status: is broken: It answers nonsense. With force: true it runs anyway"),
        ({"qwen": {"contxt": 1}}, "engines_models.qwen.contxt: unknown field; known: aliases, argv, "),
        ({"qwen": {"context": {"practcal": 1}}}, "engines_models.qwen.context.practcal: unknown field; known: "),
        ({"qwen": {"memory_gib": {"kv_cache": 90}}}, "engines_models.qwen.memory_gib: needs 117 GiB of the host's 120"),
        (
            {"qwen": {"memory_gib": 30}},
            "engines_models.qwen.memory_gib.overhead: is required for sglang: what it takes",
        ),
        ({"qwen": {}, "embed": {"aliases": ["chatty"]}}, "engines_models.embed.aliases: 'chatty' is already a name of"),
    ],
)
def test_what_is_wrong_beside_the_catalog_is_named(models: Any, sentence: str) -> None:
    assert spark_refusal(models).startswith(sentence)


def test_what_is_broken_runs_when_forced() -> None:
    assert on_spark({"bad": {"force": True}})


def test_an_image_for_another_architecture() -> None:
    vllm = {"memory_gib": {"weights": 1, "kv_cache": 0, "overhead": 1}}

    assert refusal({"embed": vllm}) == (
        "engines_models.embed.image: vllm exists for arm64, and this host is amd64; name another image"
    )


def test_what_starts_at_boot_has_to_fit_side_by_side() -> None:
    models = {
        "qwen": {"start": "boot"},
        "small": {"start": "boot", "lane": "utility", "memory_gib": 60},
        "embed": {"memory_gib": {"weights": 20}},
    }

    assert spark_refusal(models) == (
        "engines_models: qwen (37 GiB) and small (60 GiB) and embed (27 GiB) all have start: boot and need 124 GiB "
        "together, of which this host has 110; give one of them start: demand"
    )


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ({"llama": {"digst": "x"}}, "engines_images.llama.digst: unknown field; known: architectures, "),
        ({"mine": {"engine": "vllm", "architectures": []}}, "engines_images.mine.ref: is required, or build"),
        ({"Mine": {}}, "engines_images.Mine: an image's name is made of a-z, 0-9, '.', '_' and '-'"),
        ({"llama": {"digest": "sha256:0"}}, "engines_images.llama.digest: is not well formed"),
        ({"llama": 5}, "engines_images.llama: must be a mapping of fields, is 5"),
    ],
)
def test_what_is_wrong_with_an_image_is_named(images: Any, sentence: str) -> None:
    assert refusal({"scout": GOOD}, images=images).startswith(sentence)


@given(field=st.sampled_from(sorted(_fields.MODEL)), value=ANYTHING)
def test_whatever_a_field_holds_the_model_runs_or_is_refused_with_its_place(field: str, value: Any) -> None:
    try:
        resolved = resolve({"scout": {**GOOD, field: value}})
    except _complete.ResolveError as error:
        sentence = str(error)
    else:
        msgspec.json.decode(_resolve.contract_json(resolved, 2), type=contract.Contract)
        sentence = ""

    # Without an engine it is no model of one's own; all else is told with the field.
    assert not sentence or sentence.startswith(f"engines_models.scout.{field}") or field == "engine"
