# SPDX-License-Identifier: Apache-2.0
"""hearth.download.serving: the container that Ollama runs in for as long as a store is written into."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from ollamas import asked

from hearth.download import Patience, serving
from hearth.download.errors import DownloadError
from hearth.download.serving import Serving, command, container_of

STORE = Path("/home/spark/ai/models/ollama")


def words(**environment: str) -> tuple[str, ...]:
    return command(STORE, asked(STORE, uid=1000, gid=1001), environment)


def option(name: str, of: tuple[str, ...]) -> list[str]:
    return [of[index + 1] for index, word in enumerate(of) if word == name]


def test_it_is_the_owners_and_can_write_nowhere_but_into_the_store() -> None:
    assert option("--user", words()) == ["1000:1001"]
    assert option("--mount", words()) == [f"type=bind,source={STORE},target=/models"]
    assert {"--read-only", "no-new-privileges"} <= set(words())
    assert option("--cap-drop", words()) == ["ALL"]


def test_it_listens_on_the_loopback_alone_at_a_port_that_nobody_has() -> None:
    assert option("--publish", words()) == ["127.0.0.1::11434"]


def test_it_has_no_gpu_and_little_memory_and_engines_go_first() -> None:
    assert not {"--device", "--gpus"} & set(words())
    assert option("--memory", words()) == option("--memory-swap", words()) == ["2g"]
    assert option("--oom-score-adj", words()) == ["500"]


def test_it_deletes_nothing_of_others_at_its_start() -> None:
    assert "OLLAMA_NOPRUNE=1" in option("--env", words())


def test_its_image_is_never_pulled() -> None:
    assert option("--pull", words()) == ["never"]


def test_a_proxy_of_the_box_goes_along_by_its_name() -> None:
    found = words(HTTPS_PROXY="http://somebody:secret@proxy", no_proxy="", PATH="/bin")

    assert option("--env", found)[-1] == "HTTPS_PROXY"
    assert "secret" not in " ".join(found)


def test_each_store_has_a_container_of_its_own() -> None:
    assert container_of(STORE) == container_of(STORE) != container_of(STORE.parent)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A docker client that does as it is told with ``run``; returns the file with all that it was asked."""

    def put(script: str) -> Path:
        path, log = tmp_path / "docker", tmp_path / "asked"
        path.write_text(f'#!/bin/sh\necho "$1" >>{log}\n[ "$1" = run ] || exit 1\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setattr(serving, "DOCKER", str(path))
        return log

    return put


def start(tmp_path: Path, **more: object) -> str:
    """Why it does not come up."""
    request = replace(asked(tmp_path), patience=Patience(ollama_start_s=1.0), **more)
    with pytest.raises(DownloadError) as caught:
        Serving(tmp_path, request).__enter__()
    return str(caught.value)


def test_an_image_that_is_not_on_the_box_is_told_with_what_brings_it(
    tmp_path: Path, docker: Callable[[str], Path]
) -> None:
    docker("""
cat >&2 <<'end'
Unable to find image 'ollama/ollama:1' locally
docker: Error response from daemon: No such image: ollama/ollama:1.
See 'docker run --help'.
end
exit 125""")

    assert start(tmp_path) == (
        "Ollama's image ollama/ollama:1 is not on this box: run site.yml, which brings it, then ask again"
    )


def test_a_box_without_docker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "DOCKER", "/nonexistent/docker")

    assert start(tmp_path) == "/nonexistent/docker cannot be run (No such file or directory): site.yml brings it"


def test_without_an_image_there_is_nothing_to_run(tmp_path: Path) -> None:
    assert start(tmp_path, image="") == (
        f"no image is named to run Ollama from, which has to be asked for what is in {tmp_path}: give image"
    )


def test_one_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path, docker: Callable[[str], Path]) -> None:
    docker("echo first; echo 'Error: listen tcp: address already in use'; echo \"See 'docker run --help'.\"; exit 1")

    assert start(tmp_path) == (
        "Ollama (ollama/ollama:1) did not start: its log ends with: Error: listen tcp: address already in use"
    )


def test_one_that_does_not_listen_is_given_up_and_removed(tmp_path: Path, docker: Callable[[str], Path]) -> None:
    log = docker("exec cat")
    begun = time.monotonic()

    assert start(tmp_path) == "Ollama (ollama/ollama:1) did not listen within 1 s: its log is empty; ask again"
    # What a run before left, and what this one did.
    assert log.read_text().split().count("rm") == 2
    assert time.monotonic() - begun < 15
