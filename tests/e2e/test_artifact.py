# SPDX-License-Identifier: Apache-2.0
"""What a user of the artifact gets: built, installed without network, its playbooks found by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import pytest
from boxes import Box, Run

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment that knows the virtual environment and nothing of the checkout."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
    # Galaxy must not be asked: a server that cannot answer makes every question an error.
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "ANSIBLE_HOME": str(home / ".ansible"),
        "ANSIBLE_GALAXY_SERVER": "https://galaxy.invalid/",
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("build")
    run(ROOT / "scripts" / "copy-tree.sh", folder / "tree", cwd=ROOT, env=env)
    run("ansible-galaxy", "collection", "build", "--output-path", folder, folder / "tree", cwd=folder, env=env)
    (built,) = folder.glob("hearth-spark-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, artifact: Path, env: dict[str, str]) -> dict[str, str]:
    """The environment with the artifact in an otherwise empty collections folder."""
    folder = tmp_path_factory.mktemp("collections")
    run("ansible-galaxy", "collection", "install", "-p", folder, artifact, cwd=folder, env=env)
    assert [path.name for path in (folder / "ansible_collections").iterdir() if path.suffix != ".info"] == ["hearth"], (
        "the dependencies come with the ansible package"
    )
    return {**env, "ANSIBLE_COLLECTIONS_PATH": str(folder)}


def members(artifact: Path) -> set[str]:
    with tarfile.open(artifact) as archive:
        return {member.name.removeprefix("./") for member in archive.getmembers()}


def test_artifact_has_the_product(artifact: Path) -> None:
    names = members(artifact)
    wanted = [
        "LICENSE",
        "README.md",
        "meta/runtime.yml",
        "playbooks/site.yml",
        "playbooks/switch.yml",
        "plugins/modules/engine_health.py",
        "pyproject.toml",
        "roles/runtime/files/requirements.txt",
        "src/hearth/__init__.py",
    ]

    assert [name for name in wanted if name not in names] == []


def test_artifact_has_nothing_else(artifact: Path) -> None:
    product = {
        "CHANGELOG.md",
        "FILES.json",
        "LICENSE",
        "MANIFEST.json",
        "README.md",
        "catalog",
        "changelogs",
        "docs",
        "inventory",
        "meta",
        "playbooks",
        "plugins",
        "pyproject.toml",
        "requirements.yml",
        "roles",
        "src",
    }
    names = members(artifact)

    assert {PurePosixPath(name).parts[0] for name in names} <= product
    assert [name for name in names if name.endswith((".pyc", ".tar.gz")) or "__pycache__" in name] == []


@pytest.mark.parametrize("playbook", ["hearth.spark.site", "hearth.spark.switch"])
def test_playbook_is_found_by_name(playbook: str, installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("box ansible_connection=local\n")

    run("ansible-playbook", "-i", "hosts", "--syntax-check", playbook, cwd=tmp_path, env=installed)


@pytest.mark.parametrize("module", ["engine_health", "active_model"])
def test_module_is_documented_there(module: str, installed: dict[str, str], tmp_path: Path) -> None:
    name = f"hearth.spark.{module}"
    answer = json.loads(run("ansible-doc", "-t", "module", "--json", name, cwd=tmp_path, env=installed))

    assert answer[name]["doc"]["short_description"]
    assert answer[name]["examples"]


def test_roles_are_documented_there(installed: dict[str, str], tmp_path: Path) -> None:
    answer = json.loads(
        run("ansible-doc", "-t", "role", "--list", "--json", "hearth.spark", cwd=tmp_path, env=installed)
    )

    roles = {path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir()}
    assert set(answer) == {f"hearth.spark.{role}" for role in roles}


def test_package_builds_from_the_artifact(artifact: Path, tmp_path: Path, env: dict[str, str]) -> None:
    """The role runtime builds the package on the box: all that takes is in the artifact."""
    (tmp_path / "tree").mkdir()
    run("tar", "-xzf", artifact, "-C", tmp_path / "tree", cwd=tmp_path, env=env)
    # Only what the role ships.
    (tmp_path / "box").mkdir()
    for name in ("src", "pyproject.toml"):
        shutil.move(tmp_path / "tree" / name, tmp_path / "box" / name)
    build = "from flit_core import buildapi; print(buildapi.build_wheel('.'))"
    wheel = run(sys.executable, "-c", build, cwd=tmp_path / "box", env=env).split()[-1]

    assert wheel.startswith("hearth-")


def test_a_box_that_the_checkout_made_is_right_for_the_artifact_too(
    box: Box, installed: dict[str, str], tmp_path: Path
) -> None:
    said = run("ansible-playbook", "-i", box.inventory, "hearth.spark.site", cwd=tmp_path, env=installed)

    assert Run(0, said).count("changed") == 0, said
    assert Run(0, said).count("ok") > 0, said
