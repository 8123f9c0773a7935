# SPDX-License-Identifier: Apache-2.0
"""The module model and Ollama's registry on a real box, with an Ollama that is played (docs/testing.md)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from boxes import ROOT, Box, Run

pytestmark = pytest.mark.thorough

STORE = "/home/spark/ai/models/ollama"
SIZE = 3_001_100
PULLS = "docker ps --all --quiet --filter label=hearth.pull"


@pytest.fixture
def image(box: Box) -> str:
    """Ollama's image, on the box as site.yml has it there before models are brought."""
    facts: dict[str, str] = json.loads((ROOT / ".cache/lab/facts.json").read_text(encoding="utf-8"))
    box.out(f"docker pull --quiet {facts['ollama_image']}")
    return facts["ollama_image"]


@pytest.fixture(autouse=True)
def _as_found(box: Box) -> Iterator[None]:
    yield
    box.out(f"systemctl stop 'hearth-download-*'; docker rm --force $({PULLS}) 2>/dev/null; rm -rf {STORE}")


@pytest.fixture
def book(box: Box, image: str) -> Callable[..., str]:
    """A playbook with one task that has these arguments, for a tag of Ollama."""

    def write(**arguments: Any) -> str:
        path = box.inventory.with_name("ollama.yml")
        task = {
            "hearth.spark.model": {"path": STORE, "ollama": "qwen3:0.6b", "owner": "spark", "image": image, **arguments}
        }
        variables = {"ansible_python_interpreter": "/opt/hearth/venv/bin/python"}
        play = {"hosts": "sparks", "gather_facts": False, "vars": variables, "tasks": [task]}
        path.write_text(json.dumps([play]), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def held(box: Box) -> Callable[[], object]:
    """Have the pull wait in the middle of its first layer; returns what lets it go on."""
    box.out(f"mkdir -p {STORE}; echo '{json.dumps({'waits_at': 'weights 5'})}' >{STORE}/mood; chown -R spark: {STORE}")
    return lambda: box.out(f"touch {STORE}/go")


def fetched(run: Run) -> int:
    """The bytes that came, from the output of -v."""
    return int(re.findall(r'^ *"?bytes_fetched"?: (\d+)', run.output, flags=re.MULTILINE)[0])


def wait_for_no_ollama(box: Box) -> None:
    deadline = time.monotonic() + 60
    while box.out(PULLS):
        assert time.monotonic() < deadline, box.out("docker ps --all")
        time.sleep(0.2)


def test_a_model_is_pulled_with_progress_and_the_second_run_starts_no_ollama(
    box: Box, book: Callable[..., str], held: Callable[[], object]
) -> None:
    path = book()

    first = box.play_and("qwen3:0.6b: fetching", held, path, "--diff")
    jobs = box.out("ls /run/hearth/downloads")
    second = box.ok(path)

    assert first.code == 0, first.output
    form = rf"^\[{box.name}\] qwen3:0\.6b: fetching 0\.00 of 0\.00 GB, 50 %"
    assert re.search(form, first.output, flags=re.MULTILINE), first.output
    assert re.search(rf"^\+{STORE} qwen3:0\.6b: commit [0-9a-f]{{64}}, 2 files, 3\.0 MB$", first.output, re.MULTILINE)
    assert (first.count("changed"), second.count("changed")) == (1, 0)
    assert box.out("ls /run/hearth/downloads") == jobs
    assert box.out(PULLS) == ""
    assert box.out(f"stat -c '%U %G %a' {STORE}/blobs/*").splitlines() == ["spark spark 644"] * 2
    assert box.out(f"cd {STORE}/blobs; sha256sum * | sed 's/  sha256-/ /' | awk '$1 == $2' | wc -l") == "2"


def test_ollama_may_do_little_while_it_pulls(box: Box, book: Callable[..., str], held: Callable[[], object]) -> None:
    seen: list[dict[str, Any]] = []

    def look() -> None:
        seen.extend(json.loads(box.out(f"docker inspect $({PULLS})")))
        held()

    box.play_and("qwen3:0.6b: fetching", look, book())

    host = seen[0]["HostConfig"]
    assert (host["Privileged"], host["ReadonlyRootfs"], host["CapDrop"]) == (False, True, ["ALL"])
    assert not host["Devices"]
    assert not host["DeviceRequests"]
    assert seen[0]["Config"]["User"] == "1000:1000"
    assert {one["HostIp"] for ports in seen[0]["NetworkSettings"]["Ports"].values() for one in ports} == {"127.0.0.1"}
    assert [(one["Destination"], one["RW"]) for one in seen[0]["Mounts"]] == [("/models", True)]


def test_a_pull_that_is_killed_takes_its_ollama_along_and_the_next_play_goes_on_where_it_was(
    box: Box, book: Callable[..., str], held: Callable[[], object]
) -> None:
    path = book()
    kill = "systemctl kill --signal=KILL 'hearth-download-*'"

    run = box.play_and("qwen3:0.6b: fetching", lambda: box.out(kill), path)

    assert "the download of qwen3:0.6b was cut off while qwen3:0.6b: fetching" in run.flat
    wait_for_no_ollama(box)
    assert box.sh(f"ls {STORE}/.hearth").returncode != 0

    held()
    again = box.ok(path, "-v")

    assert fetched(again) == SIZE - 1_500_000


def test_a_download_that_is_stopped_stops_ollama(
    box: Box, book: Callable[..., str], held: Callable[[], object]
) -> None:
    box.play_and("qwen3:0.6b: fetching", lambda: box.out("systemctl stop 'hearth-download-*'"), book())

    wait_for_no_ollama(box)
    assert box.out(f"ls {STORE}/blobs | grep -c partial") == "2"
    pruned = box.ok(book(path="/home/spark/ai/models", ollama="", state="pruned"))
    assert pruned.count("changed") == 1
    assert box.out(f"ls {STORE}/blobs") == ""


def test_an_image_that_is_not_on_the_box_is_told_with_what_brings_it(box: Box, book: Callable[..., str]) -> None:
    run = box.play(book(image="registry.hearth.test:5000/nobody:1"))

    assert run.code != 0
    assert (
        "Ollama's image registry.hearth.test:5000/nobody:1 is not on this box: run site.yml, which brings it"
        in run.flat
    )


def test_what_was_brought_is_verified_and_removed(box: Box, book: Callable[..., str]) -> None:
    box.ok(book())
    damage = "touch -r $one /tmp/time; printf x | dd of=$one conv=notrunc; touch -r /tmp/time $one"
    box.out(f"cd {STORE}/blobs; for one in *; do {damage}; done")

    assert box.ok(book()).count("changed") == 0
    verified = box.ok(book(state="verified"), "-v")
    assert fetched(verified) == SIZE
    assert box.ok(book(state="verified")).count("changed") == 0

    assert box.ok(book(state="absent"), "--check").count("changed") == 1
    assert box.ok(book(state="absent")).count("changed") == 1
    assert box.out(f"ls {STORE}/blobs") == ""
    assert box.ok(book(state="absent")).count("changed") == 0
