# SPDX-License-Identifier: Apache-2.0
"""_resolve: what a good model becomes: a port, a container's command line, a contract that the box half reads."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _resolve
from hearth import contract

HOST = _resolve.Host(
    models_dir="/home/spark/ai/models", cache_dir="/home/spark/ai/cache", uid=1000, gid=1001, gpu="none"
)
GPU = _resolve.Host(models_dir="/m", cache_dir="/c", uid=1000, gid=1001, gpu="nvidia.com/gpu=all")
IMAGE = f"registry.example:5000/llama.cpp@sha256:{'ab' * 32}"
GOOD: dict[str, Any] = {"engine": "llama.cpp", "image": IMAGE, "file": "qwen3/tiny/tiny.gguf", "memory_gib": 1}
ROOT = Path(__file__).resolve().parents[2]

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda name: name != "none")
# Ports near the first one collide; far ones do not.
PORTS = (st.integers(8078, 8085) | st.integers(1024, 65535)).filter(lambda port: port not in _resolve.RESERVED_PORTS)
MODELS = st.dictionaries(NAMES, st.none() | PORTS, max_size=8).filter(
    lambda models: len(explicit(models)) == len(set(explicit(models).values()))
)


def explicit(models: Mapping[str, int | None]) -> dict[str, int]:
    return {name: port for name, port in models.items() if port}


def one(host: _resolve.Host = HOST, **fields: Any) -> _resolve.Resolved:
    return _resolve.resolve({"scout": {**GOOD, **fields}}, host)[0]


def ports(models: Mapping[str, int | None]) -> dict[str, int]:
    resolved = _resolve.resolve({name: {**GOOD, "port": port} for name, port in models.items()}, HOST)
    return {engine.contract["name"]: engine.contract["port"] for engine in resolved}


def values(argv: tuple[str, ...], flag: str) -> list[str]:
    """What follows each occurrence of ``flag``."""
    return [after for before, after in itertools.pairwise(argv) if before == flag]


def server_argv(engine: _resolve.Resolved) -> tuple[str, ...]:
    return engine.docker[engine.docker.index(IMAGE) + 1 :]


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


def test_a_container_is_reached_on_the_loopback_only() -> None:
    assert values(one(port=8090).docker, "--publish") == ["127.0.0.1:8090:8090"]
    assert "--network" not in one().docker


def test_models_are_mounted_read_only_and_of_them_only_this_ones_folder() -> None:
    assert values(one().docker, "--mount") == [
        "type=bind,source=/home/spark/ai/models/qwen3/tiny,target=/models,readonly",
        "type=bind,source=/home/spark/ai/cache/llama.cpp,target=/cache",
    ]


@pytest.mark.parametrize("character", [chr(code) for code in range(33, 127) if chr(code) not in ",/"])
def test_every_character_that_a_file_may_have_leaves_the_mount_what_it_is(character: str) -> None:
    try:
        engine = one(file=f"a{character}b/tiny.gguf")
    except _resolve.ResolveError:
        return

    # docker reads the value of --mount as a line of CSV, in which a quote has to come first in its field.
    mount = values(engine.docker, "--mount")[0]
    assert mount.count('"') == 0
    assert next(csv.reader([mount], strict=True)) == [
        "type=bind",
        f"source=/home/spark/ai/models/a{character}b",
        "target=/models",
        "readonly",
    ]


def test_a_container_has_no_way_to_more_rights() -> None:
    docker = one().docker

    assert values(docker, "--user") == ["1000:1001"]
    assert values(docker, "--cap-drop") == ["ALL"]
    assert values(docker, "--security-opt") == ["no-new-privileges"]
    assert "--read-only" in docker
    assert "--privileged" not in docker


def test_a_start_never_waits_for_a_registry_and_leaves_no_container() -> None:
    assert values(one().docker, "--pull") == ["never"]
    assert "--rm" in one().docker


def test_the_key_comes_by_a_file_and_never_on_the_command_line() -> None:
    docker = one().docker

    assert values(docker, "--env-file") == ["/etc/hearth/secrets/engine.env"]
    assert not [word for word in docker if "api-key" in word.lower() or "API_KEY" in word]


def test_the_image_keeps_its_digest() -> None:
    assert one().docker.count(IMAGE) == 1


def test_without_a_gpu_no_device_is_asked_for() -> None:
    assert "--device" not in one().docker
    assert "--n-gpu-layers" not in one().docker


def test_with_a_gpu_the_device_is_given_by_its_cdi_name_and_all_layers_go_to_it() -> None:
    engine = one(GPU)

    assert values(engine.docker, "--device") == ["nvidia.com/gpu=all"]
    assert values(engine.docker, "--n-gpu-layers") == ["999"]


def test_the_server_serves_the_models_name_on_its_port() -> None:
    argv = server_argv(one(port=8090, context=512))

    assert values(argv, "--model") == ["/models/tiny.gguf"]
    assert values(argv, "--alias") == ["scout"]
    assert values(argv, "--port") == ["8090"]
    assert values(argv, "--ctx-size") == ["512"]


def test_a_model_for_embeddings_is_started_for_them() -> None:
    assert "--embeddings" in server_argv(one(capabilities=["embeddings"]))
    assert "--embeddings" not in server_argv(one())


@pytest.mark.parametrize(
    ("argv", "there", "gone"),
    [
        pytest.param({"--threads": 4}, ["--threads", "4"], [], id="a new flag"),
        pytest.param({"--ctx-size": 99}, ["--ctx-size", "99"], ["4096"], id="another value for one of ours"),
        pytest.param({"--metrics": False}, [], ["--metrics", "False"], id="false takes one of ours away"),
        pytest.param({"--mlock": True}, ["--mlock"], ["True"], id="true is a flag without a value"),
        pytest.param({"--rope-freq-scale": 0.5}, ["--rope-freq-scale", "0.5"], [], id="a number"),
        pytest.param({"--threads": 0}, ["--threads", "0"], [], id="zero is a value"),
        pytest.param({"--chat-template": ""}, ["--chat-template", ""], [], id="empty text is a value"),
    ],
)
def test_argv_has_the_last_word(argv: dict[str, Any], there: list[str], gone: list[str]) -> None:
    words = server_argv(one(argv=argv))

    assert [word for word in words if word in there] == there
    assert not set(words) & set(gone)


def test_a_crash_loop_falls_into_one_window() -> None:
    assert one(start_timeout=100).restart_window_s > 3 * 100


def test_defaults_are_those_that_the_role_documents() -> None:
    described = (ROOT / "roles/engines/defaults/main.yml").read_text(encoding="utf-8")
    documented = yaml.safe_load(described)

    assert documented["engines_models"] == {}
    assert [field for field in _resolve.FIELDS if field not in described] == []


@given(models=MODELS)
def test_the_contract_is_read_by_the_box_half(models: dict[str, int | None]) -> None:
    resolved = _resolve.resolve({name: {**GOOD, "port": port} for name, port in models.items()}, HOST)

    known = msgspec.json.decode(_resolve.contract_json(resolved), type=contract.Contract)

    assert [engine.name for engine in known.engines] == list(models)
    assert known.schema == contract.SCHEMA == _resolve.SCHEMA
    assert all(known.find(engine.name).unit == f"hearth-engine-{engine.name}.service" for engine in known.engines)


def test_both_halves_know_the_same_words() -> None:
    fields = contract.Engine.__annotations__

    assert set(_resolve.FIRST_PORT) <= set(contract.EngineKind.__args__)  # type: ignore[attr-defined]
    assert set(_resolve.LANES) == set(contract.Lane.__args__)  # type: ignore[attr-defined]
    assert set(_resolve.STARTS) == set(contract.Start.__args__)  # type: ignore[attr-defined]
    assert set(_resolve.CAPABILITIES) == set(contract.Capability.__args__)  # type: ignore[attr-defined]
    assert set(one().contract) == set(fields)


def test_the_contract_is_the_same_text_from_run_to_run() -> None:
    first = {"b": {**GOOD, "aliases": ["x", "y"]}, "a": GOOD}
    second = {"b": dict(reversed(first["b"].items())), "a": GOOD}

    assert _resolve.contract_json(_resolve.resolve(first, HOST)) == _resolve.contract_json(
        _resolve.resolve(second, HOST)
    )


def test_without_models_the_contract_is_empty_and_good() -> None:
    assert json.loads(_resolve.contract_json(_resolve.resolve({}, HOST)))["engines"] == []
