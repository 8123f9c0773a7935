# SPDX-License-Identifier: Apache-2.0
"""The boxes that the tests share."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator

import pytest
from boxes import ROOT, Box, brought_up

# Those of the tests of the gateway.
from callers import door, open_door  # noqa: F401

# Fixtures of the tests of downloads; a file of tests may have its own of the same name.
from downloads import folder, hub, others_stay_untouched, repo  # noqa: F401

# Those of the tests with engines of a Spark's size.
from sampler import made, stage  # noqa: F401

# The files of tests that take minutes, the longest first: begun in this order, two workers end at nearly the same time.
LONGEST = (
    "test_gateway.py",
    "test_switch_faults.py",
    "test_gateway_faults.py",
    "test_images.py",
    "test_uninstall.py",
    "test_update.py",
    "test_backup.py",
    "test_site.py",
    "test_model_task.py",
    "test_switch_killed.py",
    "test_gateway_role.py",
    "test_bad_input.py",
    "test_active_model.py",
    "test_engine.py",
    "test_interrupted.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files in that order, and all others behind them."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def lab() -> None:
    """Engine, images, registry and models, made or found: of workers side by side the first one makes them."""
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "e2e.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run([str(ROOT / "lab/up.sh")], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def box_name(worker_id: str) -> str:
    """What this worker's boxes are called, so that two workers never have the same one."""
    return "hearth-e2e" if worker_id == "master" else f"hearth-e2e-{worker_id}"


@pytest.fixture(scope="module")
def fresh_box(lab: None, box_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that nobody has touched yet."""
    with brought_up(f"{box_name}-fresh", tmp_path_factory.mktemp("fresh")) as one:
        yield one


@pytest.fixture(scope="session")
def box(lab: None, box_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that site.yml has finished, one for each worker; tests leave it as they found it."""
    with brought_up(box_name, tmp_path_factory.mktemp("box")) as one:
        one.ok("site.yml")
        yield one
