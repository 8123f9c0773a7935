# SPDX-License-Identifier: Apache-2.0
"""A virtual environment that holds exactly a hash-locked set of packages and one project. Standard library only.

PRIVATE to the collection. Each state has its own folder, named by a fingerprint of all that goes into it; a link is
moved to it when it is complete. So a crash leaves the old environment serving, and "is it right?" is one readlink.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_COMPLETE = ".complete"
# Slow mirrors are common, a dead one must still end: the whole set is about 5 MB.
_PIP_TIMEOUT_S = 900


class VenvError(Exception):
    """One sentence, with pip's own last words."""

    def __init__(self, sentence: str, output: str = "") -> None:
        super().__init__(sentence)
        self.output = output


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """``project`` holds the project's files by relative path; ``links`` maps a link's path to a file in the venv."""

    path: Path
    python: str
    requirements: str
    project: Mapping[str, str]
    links: Mapping[str, str]
    environment: Mapping[str, str]


def fingerprint(wanted: Wanted) -> str:
    """Changes when the packages, the project, or the interpreter's version do. Raises VenvError."""
    try:
        version = subprocess.run(  # pylint: disable=ansible-bad-function
            [wanted.python, "-c", "import sys, sysconfig; print(sys.version, sysconfig.get_platform())"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise VenvError(
            f"{wanted.python} does not run on this box ({error}): set runtime_python to one that does"
        ) from None
    digest = hashlib.sha256()
    for part in (version, wanted.requirements, *(text for item in sorted(wanted.project.items()) for text in item)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def wrong(wanted: Wanted, mark: str) -> list[str]:
    """What has to be done, in words; empty when all is as it should be.

    Raises VenvError where something is in the way that Hearth did not make.
    """
    home = _home(wanted, mark)
    for place in (wanted.path, *map(Path, wanted.links)):
        if place.exists() and not place.is_symlink():
            raise VenvError(f"{place} is there and Hearth did not make it: move it away and run this again")
    steps = []
    if not (home / _COMPLETE).exists() or not (home / "bin/python").exists():
        steps.append(f"build {home}")
    if not wanted.path.is_symlink() or wanted.path.resolve() != home.resolve():
        steps.append(f"link {wanted.path} to {home}")
    for link, target in sorted(wanted.links.items()):
        path = Path(link)
        if not path.is_symlink() or str(path.readlink()) != str(wanted.path / target):
            steps.append(f"link {link} to {wanted.path / target}")
    return steps


def build(wanted: Wanted, mark: str) -> None:
    """Do what ``wrong`` says. Two at once wait for each other. Raises VenvError; the old environment then stays."""
    home = _home(wanted, mark)
    home.parent.mkdir(parents=True, exist_ok=True)
    with _lock(home.parent / ".lock"):
        before = wanted.path.resolve().name
        if not (home / _COMPLETE).exists() or not (home / "bin/python").exists():
            # Left by a run that was killed, or broken by an upgrade of the system's Python.
            shutil.rmtree(home, ignore_errors=True)
            _fill(wanted, home)
        for link, target in (
            (str(wanted.path), str(home)),
            *((a, str(wanted.path / b)) for a, b in wanted.links.items()),
        ):
            _link(Path(link), target)
        # Programs that were started from the one before may still import from it.
        for old in home.parent.iterdir():
            if old.is_dir() and old.name not in (home.name, before):
                shutil.rmtree(old, ignore_errors=True)


def _home(wanted: Wanted, mark: str) -> Path:
    return wanted.path.parent / "venvs" / mark


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _link(path: Path, target: str) -> None:
    if path.is_symlink() and str(path.readlink()) == target:
        return
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _fill(wanted: Wanted, home: Path) -> None:
    _run([wanted.python, "-m", "venv", str(home)], wanted, "the virtual environment could not be made")
    lock = home / "requirements.txt"
    lock.write_text(wanted.requirements, encoding="utf-8")
    for name, text in wanted.project.items():
        file = home / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    pip = [str(home / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-input"]
    _run(
        [*pip, "--require-hashes", "--only-binary", ":all:", "--timeout", "20", "-r", str(lock)],
        wanted,
        "the runtime's packages could not be installed from PyPI: check the box's network, or name a mirror in "
        "runtime_pip_environment (PIP_INDEX_URL)",
    )
    _run(
        [*pip, "--no-index", "--no-deps", "--no-build-isolation", str(home / "project")],
        wanted,
        "the package hearth could not be installed",
    )
    (home / _COMPLETE).touch()
    os.sync()


def _run(command: list[str], wanted: Wanted, sentence: str) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **wanted.environment}
    try:
        answer = subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise VenvError(f"{sentence} (no end after {_PIP_TIMEOUT_S} s)") from None
    if answer.returncode:
        output = (answer.stdout + answer.stderr).strip()
        words = next((line for line in reversed(output.splitlines()) if "ERROR" in line or "Error" in line), "")
        raise VenvError(f"{sentence} ({words.strip() or f'exit code {answer.returncode}'})", output)
