# SPDX-License-Identifier: Apache-2.0
"""_resolve: what a good model becomes: a port, a container's command line, a contract that the box half reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from resolving import GOOD, on_spark, one, resolve

from ansible_collections.hearth.spark.plugins.module_utils import _fields, _resolve
from hearth import contract

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda name: name != "none")
# Ports near the first one collide; far ones do not.
PORTS = (st.integers(8078, 8085) | st.integers(1024, 65535)).filter(lambda port: port not in _resolve.RESERVED_PORTS)
MODELS = st.dictionaries(NAMES, st.none() | PORTS, max_size=8).filter(
    lambda models: len(explicit(models)) == len(set(explicit(models).values()))
)


VLLM = {"engine": "vllm", "image": "registry.example/vllm:1", "memory_gib": {"weights": 0.1}}


def explicit(models: Mapping[str, int | None]) -> dict[str, int]:
    return {name: port for name, port in models.items() if port}


def ports(models: Mapping[str, int | None]) -> dict[str, int]:
    return ports_of({name: {**GOOD, "port": port} for name, port in models.items()})


def ports_of(models: Mapping[str, Any]) -> dict[str, int]:
    return {engine.contract["name"]: engine.contract["port"] for engine in resolve(models)}


@given(models=MODELS)
def test_no_port_is_given_twice(models: dict[str, int | None]) -> None:
    assert len(set(ports(models).values())) == len(models)


@given(models=MODELS)
def test_a_port_that_was_asked_for_is_given(models: dict[str, int | None]) -> None:
    assert explicit(models).items() <= ports(models).items()


@given(models=MODELS)
def test_a_model_that_is_added_last_moves_nobodys_port(models: dict[str, int | None]) -> None:
    added = {**models, "zz-added": None}

    assert ports(models).items() <= ports(added).items()


def test_ports_are_given_from_8080_on_and_around_those_that_were_asked_for() -> None:
    assert ports({"a": None, "b": None, "c": 8081, "d": None}) == {"a": 8080, "b": 8082, "c": 8081, "d": 8083}


def test_each_engine_has_ports_of_its_own_from_its_usual_one_on() -> None:
    found = {
        engine.contract["name"]: engine.contract["port"]
        for engine in on_spark({"qwen": {}, "embed": {}, "small": {}, "helper": {}})
    }

    assert found == {"qwen": 30000, "embed": 8000, "small": 8080, "helper": 11434}


def test_the_gateways_port_is_given_to_no_engine() -> None:
    models = {f"m{index}": {**VLLM, "family": "m"} for index in range(11)}

    assert 8009 not in ports_of(models).values()
    assert max(ports_of(models).values()) == 8011


def test_a_crash_loop_falls_into_one_window() -> None:
    assert one(start_timeout=100).restart_window_s > 3 * 100


@given(models=MODELS)
def test_the_contract_is_read_by_the_box_half(models: dict[str, int | None]) -> None:
    resolved = resolve({name: {**GOOD, "port": port} for name, port in models.items()})

    known = msgspec.json.decode(_resolve.contract_json(resolved, 10), type=contract.Contract)

    assert [engine.name for engine in known.engines] == list(models)
    assert known.schema == contract.SCHEMA == _resolve.SCHEMA
    assert all(known.find(engine.name).unit == f"hearth-engine-{engine.name}.service" for engine in known.engines)


def test_both_halves_know_the_same_words() -> None:
    fields = contract.Engine.__annotations__

    assert set(_resolve.FIRST_PORT) == set(_fields.ENGINES) == set(contract.EngineKind.__args__)  # type: ignore[attr-defined]
    assert set(_fields.LANES) == set(contract.Lane.__args__)  # type: ignore[attr-defined]
    assert set(_fields.STARTS) == set(contract.Start.__args__)  # type: ignore[attr-defined]
    assert set(_fields.CAPABILITIES) == set(contract.Capability.__args__)  # type: ignore[attr-defined]
    assert set(one().contract) == set(fields)


def test_the_contract_is_the_same_text_from_run_to_run() -> None:
    first = {"b": {**GOOD, "aliases": ["x", "y"]}, "a": GOOD}
    second = {"b": dict(reversed(first["b"].items())), "a": GOOD}

    assert _resolve.contract_json(resolve(first), 10) == _resolve.contract_json(resolve(second), 10)


def test_without_models_the_contract_is_empty_and_good() -> None:
    assert json.loads(_resolve.contract_json(resolve({}), 10))["engines"] == []


def test_a_model_lies_in_its_familys_folder() -> None:
    qwen, embed, small = (engine.contract["model_path"] for engine in on_spark({"qwen": {}, "embed": {}, "small": {}}))

    assert qwen == "/home/spark/ai/models/qwen3/qwen"
    assert embed == "/home/spark/ai/models/embeddings/embed"
    assert small == "/home/spark/ai/models/gemma/shared/gemma.gguf"


def test_ollamas_models_share_one_store_and_are_known_by_their_tag() -> None:
    helper = on_spark({"helper": {}})[0]

    assert helper.contract["model_path"] == "/home/spark/ai/models/ollama"
    assert helper.contract["tag"] == "qwen3:0.6b"


def test_the_need_is_that_of_all_parts() -> None:
    assert on_spark({"qwen": {}})[0].contract["memory_gib"] == 37


def test_the_floor_is_the_boxs_to_know() -> None:
    assert json.loads(_resolve.contract_json([], 9.95))["floor_gib"] == 9.95
