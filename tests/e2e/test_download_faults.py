# SPDX-License-Identifier: Apache-2.0
"""hearth.download with a hub that fails: resumed, or one sentence that says what to do; never half a model."""

from __future__ import annotations

import email.utils
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from downloads import QUICK, SHARD, Blob, Fault, Repo, TestHub, ask, contents, model, noise, sentence, sha256

from hearth.download import ExtraFile, Progress, present, read

SIZE = 300_000


pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("others_stay_untouched")]


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
@pytest.mark.parametrize("path", ["/api/models", "config.json", "/resolve/"])
def test_an_answer_that_may_go_by_is_asked_again(
    hub: TestHub, repo: Repo, folder: Path, status: int, path: str
) -> None:
    hub.script.add(Fault(path=path, status=status, times=2))

    present(ask(hub, folder))

    assert contents(folder) == model()


def test_a_hub_that_stays_broken_is_given_up_and_what_came_is_kept(hub: TestHub, repo: Repo, folder: Path) -> None:
    fault = Fault(path=sha256(hub), at="cdn", status=503, times=-1)
    hub.script.add(fault)

    said = sentence(ask(hub, folder))

    assert said.startswith(f"{SHARD} could not be fetched in 3 tries: ")
    assert "HTTP 503; ask again later, what came is kept" in said
    assert not folder.exists()
    fault.times = 0
    hub.script.seen.clear()
    present(ask(hub, folder, workers=1))
    assert contents(folder) == model()
    assert hub.script.asked("model.safetensors.index.json") == []


def test_retry_after_is_waited_for(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path="config.json", status=429, headers={"Retry-After": "1"}))

    present(ask(hub, folder))

    first, second = hub.script.asked("config.json")
    assert second.when - first.when >= 1.0


def test_the_hubs_own_rate_limit_is_waited_for(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path="config.json", status=429, headers={"RateLimit": '"api";r=0;t=1'}))

    present(ask(hub, folder))

    first, second = hub.script.asked("config.json")
    assert second.when - first.when >= 1.0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_retry_after_nobody_waits_for_is_told(hub: TestHub, repo: Repo, folder: Path, form: str) -> None:
    value = "3600" if form == "seconds" else email.utils.formatdate(time.time() + 3600, usegmt=True)
    hub.script.add(Fault(path="config.json", status=429, headers={"Retry-After": value}))

    said = sentence(ask(hub, folder))

    assert "takes no more requests for 3" in said
    assert "give a token, which allows more" in said


def test_whoever_waits_is_told_why(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path="config.json", status=429, headers={"Retry-After": "2"}))
    told: list[Progress] = []

    present(ask(hub, folder), told.append)

    assert any("HTTP 429; goes on in 2 s" in one.words for one in told)


@pytest.mark.parametrize("cut", [0, 1, 65_536, SIZE - 1, *random.Random(5).sample(range(SIZE), 6)])  # noqa: S311
def test_a_cut_at_any_byte_costs_not_one_byte_twice(hub: TestHub, repo: Repo, folder: Path, cut: int) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", cut=cut))

    present(ask(hub, folder))

    assert contents(folder) == model()
    assert [one.start for one in hub.script.asked(sha256(hub), at="cdn")] == [0, cut]
    assert hub.script.sent(sha256(hub), "cdn") == SIZE


def test_cuts_without_end_are_no_reason_to_give_up_while_something_comes(
    hub: TestHub, repo: Repo, folder: Path
) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", cut=20_000, times=-1))

    present(ask(hub, folder))

    assert contents(folder) == model()
    assert hub.script.sent(sha256(hub), "cdn") == SIZE


def test_a_machine_that_crashes_in_the_middle_is_asked_again(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", cut=100_000, reset=True))

    present(ask(hub, folder))

    assert contents(folder) == model()


def test_a_hub_that_cannot_do_ranges_is_read_from_the_start(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", cut=100_000), Fault(path=sha256(hub), at="cdn", no_range=True))

    present(ask(hub, folder))

    assert contents(folder) == model()


def test_a_file_that_is_shorter_than_listed_is_not_put_in_place(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", size=1000, times=-1))

    said = sentence(ask(hub, folder))

    assert f"the other side has 1000 bytes of it, the list of files says {SIZE}" in said
    assert not folder.exists()


def test_a_file_that_became_shorter_while_it_came_is_not_put_in_place(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", cut=2000), Fault(path=sha256(hub), at="cdn", size=1500, times=-1))

    assert "the other side has only 1500 bytes of it" in sentence(ask(hub, folder))
    assert not folder.exists()


def test_a_damaged_file_is_fetched_once_more(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", flip=123_456))

    present(ask(hub, folder))

    assert contents(folder) == model()
    assert hub.script.sent(sha256(hub), "cdn") == 2 * SIZE


@pytest.mark.parametrize("path", [SHARD, "tokenizer/vocab.json"])
def test_a_file_that_stays_damaged_is_not_put_in_place(hub: TestHub, repo: Repo, folder: Path, path: str) -> None:
    wanted = sha256(hub) if path == SHARD else path
    at = "cdn" if path == SHARD else "hub"
    fault = Fault(path=wanted, at=at, flip=50, times=-1)
    hub.script.add(fault)

    said = sentence(ask(hub, folder))

    assert said.startswith(f"{path} came damaged twice: its hash is ")
    assert "nothing was put in place" in said
    assert not folder.exists()
    fault.times = 0
    present(ask(hub, folder))
    assert contents(folder) == model()


def test_a_hub_that_falls_silent_is_asked_again_for_the_rest(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", hang=65_536 * 2))

    present(ask(hub, folder))

    assert contents(folder) == model()
    assert [one.start for one in hub.script.asked(sha256(hub), at="cdn")] == [0, 65_536 * 2]


@pytest.mark.parametrize("path", ["/api/models", "/resolve/"])
def test_a_hub_that_says_nothing_at_all_is_given_up(hub: TestHub, repo: Repo, folder: Path, path: str) -> None:
    hub.script.add(Fault(path=path, hang=0, times=-1))

    said = sentence(ask(hub, folder))

    assert "ask again later" in said
    assert not folder.exists()


def test_a_slow_hub_wins_in_the_end(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path=sha256(hub), at="cdn", rate=150_000))

    present(ask(hub, folder))

    assert contents(folder) == model()
    assert len(hub.script.asked(sha256(hub), at="cdn")) == 1


def test_nobody_at_the_address_is_told(folder: Path) -> None:
    gone = TestHub()
    gone.close()

    said = sentence(ask(gone, folder))

    assert "me/model: the way to localhost:" in said
    assert said.endswith("3 times: ask again later")


def test_something_else_at_the_address_is_told(hub: TestHub, folder: Path) -> None:
    hub.script.add(Fault(path="/api/models", status=200, times=-1))

    assert "is it the address of a hub?" in sentence(ask(hub, folder))


def test_a_file_of_an_unfinished_update_never_shows(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    old = read(folder)
    repo.commit(model(seed=40))
    hub.script.add(Fault(path=sha256(hub), at="cdn", status=500, times=-1))

    sentence(ask(hub, folder))

    assert contents(folder) == model()
    assert read(folder) == old


def test_what_came_of_an_older_commit_is_used_where_it_is_the_same(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path="config.json", status=500, times=3))
    sentence(ask(hub, folder, workers=1))
    came = hub.script.sent(sha256(hub), "cdn")
    assert came == SIZE
    repo.commit({**model(), "config.json": b"{}"})

    present(ask(hub, folder))

    assert hub.script.sent(sha256(hub), "cdn") == SIZE
    assert (folder / "config.json").read_bytes() == b"{}"


def test_a_full_disk_is_told_and_goes_on_when_there_is_room(hub: TestHub, repo: Repo, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(("mount", "-t", "tmpfs", "-o", "size=600k", "none", str(small)), check=False)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        # The free space is looked at before; this fills while it comes.
        hub.script.add(Fault(path=sha256(hub), at="cdn", hang=131_072))
        request = ask(hub, small / "model", patience=QUICK)
        filler = small / "filler"

        def fill(_: Progress) -> None:
            if hub.script.sent(sha256(hub), "cdn") and not filler.exists():
                disk = os.statvfs(small)
                filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize))

        said = _sentence_while(request, fill)
        assert "is full with" in said
        assert "make room (df -h" in said
        assert not (small / "model").exists()
        filler.unlink()
        present(request)
        assert contents(small / "model") == model()
    finally:
        subprocess.run(("umount", str(small)), check=True)


def _sentence_while(request: object, tell: object) -> str:
    from hearth.errors import HearthError

    try:
        present(request, tell)  # type: ignore[arg-type]
    except HearthError as error:
        return str(error)
    raise AssertionError("it was brought onto a full disk")


def test_extra_files_without_a_checksum_go_on_only_in_the_same_version(hub: TestHub, folder: Path) -> None:
    hub.plain["/x"] = Blob(noise(100_000, 1))
    extra = ExtraFile(url=f"{hub.url('cdn')}/x", path="x")
    request = ask(hub, folder, repo="", extra_files=(extra,))
    hub.script.add(Fault(path="/x", cut=50_000), Fault(path="/x", status=500, times=3))
    sentence(request)
    hub.plain["/x"] = Blob(noise(90_000, 2))

    present(request)

    assert contents(folder) == {"x": noise(90_000, 2)}


def test_extra_files_without_a_checksum_go_on_where_they_were_cut(hub: TestHub, folder: Path) -> None:
    hub.plain["/x"] = Blob(noise(100_000, 1))
    extra = ExtraFile(url=f"{hub.url('cdn')}/x", path="x")
    request = ask(hub, folder, repo="", extra_files=(extra,))
    hub.script.add(Fault(path="/x", cut=50_000), Fault(path="/x", status=500, times=3))
    sentence(request)

    present(request)

    assert contents(folder) == {"x": noise(100_000, 1)}
    assert hub.script.sent("/x") == 100_000
