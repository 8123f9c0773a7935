# SPDX-License-Identifier: Apache-2.0
"""What a box had before Hearth, and what of Hearth's packages and folders may go again. Standard library only.

PRIVATE to the collection. The first run of site.yml writes it down, before it changes anything; later ones leave it.
What is not written down counts as having been there: nobody knows, so it stays.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _fileset, _program

RECORD = Path("/var/lib/hearth/origin.json")
SCHEMA = 1
# A large set of packages takes minutes to be removed.
_APT_S = 1200.0


class OriginError(Exception):
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The names of the packages that were installed; each path that was asked about, and whether it was there."""

    packages: frozenset[str]
    paths: dict[str, bool]


def load(path: Path = RECORD) -> Origin | None:
    """What was written down. None where there is nothing. Raises OriginError for a record that cannot be read."""
    try:
        read: Any = json.loads(path.read_text(encoding="utf-8"))
        if read["schema"] != SCHEMA:
            version = read["schema"]
            raise OriginError(f"{path} is of another version of Hearth ({version}): use that one, or remove the file")
        return Origin(packages=frozenset(read["packages"]), paths=dict(read["paths"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise OriginError(f"{path} cannot be read: remove it, and what was there before Hearth is not known") from None


def save(origin: Origin, path: Path = RECORD) -> None:
    """Write it down. Raises OriginError."""
    content = {"schema": SCHEMA, "packages": sorted(origin.packages), "paths": origin.paths}
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _fileset.write(path, json.dumps(content, indent=1).encode() + b"\n", 0o644, os.geteuid(), os.getegid())
    except OSError as error:
        raise OriginError(f"{path} cannot be written ({error.strerror})") from None


def installed() -> frozenset[str]:
    """The names of the packages that are installed, and of those whose installation was cut short."""
    done = _program.run("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n")
    pairs = (line.split() for line in done.stdout.splitlines())
    return frozenset(pair[0] for pair in pairs if len(pair) == 2 and pair[1] not in ("not-installed", "config-files"))


def ours(origin: Origin, asked: Sequence[str], now: Collection[str]) -> list[str]:
    """Those of the packages that Hearth asks for that are here, and were not before it."""
    # A version may be behind the name, as in name=1.2-3.
    names = dict.fromkeys(name.partition("=")[0] for name in asked)
    return [name for name in names if name in now and name not in origin.packages]


def purged(simulated: str) -> list[str]:
    """The packages that ``apt-get --simulate purge`` names, in lines "Purg name [1.2-3]" or "Remv …" (apt-get(8))."""
    return re.findall(r"^(?:Purg|Remv) ([^\s:]+)", simulated, flags=re.MULTILINE)


def plan(
    origin: Origin,
    wanted: Sequence[str],
    *,
    manual: Collection[str],
    needs: Collection[str],
    simulate: Callable[..., list[str]],
) -> tuple[list[str], list[str]]:
    """The packages that may be purged: of ``wanted``, with what came along; and a sentence on each that stays.

    What nothing needs any more goes along where it is among ``needs``: all that ``wanted`` needs, directly or not. A
    package stays where purging it takes another with it that was there before Hearth, or that somebody asked for since.
    ``simulate`` gives the names that apt would purge for its words.
    """

    def foreign(going: Collection[str]) -> set[str]:
        return {name for name in going if name not in wanted and (name in origin.packages or name in manual)}

    users = {name: sorted(foreign(simulate(name))) for name in wanted}
    told = [f"{name} stays, since {', '.join(needing)} needs it" for name, needing in users.items() if needing]
    going = [name for name in wanted if not users[name]]
    if not going:
        return [], told
    along = [
        name
        for name in simulate("--auto-remove", *going)
        if name not in origin.packages and name not in manual and name in needs
    ]
    return sorted({*going, *along} - {name for name, needing in users.items() if needing}), told


def simulate(*words: str) -> list[str]:
    """The packages that ``apt-get purge`` would take with these words. Raises OriginError."""
    # What another one only recommends or suggests apt would keep (apt.conf(5)); `plan` sees to it that no more goes.
    alone = [f"-oAPT::AutoRemove::{kind}Important=false" for kind in ("Recommends", "Suggests")]
    done = _program.run("apt-get", "--simulate", "--quiet", "--yes", *alone, "purge", *words)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise OriginError(f"apt cannot remove {' '.join(words)} ({said}): no package was removed")
    return purged(done.stdout)


def kept_by_docker(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the packages that Docker keeps, since it has what is not Hearth's, and a sentence on it.

    Debian's docker.io removes all of Docker's data when it is purged (its postrm). What is Hearth's is gone by now.
    """
    of_docker = [name for name in names if name.startswith(("docker", "containerd"))]
    if not of_docker:
        return [], []
    kinds = {"containers": ("container", "ls", "--all"), "images": ("image", "ls"), "volumes": ("volume", "ls")}
    answers = {kind: _program.run("docker", *words, "--quiet", timeout_s=60) for kind, words in kinds.items()}
    if any(answer.returncode == _program.NO_PROGRAM for answer in answers.values()):
        # Its installation was cut short, or its client removed: it has nothing that could be asked for.
        return [], []
    if any(answer.returncode for answer in answers.values()):
        return of_docker, [f"{', '.join(of_docker)} stays, since Docker does not answer, and what it has would be lost"]
    has = [f"{len(set(answer.stdout.split()))} {kind}" for kind, answer in answers.items() if answer.stdout.split()]
    if has:
        return of_docker, [f"{', '.join(of_docker)} stays, since Docker has {' and '.join(has)} that are not Hearth's"]
    return [], []


def needed(names: Sequence[str]) -> frozenset[str]:
    """All packages that these need, directly or not."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    words = ["--recurse", "--installed", *(f"--no-{kind}" for kind in kinds)]
    said = _program.run("apt-cache", "depends", *words, *names).stdout if names else ""
    # "  Depends: name" and "    name", one that provides it; in <…> what is only provided.
    names_said = (line.rpartition(" ")[2].strip("<>") for line in said.splitlines())
    return frozenset(name.partition(":")[0] for name in names_said)


def manual_packages() -> frozenset[str]:
    """What somebody asked apt for by name."""
    return frozenset(_program.run("apt-mark", "showmanual").stdout.split())


def purge(packages: Sequence[str], lock_timeout_s: float) -> None:
    """Purge exactly these. Raises OriginError."""
    if not packages:
        return
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    waits = f"DPkg::Lock::Timeout={int(lock_timeout_s)}"
    done = _program.run("apt-get", "--quiet", "--yes", "-o", waits, "purge", *packages, timeout_s=_APT_S)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-1:]
        raise OriginError(f"{', '.join(packages)} could not be removed ({' '.join(said)})")


def empty_folders(origin: Origin) -> list[str]:
    """Folders that were not there before Hearth, and in which nothing lies but such folders; the deepest first."""
    gone: set[str] = set()
    for name in sorted((path for path, was in origin.paths.items() if not was), key=lambda one: -one.count("/")):
        path = Path(name)
        if not path.is_symlink() and path.is_dir() and all(str(child) in gone for child in path.iterdir()):
            gone.add(name)
    return sorted(gone, key=lambda one: (-one.count("/"), one))


def remove_folders(folders: Sequence[str]) -> None:
    """Remove these, as far as they are still empty."""
    for folder in folders:
        try:
            Path(folder).rmdir()
        except OSError as error:
            raise OriginError(f"{folder} cannot be removed ({error.strerror})") from None
