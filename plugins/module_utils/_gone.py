# SPDX-License-Identifier: Apache-2.0
"""What is to be gone from a box: units, containers, images and files. Standard library only: no package is needed.

PRIVATE to the collection. First everything is found, then it is removed in the same order: who runs before what it runs
from, so that a removal that was cut off is finished by the next one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.hearth.spark.plugins.module_utils import _program

_DOCKER_S = 300.0
# What systemctl and docker say of something that went with what was stopped before it.
_WENT = re.compile(r"not loaded|No such (?:container|image)")
_UNITS = "/etc/systemd/system"


class GoneError(Exception):
    """One sentence: what could not be removed, and why."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Shell patterns of units and paths, filters of ``docker container ls``, patterns of names of images."""

    units: Sequence[str] = ()
    containers: Sequence[str] = ()
    images: Sequence[str] = ()
    paths: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that is there: ``words`` say what is done, ``commands`` or the removal of ``path`` do it."""

    words: str
    commands: tuple[tuple[str, ...], ...] = ()
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit as systemd tells of it: whether it does something now, failed, and starts by itself."""

    name: str
    runs: bool = False
    failed: bool = False
    enabled: bool = False


def refused(paths: Sequence[str]) -> str:
    """Why these patterns of paths are none that anything may be removed by; empty where they may."""
    for pattern in paths:
        parts = Path(pattern).parts
        if not pattern.startswith("/") or ".." in parts or len(parts) < 3 or set("*?[") & set("".join(parts[:3])):
            return (
                f"{pattern}: must be an absolute path at least two folders deep, without .., and these with plain names"
            )
    return ""


def units(listed: str, files: str) -> list[Unit]:
    """Those of ``systemctl list-units --all --plain`` and of ``list-unit-files``, both with ``--no-legend``."""
    # NAME LOAD ACTIVE SUB DESCRIPTION, and NAME STATE PRESET.
    states = {words[0]: words[2] for words in map(str.split, listed.splitlines()) if len(words) > 3}
    enabled = {words[0] for words in map(str.split, files.splitlines()) if len(words) > 1 and "enabled" in words[1]}
    return [
        Unit(
            name=name,
            runs=states.get(name, "inactive") not in ("inactive", "failed"),
            failed=states.get(name) == "failed",
            enabled=name in enabled,
        )
        for name in sorted(states.keys() | enabled, key=_last)
    ]


def _last(name: str) -> tuple[bool, bool, str]:
    """Sockets before the services that they would start again, and a slice behind what runs in it."""
    return name.endswith(".slice"), not name.endswith((".socket", ".timer")), name


def find(wish: Wish) -> tuple[list[Step], list[str]]:
    """What of it is there, and sentences on what could not be looked at."""
    steps: list[Step] = []
    told: list[str] = []
    if wish.units:
        words = ("--no-legend", "--no-pager", "--full", *wish.units)
        listed = _program.run("systemctl", "list-units", "--all", "--plain", *words).stdout
        steps += filter(None, map(_unit, units(listed, _program.run("systemctl", "list-unit-files", *words).stdout)))
    if (wish.containers or wish.images) and shutil.which("docker", path=_program.PROGRAMS):
        found = _of_docker(wish)
        if found is None:
            told.append("Docker does not answer, so containers and images of Hearth that it may have stay")
        steps += found or []
    steps += [
        Step(words=f"remove {path}", path=Path(path)) for pattern in wish.paths for path in sorted(_matching(pattern))
    ]
    return steps, told


def _matching(pattern: str) -> list[str]:
    """Paths, also links that lead nowhere: pathlib does not find these by a name without a pattern's signs."""
    if os.path.lexists(pattern):
        return [pattern]
    return [str(path) for path in Path("/").glob(pattern.lstrip("/"))]


def _unit(unit: Unit) -> Step | None:
    todo = {"stop": unit.runs, "disable": unit.enabled, "reset-failed": unit.failed}
    commands = tuple(("systemctl", verb, unit.name) for verb, wanted in todo.items() if wanted)
    verbs = [command[1] for command in commands]
    return Step(words=f"{' and '.join(verbs)} {unit.name}", commands=commands) if commands else None


def _of_docker(wish: Wish) -> list[Step] | None:
    steps = []
    for words, removal, names in (
        *((("container", "ls", "--all"), ("rm", "--force"), ("{{.Names}}", one)) for one in wish.containers),
        *(
            (("image", "ls"), ("rmi", "--force"), ("{{.Repository}}:{{.Tag}}", f"reference={one}"))
            for one in wish.images
        ),
    ):
        done = _program.run("docker", *words, "--format", names[0], "--filter", names[1], timeout_s=_DOCKER_S)
        if done.returncode:
            return None
        steps += [
            Step(words=f"remove the {words[0]} {name}", commands=(("docker", *removal, name),))
            for name in sorted(set(done.stdout.split()))
        ]
    return steps


def remove(steps: Sequence[Step]) -> None:
    """Carry them out. Raises GoneError at the first that cannot be; the next run goes on there."""
    for step in steps:
        for command in step.commands:
            done = _program.run(*command)
            if done.returncode and not _WENT.search(done.stderr):
                raise GoneError(f"{' '.join(command)} failed ({' '.join(done.stderr.split())})")
        if step.path is not None:
            try:
                _delete(step.path)
            except OSError as error:
                raise GoneError(f"{error.filename or step.path} cannot be removed ({error.strerror})") from None
    if any(step.path is not None and step.path.is_relative_to(_UNITS) for step in steps):
        _program.run("systemctl", "daemon-reload")


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
