# SPDX-License-Identifier: Apache-2.0
"""Builds an image from its recipe with ``docker buildx``, tells how far it is, and keeps the log.

The image gets its name when it is complete, so that a build may be killed at any moment; what it did until then is in
BuildKit's cache, and the next one goes on from there. An image with the recipe's label is not built again.

A build must not cost an engine its memory: compile jobs are counted by what is available when it begins, compilers run
at the lowest priority (the recipes see to it: BuildKit's processes are Docker's, not ours), and it is ended when memory
becomes scarce. BuildKit knows no limit of memory; ``docker build --memory`` is for the builder before it.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from hearth import memory
from hearth.images import mishaps, settings
from hearth.images.buildlog import BuildLog
from hearth.images.dockerd import Docker, Image
from hearth.images.plan import LABEL
from hearth.images.progress import Progress, Tell
from hearth.images.settings import BuildFailedError, Settings
from hearth.words import gigabytes, span

# BuildKit's own messages from this version of buildx on (docker/buildx, release v0.13.0).
_RAW_SINCE = (0, 13)
_ASK_S = 30.0
_LOOK_EVERY_S = 1.0
# As many looks in a row that find too little memory end a build: one alone may be an engine that just loads.
_LOOKS = 3
# Docker's client cancels a build at SIGTERM, which ends its processes, and then ends.
_CANCEL_S = 20.0
_TAIL_LINES = 25


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be built: the recipe's name, the image's, the recipe's fingerprint, and its folder on the box.

    ``platform`` as Docker has it, such as linux/arm64; the box's own where it is empty.
    """

    name: str
    ref: str
    fingerprint: str
    folder: str
    platform: str = ""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """``seconds`` it took, where its log is, and how many of its steps were in the cache; 0 steps: it was there."""

    image_id: str
    seconds: float = 0.0
    log: str = ""
    steps: int = 0
    cached: int = 0


def build(
    build: Build, *, log: Path, tell: Tell, docker: str = "/usr/bin/docker", engine: Docker | None = None
) -> Built:
    """Build the image, unless it is there. Raises BuildFailedError, and HearthError where Docker does not answer."""
    engine = engine or Docker()
    if there := _there(build, engine):
        return Built(image_id=there.id)
    wanted = settings.read(Path(build.folder))
    command = [docker, "buildx", "build", f"--progress={_progress(docker, build.name)}"]
    _refuse_without_room(build, wanted, engine)
    jobs = _jobs(build, wanted)
    # The builder of Docker itself, whatever the user's default is: its images and its cache are the box's.
    command += ["--builder", "default", "--load", "--tag", build.ref, "--label", f"{LABEL}={build.fingerprint}"]
    command += ["--platform", build.platform] if build.platform else []
    command += ["--target", wanted.stage] if wanted.stage else []
    command += [word for name, value in wanted.args.items() for word in ("--build-arg", f"{name}={value}")]
    began = time.monotonic()
    with _log(log) as out, tempfile.NamedTemporaryFile("w", prefix="hearth-jobs-") as said:
        said.write(f"{jobs}\n")
        said.flush()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        out.write(f"{stamp} {build.name} {build.fingerprint}, {jobs} jobs\n")
        command += ["--secret", f"id=jobs,src={said.name}", build.folder]
        followed = _run(build, command, out, tell, log)
    image = _there(build, engine)
    if image is None:
        raise BuildFailedError(
            f"building {build.name} ended well, but Docker has no {build.ref} of this recipe: was it removed? "
            f"Build it again (log: {log})"
        )
    return Built(
        image_id=image.id,
        seconds=time.monotonic() - began,
        log=str(log),
        steps=followed.standing.steps,
        cached=followed.cached,
    )


def _there(build: Build, engine: Docker) -> Image | None:
    image = engine.image(build.ref)
    return image if image and image.labels.get(LABEL) == build.fingerprint else None


def _progress(docker: str, name: str) -> str:
    """In which form buildx can tell of its progress. Raises BuildFailedError where there is none."""
    try:
        asked = subprocess.run(
            [docker, "buildx", "version"],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=False,
            env=_environment(),
        )
    except OSError as error:
        raise BuildFailedError(
            f"building {name} needs Docker's client, and {docker} cannot be run ({error.strerror}): install it"
        ) from None
    except subprocess.TimeoutExpired:
        raise BuildFailedError(f"building {name}: '{docker} buildx version' said nothing within {_ASK_S:g} s") from None
    if asked.returncode:
        raise BuildFailedError(
            f"building {name} needs docker buildx, which this box does not have: apt-get install docker-buildx on "
            "Debian and Ubuntu, docker-buildx-plugin where Docker is Docker's own or DGX OS's"
        )
    found = re.search(r"\bv?(\d+)\.(\d+)", asked.stdout)
    return "rawjson" if found and (int(found[1]), int(found[2])) >= _RAW_SINCE else "plain"


def _refuse_without_room(build: Build, wanted: Settings, engine: Docker) -> None:
    root = engine.settings.root
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        # A Docker whose disk cannot be seen from here.
        return
    # What an interrupted build had done already lies there, and is not wanted a second time.
    if free + _cache_bytes(engine) < wanted.disk_gb * 1e9:
        raise BuildFailedError(
            f"building {build.name} wants {wanted.disk_gb:g} GB below {root}, and {gigabytes(free)} GB are free: make "
            "room ('docker buildx prune' gives back what earlier builds left), or lower disk_gb in a recipe of your own"
        )


def _cache_bytes(engine: Docker) -> int:
    """What BuildKit's cache has (Docker Engine API, SystemDataUsage; from 1.52 on the sum is given)."""
    said = engine.get("/system/df?type=build-cache") or {}
    total = (said.get("BuildCacheUsage") or {}).get("TotalSize")
    return int(total or sum(record.get("Size") or 0 for record in said.get("BuildCache") or ()))


def _jobs(build: Build, wanted: Settings) -> int:
    now = memory.read()
    count = settings.jobs(wanted, now, len(os.sched_getaffinity(0)))
    if not count:
        raise BuildFailedError(
            f"building {build.name}: one compile job takes up to {wanted.job_gib:g} GiB, and of {now.available_gib:.0f}"
            " GiB available the host's share has to stay free: stop an engine (hearth stop), and build again"
        )
    return count


def _environment() -> dict[str, str]:
    # A job of systemd has no home, and Docker's client wants one. Attestations would make a list of an image.
    return {"HOME": "/root", **os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "NO_COLOR": "1"}


@contextmanager
def _log(path: Path) -> Iterator[IO[str]]:
    """The log of this build; that of the one before is kept beside it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.replace(f"{path}.1")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    except OSError as error:
        raise BuildFailedError(f"{path} cannot be written ({error.strerror}): a build has its log there") from None
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", buffering=1) as handle:
        yield handle


def _run(build: Build, command: list[str], out: IO[str], tell: Tell, log: Path) -> BuildLog:
    followed = BuildLog()
    # Whoever kills us kills what we wait for: without its client, BuildKit gives a build up.
    setpriv = shutil.which("setpriv")
    command = [setpriv, "--pdeathsig", "TERM", *command] if setpriv else command
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment()
    ) as process:
        try:
            scarce = _follow(process, followed, out, tell)
        except BaseException:
            _end(process)
            raise
    if scarce:
        raise BuildFailedError(
            f"building {build.name} was ended, because only {scarce:.1f} GiB of memory were available and the box was "
            "about to freeze: stop an engine, or lower max_jobs in a recipe of your own, and build again; what was "
            f"compiled is kept (log: {log})"
        )
    if process.returncode:
        raise _failed(build, followed, log)
    return followed


def _follow(process: subprocess.Popen[bytes], followed: BuildLog, out: IO[str], tell: Tell) -> float:
    """Follow the build to its end. Returns 0, or the GiB that were available when it had to be ended."""
    began = time.monotonic()
    rest = b""
    looks = 0
    told = 0.0
    with selectors.DefaultSelector() as selector:
        assert process.stderr is not None  # noqa: S101 - a pipe, see _run
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            ended = False
            if selector.select(_LOOK_EVERY_S):
                chunk = os.read(process.stderr.fileno(), 1 << 16)
                ended = not chunk
                *lines, rest = (rest + chunk).split(b"\n")
                for line in [*lines, rest] if ended else lines:
                    _write(out, followed.feed(line.decode(errors="replace")))
            if ended:
                return 0
            if time.monotonic() - told < _LOOK_EVERY_S:
                continue
            told = time.monotonic()
            tell(_progress_of(followed, told - began))
            now = memory.read()
            looks = looks + 1 if now.available_gib < settings.last_gib(now) else 0
            if looks >= _LOOKS:
                _end(process)
                return now.available_gib


def _write(out: IO[str], lines: list[str]) -> None:
    # A full disk must not end a build that has its own disk.
    with suppress(OSError):
        out.writelines(f"{line}\n" for line in lines)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        # Who cancels has something to say, and must not wait for a listener.
        process.communicate(timeout=_CANCEL_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _progress_of(followed: BuildLog, seconds: float) -> Progress:
    now = followed.standing
    words = ", ".join(part for part in (now.doing, f"{span(seconds)} in all") if part)
    return Progress(
        phase="building",
        step=min(now.done + 1, now.steps),
        steps=now.steps,
        bytes_done=now.bytes_done,
        bytes_total=now.bytes_total,
        words=f"{words}: {now.said[:100]}" if now.said else words,
    )


def _failed(build: Build, followed: BuildLog, log: Path) -> BuildFailedError:
    now = followed.standing
    lines = followed.failed_lines
    where = f" at {followed.failed_step}" if followed.failed_step else ""
    why = mishaps.reason(followed.error or now.said, lines)
    return BuildFailedError(f"building {build.name} failed{where}; {why} (log: {log})", log=lines[-_TAIL_LINES:])
