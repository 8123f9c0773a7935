# SPDX-License-Identifier: Apache-2.0
"""hearth.download in processes that are killed with -9, and in two at once. The hub's record shows what came twice."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import Fault, Repo, Run, TestHub, ask, contents, model, noise

from hearth.download import present, read
from hearth.download.pieces import PIECE

pytestmark = pytest.mark.thorough

WEIGHTS = 6_000_000
# What a connection may have sent that was not written yet: a piece, and the buffers of two sockets.
IN_FLIGHT = PIECE + 512 * 1024

# Kills the process at its n-th step on the disk: before something is opened to be written, made, renamed, or removed.
KILLER = """
import os, signal, sys
steps = {step}
def count(event, args):
    global steps
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "ctypes.dlsym"):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
"""


@pytest.fixture
def hub() -> Iterator[TestHub]:
    made = TestHub(send_buffer=64 * 1024)
    yield made
    made.close()


@pytest.fixture
def repo(hub: TestHub) -> Repo:
    return hub.add("me/model", model(weights=WEIGHTS))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_kill_at_any_time_costs_what_was_in_flight_and_no_more(
    hub: TestHub, repo: Repo, folder: Path, seed: int
) -> None:
    hub.script.add(Fault(at="cdn", rate=4_000_000, times=-1))
    moments = random.Random(seed)  # noqa: S311
    kills = 0
    while Run(ask(hub, folder)).kill(moments.uniform(0.3, 1.2)):
        kills += 1
        # Not there, or the whole of it: the last kill may come after all was done.
        assert not folder.exists() or contents(folder) == model(weights=WEIGHTS)

    assert kills
    assert contents(folder) == model(weights=WEIGHTS)
    for blob in repo.commits[repo.branches["main"]].values():
        asked = hub.script.asked(blob.sha256, "GET", "cdn") if blob.is_large else []
        for earlier, later in itertools.pairwise(asked):
            assert later.start >= earlier.start + earlier.sent - IN_FLIGHT
        assert sum(one.sent for one in asked) <= blob.size + max(0, len(asked) - 1) * IN_FLIGHT


def test_a_file_that_was_complete_when_it_was_killed_is_not_asked_for_again(
    hub: TestHub, repo: Repo, folder: Path
) -> None:
    slow, done = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    tree = repo.commits[repo.branches["main"]]
    hub.script.add(Fault(path=tree[slow].sha256, at="cdn", hang=65_536, times=1))
    run = Run(ask(hub, folder))
    blobs = folder.with_name(".model.partial") / "blobs"
    while not (blobs / f"sha256-{tree[done].sha256}").exists():
        assert run.process.poll() is None
    run.process.kill()
    run.end()

    present(ask(hub, folder))

    assert len(hub.script.asked(done)) == 1
    assert contents(folder) == model(weights=WEIGHTS)


def test_a_kill_at_any_step_of_an_update_leaves_the_old_model_or_the_new_one(
    hub: TestHub, repo: Repo, tmp_path: Path
) -> None:
    small, newer = model(weights=20_000), {**model(seed=9, weights=20_000), "added/x": b"x"}
    del newer["tokenizer/vocab.json"]
    old_commit = repo.commit(small)
    new_commit = repo.commit(newer)
    for step in range(1, 200):
        folder = tmp_path / str(step) / "model"
        present(ask(hub, folder, revision=old_commit))
        (folder / "notes.txt").write_text("mine")
        before = contents(folder)

        code, _, said = Run(ask(hub, folder, revision=new_commit), before=KILLER.format(step=step)).end()

        found = contents(folder)
        found.pop("notes.txt", None)
        before.pop("notes.txt")
        assert found in (before, newer), f"after step {step}"
        manifest = read(folder)
        assert manifest is not None
        assert manifest.commit == (old_commit if found == before else new_commit), f"after step {step}"
        result = present(ask(hub, folder, revision=new_commit))
        assert contents(folder) == {**newer, "notes.txt": b"mine"}, f"after step {step}"
        assert [path.name for path in folder.parent.iterdir()] == ["model"], f"after step {step}"
        if code == 0:
            assert not result.changed
            assert step > 20
            return
        assert code == -signal.SIGKILL, said
    raise AssertionError("the update never came to its end")


def test_of_two_at_once_one_fetches_and_the_other_waits(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(at="cdn", rate=6_000_000, times=-1))

    ends = [run.end() for run in [Run(ask(hub, folder)) for _ in range(2)]]

    assert [code for code, _, _ in ends] == [0, 0]
    assert sorted(result.changed for _, result, _ in ends if result is not None) == [False, True]
    assert hub.script.sent(at="cdn") == WEIGHTS + WEIGHTS // 2
    assert contents(folder) == model(weights=WEIGHTS)


def test_when_the_one_that_fetches_is_killed_the_other_goes_on(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(at="cdn", rate=3_000_000, times=2))
    first = Run(ask(hub, folder))
    while not hub.script.sent(at="cdn"):
        assert first.process.poll() is None
    second = Run(ask(hub, folder))
    first.kill(0.5)

    code, result, said = second.end()

    assert (code, said) == (0, "")
    assert result is not None
    assert result.changed
    assert contents(folder) == model(weights=WEIGHTS)


def test_two_models_at_once_do_not_wait_for_each_other(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.add("me/other", {"a.bin": noise(1000)})
    hub.script.add(Fault(at="cdn", hang=65_536, times=1))
    first = Run(ask(hub, folder))
    while not hub.script.sent(at="cdn"):
        assert first.process.poll() is None

    result = present(ask(hub, folder.with_name("other"), repo="me/other"))

    assert result.changed
    first.end()
