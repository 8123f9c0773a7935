# SPDX-License-Identifier: Apache-2.0
"""Builds of images: what is asked of buildx, what of it is told, what is refused, and that no engine loses its memory.

The logs in buildlogs/ were recorded (test_image_buildlog.py).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hearth.images import build as builds
from hearth.images import settings
from hearth.images.build import Build, Built
from hearth.images.dockerd import Image
from hearth.images.dockerd import Settings as DockerSettings
from hearth.images.progress import Progress
from hearth.images.settings import BuildFailedError, Settings
from hearth.memory import Memory

RECORDED = Path(__file__).parent / "buildlogs"
FINGERPRINT = "ab" * 32
REF = f"localhost/hearth/mine:{FINGERPRINT[:12]}"
# Of the step that fails in patch.rawjson.
PATCH_LINES = ("error: patch failed: a.py:3", "error: a.py: patch does not apply", "working")


def gib(available: float, total: float = 121.6) -> Memory:
    return Memory(total_gib=total, available_gib=available, free_gib=available, cached_gib=0)


class TestHowManyJobs:
    @pytest.mark.parametrize(
        ("memory", "cpus", "jobs"),
        [
            (gib(115), 20, 11),
            (gib(115), 8, 8),
            (gib(200, total=256), 20, 16),
            (gib(19.5), 20, 1),
            (gib(18.5), 20, 0),
            (gib(50, total=59.7), 20, 4),
        ],
    )
    def test_a_job_for_each_share_of_what_is_available(self, memory: Memory, cpus: int, jobs: int) -> None:
        assert settings.jobs(Settings(job_gib=9, max_jobs=16), memory, cpus) == jobs

    def test_what_compiles_nothing_needs_no_memory(self) -> None:
        assert settings.jobs(Settings(), gib(0.5), 4) == 1

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("x", "recipe.toml: "),
            ('disk_gb = "much"', "Expected `float`, got `str` - at `$.disk_gb`"),
            ("max_jobs = 0", "Expected `int` >= 1"),
            ("mox_jobs = 1", "unknown field `mox_jobs`"),
        ],
    )
    def test_settings_that_are_none_are_told(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "recipe.toml").write_text(text)
        with pytest.raises(BuildFailedError, match=re.escape(said)):
            settings.read(tmp_path)


class Engine:
    """A Docker that has images."""

    def __init__(self, root: Path) -> None:
        self.settings = DockerSettings(root=str(root), architecture="arm64")
        self.images: dict[str, Image] = {}
        self.usage: dict[str, Any] = {"BuildCache": None}

    def image(self, name: str) -> Image | None:
        return self.images.get(name)

    def get(self, path: str) -> Any:
        assert path == "/system/df?type=build-cache"
        return self.usage

    def has(self, fingerprint: str = FINGERPRINT) -> None:
        self.images[REF] = Image(id="sha256:1", size=1, layers=(), labels={"dev.hearth.recipe": fingerprint})


class Workshop:
    """A recipe, and a client of Docker that is a script: what it does with `buildx build` a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = Engine(folder)
        self.told: list[Progress] = []
        self.log = folder / "log" / "build-mine.log"
        self.settings("disk_gb = 0\n")
        self.client("exit 0")

    def settings(self, text: str) -> None:
        (self.folder / "recipe.toml").write_text(text)

    def client(self, build: str, version: str = "github.com/docker/buildx 0.13.1 0.13.1-3") -> None:
        client = self.folder / "docker"
        client.write_text(
            f'#!/bin/sh\nif [ "$2" = version ]; then echo "{version}"; exit; fi\n'
            f'echo "$@" >{self.folder}/argv\nfor word; do case $word in id=jobs,src=*) '
            f'cat "${{word#id=jobs,src=}}" >{self.folder}/jobs;; esac; done\n{build}\n'
        )
        client.chmod(0o755)

    def build(self, **more: Any) -> Built:
        wanted = Build(name="mine", ref=REF, fingerprint=FINGERPRINT, folder=str(self.folder), **more)
        return builds.build(
            wanted,
            log=self.log,
            tell=self.told.append,
            docker=str(self.folder / "docker"),
            engine=self.engine,  # type: ignore[arg-type]
        )

    @property
    def argv(self) -> list[str]:
        return (self.folder / "argv").read_text().split()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


class TestABuild:
    def test_an_image_of_this_recipe_is_not_built_again(self, workshop: Workshop) -> None:
        workshop.engine.has()
        assert workshop.build() == Built(image_id="sha256:1")
        assert not (workshop.folder / "argv").exists()

    def test_an_image_of_another_recipe_is_built(self, workshop: Workshop) -> None:
        workshop.engine.has("cd" * 32)
        with pytest.raises(BuildFailedError, match=r"ended well, but Docker has no .* of this recipe"):
            workshop.build()
        assert f"dev.hearth.recipe={FINGERPRINT}" in workshop.argv

    def test_what_the_recipe_says_is_asked_of_buildx(self, workshop: Workshop) -> None:
        workshop.settings('disk_gb = 0\nstage = "prepared"\n[args]\nA = "1"\n')
        with pytest.raises(BuildFailedError):
            workshop.build(platform="linux/arm64")
        text = " ".join(workshop.argv)
        for words in (
            f"--tag {REF}",
            "--target prepared",
            "--build-arg A=1",
            "--platform linux/arm64",
            "--builder default",
        ):
            assert words in text

    def test_jobs_are_a_secret(self, workshop: Workshop) -> None:
        workshop.settings("disk_gb = 0\nmax_jobs = 1\n")
        with pytest.raises(BuildFailedError):
            workshop.build()
        assert (workshop.folder / "jobs").read_text() == "1\n"
        assert "build-arg" not in " ".join(workshop.argv)

    @pytest.mark.parametrize(
        ("version", "form"),
        [
            ("github.com/docker/buildx 0.12.1 x", "plain"),
            ("github.com/docker/buildx v0.13.0 x", "rawjson"),
            ("github.com/docker/buildx 0.29.1-desktop.1 x", "rawjson"),
            ("github.com/docker/buildx v1.0.0 x", "rawjson"),
            ("buildx of somebody's own", "plain"),
        ],
    )
    def test_progress_is_asked_for_as_this_buildx_can_tell_it(
        self, workshop: Workshop, version: str, form: str
    ) -> None:
        workshop.client("exit 0", version)
        with pytest.raises(BuildFailedError):
            workshop.build()
        assert f"--progress={form}" in workshop.argv

    def test_how_far_it_is_is_told_and_the_log_is_kept(self, workshop: Workshop) -> None:
        workshop.client(f"cat {RECORDED}/first.rawjson >&2; sleep 1.5; exit 3")
        with pytest.raises(BuildFailedError):
            workshop.build()
        assert (workshop.told[0].phase, workshop.told[0].step, workshop.told[0].steps) == ("building", 4, 4)
        assert "hello-stdout" in workshop.log.read_text()
        assert workshop.log.stat().st_mode & 0o777 == 0o640

    def test_the_log_of_the_build_before_is_kept_beside_it(self, workshop: Workshop) -> None:
        for words in ("first", "second"):
            workshop.client(f"echo {words} >&2; exit 1")
            with pytest.raises(BuildFailedError, match=f"its last word was: {words}"):
                workshop.build()
        assert "second" in workshop.log.read_text()
        assert "first" in Path(f"{workshop.log}.1").read_text()

    def test_what_fails_is_told_with_its_step_and_its_lines(self, workshop: Workshop) -> None:
        workshop.client(f"cat {RECORDED}/patch.rawjson >&2; exit 1")
        with pytest.raises(
            BuildFailedError, match=r"^building mine failed at sources 2/2: RUN .*; the patch of "
        ) as failed:
            workshop.build()
        assert failed.value.log == PATCH_LINES
        assert str(workshop.log) in str(failed.value)


class TestWhatIsRefusedBeforehand:
    def test_without_buildx(self, workshop: Workshop) -> None:
        (workshop.folder / "docker").write_text(
            "#!/bin/sh\necho \"docker: 'buildx' is not a docker command.\" >&2; exit 1\n"
        )
        with pytest.raises(BuildFailedError, match=r"which this box does not have: apt-get install docker-buildx "):
            workshop.build()

    def test_without_a_client(self, workshop: Workshop) -> None:
        (workshop.folder / "docker").unlink()
        with pytest.raises(BuildFailedError, match="cannot be run"):
            workshop.build()

    def test_without_room_on_the_disk(self, workshop: Workshop) -> None:
        workshop.settings("disk_gb = 1e9\n")
        with pytest.raises(BuildFailedError, match=r"wants 1e\+09 GB below .*, and [\d.]+ GB are free"):
            workshop.build()
        assert not (workshop.folder / "argv").exists()

    @pytest.mark.parametrize(
        "usage",
        [
            {"BuildCache": [{"Size": 6 * 10**17}, {"Size": 6 * 10**17}, {}]},
            {"BuildCacheUsage": {"TotalSize": 12 * 10**17}},
        ],
    )
    def test_what_an_earlier_build_left_in_the_cache_needs_no_room(
        self, workshop: Workshop, usage: dict[str, Any]
    ) -> None:
        workshop.settings("disk_gb = 1e9\n")
        workshop.engine.usage = usage
        workshop.client("echo it broke >&2; exit 1")
        with pytest.raises(BuildFailedError, match="it broke"):
            workshop.build()

    def test_without_room_for_a_job(self, workshop: Workshop) -> None:
        workshop.settings("disk_gb = 0\njob_gib = 1e6\n")
        with pytest.raises(BuildFailedError, match="stop an engine"):
            workshop.build()
        assert not (workshop.folder / "argv").exists()


def meminfo(path: Path, available_gib: float) -> None:
    path.with_suffix(".new").write_text(
        f"MemTotal: {121 * 2**20} kB\nMemFree: 1 kB\nCached: 1 kB\nMemAvailable: {int(available_gib * 2**20)} kB\n"
    )
    path.with_suffix(".new").replace(path)


class TestItsEnd:
    def test_it_is_ended_when_memory_becomes_scarce(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        played = workshop.folder / "meminfo"
        meminfo(played, 50)
        monkeypatch.setenv("HEARTH_MEMINFO", str(played))
        monkeypatch.setattr(builds, "_LOOK_EVERY_S", 0.02)
        workshop.client(f"trap 'echo ended >{workshop.folder}/ended; exit 1' TERM; while :; do sleep 0.1; done")
        monkeypatch.setattr(workshop, "told", Scarce(played))
        with pytest.raises(BuildFailedError, match=r"was ended, because only 5\.0 GiB of memory were available"):
            workshop.build()
        assert (workshop.folder / "ended").exists()

    def test_one_moment_without_memory_is_no_reason(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        played = workshop.folder / "meminfo"
        meminfo(played, 50)
        monkeypatch.setenv("HEARTH_MEMINFO", str(played))
        monkeypatch.setattr(builds, "_LOOK_EVERY_S", 0.02)
        workshop.client("sleep 1; echo it broke >&2; exit 1")
        monkeypatch.setattr(workshop, "told", Scarce(played, looks=2))
        with pytest.raises(BuildFailedError, match="its last word was: it broke"):
            workshop.build()

    def test_who_is_killed_takes_the_client_along(self, workshop: Workshop) -> None:
        workshop.client(f"echo $$ >{workshop.folder}/pid; exec sleep 60")
        script = (
            "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_image_build as t; "
            "t.Workshop.client = lambda *a, **k: None; t.Workshop(Path(sys.argv[1])).build()"
        )
        folders = [str(Path(__file__).parent), *(entry for entry in sys.path if entry)]
        process = subprocess.Popen([sys.executable, "-c", script, str(workshop.folder), *folders])
        pid_file = workshop.folder / "pid"
        until(lambda: pid_file.exists() and pid_file.read_text().strip())
        process.send_signal(signal.SIGKILL)
        process.wait()
        client = int(pid_file.read_text())
        until(lambda: not is_running(client))


class Scarce(list[Progress]):
    """Takes what is told of a build, and lets memory become scarce with the first word, for so many looks."""

    def __init__(self, played: Path, looks: int = 10**9) -> None:
        super().__init__()
        self._played, self._looks = played, looks

    def append(self, progress: Progress) -> None:
        super().append(progress)
        meminfo(self._played, 5 if len(self) <= self._looks else 50)


def until(happened: Any) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
