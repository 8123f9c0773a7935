# SPDX-License-Identifier: Apache-2.0
"""hearth.images.job and jobrun: one pull is one job, whoever asks; credentials beside it; how it says where it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace
from registries import PASSWORD, USER, FakeDocker, ScriptedRegistry, layer

from hearth import jobs, state
from hearth.download import Patience
from hearth.images import book, job, jobrun
from hearth.images.progress import Progress
from hearth.images.request import Credential, Terms, Want

WANT = Want(name="localhost/hearth/x:1", source="example/x", digest="sha256:1", engine="vllm")
OTHER = replace(WANT, name="localhost/hearth/y:1", source="example/y")
NGC = Credential(host="nvcr.io", user="$oauthtoken", password="s3cret")


class Runner:
    """systemd-run and systemctl: whatever was begun runs."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *command: str) -> str:
        if command[0] == "systemctl":
            return f"{os.getpid()}\n" if any(f"--unit={command[-1]}" in words for words in self.asked) else "0\n"
        self.asked.append(command)
        return ""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(jobs, "_run", made)
    return made


class TestBegin:
    def test_the_same_images_again_are_the_same_job_also_with_other_credentials(
        self, runner: Runner, tmp_path: Path
    ) -> None:
        first = job.begin("present", images=[WANT, OTHER], folder=tmp_path)
        again = job.begin("present", images=[WANT, OTHER], credentials=[NGC], folder=tmp_path)

        assert again.id == first.id
        assert len(runner.asked) == 1

    def test_others_are_another_one(self, runner: Runner, tmp_path: Path) -> None:
        job.begin("present", images=[WANT], folder=tmp_path)
        job.begin("present", images=[WANT], terms=Terms(refresh=True), folder=tmp_path)
        job.begin("loaded", where="/usb", folder=tmp_path)

        assert len(runner.asked) == 3

    def test_credentials_are_in_a_file_of_roots_alone_and_on_no_command_line(
        self, runner: Runner, tmp_path: Path
    ) -> None:
        begun = job.begin("present", images=[WANT], credentials=[NGC], folder=tmp_path)

        secret = jobs.secret_of(begun.id, tmp_path)
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert "s3cret" in secret.read_text()
        assert "s3cret" not in " ".join(runner.asked[0])
        assert "s3cret" not in jobs.path_of(begun.id, tmp_path).read_text()
        assert f"--property=ExecStopPost=-/bin/rm -f {secret}" in runner.asked[0]

    def test_a_tmp_of_its_own_goes_with_it(self, runner: Runner, tmp_path: Path) -> None:
        job.begin("present", images=[WANT], folder=tmp_path)

        assert "--property=PrivateTmp=yes" in runner.asked[0]


class TestWords:
    def test_it_says_which_of_several_and_how_far(self) -> None:
        progress = Progress(phase="pulling", bytes_done=10**9, bytes_total=4 * 10**9, words="95 MB/s, 31 s to go")
        told = job.Job(id="1", at="", do="present", images=(WANT, OTHER), at_image=1, progress=progress)

        assert told.words == "example/y@sha256:1 (2 of 2): fetching 1.00 of 4.00 GB, 25 %, 95 MB/s, 31 s to go"

    def test_one_image_is_not_counted(self) -> None:
        told = job.Job(id="1", at="", do="present", images=(WANT,), progress=Progress(phase="asking"))

        assert told.words == "example/x@sha256:1: asking its registry"

    def test_steps_are_told(self) -> None:
        assert Progress(phase="building", step=3, steps=9, words="pip").line == "building, step 3 of 9, pip"

    @pytest.mark.parametrize(
        ("begun", "asked"),
        [
            (job.Job(id="1", at="", do="saved", folder="/usb"), "images for /usb"),
            (job.Job(id="1", at="", do="loaded", folder="/usb"), "images of /usb"),
            (job.Job(id="1", at="", do="present", images=(WANT,)), "example/x@sha256:1"),
        ],
    )
    def test_it_says_what_was_asked(self, begun: job.Job, asked: str) -> None:
        assert begun.asked == asked
        assert begun.words == "beginning"


class Box:
    """Where the process of a job looks, in this one."""

    def __init__(self, server: ScriptedRegistry, docker: FakeDocker, folder: Path) -> None:
        self.server = server
        self.docker = docker
        self.folder = folder
        patience = Patience(connect_s=2.0, read_s=2.0, tries=2, backoff_s=0.01, backoff_max_s=0.02)
        staging = str(folder / "staging")
        self.terms = Terms(reserve_bytes=0, staging=staging, smoke=False, patience=patience)

    def want(self, number: int = 1) -> Want:
        made = self.server.add(layer(number), tag=str(number))
        return Want(
            name=f"localhost/hearth/engine:{made.digest[7:19]}",
            repository="localhost/hearth/engine",
            source=f"{self.server.host}/me/engine",
            digest=made.digest,
            engine="llama.cpp",
        )

    def run(self, *wants: Want, credentials: str = "") -> job.Job:
        """Carry a job out to its end."""
        begun = job.Job(id="1", at="", do="present", images=wants, terms=self.terms)
        job.JOBS.write(begun, self.folder)
        if credentials:
            state.replace(jobs.secret_of("1", self.folder), credentials.encode(), mode=0o600)
        jobrun.run(begun, self.folder)
        return job.read("1", self.folder)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(book, "PATH", tmp_path / "images.json")
    monkeypatch.setattr(book, "LOCK", tmp_path / "images.lock")
    docker = FakeDocker()
    monkeypatch.setattr(jobrun, "Docker", lambda: docker)
    with ScriptedRegistry() as server:
        yield Box(server, docker, tmp_path)


class TestRun:
    def test_all_are_had_and_told(self, box: Box) -> None:
        wants = [box.want(1), box.want(2)]

        ended = box.run(*wants)

        assert ended.state == "done"
        assert [outcome.name for outcome in ended.outcomes] == [want.name for want in wants]
        assert sorted(book.read().images) == sorted(want.name for want in wants)

    def test_of_several_those_before_the_first_that_fails_stay(self, box: Box) -> None:
        good, gone = box.want(1), replace(box.want(2), digest=f"sha256:{'0' * 64}")

        ended = box.run(good, gone)

        assert ended.state == "failed"
        assert ended.failure is not None
        assert "but not with the digest sha256:000" in ended.failure.sentence
        assert [outcome.name for outcome in ended.outcomes] == [good.name]
        assert list(book.read().images) == [good.name]

    def test_credentials_come_by_their_file(self, box: Box) -> None:
        box.server.login, box.server.public = "bearer", False
        given = f'[{{"host": "{box.server.host}", "user": "{USER}", "password": "{PASSWORD}"}}]'

        assert box.run(box.want(), credentials=given).state == "done"

    def test_a_file_of_credentials_that_is_damaged_is_told_without_what_is_in_it(self, box: Box) -> None:
        ended = box.run(box.want(), credentials='[{"password": "s3cret"')

        assert ended.failure is not None
        assert "the credentials of this job cannot be read" in ended.failure.sentence
        assert "s3cret" not in str(ended.failure)

    def test_other_work_is_waited_for_and_that_is_told(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobrun, "_LOOK_EVERY_S", 0.05)
        told: list[str] = []
        real = jobrun._Record.tell

        def tell(record: jobrun._Record, index: int, progress: Progress) -> None:
            told.append(progress.line)
            if progress.phase == "waiting":
                stack.close()
            real(record, index, progress)

        monkeypatch.setattr(jobrun._Record, "tell", tell)
        with ExitStack() as stack:
            stack.enter_context(book.held())
            ended = box.run(box.want())

        assert ended.state == "done"
        assert told[0].startswith("waiting for other work on images to end, other work on images is under way (pid ")
