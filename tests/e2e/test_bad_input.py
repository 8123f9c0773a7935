# SPDX-License-Identifier: Apache-2.0
"""Wrong input fails early, with one sentence, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from boxes import Box

Models = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _as_found(box: Box) -> Iterator[None]:
    yield
    box.write_inventory()


def _with(name: str, **fields: Any) -> Callable[[Models], Models]:
    return lambda models: {**models, name: {**models.get(name, {}), **fields}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_with("tiny-a", lane="fast"), "engines_models.tiny-a.lane: must be one of main, utility, is 'fast'"),
        (_with("tiny-a", contxt=5), "engines_models.tiny-a.contxt: unknown field; known: aliases, argv,"),
        (_with("tiny-a", file="gone.gguf"), "there is no /home/spark/ai/models/tiny/tiny-a/gone.gguf"),
        (_with("tiny-b", start="boot"), "tiny-a and tiny-b both have start: boot"),
        (_with("tiny-b", aliases=["tiny-a"]), "engines_models.tiny-b.aliases: 'tiny-a' is already a name of tiny-a"),
        (_with("tiny-b", port=8080), "engines_models"),
        (_with("tinny", lane="main"), "engines_models.tinny: is not in the catalog. A model of your own needs engine,"),
        (_with("qwen3-32b-nvfp", start="manual"), "engines_models.qwen3-32b-nvfp: is not in the catalog; did you mean"),
        (_with("qwen3.8-flash-next-2x"), "engines_models.qwen3.8-flash-next-2x.nodes: needs 2 Sparks, and this is one"),
        (_with("nemotron-nano-12b-v2-vl"), "engines_models.nemotron-nano-12b-v2-vl.status: is broken: Did not work"),
        (_with("tiny-b", memory_gib=500), "engines_models.tiny-b.memory_gib: needs 500 GiB of the host's"),
        (_with("Tiny", engine="llama.cpp"), "engines_models.Tiny: a model's name is made of a-z"),
    ],
    ids=[
        "value",
        "field",
        "file",
        "two defaults",
        "alias",
        "port twice",
        "unknown",
        "misspelt",
        "too many Sparks",
        "broken",
        "too large",
        "name",
    ],
)
def test_a_wrong_model_is_named(box: Box, change: Callable[[Models], Models], sentence: str) -> None:
    models = box.models()
    if sentence == "engines_models":
        models["tiny-a"]["port"] = 8080
        sentence = "engines_models.tiny-b.port: 8080 is already the port of tiny-a"
    box.write_inventory(engines_models=change(models))

    _refused(box, sentence)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"engines_modles": {}}, "engines_modles: unknown variable; did you mean engines_models?"),
        ({"engine_models": {}}, "engine_models: unknown variable; did you mean engines_models?"),
        ({"engines_gpu": "all"}, "engines_gpu: must be auto, none, a CDI name such as nvidia.com/gpu=all, or gpus=all"),
        ({"layout_user": "nobody-here"}, "layout_user: there is no user nobody-here on this box"),
        ({"layout_user": "root"}, "layout_user: root is not to own ~/ai"),
        ({"layout_directories_extra": ["../etc"]}, "layout_directories: ../etc must be below ~/ai"),
        ({"host_supported_architectures": ["riscv64"]}, "Hearth's images and packages exist for riscv64"),
        ({"images_pull": "perhaps"}, "images_pull"),
        ({"host_guards": True, "host_sysctl": {"vm.swappiness": 0}}, "host_sysctl.vm.swappiness: 0 keeps"),
    ],
    ids=["misspelt", "misspelt role", "gpu", "user", "root", "folder", "architecture", "type", "swappiness"],
)
def test_a_wrong_variable_is_named(box: Box, variables: dict[str, Any], sentence: str) -> None:
    box.write_inventory(**variables)

    _refused(box, sentence)


def test_an_operating_system_it_was_not_made_for_is_refused(box: Box) -> None:
    box.out("cp --remove-destination /etc/os-release /etc/os-release.kept; sed -i s/^ID=.*/ID=arch/ /etc/os-release")
    try:
        _refused(box, "Hearth supports DGX OS, debian 12 and ubuntu 24.04 or newer")
    finally:
        box.out("mv /etc/os-release.kept /etc/os-release")


def test_a_port_that_a_stranger_has_is_named_with_the_stranger(box: Box) -> None:
    box.out("systemd-run --unit=stranger python3 -m http.server 8081 --bind 127.0.0.1 && sleep 1")
    try:
        _refused(box, "tiny-b's port 8081 is taken by python3: stop that program, or give the model another port")
    finally:
        box.out("systemctl stop stranger")


@pytest.mark.thorough
def test_a_registry_that_does_not_answer_is_named_and_the_model_goes_on(box: Box) -> None:
    models = box.models()
    models["tiny-b"]["image"] = "registry.nowhere.test:5000/llama.cpp:1"
    box.write_inventory(engines_models=models)

    run = box.play("site.yml")

    assert run.code != 0
    assert "the way to registry.nowhere.test:5000 broke" in run.flat
    assert "ask again later" in run.flat
    assert box.active() == ["tiny-a"]


@pytest.mark.thorough
def test_a_missing_image_is_an_error_where_pulling_is_off(box: Box) -> None:
    models = box.models()
    models["tiny-b"]["image"] = "registry.nowhere.test:5000/llama.cpp:1"
    box.write_inventory(engines_models=models, images_pull=False)

    _refused(box, "the box has no image registry.nowhere.test:5000/llama.cpp:1, and images_pull is false")


@pytest.mark.thorough
def test_docker_that_is_stopped_is_started_again(box: Box) -> None:
    box.out("systemctl stop docker.service docker.socket")

    run = box.ok("site.yml")

    assert run.changed_tasks
    assert box.active() == ["tiny-a"]


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        pytest.param("{", ["/etc/docker/daemon.json is no JSON: line 2, column 1"], id="no JSON"),
        pytest.param(
            '{"hosts": ["tcp://127.0.0.1:2375"]}',
            ["unable to configure the Docker daemon with file /etc/docker/daemon.json", "which are back ("],
            id="at odds with the unit",
        ),
    ],
)
@pytest.mark.thorough
def test_docker_that_cannot_start_is_said(box: Box, settings: str, sentences: list[str]) -> None:
    box.out(f"systemctl stop docker.service docker.socket && echo '{settings}' >/etc/docker/daemon.json")
    try:
        run = box.play("site.yml")
        after = box.out("cat /etc/docker/daemon.json")
    finally:
        box.out("rm /etc/docker/daemon.json*; systemctl reset-failed docker; systemctl start docker")

    assert run.code != 0
    assert [sentence for sentence in sentences if sentence not in run.flat] == [], run.output[-3000:]
    assert after == settings
    box.ok("site.yml")


def test_a_module_says_which_play_makes_the_runtime(box: Box) -> None:
    box.out("mv /opt/hearth/venv /opt/hearth/venv.kept")
    try:
        run = box.play("switch.yml", "-e", "model=tiny-a", "-e", "ansible_python_interpreter=/usr/bin/python3")
    finally:
        box.out("mv /opt/hearth/venv.kept /opt/hearth/venv")

    assert run.code != 0
    assert "run site.yml against this box first" in run.flat


def _refused(box: Box, sentence: str) -> None:
    run = box.play("site.yml")
    assert run.code != 0, run.output[-2000:]
    assert sentence in run.flat, run.output[-3000:]
    assert run.count("changed") == 0, run.changed_tasks
    assert box.active() == ["tiny-a"]
