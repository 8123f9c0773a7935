# SPDX-License-Identifier: Apache-2.0
"""The boxes that the tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import ROOT, Box

# Fixtures of the tests of downloads; a file of tests may have its own of the same name.
from downloads import folder, hub, others_stay_untouched, repo  # noqa: F401

# Those of the tests with engines of a Spark's size.
from sampler import made, stage  # noqa: F401


@pytest.fixture(scope="session")
def lab() -> None:
    """Engine, images, registry and models, made or found."""
    done = subprocess.run([str(ROOT / "lab/up.sh")], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


def _make(name: str, where: Path) -> Iterator[Box]:
    box = Box(name, where)
    shared = ROOT / "molecule/shared"
    box.ok(str(shared / "destroy.yml"))
    box.ok(str(shared / "create.yml"), str(shared / "prepare.yml"))
    yield box
    box.write_inventory()
    box.ok(str(shared / "destroy.yml"))


@pytest.fixture(scope="module")
def fresh_box(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that nobody has touched yet."""
    yield from _make("hearth-e2e-fresh", tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="session")
def box(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that site.yml has finished; tests leave it as they found it."""
    for one in _make("hearth-e2e", tmp_path_factory.mktemp("box")):
        one.ok("site.yml")
        yield one
