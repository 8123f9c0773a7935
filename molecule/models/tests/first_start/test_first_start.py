# SPDX-License-Identifier: Apache-2.0
"""After a switch to a model that the box downloads itself, which the hub refused the first time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from testinfra.host import Host


def test_the_model_is_there_and_serves(files: Callable[[str, str], list[str]], units: dict[str, str]) -> None:
    assert files("late", "tiny-b") == [".hearth.json", "tiny-b.gguf"]
    assert {name: units[name] for name in ("tiny-a", "tiny-b", "late")} == {
        "tiny-a": "inactive",
        "tiny-b": "inactive",
        "late": "active",
    }


def test_models_of_ollama_serve_by_hearths_names(host: Host, units: dict[str, str]) -> None:
    assert (units["helper"], units["late-helper"]) == ("active", "active")
    engines = json.loads(host.file("/etc/hearth/engines.json").content_string)["engines"]
    for engine in engines:
        if engine["tag"]:
            names = host.check_output(f"curl -sSf http://127.0.0.1:{engine['port']}/v1/models")
            assert f'"{engine["name"]}:latest"' in names


def test_the_box_pulled_by_itself_only_what_it_was_to(host: Host) -> None:
    log = host.check_output("journalctl --no-pager -o cat -u hearth-fetch@late-helper")

    # The smaller layer was there already, since the other model shares it.
    assert "hearth: brought 0.00 GB of late-helper in " in log
    assert "hearth-fetch" not in host.check_output("systemctl show -P Requires hearth-engine-helper")


def test_it_came_by_the_unit_that_its_own_requires(host: Host) -> None:
    log = host.check_output("journalctl --no-pager -o cat -u hearth-fetch@late")

    assert "hearth-fetch@late.service: Failed" in log, "the try that was refused"
    assert "hearth: brought" in log
    assert host.check_output("systemctl show -P Requires hearth-engine-late").count("hearth-fetch@late.service") == 1


def test_the_hub_was_asked_for_it_with_the_token(asked: list[dict[str, Any]]) -> None:
    assert {one["headers"].get("authorization") for one in asked if one["at"] == "hub"} == {"Bearer hf_of_the_lab"}


def test_another_start_asks_no_hub(host: Host, asked: list[dict[str, Any]]) -> None:
    host.check_output("systemctl restart hearth-engine-late")

    seen = host.check_output("curl -sSf http://127.0.0.1:9400/_hub/seen")
    assert seen.count('"path"') == len(asked)


def test_no_unit_has_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --no-legend --plain").strip() == ""
