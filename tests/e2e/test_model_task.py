# SPDX-License-Identifier: Apache-2.0
"""The module model on a real box: what a play shows, what it survives, what it says, and where the token is."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import ROOT, Box, Run
from downloads import Fault, Repo, TestHub, noise

pytestmark = pytest.mark.thorough

FOLDER = "/home/spark/ai/models/e2e"
TOKEN = "hf_ThisTokenIsOfTheTest"
UNITS = "systemctl list-units --no-legend --plain 'hearth-download-*' | awk '{print $1}'"
SIZE = 12_000_000
Play = Callable[..., Run]


@pytest.fixture
def hub(box: Box) -> Iterator[TestHub]:
    """A hub that the box can reach: on this machine's address in the lab's network."""
    form = "{{(index .IPAM.Config 0).Gateway}}"
    shown = subprocess.run(
        ["docker", "network", "inspect", "--format", form, "hearth-lab"], capture_output=True, text=True, check=True
    )
    made = TestHub(host=shown.stdout.strip())
    yield made
    made.close()


@pytest.fixture
def repo(hub: TestHub) -> Repo:
    return hub.add("me/model", {"config.json": b"{}", "weights.gguf": noise(SIZE)})


@pytest.fixture(autouse=True)
def _as_found(box: Box) -> Iterator[None]:
    yield
    box.out(f"systemctl stop 'hearth-download-*'; rm -rf {FOLDER}")


@pytest.fixture
def book(box: Box, hub: TestHub) -> Callable[..., str]:
    """A playbook with one task that has these arguments."""

    def write(**arguments: Any) -> str:
        path = box.inventory.with_name("model.yml")
        where = {} if "models" in arguments else {"path": f"{FOLDER}/model"}
        task = {"hearth.spark.model": {"endpoint": hub.endpoint, **where, **arguments}}
        variables = {"ansible_python_interpreter": "/opt/hearth/venv/bin/python"}
        play = {"hosts": "sparks", "gather_facts": False, "vars": variables, "tasks": [task]}
        path.write_text(json.dumps([play]), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def go(hub: TestHub, repo: Repo) -> Callable[[], object]:
    """The weights come slowly, in 20 seconds, until this is called."""
    fault = Fault(path=weights(repo), at="cdn", rate=SIZE / 20, times=-1)
    hub.script.add(fault)

    def done() -> None:
        fault.rate = 1e9

    return done


def weights(repo: Repo) -> str:
    """The hash of the weights, by which the hub's CDN knows them."""
    return repo.commits[repo.branches["main"]]["weights.gguf"].sha256


def wait_for_no_job(box: Box) -> None:
    deadline = time.monotonic() + 60
    while box.out(UNITS):
        assert time.monotonic() < deadline, box.out(UNITS)
        time.sleep(0.2)


def jobs(box: Box) -> set[str]:
    return set(box.sh("ls /run/hearth/downloads").stdout.split())


def test_check_mode_foretells_a_run_and_the_second_one_changes_nothing(
    box: Box, repo: Repo, book: Callable[..., str]
) -> None:
    path = book(repo="me/model", owner="spark")

    foretold = box.ok(path, "--check", "--diff")
    assert box.sh(f"test -e {FOLDER}").returncode != 0
    first = box.ok(path, "--diff")
    second = box.ok(path, "--diff")

    commit = repo.branches["main"]
    for run in (foretold, first):
        assert run.count("changed") == 1
        assert f"-{FOLDER}/model: nothing" in run.output
        assert f"+{FOLDER}/model: commit {commit}, 2 files, 12.0 MB" in run.output
    assert second.count("changed") == 0
    assert box.out(f"sha256sum <{FOLDER}/model/weights.gguf").split()[0] == repo.commits[commit]["weights.gguf"].sha256
    assert box.out(f"stat -c '%U %G %a' {FOLDER}/model/config.json") == "spark spark 644"


def test_a_commit_that_is_there_needs_no_hub_and_no_job(box: Box, hub: TestHub, repo: Repo, book: Any) -> None:
    path = book(repo="me/model", revision=repo.branches["main"])
    box.ok(path)
    hub.script.clear()
    before = jobs(box)

    run = box.ok(path)

    assert run.count("changed") == 0
    assert hub.script.asked() == []
    assert jobs(box) == before


def test_a_long_download_shows_how_far_it_is(box: Box, go: Callable[[], object], book: Callable[..., str]) -> None:
    run = box.play_and("e2e/model: fetching", go, book(repo="me/model"))

    assert run.code == 0, run.output

    form = rf"^\[{box.name}\] e2e/model: fetching 0\.0\d of 0\.01 GB, \d+ %, \d+ MB/s, \d+ s to go$"
    assert re.search(form, run.output, flags=re.MULTILINE), run.output


def test_a_play_that_is_killed_leaves_the_download_running_and_the_next_one_waits_for_it(
    box: Box, hub: TestHub, repo: Repo, go: Callable[[], object], book: Callable[..., str]
) -> None:
    path = book(repo="me/model")
    before = jobs(box)
    box.play_until_killed("e2e/model: fetching", 0.5, path, by=signal.SIGKILL)

    run = box.play_and("e2e/model: fetching", go, path)

    # What the first play began, the second one reports: one job, and every byte once.
    assert run.count("changed") == 1
    assert len({name for name in jobs(box) - before if name.endswith(".json")}) == 1
    assert hub.script.sent(weights(repo), "cdn") == SIZE


def test_a_download_goes_on_when_nobody_waits_for_it(
    box: Box, go: Callable[[], object], book: Callable[..., str]
) -> None:
    path = book(repo="me/model")
    box.play_until_killed("e2e/model: fetching", 0.5, path)

    go()
    wait_for_no_job(box)

    assert box.out(f"stat -c %s {FOLDER}/model/weights.gguf") == str(SIZE)
    assert box.ok(path).count("changed") == 0


def test_two_plays_at_once_share_one_download(
    box: Box, hub: TestHub, repo: Repo, go: Callable[[], object], book: Callable[..., str]
) -> None:
    path = book(repo="me/model")
    # When both wait for it, and not before, it goes on.
    both = threading.Barrier(2, action=go, timeout=60)
    runs: list[Run] = []
    other = threading.Thread(target=lambda: runs.append(box.play_and("e2e/model: fetching", both.wait, path)))
    other.start()
    runs.append(box.play_and("e2e/model: fetching", both.wait, path))
    other.join()

    assert [run.code for run in runs] == [0, 0]
    assert [run.count("changed") for run in runs] == [1, 1]
    assert hub.script.sent(weights(repo), "cdn") == SIZE


def test_a_download_that_is_killed_is_told_and_the_next_play_goes_on_where_it_was(
    box: Box, hub: TestHub, repo: Repo, go: Callable[[], object], book: Callable[..., str]
) -> None:
    path = book(repo="me/model", token=TOKEN)
    hub.tokens.add(TOKEN)
    run = box.play_and("e2e/model: fetching", lambda: box.out(f"systemctl kill --signal=KILL $({UNITS})"), path)

    assert run.code != 0
    assert "the download of e2e/model was cut off while e2e/model: fetching" in run.flat
    assert "ask for it again, and it goes on where it was" in run.flat
    assert not [name for name in jobs(box) if name.endswith(".secret")]

    go()
    box.ok(path)

    assert hub.script.asked(weights(repo), "GET", "cdn")[-1].start > 0


def test_the_token_is_in_one_file_of_root_and_nowhere_else(
    box: Box, hub: TestHub, repo: Repo, go: Callable[[], object], book: Callable[..., str]
) -> None:
    repo.gated, repo.allowed = True, {TOKEN}
    hub.tokens.add(TOKEN)
    runs: list[Run] = []
    path = book(repo="me/model", token=TOKEN)
    play = threading.Thread(target=lambda: runs.append(box.play(path, "-vvv")))
    play.start()
    deadline = time.monotonic() + 90
    while not (ident := box.out(UNITS)) or not hub.script.asked("weights.gguf"):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    secret = f"/run/hearth/downloads/{ident.removeprefix('hearth-download-').removesuffix('.service')}.secret"
    # The pattern comes by a file, and the search looks at itself as at all others.
    box.out(f"umask 077; cut -c1-20 {secret} >~/pattern")
    holds = box.out(
        "cd /; grep -lsarF -f ~/pattern /run/hearth /etc /home /var/lib/hearth /opt/hearth /tmp ~ "
        "--exclude=pattern; grep -lsaF -f ~/pattern /proc/[0-9]*/cmdline /proc/[0-9]*/environ; "
        "journalctl --no-pager | grep -cF -f ~/pattern; systemctl show $(" + UNITS + ") | grep -cF -f ~/pattern; "
        "rm ~/pattern"
    ).split()
    mode = box.out(f"stat -c '%U %a' {secret}")
    go()
    play.join()

    assert holds == [secret, "0", "0"]
    assert mode == "root 600"
    assert runs[0].code == 0
    assert TOKEN not in runs[0].output
    assert box.sh(f"test -e {secret}").returncode != 0
    assert TOKEN not in box.out(f"cat {FOLDER}/model/.hearth.json /run/hearth/downloads/*.json")


@pytest.mark.parametrize(
    ("token", "words"), [(None, "log in, which means to give a token"), (TOKEN, "accept the licen")]
)
def test_a_gated_model_says_what_to_do(
    box: Box, hub: TestHub, repo: Repo, book: Callable[..., str], token: str | None, words: str
) -> None:
    repo.gated = True
    hub.tokens.add(TOKEN)

    run = box.play(book(repo="me/model", **({"token": token} if token else {})))

    assert run.code != 0
    assert words in run.flat
    assert f"{hub.endpoint}/me/model" in run.flat


def test_a_callback_for_programs_gets_nothing_else(
    box: Box, go: Callable[[], object], book: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "ansible.posix.json")
    command, process = box._command((book(repo="me/model"),)), box._process()

    with subprocess.Popen(command, **{**process, "stderr": subprocess.PIPE}) as play:
        shown = any(f"[{box.name}] e2e/model: fetching" in line for line in play.stderr or ())
        go()
        said = json.loads(play.communicate(timeout=60)[0])

    assert shown
    assert said["plays"][0]["tasks"][0]["hosts"][box.name]["models"][0]["bytes_fetched"] == SIZE + 2


def test_several_models_are_one_run_and_one_that_fails_keeps_no_other_from_coming(
    box: Box, hub: TestHub, repo: Repo, book: Callable[..., str]
) -> None:
    models = [{"path": f"{FOLDER}/gone", "repo": "me/gone"}, {"path": f"{FOLDER}/model", "repo": "me/model"}]

    run = box.play(book(models=models))

    assert run.code != 0
    assert "me/gone is private, or does not exist" in run.flat
    assert box.out(f"stat -c %s {FOLDER}/model/weights.gguf") == str(SIZE)


def test_a_hub_that_is_away_is_a_warning_where_all_is_there(
    box: Box, hub: TestHub, repo: Repo, book: Callable[..., str]
) -> None:
    box.ok(book(repo="me/model"))
    hub.script.add(Fault(path="/api/models", status=503, times=-1))

    run = box.ok(book(repo="me/model", unreachable="keep"))

    assert run.count("changed") == 0
    assert f"the models of {hub.endpoint} that are whole are used as they are" in run.flat


def test_a_model_in_use_is_not_removed_and_another_one_is(
    box: Box, hub: TestHub, repo: Repo, book: Callable[..., str]
) -> None:
    box.out("hearth switch tiny-a")
    used = "/home/spark/ai/models/tiny/tiny-a"
    hub.add("me/tiny", {"tiny-a.gguf": Path(ROOT / ".cache/lab/models/tiny/tiny-a/tiny-a.gguf")})
    box.ok(book(repo="me/tiny", path=used))
    box.ok(book(repo="me/model"))

    refused = box.play(book(path=used, state="absent"))
    gone = box.ok(book(state="absent"))

    box.out(f"rm {used}/.hearth.json")
    assert refused.code != 0
    assert f"{used} is in use by tiny-a: stop that first (hearth stop tiny-a), then remove it" in refused.flat
    assert gone.count("changed") == 1
    assert box.sh(f"test -e {FOLDER}/model").returncode != 0
    assert box.ok(book(state="absent")).count("changed") == 0


def test_what_a_download_that_was_cut_off_left_is_pruned(
    box: Box, go: Callable[[], object], book: Callable[..., str]
) -> None:
    path = book(repo="me/model")
    box.play_until_killed("e2e/model: fetching", 0.5, path)
    under_way = box.ok(book(path="/home/spark/ai/models", state="pruned"))
    box.out("systemctl stop 'hearth-download-*'")

    pruned = box.ok(book(path="/home/spark/ai/models", state="pruned"))

    assert under_way.count("changed") == 0
    assert pruned.count("changed") == 1
    assert box.out(f"ls -A {FOLDER}") == ""
