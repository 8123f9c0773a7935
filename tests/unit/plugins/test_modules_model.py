# SPDX-License-Identifier: Apache-2.0
"""The module model, run as Ansible runs it, in this process; its job too. Models come from folders of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from modelruns import Downloads, Run

from ansible_collections.hearth.spark.plugins.modules import model
from hearth import contract
from hearth.download import job, jobrun
from hearth.engines import units

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(run_model: Run) -> Run:
    return run_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "f" / "m"


@pytest.fixture
def engine(
    make_engine: MakeEngine, make_state: MakeState, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Have an engine that loads the model, in a state of systemd."""

    def have(active: str) -> None:
        made = make_engine("scout", model_path=str(folder / "weights"))
        known = contract.Contract(schema=contract.SCHEMA, key_file="/k", floor_gib=4, engines=(made,))
        contract.PATH.write_bytes(msgspec.json.encode(known))
        monkeypatch.setattr(
            units, "read_states", lambda names: {name: make_state(made, active=active) for name in names}
        )

    return have


class TestPresent:
    def test_check_mode_foretells_the_real_run_and_the_second_one_changes_nothing(
        self, run: Run, source: Path, folder: Path
    ) -> None:
        foretold = run(check=True, path=str(folder), source=str(source))
        assert not folder.exists()
        real = run(path=str(folder), source=str(source))
        again = run(path=str(folder), source=str(source))

        outcome = ("changed", "bytes_total", "diff", "commit")
        assert [foretold[key] for key in outcome] == [real[key] for key in outcome]
        assert real["diff"] == {"before": f"{folder}: nothing\n", "after": f"{folder}: 2 files, 1002 bytes\n"}
        assert real["lines"][0].startswith("f/m: 1002 bytes came in 0 s")
        assert (again["changed"], again["diff"]) == (False, {"before": "", "after": ""})

    def test_where_nothing_is_to_do_no_job_is_begun(
        self, run: Run, source: Path, folder: Path, downloads: Downloads
    ) -> None:
        run(path=str(folder), source=str(source))
        run(path=str(folder), source=str(source))

        assert len(downloads.asked) == 1

    def test_to_verify_is_a_job_also_where_all_is_there(
        self, run: Run, source: Path, folder: Path, downloads: Downloads
    ) -> None:
        run(path=str(folder), source=str(source))

        said = run(path=str(folder), source=str(source), state="verified")

        assert [one[0] for one in downloads.asked] == ["present", "verified"]
        assert (said["changed"], said["lines"]) == (False, ["f/m is whole (2 files, 1002 bytes)"])

    def test_several_models_are_one_job(self, run: Run, source: Path, folder: Path, downloads: Downloads) -> None:
        models = [{"path": f"{folder}{number}", "source": str(source)} for number in range(2)]

        said = run(models=models)

        assert [one["path"] for one in said["models"]] == [f"{folder}0", f"{folder}1"]
        assert said["bytes_total"] == 2004
        assert "commit" not in said
        assert len(downloads.asked) == 1

    def test_no_models_are_nothing_to_do(self, run: Run, downloads: Downloads) -> None:
        assert not run(models=[])["changed"]
        assert downloads.asked == []

    def test_of_several_the_failure_has_what_became_of_each(self, run: Run, source: Path, folder: Path) -> None:
        said = run(models=[{"path": f"{folder}0", "source": "/no/such"}, {"path": str(folder), "source": str(source)}])

        assert said["failed"]
        assert said["msg"].startswith("the folder /no/such cannot be read")
        assert [bool(one["msg"]) for one in said["models"]] == [True, False]
        assert said["changed"]

    def test_arguments_reach_the_download(self, run: Run, downloads: Downloads, folder: Path) -> None:
        downloads.held = True
        extra = {"url": "http://x/y", "path": "y", "sha256": "0" * 64}

        run(
            wait=0,
            path=str(folder),
            repo="a/b",
            revision="v1",
            include=["*.gguf"],
            exclude=["*-f16*"],
            extra_files=[extra],
            endpoint="http://hub",
            token="hf_x",
            unreachable="keep",
            reserve_gib=2,
            owner="root",
            workers=3,
            xet=False,
        )

        do, (request,), keep, token = downloads.asked[0]
        assert (do, keep, token) == ("present", True, "hf_x")
        assert (request.repo, request.revision, request.include, request.exclude) == (
            "a/b",
            "v1",
            ("*.gguf",),
            ("*-f16*",),
        )
        assert request.extra_files[0].path == "y"
        assert (request.endpoint, request.reserve_bytes, request.uid, request.gid) == ("http://hub", 2 * 2**30, 0, 0)
        assert (request.workers, request.xet, request.token_file) == (3, False, "")

    def test_an_owner_that_the_box_does_not_know_is_a_sentence(self, run: Run, folder: Path) -> None:
        assert "no such user or group" in run(path=str(folder), repo="a/b", owner="nobody-of-this-name")["msg"]

    def test_an_engine_that_runs_with_the_old_files_is_told(
        self, run: Run, source: Path, folder: Path, engine: Callable[..., None]
    ) -> None:
        run(path=str(folder), source=str(source))
        engine("active")
        (source / "config.json").write_text("{ }")

        said = run(path=str(folder), source=str(source))

        assert said["changed"]
        assert said["warnings"] == [f"scout runs with the old files of {folder} until it is started again"]


class TestAbsent:
    def test_check_mode_foretells_the_real_run_and_the_second_one_changes_nothing(
        self, run: Run, source: Path, folder: Path
    ) -> None:
        run(path=str(folder), source=str(source))

        foretold = run(check=True, path=str(folder), state="absent")
        assert folder.exists()
        real = run(path=str(folder), state="absent")

        assert (
            foretold["diff"]
            == real["diff"]
            == {
                "before": f"{folder}: 2 files, 1002 bytes\n",
                "after": f"{folder}: nothing\n",
            }
        )
        assert not folder.exists()
        assert not run(path=str(folder), state="absent")["changed"]

    @pytest.mark.parametrize("check", [True, False])
    @pytest.mark.parametrize("active", ["active", "activating", "deactivating"])
    def test_a_model_in_use_stays(
        self, run: Run, source: Path, folder: Path, engine: Callable[..., None], active: str, check: bool
    ) -> None:
        run(path=str(folder), source=str(source))
        engine(active)

        said = run(check=check, path=str(folder), state="absent")

        assert said["failed"]
        assert said["msg"] == f"{folder} is in use by scout: stop that first (hearth stop scout), then remove it"
        assert (folder / "weights").exists()

    def test_one_in_use_keeps_the_others_from_going(
        self, run: Run, source: Path, folder: Path, engine: Callable[..., None]
    ) -> None:
        models = [{"path": f"{folder}0", "source": str(source)}, {"path": str(folder), "source": str(source)}]
        run(models=models)
        engine("active")

        assert run(models=models, state="absent")["failed"]
        assert Path(f"{folder}0").exists()

    def test_an_engine_that_cannot_start_any_more_is_told(
        self, run: Run, source: Path, folder: Path, engine: Callable[..., None]
    ) -> None:
        run(path=str(folder), source=str(source))
        engine("inactive")

        said = run(path=str(folder), state="absent")

        assert said["changed"]
        assert said["warnings"][0].startswith(f"scout cannot start any more without {folder}")

    def test_what_somebody_else_put_there_is_not_removed(self, run: Run, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "weights").touch()

        assert "was not brought by Hearth" in run(path=str(folder), state="absent")["msg"]


def test_an_engine_that_has_the_folder_mounted_keeps_it(
    run: Run,
    source: Path,
    folder: Path,
    make_engine: MakeEngine,
    make_state: MakeState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(path=str(folder), source=str(source))
    made = make_engine("scout", model_path="/elsewhere", mounts=(str(folder),))
    known = contract.Contract(schema=contract.SCHEMA, key_file="/k", floor_gib=4, engines=(made,))
    contract.PATH.write_bytes(msgspec.json.encode(known))
    monkeypatch.setattr(units, "read_states", lambda names: dict.fromkeys(names, make_state(made, active="active")))

    assert "is in use by scout" in run(path=str(folder), state="absent")["msg"]


def test_what_was_cut_off_is_pruned(run: Run, folder: Path) -> None:
    blobs = folder.with_name(".m.partial") / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "x").write_bytes(bytes(5000))

    foretold = run(check=True, path=str(folder.parents[1]), state="pruned")
    real = run(path=str(folder.parents[1]), state="pruned")

    assert (foretold["changed"], real["changed"]) == (True, True)
    assert real["lines"][0].startswith("1 download that was cut off below ")
    assert not blobs.exists()


class TestWait:
    """What the action plugin asks for."""

    def test_a_download_that_goes_on_is_told_with_how_to_wait_for_it(
        self, run: Run, downloads: Downloads, source: Path, folder: Path
    ) -> None:
        downloads.held = True
        goes_on = run(path=str(folder), source=str(source), wait=0)
        jobrun.run(job.read("1", downloads.folder), downloads.folder)
        ended = run(path=str(folder), source=str(source), wait=60, attach=goes_on["attach"])

        assert (goes_on["changed"], goes_on["attach"], goes_on["doing"]) == (False, "1/0", "beginning")
        assert ended["changed"]
        assert len(downloads.asked) == 1

    def test_one_that_was_cut_off_is_a_failure(
        self, run: Run, downloads: Downloads, source: Path, folder: Path
    ) -> None:
        downloads.held = True
        attach = run(path=str(folder), source=str(source), wait=0)["attach"]
        downloads.held = False

        said = run(path=str(folder), source=str(source), wait=0, attach=attach)

        assert said["failed"]
        assert said["msg"].startswith("the download of f/m was cut off: its process is gone")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one of the following is required: path, models"),
        ({"path": "/a/b", "models": []}, "mutually exclusive: path|models"),
        ({"path": "/a/b", "token": "hf_x", "token_file": "/y"}, "mutually exclusive: token|token_file"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(run: Run, arguments: dict[str, Any], words: str) -> None:
    assert words in run(**arguments)["msg"]


def test_everything_it_returns_is_documented(run: Run, downloads: Downloads, source: Path, folder: Path) -> None:
    documented = yaml.safe_load(model.RETURN)

    done = run(path=str(folder), source=str(source))
    downloads.held = True
    goes_on = run(path=str(folder), repo="a/b", wait=0)

    assert (set(done) | set(goes_on)) - {"changed", "diff", "invocation", "warnings"} == set(documented)
    assert set(done["models"][0]) == set(documented["models"]["sample"][0])


def test_nothing_to_do_imports_neither_the_hubs_library_nor_that_of_dbus(source: Path, folder: Path, run: Run) -> None:
    run(path=str(folder), source=str(source))
    arguments = json.dumps({"path": str(folder), "source": str(source)})
    code = (
        "import json, sys; from ansible.module_utils.testing import patch_module_args;"
        "from ansible_collections.hearth.spark.plugins.modules import model\n"
        f"try:\n with patch_module_args(json.loads({arguments!r})): model.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('huggingface_hub', 'httpx2', 'hf_xet', 'dbus_fast') if name in sys.modules])"
    )

    paths = {"PYTHONPATH": f"{ROOT}/src:{ROOT}/collections"}
    said = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=True, env={**os.environ, **paths}
    )

    assert '"changed": false' in said.stdout
    assert said.stdout.splitlines()[-1] == "[]"
