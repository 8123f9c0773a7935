# SPDX-License-Identifier: Apache-2.0
"""The module package_update and its jobs, run in this process, with apt, dpkg and systemd played."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from apt_played import Played

from ansible_collections.hearth.spark.plugins.modules import package_update
from hearth import jobs
from hearth.updates import job, jobrun, step
from hearth.updates.changes import Book

Call = Callable[..., dict[str, Any]]
WORK = ("apt-get --download-only", "apt-get download", "dpkg-repack", "apt-get upgrade", "apt-get install")


class Box:
    """Jobs are carried out at once, or, with ``held``, only begun."""

    def __init__(self, folder: Path) -> None:
        self.kept = folder / "kept"
        self.jobs = folder / "jobs"
        self.held = False
        self.played = Played(self.kept / "system")

    def carry_out(self, asked: job.Job) -> None:
        jobrun.run(asked, self.jobs)

    def begin(self, request: job.Request) -> job.Job:
        made = job.Job(id="1", at="", request=request)
        job.JOBS.write(made, self.jobs)
        if not self.held:
            self.carry_out(made)
        return made

    def made(self, request: job.Request, **more: Any) -> step.Step:
        asked = (request.step, request.hold, request.only, request.lock_timeout_s)
        return step.Step(*asked, **more, folder=self.kept, run=self.played)

    def book(self) -> Book:
        found = self.made(job.Request(step="system")).book()
        assert found is not None
        return found


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    made = Box(tmp_path)
    real, current = job.follow, job.current
    monkeypatch.setattr(step, "_SETTLED_S", 0.0)
    monkeypatch.setattr(step, "FOLDER", made.kept)
    monkeypatch.setattr(step.programs, "found", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(job.Request, "made", lambda request, **more: made.made(request, **more))  # noqa: PLW0108
    monkeypatch.setattr(job, "begin", made.begin)
    monkeypatch.setattr(job, "follow", lambda ident, **more: real(ident, **more, folder=made.jobs))
    monkeypatch.setattr(job, "current", lambda: current(made.jobs))
    monkeypatch.setattr(jobs, "_main_pid", lambda unit: 1 if made.held else 0)
    return made


@pytest.fixture
def call(box: Box, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the module, and give what it answers."""

    def run(**arguments: Any) -> dict[str, Any]:
        with patch_module_args({"step": "system", "hold": ["linux-*"], **arguments}), pytest.raises(SystemExit):
            package_update.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return answer

    return run


def test_check_mode_foretells_and_writes_nothing(call: Call, box: Box) -> None:
    answer = call(_ansible_check_mode=True)

    assert (answer["changed"], answer["lines"]) == (True, ["curl 1 → 2"])
    assert answer["diff"] == {"before": "curl 1\n", "after": "curl 2\n"}
    assert answer["held"] == [{"name": "linux-image", "before": "1", "after": "2"}]
    assert not box.kept.exists()
    assert box.played.did(*WORK) == []


def test_an_update_is_open_until_it_is_confirmed(call: Call) -> None:
    assert call()["open"]
    assert call(state="confirmed")["changed"]
    again = call()
    assert (again["changed"], again["open"]) == (False, False)


def test_an_update_that_nobody_confirmed_is_looked_at_again(call: Call, box: Box) -> None:
    call()
    box.played.failed = ["late.service"]

    again = call()

    assert (again["changed"], again["open"], again["trouble"]) == (False, True, "late.service failed since then")
    assert again["lines"] == ["curl 1 → 2"]


def test_taken_back_twice_changes_once(call: Call, box: Box) -> None:
    call()

    assert call(state="reverted")["lines"] == ["curl 2 → 1"]
    assert not call(state="reverted")["changed"]
    assert box.played.installed["curl"] == "1"


def test_check_mode_foretells_the_way_back(call: Call, box: Box) -> None:
    call()

    assert call(state="reverted", _ansible_check_mode=True)["lines"] == ["curl 2 → 1"]
    assert box.played.installed["curl"] == "2"


def test_where_nothing_was_installed_the_update_before_stays(call: Call, box: Box) -> None:
    call()
    call(state="confirmed")

    assert not call(state="reverted", unconfirmed=True)["changed"]
    assert box.played.installed["curl"] == "2"


def test_with_no_update_there_is_nothing_to_take_back(call: Call) -> None:
    assert not call(state="reverted")["changed"]


def test_two_updates_at_once_are_one_and_a_sentence(call: Call, box: Box) -> None:
    box.kept.mkdir(parents=True)
    with (box.kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another update of this box is under way" in call()["msg"]
    assert box.played.did(*WORK) == []


def test_what_cannot_be_done_is_one_sentence(call: Call, box: Box) -> None:
    box.played.fails = {"--download-only": "E: no route"}

    answer = call()

    assert answer["msg"] == "the packages could not be fetched (no route): nothing was changed."


def test_while_it_goes_on_it_says_how_far_it_is(call: Call, box: Box) -> None:
    box.held = True

    first = call(wait=0)

    assert (first["attach"], first["doing"]) == ("1/0", "beginning")


def test_who_waits_again_gets_the_answer(call: Call, box: Box) -> None:
    box.held = True
    at = call(wait=0)["attach"]
    box.carry_out(job.read("1", box.jobs))

    answer = call(wait=0, attach=at)

    assert (answer["changed"], answer["lines"]) == (True, ["curl 1 → 2"])


def test_check_mode_waits_for_an_update_of_an_earlier_play_and_looks_then(call: Call, box: Box) -> None:
    """After a lost connection, say: half of it is installed, and apt would say what is not true in a moment."""
    box.held = True
    call(wait=0)

    at = call(wait=0, _ansible_check_mode=True)["attach"]
    box.carry_out(job.read("1", box.jobs))
    box.held = False

    answer = call(wait=0, attach=at, _ansible_check_mode=True)
    assert (answer["changed"], answer["open"]) == (False, True)


def test_each_phase_is_told_and_in_the_journal(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.begin(job.Request(step="system", hold=("linux-*",), refresh=True))

    assert capsys.readouterr().out.splitlines() == [
        "fetching the lists of packages",
        "fetching packages",
        "fetching the packages of before",
        "installing packages",
        "looking for units that failed since",
        "done",
    ]


def test_nothing_is_fetched_while_engines_are_out_of_the_way(box: Box) -> None:
    def aside(work: Callable[[], str]) -> str:
        box.played.said.append("aside")
        said = work()
        box.played.said.append("back")
        return said

    jobrun.carry_out(job.Request(step="system", hold=("linux-*",), engines=True), step.say_nothing, aside)

    assert box.played.did(*WORK, "aside", "back") == [
        "apt-get --download-only",
        "apt-get download",
        "aside",
        "apt-get upgrade",
        "back",
    ]


def test_a_step_that_was_cut_off_goes_on_in_the_next_job(call: Call, box: Box) -> None:
    box.played.fails = {"apt-get upgrade": "E: killed"}
    assert call()["trouble"].startswith("killed")
    assert box.book().state == "begun"
    box.played.fails = {}

    answer = call()

    assert (answer["changed"], answer["trouble"], box.book().state) == (True, "", "installed")
