# SPDX-License-Identifier: Apache-2.0
"""The fields of a model and of an image: each mistake is told with its place, and the JSON Schema says the same."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _fields

MODEL: dict[str, Any] = {
    "title": "Tiny",
    "family": "tiny",
    "repo": "owner/tiny",
    "engine": "vllm",
    "image": "vllm",
    "argv": {"--kv-cache-dtype": "fp8", "--enable-prefix-caching": True, "--list": ["a", 1]},
    "env": {"A": "1"},
    "extra_files": [{"url": "https://example.org/a.py", "path": "a.py"}],
    "context": {"theoretical": 8192, "practical": 4096},
    "memory_gib": {"weights": 1.5, "kv_cache": 0.5, "overhead": 7},
    "capabilities": ["chat", "tools"],
    "status": {"is": "broken", "since": "2026-04", "reason": "hangs"},
}
SCHEMA = _fields.json_schema(_fields.MODEL, "A model")

MISTAKES = [
    ({"engin": "vllm"}, "engin: unknown field; known: aliases, argv"),
    ({"engine": "vlm"}, "engine: must be one of sglang, vllm, llama.cpp, ollama, is 'vlm'"),
    ({"engine": None}, "engine: is required"),
    ({"lane": "fast"}, "lane: must be one of main, utility, is 'fast'"),
    ({"nodes": 0}, "nodes: must be 1 to 8, is 0"),
    ({"nodes": 1.5}, "nodes: must be a whole number, is 1.5"),
    ({"nodes": True}, "nodes: must be a whole number, is True"),
    ({"gated": "yes"}, "gated: must be true or false, is 'yes'"),
    ({"aliases": "scout"}, "aliases: must be a list, is 'scout'"),
    ({"aliases": ["Scout"]}, "aliases.0: is not well formed: 'Scout'"),
    ({"capabilities": ["chat", "fly"]}, "capabilities.1: must be one of chat, tools"),
    ({"env": {"A": 1}}, "env.A: must be text, is 1"),
    ({"argv": {"-t": 1}}, "argv: a flag is written in full, like --threads, is '-t'"),
    ({"argv": {"--a": {"b": 1}}}, "argv.--a: must be text, a number, a list, or true"),
    ({"file": "../x.gguf"}, "file: is not well formed"),
    ({"file": "a,readonly=false.gguf"}, "file: is not well formed"),
    ({"repo": "tiny"}, "repo: is not well formed: 'tiny'"),
    ({"memory_gib": {"weights": -1}}, "memory_gib.weights: must be 0 to 4096, is -1"),
    ({"memory_gib": {"wights": 1}}, "memory_gib.wights: unknown field; known: kv_cache, overhead, weights"),
    ({"memory_gib": None}, "memory_gib: is required"),
    ({"status": {"is": "good"}}, "status.is: must be one of validated, experimental, broken, is 'good'"),
    ({"extra_files": [{"url": "https://example.org/a"}]}, "extra_files.0.path: is required"),
    ({"extra_files": [{"url": "ftp://x", "path": "a"}]}, "extra_files.0.url: is not well formed"),
    ({"start_timeout": 0}, "start_timeout: must be 1 to 86400, is 0"),
]


def test_a_good_model_keeps_its_values_and_gets_the_defaults() -> None:
    values = _fields.check(_fields.MODEL, MODEL)

    assert values["argv"] == {"--kv-cache-dtype": "fp8", "--enable-prefix-caching": True, "--list": ("a", 1)}
    assert (values["lane"], values["start"], values["nodes"], values["revision"]) == ("main", "demand", 1, "main")
    assert values["aliases"] == ()
    assert set(values) == set(_fields.MODEL)


def test_what_was_checked_passes_again() -> None:
    once = _fields.check(_fields.MODEL, MODEL)

    assert _fields.check(_fields.MODEL, once) == once


@pytest.mark.parametrize(("change", "sentence"), MISTAKES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_is_told_with_its_place(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(_fields.FieldError) as caught:
        _fields.check(_fields.MODEL, {**MODEL, **change})

    assert str(caught.value).startswith(sentence)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(_fields.json_schema(_fields.IMAGE, "An image"))


def test_the_schema_takes_the_good_model() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(MODEL)


@pytest.mark.parametrize("change", [change for change, _ in MISTAKES], ids=json.dumps)
def test_the_schema_refuses_the_same_mistakes(change: dict[str, Any]) -> None:
    data = {name: value for name, value in {**MODEL, **change}.items() if value is not None}

    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(data))


def test_an_override_may_leave_out_what_is_required() -> None:
    assert _fields.check(_fields.MODEL, {"start": "boot"}, partial=True) == {"start": "boot"}


def test_an_override_is_checked_all_the_same() -> None:
    with pytest.raises(_fields.FieldError, match=r"^context\.practical: must be a whole number, is '8k'$"):
        _fields.check(_fields.MODEL, {"context": {"practical": "8k"}}, partial=True)


@pytest.mark.parametrize(
    ("field", "number", "table"),
    [("context", 8192, {"practical": 8192}), ("memory_gib", 4, {"weights": 4, "kv_cache": 0, "overhead": 0})],
)
def test_a_bare_number_is_short_for_the_table(field: str, number: float, table: dict[str, float]) -> None:
    assert _fields.check(_fields.MODEL, {field: number}, partial=True) == {field: table}
