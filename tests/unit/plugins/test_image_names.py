# SPDX-License-Identifier: Apache-2.0
"""_images: what images are called on the box, who is held at an earlier one, and how they are tried out."""

from __future__ import annotations

from typing import Any

import pytest
from resolving import CATALOG, DIGEST, GOOD, GPU_PLACE, HOST, PLACE, SPARK, values

from ansible_collections.hearth.spark.plugins.module_utils import _docker, _images, _resolve

NAME = "localhost/hearth/llama.cpp:abababababab"
OLDER = "localhost/hearth/llama.cpp:000000000000"
TAG = "ghcr.io/ggml-org/llama.cpp:server"


def known(**parts: Any) -> _images.Known:
    return _images.Known.of({"images": {}, "models": {}, "pins": {}, **parts})


def older(**fields: Any) -> dict[str, Any]:
    return {OLDER: {"engine": "llama.cpp", "keep_entrypoint": False, "source": "example/older@sha256:1", **fields}}


def engines(models: dict[str, Any], box: _images.Known | None = None) -> list[_resolve.Resolved]:
    return _resolve.resolve(models, {}, CATALOG, HOST, PLACE, known=box or known())


def image(box: _images.Known | None = None, **fields: Any) -> str:
    """What a model of llama.cpp runs from."""
    name: str = engines({"scout": {**GOOD, **fields}}, box)[0].contract["image"]
    return name


def wants(models: dict[str, Any], box: _images.Known | None = None) -> list[dict[str, Any]]:
    return _resolve.images(engines(models, box), PLACE)


def on_spark(models: dict[str, Any]) -> list[dict[str, Any]]:
    return _resolve.images(_resolve.resolve(models, {}, CATALOG, SPARK, GPU_PLACE), GPU_PLACE)


class TestNames:
    def test_an_image_is_called_by_its_last_part_and_its_digest(self) -> None:
        assert image() == NAME

    @pytest.mark.parametrize(
        ("reference", "name"),
        [
            ("nvcr.io/nvidia/vllm:26.09-py3", "localhost/hearth/vllm"),
            ("localhost:5000/My.Engine", "localhost/hearth/my.engine"),
            ("ollama", "localhost/hearth/ollama"),
        ],
    )
    def test_registry_tag_and_digest_are_no_part_of_it(self, reference: str, name: str) -> None:
        assert _images.repository(reference) == _images.repository(f"{reference}@{DIGEST}") == name

    def test_a_tag_that_was_never_asked_for_is_its_own_name(self) -> None:
        assert image(image=TAG) == TAG

    def test_a_tag_means_what_it_meant_when_it_was_asked_for_last(self) -> None:
        assert image(known(pins={TAG: NAME}), image=TAG) == NAME

    def test_a_pin_is_for_its_tag_alone(self) -> None:
        assert image(known(pins={f"{TAG}-cuda": NAME}), image=TAG) == TAG

    def test_a_digest_says_more_than_a_pin(self) -> None:
        assert image(known(pins={"registry.example:5000/llama.cpp": OLDER})) == NAME


class TestHolds:
    HELD = known(images=older(), models={"scout": {"image": OLDER, "previous": NAME, "held": OLDER}})

    def test_a_model_that_was_taken_back_runs_from_the_earlier_image(self) -> None:
        assert image(self.HELD) == OLDER

    def test_others_run_from_what_they_name(self) -> None:
        found = engines({"scout": GOOD, "other": {**GOOD, "file": "b.gguf"}}, self.HELD)

        assert [engine.contract["image"] for engine in found] == [OLDER, NAME]

    def test_it_is_told_who_is_held_and_what_would_be_otherwise(self) -> None:
        said = _resolve.held(engines({"scout": GOOD}, self.HELD))

        assert len(said) == 1
        assert said[0].startswith(f"scout runs from {OLDER}, ")
        assert f"in place of {NAME};" in said[0]

    def test_without_holds_it_goes_forward(self) -> None:
        box = {"images": older(), "models": {"scout": {"image": OLDER, "held": OLDER}}}

        assert image(_images.Known.of(box, holds=False)) == NAME

    def test_an_image_of_another_engine_is_no_way_back(self) -> None:
        box = known(images=older(engine="vllm"), models=self.HELD.models)

        assert image(box) == NAME

    def test_an_image_that_is_not_known_any_more_is_none_either(self) -> None:
        assert image(known(models=self.HELD.models)) == NAME

    def test_its_program_is_run_as_that_image_wants_it(self) -> None:
        models = {"embed": {"memory_gib": {"weights": 1, "kv_cache": 1, "overhead": 1}}}
        box = known(
            images=older(engine="vllm", keep_entrypoint=True), models={"embed": {"image": OLDER, "held": OLDER}}
        )

        arm = _resolve.resolve(models, {}, CATALOG, SPARK, PLACE, known=box)[0]

        assert "--entrypoint" not in arm.docker
        assert arm.docker[arm.docker.index(OLDER) :][1:3] == ("vllm", "serve")


class TestWants:
    def test_an_image_is_wanted_once_and_by_all_who_run_from_it(self) -> None:
        found = wants({"a": GOOD, "b": {**GOOD, "file": "b.gguf"}})

        assert [(one["name"], [user["name"] for user in one["users"]]) for one in found] == [(NAME, ["a", "b"])]

    def test_it_is_told_where_it_comes_from(self) -> None:
        found = wants({"a": GOOD})[0]

        assert found["source"] == "registry.example:5000/llama.cpp"
        assert found["digest"] == f"sha256:{'ab' * 32}"
        assert found["repository"] == "localhost/hearth/llama.cpp"

    def test_a_tag_that_was_never_asked_for_has_no_name_yet(self) -> None:
        assert [(one["name"], one["source"]) for one in wants({"a": {**GOOD, "image": TAG}})] == [("", TAG)]

    def test_an_earlier_image_is_taken_from_the_box_as_it_is(self) -> None:
        found = wants({"scout": GOOD}, TestHolds.HELD)[0]

        assert (found["name"], found["build"]) == (OLDER, "")

    def test_flags_are_those_of_the_command_line(self) -> None:
        found = wants({"a": {**GOOD, "argv": {"--flash-attn": "on", "--no-webui": False}}})[0]

        flags = found["users"][0]["flags"]
        assert "--flash-attn" in flags
        assert "--ctx-size" in flags
        assert "--no-webui" not in flags

    def test_what_only_a_fork_knows_is_not_asked_of_its_help(self) -> None:
        catalog_image = {"engine": "vllm", "ref": "me/fork:1", "architectures": [], "fork": "mine"}
        model = {"argv": {"--special": True}, "fork_flags": ["--special"], "image": "fork"}

        found = _resolve.images(
            _resolve.resolve({"embed": model}, {"fork": catalog_image}, CATALOG, SPARK, GPU_PLACE), GPU_PLACE
        )[0]

        assert "--special" not in found["users"][0]["flags"]
        assert "--max-model-len" in found["users"][0]["flags"]


class TestTrials:
    """How an image is made to tell its version and its flags."""

    def command(self, found: dict[str, Any]) -> list[str]:
        version: list[str] = found["version"]
        return version

    def test_it_is_confined_as_its_engine_is_and_has_no_network(self) -> None:
        command = tuple(self.command(wants({"a": GOOD})[0]))
        engine = engines({"a": GOOD})[0].docker

        for flag in ("--user", "--cap-drop", "--security-opt", "--pull"):
            assert values(command, flag) == values(engine, flag)
        assert "--read-only" in command
        assert values(command, "--network") == ["none"]

    def test_nothing_of_the_box_is_mounted_and_no_key_is_given(self) -> None:
        command = self.command(wants({"a": GOOD})[0])

        assert "--mount" not in command
        assert "--env-file" not in command
        assert "--publish" not in command

    def test_it_sees_the_gpu_that_its_engine_will_have(self) -> None:
        command = tuple(self.command(on_spark({"embed": {}})[0]))

        assert values(command, "--device") == ["nvidia.com/gpu=all"]

    def test_its_name_is_left_open(self) -> None:
        assert self.command(wants({"a": GOOD})[0])[-2:] == [_images.IMAGE, "--version"]

    @pytest.mark.parametrize(
        ("model", "version", "helps"),
        [
            ("embed", ["--entrypoint", "vllm", "{image}", "--version"], [["serve", "--help=all"], ["serve", "--help"]]),
            ("small", ["{image}", "--version"], [["{image}", "--help"]]),
            ("helper", ["{image}", "--version"], []),
        ],
    )
    def test_each_engine_is_asked_in_its_own_way(self, model: str, version: list[str], helps: list[list[str]]) -> None:
        found = on_spark({model: {}})[0]

        assert found["version"][-len(version) :] == version
        assert [command[-len(words) :] for command, words in zip(found["help"], helps, strict=True)] == helps

    def test_an_entrypoint_of_its_own_runs_before_the_program(self) -> None:
        keeps = {"engine": "vllm", "ref": "me/vllm:1", "architectures": [], "keep_entrypoint": True}
        done = _resolve.resolve({"embed": {"image": "mine"}}, {"mine": keeps}, CATALOG, SPARK, GPU_PLACE)

        command = _resolve.images(done, GPU_PLACE)[0]["version"]

        assert command[-3:] == ["{image}", "vllm", "--version"]
        assert "--entrypoint" not in command

    def test_the_gpu_may_come_by_the_hook(self) -> None:
        place = _docker.Place(root="/ai", uid=1, gid=1, user="me", gpu="gpus=all", ulimits=())

        command = tuple(_resolve.images(_resolve.resolve({"a": GOOD}, {}, CATALOG, HOST, place), place)[0]["version"])

        assert values(command, "--gpus") == ["all"]
