# SPDX-License-Identifier: Apache-2.0
"""The module model, run as Ansible runs it, in this process; its job too. Models come from folders of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ollama_on_disk import OllamaOnDisk
from ollamas import on_disk

from ansible_collections.hearth.spark.plugins.modules import model
from hearth import contract, jobs
from hearth.download import Request, job, jobrun
from hearth.engines import units

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

Run = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]


class Downloads:
    """Jobs are carried out at once, or, with ``held``, only begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = False
        self.asked: list[tuple[str, tuple[Request, ...], bool, str]] = []

    def begin(self, do: job.Do, requests: list[Request], *, keep: bool, token: str) -> job.Job:
        self.asked.append((do, tuple(requests), keep, token))
        begun = job.Job(id="1", at="", do=do, requests=tuple(requests), keep=keep)
        job.write(begun, self.folder)
        if not self.held:
            jobrun.run(begun, self.folder)
        return begun


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Downloads:
    made = Downloads(tmp_path / "downloads")
    real = job.follow
    monkeypatch.setattr(job, "begin", made.begin)
    monkeypatch.setattr(job, "follow", lambda ident, **more: real(ident, **more, folder=made.folder))
    monkeypatch.setattr(jobs, "_main_pid", lambda unit: 1 if made.held else 0)
    monkeypatch.setattr(contract, "PATH", tmp_path / "engines.json")
    return made


@pytest.fixture
def run(downloads: Downloads, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the module with arguments and give back what it says, with its warnings as they are."""
    warned: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, warning: warned.append(warning))

    def call(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
        complete = {"reserve_gib": 0, **arguments, "_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args(complete), pytest.raises(SystemExit):
            model.main()
        # The job of the test writes its journal to the same place.
        said: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return {**said, "warnings": [warned.pop(0) for _ in list(warned)]}

    return call


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


class TestOllama:
    """A model of Ollama's registry, with an Ollama of the tests."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        return tmp_path / "models" / "ollama"

    @pytest.fixture(autouse=True)
    def disk(self, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaOnDisk]:
        with on_disk(store, tmp_path / "elsewhere", monkeypatch) as (made, starts):
            self.starts = starts
            yield made

    @pytest.fixture
    def helper(
        self, make_engine: MakeEngine, make_state: MakeState, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str], None]:
        """Have an engine that serves the tag, in a state of systemd."""

        def have(active: str) -> None:
            made = make_engine("helper", engine="ollama", tag="qwen3:0.6b", image="ollama:9", model_path=str(store))
            known = contract.Contract(schema=contract.SCHEMA, key_file="/k", floor_gib=4, engines=(made,))
            contract.PATH.write_bytes(msgspec.json.encode(known))
            monkeypatch.setattr(
                units, "read_states", lambda names: dict.fromkeys(names, make_state(made, active=active))
            )

        return have

    def test_it_is_brought_into_the_store_by_a_job_and_nothing_is_to_do_the_second_time(
        self, run: Run, store: Path, downloads: Downloads
    ) -> None:
        foretold = run(check=True, path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        first = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        second = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")

        assert (foretold["changed"], first["changed"], second["changed"]) == (True, True, False)
        assert foretold["lines"] == [
            "qwen3:0.6b would come from Ollama's registry, which says how much that is when it begins"
        ]
        assert foretold["diff"]["after"] == f"{store} qwen3:0.6b: what registry.ollama.ai has\n"
        assert first["diff"]["before"] == f"{store} qwen3:0.6b: nothing\n"
        assert first["lines"][0].startswith("qwen3:0.6b: 3.0 MB came in ")
        assert (first["bytes_fetched"], first["models"][0]["ollama"]) == (3_001_100, "qwen3:0.6b")
        assert second["lines"] == [f"qwen3:0.6b is there (commit {first['commit'][:12]}, 2 files, 3.0 MB)"]
        assert (len(downloads.asked), len(self.starts)) == (1, 1)

    def test_without_an_image_that_of_an_engine_on_the_store_is_taken(
        self, run: Run, store: Path, helper: Callable[[str], None]
    ) -> None:
        helper("inactive")

        assert run(path=str(store), ollama="qwen3:0.6b")["changed"]
        assert self.starts[0].image == "ollama:9"

    def test_a_tag_is_looked_at_again_when_that_is_asked_for(self, run: Run, store: Path, disk: OllamaOnDisk) -> None:
        run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        disk.layers["qwen3:0.6b"] = {"newer weights": 10}

        said = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1", refresh=True)

        assert (said["changed"], said["bytes_fetched"]) == (True, 10)

    def test_a_registry_that_is_away_is_a_warning_where_the_model_is_there(
        self, run: Run, store: Path, disk: OllamaOnDisk
    ) -> None:
        run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        disk.fails_at = {"manifest": "pull model manifest: dial tcp: i/o timeout"}
        asked = {"path": str(store), "ollama": "qwen3:0.6b", "image": "ollama:1", "refresh": True}

        kept = run(**asked, unreachable="keep")

        assert not kept["changed"]
        assert "registry.ollama.ai cannot be reached" in kept["warnings"][0]
        assert kept["warnings"][0].endswith("is whole: it is used as it is")
        assert run(**asked)["failed"]

    def test_a_damaged_layer_is_brought_anew(self, run: Run, store: Path) -> None:
        run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        path = max((store / "blobs").iterdir(), key=lambda one: one.stat().st_size)
        path.write_bytes(bytes(3_000_000))

        said = run(path=str(store), ollama="qwen3:0.6b", image="ollama:1", state="verified")

        assert (said["changed"], said["bytes_fetched"]) == (True, 3_000_000)

    def test_a_tag_goes_with_the_names_that_engines_gave_it(
        self, run: Run, store: Path, disk: OllamaOnDisk, helper: Callable[[str], None]
    ) -> None:
        run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        disk.post("/api/copy", {"source": "qwen3:0.6b", "destination": "helper"})
        helper("inactive")
        asked = {"path": str(store), "ollama": "qwen3:0.6b", "names": ["helper"], "state": "absent"}

        foretold = run(**asked, check=True)
        real = run(**asked)

        assert foretold["diff"] == real["diff"]
        assert real["lines"][0].startswith("qwen3:0.6b is gone, 3.0 MB given back")
        assert real["warnings"][0].startswith("helper cannot start any more without qwen3:0.6b")
        assert list((store / "blobs").iterdir()) == []
        assert not run(**asked)["changed"]

    @pytest.mark.parametrize("check", [True, False])
    def test_a_tag_in_use_stays(self, run: Run, store: Path, helper: Callable[[str], None], check: bool) -> None:
        run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        helper("active")

        said = run(check=check, path=str(store), ollama="qwen3:0.6b", state="absent")

        assert said["msg"] == "qwen3:0.6b is in use by helper: stop that first (hearth stop helper), then remove it"
        # Another one of the same store may go.
        run(path=str(store), ollama="qwen3:1.7b")
        assert run(path=str(store), ollama="qwen3:1.7b", state="absent")["changed"]

    def test_what_pulls_left_and_what_no_model_needs_is_pruned(self, run: Run, store: Path, disk: OllamaOnDisk) -> None:
        disk.fails_at = {"weights 5": "EOF"}
        run(path=str(store), ollama="qwen3:0.6b", image="ollama:1")
        (store / "blobs" / f"sha256-{'0' * 64}").write_bytes(b"old")
        os.utime(store / "blobs" / f"sha256-{'0' * 64}", (0, 0))

        foretold = run(check=True, path=str(store.parent), state="pruned")
        real = run(path=str(store.parent), state="pruned")

        assert foretold["freed"] == real["freed"] > 1_400_000
        assert real["lines"][0].startswith(
            f"1 download that was cut off and 1 layer that no model of Ollama needs below {store.parent}, "
        )
        assert not run(path=str(store.parent), state="pruned")["changed"]

    def test_models_of_a_hub_and_of_ollama_are_one_job(
        self, run: Run, store: Path, source: Path, folder: Path, downloads: Downloads
    ) -> None:
        hub = {"path": str(folder), "source": str(source)}
        ollama = {"path": str(store), "ollama": "qwen3:0.6b", "image": "ollama:1"}

        said = run(models=[hub, ollama])

        assert [line.split(":")[0] for line in said["lines"]] == ["f/m", "qwen3"]
        assert len(downloads.asked) == 1


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
