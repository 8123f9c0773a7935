# SPDX-License-Identifier: Apache-2.0
"""After two runs of site.yml on a box that had no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

MODELS = "/home/spark/ai/models/tiny"
STORE = "/home/spark/ai/models/ollama"
TOKEN = "hf_of_the_lab"  # noqa: S105 - of the lab's own hub


def test_the_models_are_there_with_what_was_asked_for(files: Callable[[str, str], list[str]]) -> None:
    assert files("tiny-a", "tiny-a") == [".hearth.json", "tiny-a.gguf"]
    assert files("tiny-b", "tiny-b") == [".hearth.json", "LICENSE", "tiny-b.gguf"]


def test_a_model_for_its_first_start_is_not(host: Host) -> None:
    assert not host.file(f"{MODELS}/late").exists
    assert tags(host) == ["qwen3%3A0.6b.json"]


def test_a_model_of_ollama_is_in_the_store_that_its_engines_share(host: Host) -> None:
    layers = host.check_output(f"ls {STORE}/blobs").split()

    assert len(layers) == 2
    for layer in layers:
        assert host.check_output(f"sha256sum {STORE}/blobs/{layer}").split()[0] == layer.removeprefix("sha256-")
        file = host.file(f"{STORE}/blobs/{layer}")
        assert (file.user, file.group, oct(file.mode)) == ("spark", "spark", oct(0o644))
    assert host.file(STORE).user == "spark"


def test_no_ollama_is_left_that_brought_it(host: Host) -> None:
    assert host.check_output("docker ps --all --quiet --filter label=hearth.pull") == ""


def tags(host: Host) -> list[str]:
    """What is on record in Ollama's store."""
    return host.check_output(f"ls {STORE}/.hearth").split()


def test_they_are_the_owners(host: Host) -> None:
    for path in ("tiny-a", "tiny-a/tiny-a.gguf", "tiny-a/.hearth.json"):
        file = host.file(f"{MODELS}/{path}")
        assert (file.user, file.group) == ("spark", "spark")
    assert oct(host.file(f"{MODELS}/tiny-a/tiny-a.gguf").mode) == oct(0o644)


def test_what_came_is_on_record(host: Host) -> None:
    manifest = json.loads(host.file(f"{MODELS}/tiny-b/.hearth.json").content_string)

    assert manifest["asked"]["repo"] == "lab/tiny-b"
    assert len(manifest["commit"]) == 40
    assert sorted(manifest["files"]) == ["LICENSE", "tiny-b.gguf"]


def test_nothing_lies_about(host: Host) -> None:
    assert host.check_output(f"ls -A {MODELS}").split() == ["tiny-a", "tiny-b"]
    assert host.check_output(f"ls -A {STORE}").split() == [".hearth", "blobs", "manifests"]


def test_each_file_was_fetched_once_and_a_run_with_nothing_to_do_asks_once_a_model(asked: list[dict[str, Any]]) -> None:
    paths = [one["path"] for one in asked]

    assert len([path for path in paths if path.endswith("tiny-a.gguf")]) == 1
    # After the last file of the run before.
    last = max(index for index, one in enumerate(asked) if one["at"] == "cdn" or "/resolve/" in one["path"])
    assert paths[last + 1 :] == ["/api/models/lab/tiny-a/revision/main", "/api/models/lab/tiny-b/revision/main"]


def test_the_hub_got_the_token_and_nobody_else(host: Host, asked: list[dict[str, Any]]) -> None:
    sent = {one["at"]: one["headers"].get("authorization") for one in asked}

    assert sent == {"hub": f"Bearer {TOKEN}", "cdn": None}
    for command in (
        "systemctl cat 'hearth-*'",
        "journalctl --no-pager",
        "cat /etc/hearth/engines.json",
        f"cat {MODELS}/*/.hearth.json",
    ):
        assert TOKEN not in host.check_output(command), command
    # Nor is it in what downloads left in /run.
    assert host.run(f"grep -r {TOKEN} /run/hearth").rc == 1


def test_the_token_is_kept_for_the_first_start_by_root_alone(host: Host) -> None:
    token = host.file("/etc/hearth/secrets/hf_token")

    assert (token.user, oct(token.mode)) == ("root", oct(0o600))
    assert token.content_string.strip() == TOKEN


def test_units_say_nothing_that_systemd_does_not_know(host: Host) -> None:
    done = host.run("systemd-analyze verify /etc/systemd/system/hearth-*.service hearth-fetch@late.service")
    assert (done.rc, done.stderr) == (0, "")


def test_the_model_serves(units: dict[str, str]) -> None:
    assert [name for name, state in units.items() if state == "active"] == ["tiny-a"]
