# SPDX-License-Identifier: Apache-2.0
"""The module active_model, run as Ansible runs it, in this process; its job too."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

import hearth
from ansible_collections.hearth.spark.plugins.modules import active_model
from hearth import contract
from hearth import jobs as hearth_jobs
from hearth.switching import job, jobrun
from hearth.switching.change import Change
from hearth.switching.progress import Progress

if TYPE_CHECKING:
    from switchbox import Box

    from hearth.switching.job import Job

Run = Callable[..., dict[str, Any]]


class Jobs:
    """Jobs are carried out at once, or, with ``held``, only begun."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self.folder = folder
        self.held = False
        self.asked: list[tuple[Change, ...]] = []

    def begin(self, changes: list[Change], *, lock_timeout_s: float) -> Job:
        begun = job.Job(id="1", changes=tuple(changes), lock_timeout_s=lock_timeout_s, contract="", at="")
        self.asked.append(begun.changes)
        job.write(begun, self.folder)
        if not self.held:
            jobrun.run(begun, self.folder, self.box.host)
        return begun


@pytest.fixture
def jobs(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs(box, tmp_path / "jobs")
    real = job.follow
    monkeypatch.setattr(job, "begin", made.begin)
    monkeypatch.setattr(job, "follow", lambda ident, **more: real(ident, **more, folder=made.folder))
    monkeypatch.setattr(hearth_jobs, "_main_pid", lambda unit: 1 if made.held else 0)
    monkeypatch.setattr(jobrun, "Systemd", box.systemd)
    monkeypatch.setitem(jobrun.foretell.__kwdefaults__, "host", box.host)
    monkeypatch.setattr(contract, "load", lambda: box.contract)
    return made


@pytest.fixture
def run(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the module with arguments and give back what it says."""

    def call(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
        complete = {"drain": 0, **arguments, "_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args(complete), pytest.raises(SystemExit):
            active_model.main()
        # The job of the test writes its journal to the same place.
        said: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return said

    return call


class TestRun:
    def test_check_mode_foretells_the_real_run_and_the_second_one_changes_nothing(self, run: Run, box: Box) -> None:
        foretold = run(check=True, name="new")
        assert box.calls == []
        real = run(name="new")
        again = run(name="new")

        outcome = ("changed", "active", "before", "actions", "diff", "memory", "serving")
        assert [foretold[key] for key in outcome] == [real[key] for key in outcome]
        assert real["actions"] == [
            "stop old (10.0 GiB)",
            "start new (10.0 GiB)",
            "start new at boot",
            "9.0 GiB available after",
        ]
        assert real["diff"] == {
            "before": "main lane: old\nat boot: old\n",
            "after": "main lane: new\nat boot: new\n",
        }
        assert (again["changed"], again["actions"], again["before"]) == (False, [], ["new"])

    def test_in_check_mode_no_job_is_begun(self, run: Run, jobs: Jobs) -> None:
        assert run(check=True, name="new")["lines"][0].startswith("Would: stop old (10.0 GiB), start new (10.0 GiB)")
        assert jobs.asked == []

    def test_none_stops_the_lane(self, run: Run) -> None:
        said = run(name="none")

        assert (said["active"], said["before"]) == ("none", ["old"])
        assert said["actions"][0] == "stop old (10.0 GiB)"
        assert [one["name"] for one in said["serving"]] == ["embed"]

    def test_one_that_is_right_but_sick_is_restarted(self, run: Run, box: Box) -> None:
        box.systemd.running[box.unit("old")].script["/health"] = [(500, {})]

        said = run(name="old")

        assert said["changed"]
        assert said["actions"][0] == "restart old (10.0 GiB)"

    def test_a_failure_says_what_runs_again_and_has_the_engines_log(self, run: Run, box: Box) -> None:
        box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

        said = run(name="new")

        assert said["failed"]
        assert said["msg"] == "engine new failed to start; old serves again"
        assert said["log"] == ["last words of hearth-engine-new.service"]

    @pytest.mark.parametrize("check", [True, False])
    def test_an_unknown_model_is_answered_with_the_closest_one(self, run: Run, check: bool) -> None:
        said = run(check=check, name="smal")

        assert said["failed"]
        assert said["msg"].startswith("unknown model 'smal': did you mean 'small'?")
        assert said["log"] == []

    def test_what_cannot_begin_fails_in_check_mode_too(self, run: Run, box: Box) -> None:
        (box.models / "new.gguf").unlink()

        assert run(check=True, name="new")["msg"] == run(name="new")["msg"]

    def test_a_package_that_is_missing_names_the_play_and_the_interpreter(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "hearth", None)

        assert run(name="new")["msg"].endswith("ansible_python_interpreter=/opt/hearth/venv/bin/python")

    def test_a_package_of_another_version_names_the_play_to_run(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hearth, "__version__", "9.9.9")

        assert run(name="new")["msg"].endswith("this collection is made for 0.1.0: run site.yml")

    def test_everything_it_returns_is_documented(self, run: Run, jobs: Jobs) -> None:
        documented = set(yaml.safe_load(active_model.RETURN))

        done = run(name="new")
        jobs.held = True
        goes_on = run(name="old", wait=0)

        assert (set(done) | set(goes_on)) - {"changed", "diff", "invocation"} == documented - {"log"}


class TestAsked:
    """What the arguments ask of the transaction."""

    def test_arguments_reach_it(self, run: Run, jobs: Jobs) -> None:
        run(name="new", boot=False, force=True, drain=1.5, timeout=900, keep=True, beside=True)

        assert jobs.asked == [
            (Change(name="new", boot=False, force=True, drain_s=1.5, timeout_s=900.0, keep=True, beside=True),)
        ]

    def test_none_names_the_lane(self, run: Run, jobs: Jobs) -> None:
        run(name="none", lane="utility")

        assert jobs.asked == [(Change(name=None, lane="utility", drain_s=0.0),)]

    def test_defaults_are_those_of_the_transaction(self, run: Run, jobs: Jobs, box: Box) -> None:
        del box
        options = yaml.safe_load(active_model.DOCUMENTATION)["options"]

        assert options["drain"]["default"] == Change(name="new").drain_s
        assert options["timeout"]["default"] == Change(name="new").timeout_s

    def test_also_starts_models_beside_the_first_which_leaves_them_alone(self, run: Run, jobs: Jobs) -> None:
        run(name="small", also=["embed", "small", "embed"])

        assert jobs.asked == [
            (Change(name="small", spare=("embed",), drain_s=0.0), Change(name="embed", beside=True, drain_s=0.0))
        ]


class TestWait:
    """What the action plugin asks for."""

    @pytest.fixture(autouse=True)
    def _held(self, jobs: Jobs) -> None:
        jobs.held = True

    def test_a_change_that_goes_on_is_told_with_how_to_wait_for_it(self, run: Run) -> None:
        said = run(name="new", wait=0)

        assert (said["changed"], said["attach"], said["doing"]) == (False, "1/0", "beginning")

    def test_a_change_is_waited_for_by_what_was_told(self, run: Run, jobs: Jobs) -> None:
        attach = run(name="new", wait=0)["attach"]
        begun = job.read("1", jobs.folder)
        progress = Progress(phase="loading", engine="new", elapsed_s=3)
        job.write(msgspec.structs.replace(begun, step=1, progress=progress), jobs.folder)

        said = run(name="new", attach=attach, wait=60)

        assert (said["attach"], said["doing"]) == ("1/1", "loading new, 3 s")
        assert len(jobs.asked) == 1

    def test_the_end_of_one_that_was_attached_to_is_its_result(self, run: Run, jobs: Jobs) -> None:
        attach = run(name="new", wait=0)["attach"]
        jobrun.run(job.read("1", jobs.folder), jobs.folder, jobs.box.host)

        said = run(name="new", attach=attach, wait=60)

        assert (said["changed"], said["active"]) == (True, "new")

    def test_one_that_the_box_does_not_know_is_a_sentence(self, run: Run) -> None:
        said = run(name="new", attach="nonsense", wait=1)

        assert said["failed"]
        assert said["msg"].startswith("the box knows nothing any more of the change nonsense")
