# SPDX-License-Identifier: Apache-2.0
"""What the tests of downloads share: a hub, models on it, downloads in this process and in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from boxes import ROOT

from hearth.download import Patience, Progress, Request, Result, present
from hearth.errors import HearthError

sys.path.insert(0, str(ROOT / "tests/hub"))

from faults import Fault, Seen
from repos import Blob, Repo
from server import TestHub

__all__ = ["Blob", "Fault", "Repo", "Seen", "TestHub"]

SHARD = "model-00001-of-00002.safetensors"
# A test does not wait for what a person would wait for.
QUICK = Patience(
    connect_s=2.0, read_s=1.0, tries=3, backoff_s=0.01, backoff_max_s=0.05, retry_after_max_s=5.0, xet_stall_s=1.0
)


@pytest.fixture
def hub() -> Iterator[TestHub]:
    made = TestHub()
    yield made
    made.close()


@pytest.fixture
def repo(hub: TestHub) -> Repo:
    return hub.add("me/model", model())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "family" / "model"


@pytest.fixture
def others_stay_untouched(folder: Path) -> Iterator[None]:
    """Beside the model's folder is one of a model that has nothing to do with it."""
    other = folder.with_name("other")
    other.mkdir(parents=True)
    (other / "weights").write_bytes(noise(1000))
    before = [(path, path.stat()) for path in other.rglob("*")]
    yield
    assert [(path, path.stat()) for path in other.rglob("*")] == before


def sha256(hub: TestHub, path: str = SHARD) -> str:
    """Of a file of ``me/model``."""
    repo = hub.repos["me/model"]
    return repo.commits[repo.branches["main"]][path].sha256


def requests(hub: TestHub) -> list[str]:
    """What the hub was asked."""
    return [f"{one.method} {one.path}" for one in hub.script.asked()]


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that are the same for the same seed."""
    from random import Random

    return Random(seed).randbytes(size)  # noqa: S311


def model(seed: int = 0, weights: int = 300_000) -> dict[str, bytes]:
    """The files of a small model in two shards."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    return {
        "config.json": json.dumps({"seed": seed}).encode(),
        "tokenizer/vocab.json": noise(2_000, seed + 1),
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": noise(weights, seed + 2),
        "model-00002-of-00002.safetensors": noise(weights // 2, seed + 3),
    }


def ask(hub: TestHub, folder: Path, **more: Any) -> Request:
    """A request for ``me/model`` of this hub; no space is kept free, and little is waited for."""
    complete = {"repo": "me/model", "endpoint": hub.endpoint, "reserve_bytes": 0, "patience": QUICK}
    return Request(folder=str(folder), **{**complete, **more})


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the manifest."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".hearth.json"
    }


def sentence(request: Request, told: list[Progress] | None = None) -> str:
    """Why a download fails."""
    try:
        present(request, (told if told is not None else []).append)
    except HearthError as error:
        return str(error)
    raise AssertionError(f"{request.folder} was brought")


class Run:
    """A download in a process of its own, as a box has it."""

    def __init__(self, request: Request, *words: str, before: str = "") -> None:
        code = f"{before}\nimport runpy\nrunpy.run_module('hearth.download', run_name='__main__')"
        self.process = subprocess.Popen(
            (sys.executable, "-P", "-c", code, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(request))
        self.process.stdin.close()
        self.process.stdin = None

    def end(self) -> tuple[int, Result | None, str]:
        """Exit code, result, and what it says on stderr."""
        out, err = self.process.communicate(timeout=60)
        last = json.loads(out.splitlines()[-1]) if out else {}
        result = msgspec.convert(last["result"], Result) if "result" in last else None
        return self.process.returncode, result, err.decode()

    def kill(self, after_s: float) -> bool:
        """Kill -9 it after so many seconds; false where it was done before."""
        try:
            self.process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate(timeout=60)
            return True
        return False
