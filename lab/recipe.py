# SPDX-License-Identifier: Apache-2.0
"""recipe.py RECIPE OUT SERVED --base IMAGE --host HOST: a copy of a recipe of the catalog, with nothing of the world.

OUT becomes the recipe with these stand-ins, and nothing else is changed in it:

- the base image is IMAGE, and only the stages that need no CUDA are built (``prepared``);
- git sources are repositories below SERVED/git/RECIPE, served as git://HOST/RECIPE/; each has what expected.txt wants
  of it, and its submodules. They are fetched by commit, as the real ones;
- encodings are two small files below SERVED/files, served as http://HOST:8123/, with their own checksums;
- of the lock file there are two packages, as they stand in it, which come from PyPI.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[1] / "catalog" / "recipes"
FILES_PORT = 8123
# Pure Python, and in both locks.
KEPT_PACKAGES = ("packaging", "six")
# The same files always make the same commits.
_WHO = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "lab", "EMAIL": "lab@example.invalid", "DATE": "2026-01-01T00:00:00Z"}.items()
}


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], env={**os.environ, **_WHO}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class Repositories:
    """Bare repositories with one commit each, below a folder."""

    def __init__(self, folder: Path, host: str) -> None:
        self._folder = folder
        self._host = host
        self._module = ""

    def make(self, name: str, files: dict[str, str], modules: list[str]) -> tuple[str, str]:
        """Address and commit of a repository with these files, and a submodule at each of these paths."""
        work = self._folder / "work" / name
        git_folder = self._folder / f"{name}.git"
        for folder in (work, git_folder):
            shutil.rmtree(folder, ignore_errors=True)
        work.mkdir(parents=True)
        git(work, "init", "--quiet")
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text, encoding="utf-8")
        if modules:
            (work / ".gitmodules").write_text("".join(self._module_words(path) for path in modules), encoding="utf-8")
        git(work, "add", ".")
        for path in modules:
            git(work, "update-index", "--add", "--cacheinfo", f"160000,{self._module},{path}")
        git(work, "commit", "--quiet", "--message", f"{name}, as far as a recipe looks")
        git(self._folder, "clone", "--quiet", "--bare", str(work), str(git_folder))
        # As GitHub does: whoever knows a commit may have it.
        git(git_folder, "config", "uploadpack.allowAnySHA1InWant", "true")
        return self._address(name), git(work, "rev-parse", "HEAD")

    def _address(self, name: str) -> str:
        return f"git://{self._host}/{self._folder.name}/{name}.git"

    def _module_words(self, path: str) -> str:
        if not self._module:
            self._module = self.make("module", {"README": "a submodule\n"}, [])[1]
        return f'[submodule "{path}"]\n\tpath = {path}\n\turl = {self._address("module")}\n'


def expected(recipe: Path) -> dict[str, dict[str, str]]:
    """By source and file, the words that expected.txt wants there."""
    found: dict[str, dict[str, str]] = {}
    for line in (recipe / "expected.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            path, words = line.split(" ", 1)
            source, file = path.split("/", 1)
            texts = found.setdefault(source, {})
            texts[file] = texts.get(file, "") + words + "\n"
    return found


def stand_in_sources(recipe: Path, out: Path, repositories: Repositories) -> None:
    wanted = expected(recipe)
    lines = []
    for line in (recipe / "sources.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, _, modules = line.split()
        paths = ["deps/one"] if modules == "all" else [] if modules == "-" else modules.split(",")
        files = {"README": f"{name}\n", **wanted.get(name, {})}
        address, commit = repositories.make(name, files, paths)
        lines.append(f"{name} {address} {commit} {modules}\n")
    (out / "sources.txt").write_text("".join(lines), encoding="utf-8")


def stand_in_lock(recipe: Path, out: Path) -> None:
    text = (recipe / "requirements.txt").read_text(encoding="utf-8")
    kept = [re.search(rf"^{name}==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL) for name in KEPT_PACKAGES]
    (out / "requirements.txt").write_text("".join(found[0] for found in kept if found), encoding="utf-8")


def settings(out: Path, args: dict[str, str]) -> None:
    lines = ["disk_gb = 1\n", 'stage = "prepared"\n', "[args]\n", *(f'{key} = "{args[key]}"\n' for key in sorted(args))]
    (out / "recipe.toml").write_text("".join(lines), encoding="utf-8")


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("recipe")
    asked.add_argument("out", type=Path)
    asked.add_argument("served", type=Path)
    asked.add_argument("--base", required=True)
    asked.add_argument("--host", required=True)
    words = asked.parse_args()
    recipe, out, served = RECIPES / words.recipe, words.out, words.served
    shutil.rmtree(out, ignore_errors=True)
    # Links to the shared scripts become the scripts.
    shutil.copytree(recipe, out)
    args = {"BASE_IMAGE": words.base, "ENCODINGS_URL": f"http://{words.host}:{FILES_PORT}"}
    files = served / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name in ("cl100k", "o200k"):
        content = f"{name} of the lab\n".encode()
        (files / f"{name}_base.tiktoken").write_bytes(content)
        args[f"{name.upper()}_SHA256"] = hashlib.sha256(content).hexdigest()
    stand_in_sources(recipe, out, Repositories(served / "git" / words.recipe, words.host))
    stand_in_lock(recipe, out)
    settings(out, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
