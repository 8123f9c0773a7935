# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.job: one change is one job, whoever asks for it, and nobody waits for one that is gone."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hearth import contract, errors, jobs
from hearth.switching import job
from hearth.switching.change import Change
from hearth.switching.job import Failure, Job, Result, Serving
from hearth.switching.progress import Progress

TO_SCOUT = [Change(name="scout")]
RESULT = Result(
    changed=True,
    active="scout",
    before=("qwen",),
    actions=("stop qwen (32.0 GiB)", "start scout (65.0 GiB)"),
    healed=(),
    drained=2,
    seconds={"drain": 3.21, "stop": 1.24, "memory": 0.01, "load": 84.5, "first": 0.0},
    memory={"total": 119.7, "available": 40.04, "floor": 10.0},
    serving=(Serving(name="scout", url="http://127.0.0.1:8000", lane="main"),),
    old="main lane: qwen\n",
    new="main lane: scout\n",
)


class FakeRunner:
    """systemd-run and systemctl, as hearth.jobs asks them. Each unit has a process that lives until it is killed."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __call__(self, *command: str) -> str:
        if command[0] == "systemctl":
            process = self.processes.get(command[-1])
            return f"{process.pid}\n" if process is not None and process.poll() is None else "0\n"
        self.asked.append(command)
        unit = next(word.removeprefix("--unit=") for word in command if word.startswith("--unit="))
        self.processes[unit] = subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE)
        return ""

    def kill(self, unit: str) -> None:
        self.processes[unit].kill()
        self.processes[unit].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()


@pytest.fixture(autouse=True)
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRunner]:
    fake = FakeRunner()
    monkeypatch.setattr(jobs, "_run", fake)
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "engines.json"
    path.write_text("{}")
    monkeypatch.setattr(contract, "PATH", path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "jobs"


@pytest.fixture
def begun(folder: Path) -> Job:
    return job.begin(TO_SCOUT, lock_timeout_s=60, folder=folder)


def change(folder: Path, begun: Job, **fields: object) -> None:
    job.write(msgspec.structs.replace(begun, **fields), folder)


class TestBegin:
    def test_a_job_is_a_unit_that_systemd_forgets_when_it_has_ended(self, folder: Path, runner: FakeRunner) -> None:
        begun = job.begin(TO_SCOUT, lock_timeout_s=60, folder=folder)

        words = runner.asked[0]
        assert {"--collect", "--service-type=exec", f"--unit={begun.unit}"} <= set(words)
        assert words[words.index("--") :] == (
            "--",
            sys.executable,
            "-P",
            "-m",
            "hearth.switching.jobrun",
            str(folder / f"{begun.id}.json"),
        )

    def test_what_is_asked_for_is_in_its_file(self, folder: Path, begun: Job) -> None:
        read = job.read(begun.id, folder)

        assert (read.changes, read.lock_timeout_s, read.state) == ((Change(name="scout"),), 60, "running")

    def test_only_root_may_read_it_since_engines_write_into_it(self, folder: Path, begun: Job) -> None:
        assert stat.S_IMODE((folder / f"{begun.id}.json").stat().st_mode) == 0o640

    def test_the_same_change_again_is_the_same_job(self, folder: Path, begun: Job, runner: FakeRunner) -> None:
        again = job.begin(TO_SCOUT, lock_timeout_s=5, folder=folder)

        assert again.id == begun.id
        assert len(runner.asked) == 1

    @pytest.mark.parametrize("other", [Change(name="qwen"), Change(name="scout", boot=False)])
    def test_another_change_is_another_job(self, folder: Path, begun: Job, runner: FakeRunner, other: Change) -> None:
        assert job.begin([other], lock_timeout_s=5, folder=folder).id != begun.id
        assert len(runner.asked) == 2

    def test_the_same_change_to_other_engines_is_another_job(self, folder: Path, begun: Job, engines: Path) -> None:
        engines.write_text('{"schema": 1}')

        assert job.begin(TO_SCOUT, lock_timeout_s=5, folder=folder).id != begun.id

    def test_a_job_that_was_killed_is_not_waited_for(self, folder: Path, begun: Job, runner: FakeRunner) -> None:
        runner.kill(begun.unit)

        assert job.begin(TO_SCOUT, lock_timeout_s=5, folder=folder).id != begun.id

    def test_a_job_that_has_ended_is_not_waited_for(self, folder: Path, begun: Job) -> None:
        change(folder, begun, state="done", result=RESULT)

        assert job.begin(TO_SCOUT, lock_timeout_s=5, folder=folder).id != begun.id

    def test_the_tests_own_memory_goes_along(
        self, folder: Path, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEARTH_MEMINFO", "/run/meminfo")

        job.begin(TO_SCOUT, lock_timeout_s=60, folder=folder)

        assert "--setenv=HEARTH_MEMINFO" in runner.asked[0]

    def test_a_job_that_systemd_refuses_leaves_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*command: str) -> str:
            raise errors.SystemdError(f"{command[0]} failed: of the test")

        monkeypatch.setattr(jobs, "_run", refuse)

        with pytest.raises(errors.SystemdError, match="systemd-run failed: of the test"):
            job.begin(TO_SCOUT, lock_timeout_s=60, folder=folder)
        assert list(folder.iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(errors.HearthError, match=r"cannot be written \(.+\): run this as root"):
            job.begin(TO_SCOUT, lock_timeout_s=60, folder=tmp_path / "file" / "jobs")

    def test_old_files_go_and_those_of_jobs_under_way_stay(self, folder: Path, begun: Job) -> None:
        for number in range(30):
            job.write(msgspec.structs.replace(begun, id=f"20990101T0000{number:02}-000-0000", state="done"), folder)
        cut_off = msgspec.structs.replace(begun, id="20000101T000000-000-0000")
        job.write(cut_off, folder)

        job.begin([Change(name="qwen")], lock_timeout_s=60, folder=folder)

        left = {path.stem for path in folder.iterdir()}
        assert begun.id in left
        assert cut_off.id not in left
        assert len([ident for ident in left if ident.startswith("2099")]) == 20


class TestFollow:
    def test_one_that_has_ended_is_given_back_at_once(self, folder: Path, begun: Job) -> None:
        change(folder, begun, state="done", result=RESULT)

        assert job.follow(begun.id, folder=folder).result == RESULT

    def test_one_that_ends_while_it_is_waited_for_is_given_back(self, folder: Path, begun: Job) -> None:
        failure = Failure(sentence="engine scout failed to start", kind="EngineFailedError", log=("no memory",))
        ends = threading.Timer(0.2, change, (folder, begun), {"state": "failed", "failure": failure})
        ends.start()

        ended = job.follow(begun.id, folder=folder)

        ends.join()
        assert ended.failure == failure

    def test_after_the_time_it_is_given_back_as_it_is(self, folder: Path, begun: Job) -> None:
        change(folder, begun, progress=Progress(phase="loading", engine="scout", elapsed_s=12.4, expected_s=80))

        now = job.follow(begun.id, timeout_s=0, folder=folder)

        assert now.is_running
        assert now.words == "loading scout, 12 of about 80 s"

    def test_another_phase_is_told_before_the_time_is_over(self, folder: Path, begun: Job) -> None:
        change(folder, begun, step=3)

        assert job.follow(begun.id, step=2, timeout_s=60, folder=folder).step == 3

    def test_one_whose_process_was_killed_is_told_at_once(self, folder: Path, begun: Job, runner: FakeRunner) -> None:
        change(folder, begun, progress=Progress(phase="stopping", engine="qwen"))
        dies = threading.Timer(0.2, runner.kill, (begun.unit,))
        dies.start()

        ended = job.follow(begun.id, timeout_s=60, folder=folder)

        dies.join()
        assert ended.state == "failed"
        assert ended.failure is not None
        assert ended.failure.sentence == (
            "the change to scout was cut off while stopping qwen: its process is gone (journalctl -u "
            f"hearth-switch-{begun.id} may say why); ask for it again, and what was left is set right first"
        )

    def test_one_that_was_killed_before_it_is_waited_for_is_told(
        self, folder: Path, begun: Job, runner: FakeRunner
    ) -> None:
        runner.kill(begun.unit)

        assert job.follow(begun.id, folder=folder).state == "failed"

    def test_what_a_process_wrote_last_counts_although_it_is_gone(
        self, folder: Path, begun: Job, runner: FakeRunner
    ) -> None:
        change(folder, begun, state="done", result=RESULT)
        runner.kill(begun.unit)

        assert job.follow(begun.id, folder=folder).state == "done"

    @pytest.mark.parametrize("content", [None, b"", b"{}"])
    def test_one_that_the_box_does_not_know_is_a_sentence(self, folder: Path, content: bytes | None) -> None:
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "gone.json").write_bytes(content)

        with pytest.raises(
            errors.HearthError, match="the box knows nothing any more of the change gone, as after a res"
        ):
            job.follow("gone", folder=folder)


def test_jobs_under_way_are_those_whose_processes_live(folder: Path, begun: Job, runner: FakeRunner) -> None:
    second = job.begin([Change(name="qwen")], lock_timeout_s=60, folder=folder)
    third = job.begin([Change(name="phi")], lock_timeout_s=60, folder=folder)
    runner.kill(second.unit)

    assert [one.id for one in job.current(folder)] == [begun.id, third.id]


def test_where_there_is_no_folder_no_job_is_under_way(tmp_path: Path) -> None:
    assert job.current(tmp_path / "none") == []


class TestWords:
    def test_of_one_that_has_not_told_anything(self, begun: Job) -> None:
        assert begun.words == "beginning"

    def test_of_one_that_waits_for_another(self, begun: Job) -> None:
        waits = msgspec.structs.replace(begun, holder="pid 12, since 10:00:00")

        assert waits.words == "waiting for another change to end (pid 12, since 10:00:00)"

    def test_of_what_was_asked_for(self, begun: Job) -> None:
        several = (Change(name="scout"), Change(name="bge", beside=True), Change(name="qwen", stop=True))

        assert msgspec.structs.replace(begun, changes=several).asked == "scout and bge and qwen (to stop it)"
        assert Change(name=None).words == "none"


class TestLines:
    def test_what_was_done_where_and_how_long_it_took(self) -> None:
        assert RESULT.lines() == [
            "Done: stop qwen (32.0 GiB), start scout (65.0 GiB).",
            "scout serves on http://127.0.0.1:8000 of the box (main lane).",
            "Times: 2 requests under way ended first, waited 3.2 s for requests, stopped in 1.2 s, loaded in 84.5 s.",
            "Memory: 40.0 of 119.7 GiB available, 10.0 GiB of them stay with the host.",
        ]

    def test_what_would_be_done(self) -> None:
        foretold = msgspec.structs.replace(RESULT, drained=0, seconds={})

        assert foretold.lines(foretold=True)[:2] == [
            "Would: stop qwen (32.0 GiB), start scout (65.0 GiB).",
            "scout would serve on http://127.0.0.1:8000 of the box (main lane).",
        ]

    def test_nothing_to_do_and_nothing_that_runs(self) -> None:
        nothing = msgspec.structs.replace(RESULT, actions=(), serving=(), drained=0, seconds={"stop": 0.0})

        assert nothing.lines()[:-1] == ["Done: nothing to do.", "No model runs."]

    def test_what_was_healed(self) -> None:
        healed = msgspec.structs.replace(RESULT, healed=("a change to phi had been cut off; qwen runs again",))

        assert "Before that: a change to phi had been cut off; qwen runs again." in healed.lines()


class TestPrograms:
    """systemd-run and systemctl themselves."""

    @pytest.fixture(autouse=True)
    def _real(self, monkeypatch: pytest.MonkeyPatch, runner: FakeRunner) -> None:
        monkeypatch.undo()

    def test_one_that_is_missing_is_a_sentence(self) -> None:
        with pytest.raises(
            errors.SystemdError, match=r"no-such-program cannot be run \(.+\): is this a systemd host\?"
        ):
            jobs._run("no-such-program", "show")

    def test_one_that_fails_is_told_with_its_own_words(self) -> None:
        with pytest.raises(errors.SystemdError, match=r"sh failed: Unit x is in the way$"):
            jobs._run("sh", "-c", "echo Unit x is >&2; echo in the way >&2; exit 1")

    def test_one_that_fails_without_a_word_is_told_with_its_exit_code(self) -> None:
        with pytest.raises(errors.SystemdError, match=r"sh failed: exit code 3$"):
            jobs._run("sh", "-c", "exit 3")

    def test_one_that_hangs_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "_SYSTEMD_TIMEOUT_S", 0.1)

        with pytest.raises(errors.SystemdError, match=r"sleep said nothing within 0\.1 s"):
            jobs._run("sleep", "30")
