# SPDX-License-Identifier: Apache-2.0
"""_docker: how a container is run: confined, on loopback, with what GB10 needs."""

from __future__ import annotations

import csv
import dataclasses
from typing import Any

import pytest
from resolving import GOOD, GPU_PLACE, IMAGE, SPARK, engine_argv, on_spark, one, resolve, values

from ansible_collections.hearth.spark.plugins.module_utils import _complete

PYTHON_ENGINES = ["qwen", "embed"]


def run(name: str, **fields: Any) -> tuple[str, ...]:
    return on_spark({name: fields})[0].docker


def env(docker: tuple[str, ...]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in values(docker, "--env"))


def test_a_container_is_reached_on_the_loopback_only() -> None:
    assert values(one(port=8090).docker, "--publish") == ["127.0.0.1:8090:8090"]
    assert "--network" not in one().docker


def test_models_are_mounted_read_only_and_of_them_only_this_ones_folder() -> None:
    assert values(one().docker, "--mount") == [
        "type=bind,source=/home/spark/ai/models/tiny/scout,target=/models,readonly",
        "type=bind,source=/home/spark/ai/cache/llama.cpp,target=/cache",
    ]


@pytest.mark.parametrize("character", [chr(code) for code in range(33, 127) if chr(code) not in ",/"])
def test_every_character_that_a_mount_may_have_leaves_it_what_it_is(character: str) -> None:
    try:
        engine = one(mounts=[{"source": f"a{character}b", "target": "/c"}])
    except _complete.ResolveError:
        return

    # docker reads the value of --mount as a line of CSV, in which a quote has to come first in its field.
    mount = values(engine.docker, "--mount")[-1]
    assert mount.count('"') == 0
    assert next(csv.reader([mount], strict=True)) == [
        "type=bind",
        f"source=/home/spark/ai/a{character}b",
        "target=/c",
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


@pytest.mark.parametrize("name", ["qwen", "helper"])
def test_an_engine_that_could_not_use_the_key_does_not_get_it(name: str) -> None:
    assert "--env-file" not in run(name)


def test_the_image_has_its_name_on_the_box_and_where_it_came_from_is_told() -> None:
    docker = one().docker

    assert docker.count("localhost/hearth/llama.cpp:abababababab") == 1
    assert f"hearth.image={IMAGE}" in values(docker, "--label")


def test_without_a_gpu_no_device_is_asked_for() -> None:
    assert "--device" not in one().docker
    assert "--n-gpu-layers" not in one().docker


def test_with_a_gpu_the_device_is_given_by_its_cdi_name_and_all_layers_go_to_it() -> None:
    engine = on_spark({"scout": GOOD})[0]

    assert values(engine.docker, "--device") == ["nvidia.com/gpu=all"]
    assert values(engine.docker, "--n-gpu-layers") == ["999"]


def test_a_docker_without_cdi_gives_the_gpu_by_the_toolkits_hook() -> None:
    place = dataclasses.replace(GPU_PLACE, gpu="gpus=all")
    docker = resolve({"scout": GOOD}, machine=SPARK, place=place)[0].docker

    assert values(docker, "--gpus") == ["all"]
    assert "--device" not in docker
    assert values(docker, "--ulimit") == ["memlock=-1"]


def test_the_server_serves_the_models_name_on_its_port() -> None:
    argv = engine_argv(one(port=8090, context=512))

    assert values(argv, "--model") == ["/models/tiny.gguf"]
    assert values(argv, "--alias") == ["scout"]
    assert values(argv, "--port") == ["8090"]
    assert values(argv, "--ctx-size") == ["512"]


def test_a_model_for_embeddings_is_started_for_them() -> None:
    assert "--embeddings" in engine_argv(one(capabilities=["embeddings"]))
    assert "--embeddings" not in engine_argv(one())


@pytest.mark.parametrize(
    ("argv", "there", "gone"),
    [
        pytest.param({"--threads": 4}, ["--threads", "4"], [], id="a new flag"),
        pytest.param({"--no-webui": False, "--webui": True}, ["--webui"], ["--no-webui"], id="another for one of ours"),
        pytest.param({"--metrics": False}, [], ["--metrics", "False"], id="false takes one of ours away"),
        pytest.param({"--mlock": True}, ["--mlock"], ["True"], id="true is a flag without a value"),
        pytest.param({"--rope-freq-scale": 0.5}, ["--rope-freq-scale", "0.5"], [], id="a number"),
        pytest.param({"--threads": 0}, ["--threads", "0"], [], id="zero is a value"),
        pytest.param({"--chat-template": ""}, ["--chat-template", ""], [], id="empty text is a value"),
    ],
)
def test_argv_has_the_last_word(argv: dict[str, Any], there: list[str], gone: list[str]) -> None:
    words = engine_argv(one(argv=argv))

    assert [word for word in words if word in there] == there
    assert not set(words) & set(gone)


def test_vllm_is_served_whatever_the_images_entrypoint_is() -> None:
    docker = run("embed")

    assert values(docker, "--entrypoint") == ["vllm"]
    assert engine_argv(on_spark({"embed": {}})[0])[:2] == ("serve", "/models")


def test_sglang_is_served_whatever_the_images_entrypoint_is() -> None:
    assert values(run("qwen"), "--entrypoint") == ["python3"]
    assert engine_argv(on_spark({"qwen": {}})[0])[:4] == ("-m", "sglang.launch_server", "--model-path", "/models")


def test_an_entrypoint_that_prepares_the_engine_is_kept() -> None:
    engine = on_spark({"embed": {}}, images={"vllm": {"keep_entrypoint": True}})[0]

    assert "--entrypoint" not in engine.docker
    assert engine_argv(engine)[:3] == ("vllm", "serve", "/models")


def test_ollama_serves_on_its_port_and_writes_into_its_store_only() -> None:
    docker = run("helper")

    assert docker[-2:] == ("ollama/ollama:1", "serve")
    assert env(docker)["OLLAMA_HOST"] == "0.0.0.0:11434"
    assert values(docker, "--mount") == [
        "type=bind,source=/home/spark/ai/models/ollama,target=/models",
        "type=bind,source=/home/spark/ai/cache/ollama,target=/cache",
    ]


@pytest.mark.parametrize("name", PYTHON_ENGINES)
def test_python_engines_share_tensors_and_leave_no_children(name: str) -> None:
    assert values(run(name), "--shm-size") == ["16g"]
    assert "--init" in run(name)


@pytest.mark.parametrize("name", PYTHON_ENGINES)
def test_kernels_that_are_compiled_at_run_time_can_be_loaded(name: str) -> None:
    assert values(run(name), "--tmpfs") == ["/tmp:rw,exec,nosuid,nodev"]  # noqa: S108 - the container's own


@pytest.mark.parametrize("name", PYTHON_ENGINES)
def test_what_was_compiled_stays_for_the_next_start(name: str) -> None:
    assert {key: value for key, value in env(run(name)).items() if value.startswith("/cache")} == {
        "HOME": "/cache",
        "XDG_CACHE_HOME": "/cache",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "TRITON_CACHE_DIR": "/cache/triton",
    }


@pytest.mark.parametrize("name", PYTHON_ENGINES)
def test_nothing_is_asked_of_the_hub_and_nothing_reported(name: str) -> None:
    said = env(run(name))

    assert (said["HF_HUB_OFFLINE"], said["TRANSFORMERS_OFFLINE"], said["DO_NOT_TRACK"]) == ("1", "1", "1")


@pytest.mark.parametrize("name", PYTHON_ENGINES)
def test_an_assembler_that_knows_gb10_is_named_where_there_is_a_gpu(name: str) -> None:
    assert env(run(name))["TRITON_PTXAS_PATH"] == "/usr/local/cuda/bin/ptxas"


def test_limits_of_the_host_are_raised_with_a_gpu_only() -> None:
    assert values(run("qwen"), "--ulimit") == ["memlock=-1"]
    assert "--ulimit" not in one().docker


def test_without_a_gpu_vllm_is_told_its_cache_by_the_environment() -> None:
    vllm = {
        "engine": "vllm",
        "image": "registry.example/vllm:1",
        "family": "x",
        "memory_gib": {"weights": 1, "kv_cache": 1.5},
    }
    engine = resolve({"mine": vllm})[0]

    assert env(engine.docker)["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert "--gpu-memory-utilization" not in engine.docker


def test_a_models_own_environment_wins() -> None:
    said = env(run("qwen", env={"B": "3", "HF_HUB_OFFLINE": "0"}))

    assert (said["A"], said["B"], said["HF_HUB_OFFLINE"]) == ("1", "3", "0")


def test_limits_for_the_processor_case() -> None:
    docker = one(limits={"cpus": 4, "memory_gib": 8}).docker

    assert values(docker, "--cpus") == ["4"]
    assert values(docker, "--memory") == ["8192m"]
    assert values(docker, "--memory-swap") == ["8192m"]


def test_no_limits_where_none_are_named() -> None:
    assert not {"--cpus", "--memory", "--memory-swap"} & set(one().docker)


def test_a_mount_is_below_the_tree_or_absolute_and_read_only_where_nothing_else_is_said() -> None:
    docker = one(
        mounts=[
            {"source": "configs/vllm", "target": "/configs"},
            {"source": "/data/adapters", "target": "/adapters", "write": True},
        ]
    ).docker

    assert values(docker, "--mount")[2:] == [
        "type=bind,source=/home/spark/ai/configs/vllm,target=/configs,readonly",
        "type=bind,source=/data/adapters,target=/adapters",
    ]
