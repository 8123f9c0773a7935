# SPDX-License-Identifier: Apache-2.0
"""The modules images and images_info, run as Ansible runs them, in this process; their jobs too."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from registries import FakeDocker, Made, ScriptedRegistry, digest, layer

from ansible_collections.hearth.spark.plugins.action import images as action
from ansible_collections.hearth.spark.plugins.modules import images, images_info
from hearth import jobs
from hearth.images import book, context, dockerd, job, jobrun
from hearth.images.book import Book, Use
from hearth.images.request import Credential, Want

Run = Callable[..., dict[str, Any]]
FLAGS = "\n".join(f"--flag-{number}" for number in range(50))


class Box:
    """A registry and a Docker. Jobs are carried out at once, or, with ``held``, only begun."""

    def __init__(self, server: ScriptedRegistry, folder: Path) -> None:
        self.server = server
        self.docker = FakeDocker()
        self.folder = folder / "jobs"
        self.held = False
        self.begun: list[dict[str, Any]] = []
        self.program = folder / "docker"
        self.program.write_text(f"#!/bin/sh\n[ $1 = rm ] || printf '1.2.3\\n%s\\n' '{FLAGS}'\n")
        self.program.chmod(0o755)

    def begin(self, do: job.Do, **asked: Any) -> job.Job:
        self.begun.append(asked)
        made = job.Job(
            id="1",
            at="",
            do=do,
            images=tuple(asked.get("images", ())),
            names=tuple(asked.get("names", ())),
            folder=asked.get("where", ""),
            terms=asked["terms"],
        )
        job.JOBS.write(made, self.folder)
        if not self.held:
            jobrun.run(made, self.folder)
        return made

    def image(self, made: Made, *engines: str, flag: str = "--flag-1") -> dict[str, Any]:
        probe = [str(self.program), "run", "--name", "hearth-smoke", "{image}"]
        return {
            "name": self.name(made),
            "repository": "localhost/hearth/engine",
            "source": f"{self.server.host}/me/engine",
            "digest": made.digest,
            "engine": "llama.cpp",
            "users": [{"name": name, "flags": [flag]} for name in engines or ("scout",)],
            "version": [*probe, "--version"],
            "help": [[*probe, "--help"]],
        }

    @staticmethod
    def name(made: Made) -> str:
        return f"localhost/hearth/engine:{made.digest[7:19]}"


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(book, "PATH", tmp_path / "images.json")
    monkeypatch.setattr(book, "LOCK", tmp_path / "images.lock")
    with ScriptedRegistry() as server:
        made = Box(server, tmp_path)
        real = job.follow
        monkeypatch.setattr(job, "begin", made.begin)
        monkeypatch.setattr(job, "follow", lambda ident, **more: real(ident, **more, folder=made.folder))
        monkeypatch.setattr(jobs, "_main_pid", lambda unit: 1 if made.held else 0)
        for place in (dockerd, jobrun):
            monkeypatch.setattr(place, "Docker", lambda: made.docker)
        yield made


@pytest.fixture
def run(box: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the module with arguments and give back what it says."""
    monkeypatch.setattr(AnsibleModule, "warn", lambda *_: None)

    def call(*, check: bool = False, module: Any = images, **arguments: Any) -> dict[str, Any]:
        own = {"reserve_gib": 0} if module is images else {}
        complete = {**own, **arguments, "_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args(complete), pytest.raises(SystemExit):
            module.main()
        said: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return said

    return call


class TestPresent:
    def test_what_is_missing_is_brought_and_who_runs_from_it_is_known(self, run: Run, box: Box) -> None:
        made = box.server.add(layer(1))

        said = run(images=[box.image(made, "scout", "qwen")])

        assert said["changed"] is True
        assert said["switches"] == [
            {"model": name, "before": "", "after": box.name(made)} for name in ("scout", "qwen")
        ]
        assert said["bytes_fetched"] == len(box.server.blobs[made.layers[0]])
        assert book.read().models == {name: Use(image=box.name(made)) for name in ("scout", "qwen")}
        assert box.docker.image(box.name(made)) is not None

    def test_again_nothing_is_done_and_no_job_is_begun(self, run: Run, box: Box) -> None:
        wanted = box.image(box.server.add(layer(1)))
        run(images=[wanted])
        box.begun.clear()
        box.server.seen.clear()

        said = run(images=[wanted])

        assert (said["changed"], said["switches"], box.begun, box.server.seen) == (False, [], [], [])

    def test_another_image_keeps_the_one_before_as_the_way_back(self, run: Run, box: Box) -> None:
        old, new = box.server.add(layer(1)), box.server.add(layer(2))
        run(images=[box.image(old)])

        said = run(images=[box.image(new)])

        assert said["switches"] == [{"model": "scout", "before": box.name(old), "after": box.name(new)}]
        assert said["changes"][-1] == f"scout: {box.name(old)} -> {box.name(new)}"
        assert said["diff"]["before"] == f"scout: {box.name(old)}\n"
        assert said["known"]["models"] == {"scout": {"image": box.name(new), "previous": box.name(old), "held": ""}}

    def test_flags_are_not_told_back(self, run: Run, box: Box) -> None:
        said = run(images=[box.image(box.server.add(layer(1)))])

        assert "--flag-7" not in json.dumps(said["known"])

    def test_an_engine_that_is_gone_is_forgotten(self, run: Run, box: Box) -> None:
        made = box.server.add(layer(1))
        run(images=[box.image(made, "scout", "qwen")])

        run(images=[box.image(made, "qwen")])

        assert list(book.read().models) == ["qwen"]

    def test_in_check_mode_nothing_is_brought_and_all_is_told(self, run: Run, box: Box) -> None:
        made = box.server.add(layer(1))

        said = run(check=True, images=[box.image(made)])

        assert said["changed"] is True
        assert said["lines"] == [f"{box.server.host}/me/engine@{made.digest}: would be pulled"]
        assert said["switches"] == [{"model": "scout", "before": "", "after": box.name(made)}]
        assert (box.server.seen, box.begun, book.read()) == ([], [], Book())

    def test_what_may_not_be_brought_is_an_error_before_anything_else(self, run: Run, box: Box) -> None:
        said = run(images=[box.image(box.server.add(layer(1)))], pull=False)

        assert said["failed"] is True
        assert "images_pull is false" in said["msg"]
        assert box.begun == []

    def test_a_flag_that_the_image_does_not_know_is_an_error_and_the_old_use_stays(self, run: Run, box: Box) -> None:
        old, new = box.server.add(layer(1)), box.server.add(layer(2))
        run(images=[box.image(old)])

        said = run(images=[box.image(new, flag="--other")])

        assert said["failed"] is True
        assert "knows no flag --other, which scout is run with" in said["msg"]
        assert book.read().models == {"scout": Use(image=box.name(old))}

    def test_credentials_go_to_the_job_and_into_no_answer(self, run: Run, box: Box) -> None:
        said = run(
            images=[box.image(box.server.add(layer(1)))],
            registries=[{"host": "nvcr.io", "user": "$oauthtoken", "password": "s3cret"}],
        )

        assert box.begun[0]["credentials"] == [Credential(host="nvcr.io", user="$oauthtoken", password="s3cret")]
        assert "s3cret" not in json.dumps(said)

    def test_while_it_goes_on_it_is_told_how_to_go_on_waiting(self, run: Run, box: Box) -> None:
        box.held = True

        said = run(images=[box.image(box.server.add(layer(1)))], wait=0)

        assert (said["changed"], said["attach"], said["doing"]) == (False, "1/0", "beginning")

    def test_who_waits_again_gets_the_end(self, run: Run, box: Box) -> None:
        wanted = box.image(box.server.add(layer(1)))
        box.held = True
        run(images=[wanted], wait=0)
        box.held = False
        jobrun.run(job.read("1", box.folder), box.folder)

        said = run(images=[wanted], attach="1/0")

        assert said["changed"] is True
        assert list(book.read().models) == ["scout"]

    def test_a_job_that_failed_tells_what_was_had_before(self, run: Run, box: Box) -> None:
        good, gone = box.image(box.server.add(layer(1)), "a"), box.image(box.server.add(layer(2)), "b")
        gone["digest"] = digest(b"gone")

        said = run(images=[good, {**gone, "name": "localhost/hearth/engine:gone"}])

        assert said["failed"] is True
        assert [one["name"] for one in said["images"]] == [good["name"]]
        assert book.read().models == {}


class TestRecipes:
    def wanted(self) -> dict[str, Any]:
        return {
            "name": "localhost/hearth/mine:aaaaaaaaaaaa",
            "engine": "vllm",
            "build": "/here/mine",
            "recipe": "mine",
            "fingerprint": "a" * 64,
            "users": [{"name": "scout"}],
        }

    @pytest.fixture(autouse=True)
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(context.folder_of, "__defaults__", (tmp_path / "recipes",))
        monkeypatch.setattr(context.put, "__defaults__", (tmp_path / "recipes",))
        return tmp_path / "recipes"

    def test_one_that_the_box_has_not_got_is_asked_for(self, run: Run, box: Box) -> None:
        said = run(images=[self.wanted()])

        assert (said["changed"], said["lacking"]) == (False, ["/here/mine"])
        assert box.begun == []

    def test_one_that_came_is_put_where_it_is_built(self, run: Run, box: Box, root: Path) -> None:
        box.held = True
        files = {"Dockerfile": {"content": base64.b64encode(b"FROM x").decode(), "executable": False}}

        said = run(
            images=[self.wanted()],
            contexts=[{"recipe": "mine", "fingerprint": "a" * 64, "files": files}],
            wait=0,
        )

        assert "attach" in said
        want: Want = box.begun[0]["images"][0]
        assert Path(want.folder, "Dockerfile").read_bytes() == b"FROM x"
        assert Path(want.folder) == root / "mine" / ("a" * 12)

    def test_in_check_mode_none_is_asked_for(self, run: Run) -> None:
        assert run(check=True, images=[self.wanted()])["lines"] == [
            "/here/mine (localhost/hearth/mine:aaaaaaaaaaaa): would be built"
        ]


class TestOthers:
    def test_engines_are_taken_back(self, run: Run, box: Box) -> None:
        old, new = box.server.add(layer(1)), box.server.add(layer(2))
        run(images=[box.image(old)])
        run(images=[box.image(new)])

        foretold = run(check=True, state="rolled_back")
        assert book.read().models["scout"].held == ""
        said = run(state="rolled_back", models=["scout"])

        assert said["lines"] == foretold["lines"]
        assert said["known"]["models"]["scout"]["held"] == box.name(old)
        assert book.read().models["scout"] == Use(image=box.name(old), previous=box.name(new), held=box.name(old))

    def test_what_nobody_needs_is_pruned(self, run: Run, box: Box) -> None:
        made = box.server.add(layer(1))
        run(images=[box.image(made)])
        run(images=[])

        said = run(state="pruned")

        assert said["changed"] is True
        assert said["freed"] > 0
        assert box.docker.image(box.name(made)) is None
        assert run(state="pruned")["changed"] is False

    def test_what_engines_run_from_is_saved(self, run: Run, box: Box, tmp_path: Path) -> None:
        made = box.server.add(layer(1))
        run(images=[box.image(made)])
        folder = tmp_path / "usb"

        foretold = run(check=True, state="saved", folder=str(folder))
        assert not folder.exists()
        said = run(state="saved", folder=str(folder))

        assert foretold["changed"] is said["changed"] is True
        assert (folder / "index.json").exists()
        assert run(state="saved", folder=str(folder))["changed"] is False

    def test_a_folder_of_something_else_is_told(self, run: Run, tmp_path: Path) -> None:
        said = run(state="loaded", folder=str(tmp_path))

        assert said["failed"] is True
        assert "has no index.json" in said["msg"]

    def test_saving_needs_a_folder(self, run: Run) -> None:
        assert "folder" in run(state="saved")["msg"]

    def test_a_list_tells_what_there_is(self, run: Run, box: Box) -> None:
        made = box.server.add(layer(1))
        run(images=[box.image(made)])

        said = run(module=images_info)

        assert [(one["name"], one["used_by"], one["smoke"], one["version"]) for one in said["images"]] == [
            (box.name(made), ["scout"], "ok", "1.2.3")
        ]
        assert said["changed"] is False
        assert len(said["lines"]) == 2


class TestAction:
    """The plugin on the controller, with a box that answers as it is told."""

    @pytest.fixture
    def recipe(self, tmp_path: Path) -> Path:
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "Dockerfile").write_text("FROM scratch\n")
        (folder / "recipe.toml").write_text('title = "Mine"\n')
        (folder / "run").write_text("#!/bin/sh\n")
        (folder / "run").chmod(0o755)
        return folder

    def act(self, answers: list[dict[str, Any]], **arguments: Any) -> list[dict[str, Any]]:
        """Run it; returns the arguments of each run of the module."""
        task = SimpleNamespace(args=arguments, async_val=0, check_mode=False, no_log=False)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="x"), has_native_async=False)
        plugin = action.ActionModule(task, connection, *(mock.Mock() for _ in range(4)))
        with mock.patch.object(plugin, "_execute_module", side_effect=[dict(one) for one in answers]) as executed:
            plugin.run(None, {"inventory_hostname": "spark"})
        return [call.kwargs["module_args"] for call in executed.call_args_list]

    def test_a_recipe_is_named_and_not_sent_where_the_box_does_not_ask_for_it(self, recipe: Path) -> None:
        sent = self.act([{"changed": False}], images=[{"engine": "vllm", "build": str(recipe)}])

        assert len(sent) == 1
        assert sent[0]["images"][0]["recipe"] == "mine"
        assert len(sent[0]["images"][0]["fingerprint"]) == 64
        assert "contexts" not in sent[0]

    def test_a_recipe_that_the_box_lacks_is_sent_whole(self, recipe: Path) -> None:
        sent = self.act(
            [{"changed": False, "lacking": [str(recipe)]}, {"changed": True}],
            images=[{"engine": "vllm", "build": str(recipe)}, {"engine": "ollama"}],
        )

        files = sent[1]["contexts"][0]["files"]
        assert sorted(files) == ["Dockerfile", "recipe.toml", "run"]
        assert base64.b64decode(files["Dockerfile"]["content"]) == b"FROM scratch\n"
        assert (files["run"]["executable"], files["Dockerfile"]["executable"]) == (True, False)

    def test_a_relative_path_counts_from_the_folder_that_is_given(self, recipe: Path) -> None:
        sent = self.act(
            [{"changed": False}],
            images=[{"engine": "vllm", "build": "./mine"}],
            recipes=str(recipe.parent),
        )

        assert sent[0]["images"][0]["recipe"] == "mine"
        assert "recipes" not in sent[0]

    def test_a_folder_that_is_no_recipe_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(AnsibleActionFail, match="there is no such folder"):
            self.act([], images=[{"engine": "vllm", "build": str(tmp_path / "gone")}])

    def test_a_turn_of_waiting_reads_no_recipe(self, recipe: Path) -> None:
        arguments = {"images": [{"engine": "vllm", "build": str(recipe)}]}
        answers = [{"changed": False, "attach": "1/0", "doing": "building"}, {"changed": True}]

        with mock.patch.object(sys, "stdout"):
            sent = self.act(answers, **arguments)

        assert sent[1]["attach"] == "1/0"
        assert "fingerprint" not in sent[1]["images"][0]
