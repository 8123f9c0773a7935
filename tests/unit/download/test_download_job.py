# SPDX-License-Identifier: Apache-2.0
"""hearth.download.job and jobrun: one download is one job, whoever asks; the token beside it; several models in one."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from hearth import errors, jobs
from hearth.download import Progress, Request, Result, job, jobrun, present
from hearth.download.errors import UncheckedError
from hearth.download.job import Job, Outcome

QWEN, SCOUT = Request(folder="/m/qwen/qwen3-8b", repo="Qwen/Qwen3-8B"), Request(folder="/m/llama/scout", repo="a/b")
FETCHING = Progress(phase="fetching", bytes_done=500_000_000, bytes_total=10**9, rate=1e8, eta_s=5)


class Runner:
    """systemd-run and systemctl: a unit runs until it is ``ended``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.ended: set[str] = set()

    def __call__(self, *command: str) -> str:
        if command[0] == "systemctl":
            known = any(f"--unit={command[-1]}" in words for words in self.asked)
            return f"{os.getpid()}\n" if known and command[-1] not in self.ended else "0\n"
        self.asked.append(command)
        return ""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(jobs, "_run", made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "downloads"


class TestBegin:
    def test_it_runs_behind_engines(self, runner: Runner, folder: Path) -> None:
        begun = job.begin("present", [QWEN], folder=folder)

        words = runner.asked[0]
        assert {f"--unit=hearth-download-{begun.id}.service", "--nice=10", "--property=PrivateTmp=yes"} <= set(words)
        assert words[-2:] == ("hearth.download.jobrun", str(folder / f"{begun.id}.json"))

    def test_the_same_models_again_are_the_same_job_also_with_a_token(self, runner: Runner, folder: Path) -> None:
        first = job.begin("present", [QWEN, SCOUT], folder=folder)
        again = job.begin("present", [QWEN, SCOUT], token="hf_x", folder=folder)

        assert again.id == first.id
        assert len(runner.asked) == 1

    @pytest.mark.parametrize("other", [SCOUT, replace(QWEN, revision="v2"), replace(QWEN, endpoint="https://mirror")])
    def test_another_model_is_another_job(self, runner: Runner, folder: Path, other: Request) -> None:
        first = job.begin("present", [QWEN], folder=folder)

        assert job.begin("present", [other], folder=folder).id != first.id

    def test_to_verify_is_another_job(self, runner: Runner, folder: Path) -> None:
        first = job.begin("present", [QWEN], folder=folder)

        assert job.begin("verified", [QWEN], folder=folder).id != first.id

    def test_a_proxy_of_the_caller_goes_along_by_its_name(
        self, runner: Runner, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")

        job.begin("present", [QWEN], folder=folder)

        assert "--setenv=HTTPS_PROXY" in runner.asked[0]
        assert "secret" not in str(runner.asked)


class TestToken:
    def test_it_is_in_a_file_of_root_alone_which_goes_with_the_job(self, runner: Runner, folder: Path) -> None:
        begun = job.begin("present", [QWEN], token="hf_x", folder=folder)

        secret = jobs.secret_of(begun.id, folder)
        assert secret.read_text() == "hf_x"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert f"--property=ExecStopPost=-/bin/rm -f {secret}" in runner.asked[0]

    def test_it_is_nowhere_else(self, runner: Runner, folder: Path) -> None:
        begun = job.begin("present", [QWEN], token="hf_x", folder=folder)

        assert "hf_x" not in str(runner.asked)
        assert "hf_x" not in (folder / f"{begun.id}.json").read_text()

    def test_without_one_there_is_no_file(self, runner: Runner, folder: Path) -> None:
        begun = job.begin("present", [QWEN], folder=folder)

        assert not jobs.secret_of(begun.id, folder).exists()
        assert not [word for word in runner.asked[0] if "ExecStopPost" in word]

    def test_it_goes_where_systemd_refuses_the_job(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*command: str) -> str:
            raise errors.SystemdError(f"{command[0]} failed: of the test")

        monkeypatch.setattr(jobs, "_run", refuse)

        with pytest.raises(errors.SystemdError):
            job.begin("present", [QWEN], token="hf_x", folder=folder)
        assert list(folder.iterdir()) == []

    def test_one_that_a_killed_caller_left_goes_and_a_fresh_one_stays(self, runner: Runner, folder: Path) -> None:
        folder.mkdir(parents=True)
        left, fresh = (
            jobs.secret_of("20200101T000000-000-0000", folder),
            jobs.secret_of("20990101T000000-000-0", folder),
        )
        for path in (left, fresh):
            path.write_text("hf_x")
        os.utime(left, (0, 0))

        job.begin("present", [QWEN], folder=folder)

        assert not left.exists()
        assert fresh.exists()


class TestWords:
    def test_of_one_that_has_not_told_anything(self) -> None:
        assert _job(QWEN).words == "beginning"

    def test_of_one_model(self) -> None:
        now = replace(_job(QWEN), progress=FETCHING)

        assert now.words == "qwen/qwen3-8b: fetching 0.50 of 1.00 GB, 50 %, 100 MB/s, 5 s to go"

    def test_of_one_model_of_several(self) -> None:
        now = replace(_job(QWEN, SCOUT), at_model=1, progress=Progress(phase="asking"))

        assert now.words == "llama/scout (2 of 2): asking for the list of files"
        assert now.asked == "qwen/qwen3-8b and llama/scout"


class TestRun:
    """What the process of a job does, with models from folders of this machine."""

    @pytest.fixture
    def wanted(self, tmp_path: Path) -> Request:
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "config.json").write_text("{}")
        return Request(folder=str(tmp_path / "a" / "model"), source=str(tmp_path / "source"), reserve_bytes=0)

    def test_the_file_has_what_became_of_each_model(self, folder: Path, wanted: Request) -> None:
        assert jobrun.run(_job(wanted), folder) == 0

        done = job.read("1", folder)
        assert done.state == "done"
        assert [(one.result.changed, one.before, one.after) for one in done.outcomes] == [
            (True, "nothing", "1 file, 2 bytes")
        ]

    def test_one_that_fails_keeps_no_other_from_coming(self, folder: Path, wanted: Request) -> None:
        broken = replace(wanted, folder=wanted.folder + "2", source="/no/such")

        assert jobrun.run(_job(broken, wanted), folder) == 1

        done = job.read("1", folder)
        assert done.failure is not None
        assert done.failure.sentence.startswith("the folder /no/such cannot be read")
        assert [bool(one.failure) for one in done.outcomes] == [True, False]
        assert (Path(wanted.folder) / "config.json").exists()

    def test_room_for_all_models_is_looked_for_before_the_first_comes(
        self, folder: Path, wanted: Request, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = shutil.disk_usage("/")._replace(free=3)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)

        assert jobrun.run(_job(wanted, replace(wanted, folder=wanted.folder + "2")), folder) == 1

        failure = job.read("1", folder).failure
        assert failure is not None
        assert "nothing was fetched" in failure.sentence
        assert not Path(wanted.folder).exists()

    def test_models_that_are_there_need_no_room(
        self, folder: Path, wanted: Request, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = replace(wanted, folder=wanted.folder + "2")
        present(other)
        disk = shutil.disk_usage("/")._replace(free=3)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)

        assert jobrun.run(_job(wanted, other), folder) == 0

    def test_each_phase_of_each_model_is_a_step_and_a_line_in_the_journal(
        self, folder: Path, wanted: Request, capsys: pytest.CaptureFixture[str]
    ) -> None:
        jobrun.run(_job(wanted), folder)

        said = capsys.readouterr().out.splitlines()
        assert said[0] == "a/model: asking for the list of files"
        assert said[-1] == "done"
        assert job.read("1", folder).step == len(said) - 1

    def test_a_damaged_file_is_found_when_it_is_to_be_verified(self, folder: Path, wanted: Request) -> None:
        present(wanted)
        path = Path(wanted.folder) / "config.json"
        status = path.stat()
        path.write_text("[]")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        jobrun.run(replace(_job(wanted), do="verified"), folder)

        assert job.read("1", folder).outcomes[0].result.fetched == ("config.json",)
        assert path.read_text() == "{}"

    def test_the_token_is_read_from_the_file_beside(
        self, folder: Path, wanted: Request, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files: list[str] = []

        def see(request: Request, tell: object) -> Result:
            files.append(request.token_file)
            return Result(changed=False)

        monkeypatch.setattr(jobrun, "present", see)
        folder.mkdir(parents=True)
        jobs.secret_of("1", folder).write_text("hf_x")

        jobrun.run(_job(wanted), folder)

        assert files == [str(folder / "1.secret")]

    def test_a_hub_that_is_away_is_asked_once_and_what_is_whole_stays(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def settled(request: Request, *, ask: bool = False) -> Result | None:
            if ask:
                asked.append(request.folder)
                raise UncheckedError("x", "the hub is away")
            return Result(changed=False, commit="c") if request.offline else None

        monkeypatch.setattr(jobrun, "settled", settled)

        assert jobrun.run(replace(_job(QWEN, SCOUT), keep=True), folder) == 0

        said = "the hub is away; the models of https://huggingface.co that are whole are used as they are"
        assert [one.warning for one in job.read("1", folder).outcomes] == [said, said]
        assert asked == [QWEN.folder]


class TestSentence:
    CAME = Result(changed=True, commit="c" * 40, files=2, bytes_total=2 * 10**9, bytes_fetched=10**9, seconds=10.0)

    @pytest.mark.parametrize(
        ("result", "state", "foretold", "words"),
        [
            (
                replace(CAME, rate=1e8),
                "present",
                False,
                "m: 1.00 GB came in 10 s, 100 MB/s (commit {c}, 2 files, 2.00 GB)",
            ),
            (CAME, "present", True, "m would come: 1.00 GB (commit {c}, 2 files, 2.00 GB)"),
            (replace(CAME, changed=False), "present", False, "m is there (commit {c}, 2 files, 2.00 GB)"),
            (replace(CAME, changed=False), "verified", False, "m is whole (commit {c}, 2 files, 2.00 GB)"),
            (Result(changed=True, freed=5 * 10**6), "absent", False, "m is gone, 5.0 MB given back"),
            (Result(changed=True, freed=500), "absent", True, "m would go, 500 bytes would be given back"),
            (Result(changed=False), "absent", False, "m is not there"),
            (
                Result(changed=True, files=1, kept=("/f/x",)),
                "pruned",
                False,
                "1 download that was cut off below /f/m, 0 bytes given back; under way, and left alone: f/x",
            ),
        ],
    )
    def test_says_what_was_done(self, result: Result, state: str, foretold: bool, words: str) -> None:
        said = job.sentence(Outcome(folder="/f/m", result=result), state, foretold=foretold)

        assert said.removeprefix("f/") == words.format(c="c" * 12)


def _job(*requests: Request) -> Job:
    return Job(id="1", at="2026-11-21T05:00:00Z", do="present", requests=requests)
