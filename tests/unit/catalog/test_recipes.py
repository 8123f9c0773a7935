# SPDX-License-Identifier: Apache-2.0
"""Recipes on the controller: what makes two of them one, and that nothing in the catalog's can move under our feet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resolving import GOOD, on_spark, real_catalog, resolve

from ansible_collections.hearth.spark.plugins.module_utils import _complete, _recipes
from ansible_collections.hearth.spark.plugins.module_utils._recipes import File, RecipeError

SHARED = _recipes.FOLDER / "shared"
RECIPES = sorted(path.parent for path in _recipes.FOLDER.glob("*/Dockerfile"))
FILES = {
    "Dockerfile": File(content=b"FROM scratch\n", executable=False),
    "patch.sh": File(content=b"#!/bin/sh\n", executable=True),
    "recipe.toml": File(content=b'title = "one"\n', executable=False),
}


def written(folder: Path, files: dict[str, File] = FILES) -> Path:
    for path, file in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(0o755 if file.executable else 0o644)
    return folder


class TestFingerprint:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"more": File(content=b"", executable=False)}, id="another file"),
            pytest.param({"Dockerfile": File(content=b"FROM scratch\n\n", executable=False)}, id="other content"),
            pytest.param({"patch.sh": File(content=b"#!/bin/sh\n", executable=False)}, id="not executable any more"),
        ],
    )
    def test_it_is_another_after(self, change: dict[str, File]) -> None:
        assert _recipes.fingerprint({**FILES, **change}) != _recipes.fingerprint(FILES)

    def test_a_file_of_another_name_makes_another(self) -> None:
        renamed = {("b" if path == "patch.sh" else path): file for path, file in FILES.items()}
        assert _recipes.fingerprint(renamed) != _recipes.fingerprint(FILES)

    @given(
        one=st.dictionaries(st.text("ab/", min_size=1, max_size=3), st.binary(max_size=4), max_size=3),
        other=st.dictionaries(st.text("ab/", min_size=1, max_size=3), st.binary(max_size=4), max_size=3),
    )
    def test_only_the_same_files_have_the_same(self, one: dict[str, bytes], other: dict[str, bytes]) -> None:
        marks = [
            _recipes.fingerprint({path: File(content=content, executable=False) for path, content in files.items()})
            for files in (one, other)
        ]
        assert (marks[0] == marks[1]) == (one == other)

    def test_neither_time_nor_rights_nor_umask_count(self, tmp_path: Path) -> None:
        first = _recipes.read(written(tmp_path / "recipe"))
        for path in (tmp_path / "recipe").iterdir():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1, 1))
        assert _recipes.read(tmp_path / "recipe").fingerprint == first.fingerprint

    def test_a_link_counts_as_what_it_leads_to(self, tmp_path: Path) -> None:
        whole = _recipes.read(written(tmp_path / "whole" / "recipe"))
        linked = written(tmp_path / "linked" / "recipe")
        (linked / "patch.sh").unlink()
        (linked / "patch.sh").symlink_to("../../whole/recipe/patch.sh")
        assert _recipes.read(linked) == whole

    def test_the_image_has_its_first_digits_and_a_registry_from_which_nothing_can_come(self, tmp_path: Path) -> None:
        recipe = _recipes.read(written(tmp_path / "mine"))
        assert recipe.ref == f"localhost/hearth/mine:{recipe.fingerprint[:12]}"


class TestWhatIsNoRecipe:
    @pytest.mark.parametrize(
        ("files", "sentence"),
        [
            ({"recipe.toml": FILES["recipe.toml"]}, "mine: has no Dockerfile"),
            ({"Dockerfile": FILES["Dockerfile"]}, "mine: has no recipe.toml"),
            ({**FILES, "recipe.toml": File(content=b"x", executable=False)}, "recipe.toml: is no TOML: "),
            (
                {**FILES, "recipe.toml": File(content=b"disk = 1", executable=False)},
                "unknown setting disk; known: args",
            ),
            (
                {**FILES, "recipe.toml": File(content=b'max_jobs = "2"', executable=False)},
                "max_jobs is not of the kind",
            ),
            (
                {**FILES, "recipe.toml": File(content=b"max_jobs = true", executable=False)},
                "max_jobs is not of the kind",
            ),
            ({**FILES, "recipe.toml": File(content=b"[args]\nX = 1", executable=False)}, "args.X must be text"),
            ({**FILES, "big": File(content=b"0" * (17 * 2**20), executable=False)}, "big: has 18 MB, and a recipe"),
        ],
    )
    def test_it_is_told_with_its_place(self, tmp_path: Path, files: dict[str, File], sentence: str) -> None:
        with pytest.raises(RecipeError, match=re.escape(sentence)):
            _recipes.read(written(tmp_path / "mine", files))

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="there is no such folder"):
            _recipes.read(tmp_path / "mine")

    def test_a_link_to_a_folder(self, tmp_path: Path) -> None:
        (written(tmp_path / "mine") / "patches").symlink_to(tmp_path)
        with pytest.raises(RecipeError, match="is a link to a folder"):
            _recipes.read(tmp_path / "mine")

    def test_a_name_that_no_image_can_have(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="rename it"):
            _recipes.read(written(tmp_path / "Mine!"))

    def test_hidden_files_are_not_part_of_it_but_for_dockerignore(self, tmp_path: Path) -> None:
        folder = written(tmp_path / "mine")
        for name in (".git", ".swp", ".dockerignore"):
            (folder / name).write_text("x")
        assert ".dockerignore" in _recipes.read(folder).files
        assert not {".git", ".swp"} & set(_recipes.read(folder).files)


class TestTheCatalogs:
    """Nothing that a recipe takes from elsewhere is named by something that can move."""

    @pytest.mark.parametrize("folder", RECIPES, ids=lambda path: path.name)
    def test_every_base_image_is_named_by_its_digest(self, folder: Path) -> None:
        text = (folder / "Dockerfile").read_text(encoding="utf-8")
        stages = set(re.findall(r"^FROM .* AS (\S+)$", text, re.MULTILINE))
        bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages
        assert bases <= {"${BASE_IMAGE}", "scratch"}
        assert re.findall(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)

    @pytest.mark.parametrize("folder", RECIPES, ids=lambda path: path.name)
    def test_every_file_that_is_downloaded_has_a_checksum(self, folder: Path) -> None:
        text = (folder / "Dockerfile").read_text(encoding="utf-8")
        for line in re.findall(r"^ADD .*", text, re.MULTILINE):
            (name,) = re.findall(r"--checksum=sha256:\$\{(\w+)\}", line)
            assert re.search(rf"^ARG {name}=[0-9a-f]{{64}}$", text, re.MULTILINE)
        assert not re.search(r"\b(curl|wget)\b", text)

    @pytest.mark.parametrize("path", sorted(_recipes.FOLDER.glob("*/sources.txt")), ids=lambda path: path.parent.name)
    def test_every_source_is_named_by_its_whole_commit(self, path: Path) -> None:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert lines
        for _, address, commit, _ in lines:
            assert address.startswith("https://github.com/")
            assert re.fullmatch(r"[0-9a-f]{40}", commit)

    @pytest.mark.parametrize(
        "path",
        [path for name in ("requirements", "build") for path in sorted(_recipes.FOLDER.glob(f"*/{name}.txt"))],
        ids=lambda path: f"{path.parent.name}-{path.stem}",
    )
    def test_every_package_has_one_version_and_checksums(self, path: Path) -> None:
        text = re.sub(r"^ *#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        packages = re.findall(r"^\S.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        assert packages
        for package in packages:
            assert re.match(r"[a-z0-9.-]+==\S+ (; .* )?\\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+\Z", package), (
                package[:99]
            )

    @pytest.mark.parametrize("folder", RECIPES, ids=lambda path: path.name)
    def test_the_encodings_are_those_that_models_fetch(self, folder: Path) -> None:
        said = dict(re.findall(r"^ARG (\w+)_SHA256=(\w+)$", (folder / "Dockerfile").read_text("utf-8"), re.MULTILINE))
        fetched = {file["path"]: file["sha256"] for file in real_catalog().models["gpt-oss-120b"]["extra_files"]}
        for name in {"CL100K", "O200K"} & set(said):
            assert fetched[f"tiktoken/{name.lower()}_base.tiktoken"] == said[name]

    def test_every_recipe_is_an_image_and_has_a_name_of_its_fingerprint(self) -> None:
        built = {image["build"]: image["ref"] for image in real_catalog().images.values() if image["build"]}
        assert built == {folder.name: _recipes.read(folder).ref for folder in RECIPES}


class TestInTheInventory:
    """Images that are built, as users name them."""

    def test_a_recipe_of_ones_own_gives_the_image_its_name(self, tmp_path: Path) -> None:
        recipe = _recipes.read(written(tmp_path / "mine"))
        images = {"own": {"engine": "llama.cpp", "build": "mine/", "architectures": ["amd64"]}}
        models = {"scout": GOOD | {"image": "own"}}
        (engine,) = resolve(models, images=images, recipes=_recipes.refs(images, tmp_path))
        assert engine.contract["image"] == recipe.ref

    @pytest.mark.parametrize("build", ["./mine", "mine/"])
    def test_a_relative_path_counts_from_the_inventory(self, tmp_path: Path, build: str) -> None:
        written(tmp_path / "mine")
        assert _recipes.refs({"own": {"build": build}}, tmp_path)[build].startswith("localhost/hearth/mine:")

    def test_an_absolute_path_counts_from_nothing(self, tmp_path: Path) -> None:
        written(tmp_path / "mine")
        build = str(tmp_path / "mine")
        assert _recipes.refs({"own": {"build": build}}, "/nowhere")[build].startswith("localhost/hearth/mine:")

    def test_a_name_is_one_of_the_catalog(self) -> None:
        assert _recipes.folder("vllm-sm121", "/nowhere") == _recipes.FOLDER / "vllm-sm121"

    def test_what_is_built_in_the_catalog_may_be_pulled_instead(self) -> None:
        images = {"vllm-christopherowen-mxfp4": {"ref": "registry.example/mxfp4:1"}}
        (engine,) = on_spark({"gpt-oss-20b-mxfp4": None}, images=images, catalog=real_catalog())
        assert engine.contract["image"] == "registry.example/mxfp4:1"

    def test_what_is_pulled_in_the_catalog_may_be_built_instead(self, tmp_path: Path) -> None:
        recipe = _recipes.read(written(tmp_path / "mine"))
        build = str(tmp_path / "mine")
        images = {"vllm-ngc-26.09": {"build": build}}
        (engine,) = on_spark(
            {"gpt-oss-120b": None}, images=images, catalog=real_catalog(), recipes=_recipes.refs(images)
        )
        assert engine.contract["image"] == recipe.ref

    def test_more_may_be_said_of_one_that_is_built(self) -> None:
        images = {"vllm-christopherowen-mxfp4": {"known_failures": ["none here"]}}
        (engine,) = on_spark({"gpt-oss-20b-mxfp4": None}, images=images, catalog=real_catalog())
        assert engine.contract["image"] == real_catalog().images["vllm-christopherowen-mxfp4"]["ref"]

    @pytest.mark.parametrize(
        ("image", "sentence"),
        [
            ({"build": "vllm-sm121", "ref": "x/y"}, "engines_images.own.ref: cannot be said of an image that is built"),
            ({"build": "vllm-sm121", "digest": f"sha256:{'ab' * 32}"}, "engines_images.own.digest: cannot be said"),
            ({}, "engines_images.own.ref: is required, or build"),
        ],
    )
    def test_an_image_comes_from_one_place(self, image: dict[str, Any], sentence: str) -> None:
        images = {"own": {"engine": "llama.cpp", "architectures": [], **image}}
        with pytest.raises(_complete.ResolveError, match=re.escape(sentence)):
            resolve({"scout": GOOD | {"image": "own"}}, images=images, recipes=_recipes.refs(images))


class TestScripts:
    """The scripts that recipes share; git and the shell are real."""

    @pytest.fixture
    def repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A repository with one file; git's own settings are of this test."""
        if not shutil.which("git"):
            pytest.skip("no git here")
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{name}_NAME", "lab")
            monkeypatch.setenv(f"GIT_{name}_EMAIL", "lab@example.invalid")
        folder = tmp_path / "origin"
        folder.mkdir()
        (folder / "a.py").write_text("one\ntwo\nthree\n")
        for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "a")):
            subprocess.run(["git", "-C", str(folder), *words], check=True)
        return folder

    def commit(self, repository: Path) -> str:
        said = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, check=True)
        return said.stdout.decode().strip()

    def run(self, script: str, *words: object) -> subprocess.CompletedProcess[str]:
        command = [str(SHARED / script), *map(str, words)]
        if script.endswith(".py"):
            command.insert(0, sys.executable)
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def fetch(self, tmp_path: Path, line: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "sources.txt").write_text(f"# a comment\n\n{line}\n")
        return self.run("fetch.sh", tmp_path / "sources.txt", tmp_path / "cache", tmp_path / "src")

    def test_a_source_is_brought_at_its_commit_and_from_the_cache_the_next_time(
        self, tmp_path: Path, repository: Path
    ) -> None:
        line = f"a {repository} {self.commit(repository)} -"
        first = self.fetch(tmp_path, line)
        assert (first.returncode, (tmp_path / "src/a/a.py").read_text()) == (0, "one\ntwo\nthree\n"), first.stderr
        shutil.rmtree(repository)
        shutil.rmtree(tmp_path / "src")
        assert self.fetch(tmp_path, line).returncode == 0

    def test_a_cache_that_was_left_half_made_is_made_anew(self, tmp_path: Path, repository: Path) -> None:
        (tmp_path / "cache/a.git/objects").mkdir(parents=True)
        assert self.fetch(tmp_path, f"a {repository} {self.commit(repository)} -").returncode == 0

    @pytest.mark.parametrize(
        ("commit", "said"),
        [("main", "a commit is written in full"), ("ab" * 20, f"does not give commit {'ab' * 20}")],
    )
    def test_what_is_no_commit_of_it_is_refused(self, tmp_path: Path, repository: Path, commit: str, said: str) -> None:
        failed = self.fetch(tmp_path, f"a {repository} {commit} -")
        assert failed.returncode == 1
        assert said in failed.stderr

    def test_a_patch_applies_wholly_or_nothing_of_it_does(self, tmp_path: Path, repository: Path) -> None:
        patches = tmp_path / "patches" / "origin"
        patches.mkdir(parents=True)
        (repository / "a.py").write_text("one\n2\nthree\n")
        patch = subprocess.run(["git", "-C", str(repository), "diff"], capture_output=True, check=True).stdout
        subprocess.run(["git", "-C", str(repository), "checkout", "--quiet", "a.py"], check=True)
        (patches / "1.patch").write_bytes(patch)
        (patches / "README.md").write_text("no patch")
        assert self.run("patch.sh", tmp_path / "patches", tmp_path).returncode == 0
        assert (repository / "a.py").read_text() == "one\n2\nthree\n"
        again = self.run("patch.sh", tmp_path / "patches", tmp_path)
        assert (again.returncode, "patch: origin/1.patch does not apply" in again.stderr) == (1, True)
        assert (repository / "a.py").read_text() == "one\n2\nthree\n"

    def test_a_patch_for_no_source_is_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "patches/other").mkdir(parents=True)
        (tmp_path / "patches/other/1.patch").write_text("x")
        assert "there is no source other" in self.run("patch.sh", tmp_path / "patches", tmp_path).stderr

    @pytest.mark.parametrize(("words", "code"), [("two", 0), ("one and two", 1)])
    def test_sources_have_to_say_what_is_expected_of_them(self, tmp_path: Path, words: str, code: int) -> None:
        (tmp_path / "a.py").write_text("one two\n")
        (tmp_path / "expected.txt").write_text(f"# of a\na.py {words}\n")
        done = self.run("expect.sh", tmp_path / "expected.txt", tmp_path)
        assert (done.returncode, words in done.stderr) == (code, bool(code))

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("packaging>=1", ""),
            ("packaging>=9999", "asks for packaging>=9999: it is "),
            ("no-such-package", "asks for no-such-package: it is missing"),
            ('no-such-package; python_version < "3"', ""),
            ("# packaging>=9999\n--extra-index-url https://x", ""),
            ("No_Such.allowed==1 # as it is", ""),
        ],
    )
    def test_what_requirements_ask_for_has_to_be_installed(self, tmp_path: Path, line: str, said: str) -> None:
        (tmp_path / "more.txt").write_text(f"{line}\n")
        (tmp_path / "all.txt").write_text("-r more.txt\n")
        done = self.run("met.py", tmp_path / "all.txt", "no-such-allowed")
        assert (done.returncode, said in done.stderr) == (1 if said else 0, True)

    def test_what_a_distribution_asks_for_has_to_be_installed(self) -> None:
        assert self.run("met.py", "pytest").returncode == 0
