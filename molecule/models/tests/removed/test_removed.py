# SPDX-License-Identifier: Apache-2.0
"""After one model could not be removed, because it runs, and another one was."""

from __future__ import annotations

from testinfra.host import Host

MODELS = "/home/spark/ai/models/tiny"


def test_what_runs_is_still_there(host: Host, units: dict[str, str]) -> None:
    assert units["late"] == "active"
    assert host.file(f"{MODELS}/late/tiny-b.gguf").exists


def test_of_ollamas_store_only_what_no_other_model_needs_is_gone(host: Host, units: dict[str, str]) -> None:
    store = "/home/spark/ai/models/ollama"

    assert host.check_output(f"ls {store}/.hearth").split() == ["qwen3%3A0.6b.json"]
    assert sorted(host.check_output(f"stat -c %s {store}/blobs/*").split()) == ["1100", "3000000"]
    assert units["helper"] == "active"


def test_what_does_not_run_is_gone(host: Host) -> None:
    assert host.check_output(f"ls -A {MODELS}").split() == ["late", "tiny-a"]
