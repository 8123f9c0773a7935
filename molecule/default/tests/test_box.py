# SPDX-License-Identifier: Apache-2.0
"""What a box must be after site.yml, looked at from inside it."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
from testinfra.host import Host

Engine = dict[str, Any]
CHAT = {"model": "tiny-a", "max_tokens": 12, "messages": [{"role": "user", "content": "Is the fire on?"}]}


def journal(host: Host, unit: str) -> str:
    """Return the end of a unit's journal: what a failing test has to show."""
    return str(host.run(f"journalctl --no-pager -n 30 -u {shlex.quote(unit)}").stdout)


def chat(host: Host, engine: Engine, key: str | None, **more: object) -> tuple[int, str]:
    """Ask the engine with the box's own curl; return the status and the body."""
    header = f"-H 'Authorization: Bearer {key}'" if key else ""
    body = shlex.quote(json.dumps({**CHAT, "model": engine["served_name"], **more}))
    url = f"http://127.0.0.1:{engine['port']}/v1/chat/completions"
    result = host.run(f"curl -sSN -m 60 -w '\\n%{{http_code}}' {header} -d {body} {url}")
    assert result.rc == 0, result.stderr
    text, _, status = result.stdout.rpartition("\n")
    return int(status), text


@pytest.mark.parametrize("unit", ["docker.service", "hearth-engine-tiny-a.service"])
def test_units_run_and_start_at_boot(host: Host, unit: str) -> None:
    service = host.service(unit)
    assert service.is_running, journal(host, unit)
    assert service.is_enabled


def test_units_say_nothing_that_systemd_does_not_know(host: Host) -> None:
    done = host.run("systemd-analyze verify /etc/systemd/system/hearth-engine-*.service")
    assert (done.rc, done.stderr) == (0, "")


def test_other_model_is_known_but_does_not_run(host: Host) -> None:
    service = host.service("hearth-engine-tiny-b.service")
    assert service.exists
    assert not service.is_running
    assert not service.is_enabled


def test_no_unit_has_failed(host: Host) -> None:
    assert host.run("systemctl --failed --no-legend --plain").stdout.strip() == ""


def test_contract_names_all_models(engines: list[Engine]) -> None:
    assert [engine["name"] for engine in engines] == ["tiny-a", "tiny-b", "gemma-2-2b"]
    assert len({engine["port"] for engine in engines}) == len(engines)


def test_the_gateway_alone_listens_on_the_network(host: Host) -> None:
    # 127.0.0.11 is the resolver that Docker puts into every container, so into the box too.
    listening = [line.split()[3] for line in host.check_output("ss -ltnH").splitlines()]
    assert [address for address in listening if not re.match(r"127\.|\[::1\]", address)] == ["0.0.0.0:8009"]


def test_engine_listens_on_its_port(host: Host, active: Engine) -> None:
    assert host.socket(f"tcp://127.0.0.1:{active['port']}").is_listening


@pytest.mark.parametrize(
    ("path", "mode", "user"),
    [
        ("/etc/hearth", 0o755, "root"),
        ("/etc/hearth/engines.json", 0o644, "root"),
        ("/etc/hearth/secrets", 0o700, "root"),
        ("/etc/hearth/secrets/engine.env", 0o600, "root"),
        ("/etc/systemd/system/hearth-engine-tiny-a.service", 0o644, "root"),
        ("/home/spark/ai", 0o755, "spark"),
        ("/home/spark/ai/models", 0o755, "spark"),
        ("/home/spark/ai/cache", 0o755, "spark"),
    ],
)
def test_owner_and_mode(host: Host, path: str, mode: int, user: str) -> None:
    file = host.file(path)
    assert file.exists
    assert (oct(file.mode), file.user) == (oct(mode), user)


@pytest.mark.parametrize("name", ["models", "cache", "logs", "servers", "configs", "scripts", "projects"])
def test_tree_is_the_users(host: Host, name: str) -> None:
    folder = host.file(f"/home/spark/ai/{name}")
    assert folder.is_directory
    assert (folder.user, folder.group) == ("spark", "spark")


def test_models_of_the_user_are_untouched(host: Host) -> None:
    for name in ("tiny-a", "tiny-b"):
        model = host.file(f"/home/spark/ai/models/tiny/{name}/{name}.gguf")
        assert (model.user, oct(model.mode)) == ("spark", oct(0o644))


@pytest.mark.parametrize("path", ["/etc", "/usr", "/var", "/home"])
def test_system_folders_keep_their_owner(host: Host, path: str) -> None:
    folder = host.file(path)
    assert (folder.user, folder.group, oct(folder.mode)) == ("root", "root", oct(0o755))


def test_secret_is_in_no_unit_and_on_no_command_line(host: Host, api_key: str) -> None:
    assert len(api_key) >= 32
    assert api_key not in host.check_output("systemctl cat 'hearth-*'")
    assert api_key not in host.check_output("ps -eo args")
    assert api_key not in host.check_output("journalctl --no-pager")


def test_answer_is_streamed(host: Host, active: Engine, api_key: str) -> None:
    status, text = chat(host, active, api_key, stream=True)
    assert status == 200, text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    words = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert len([word for word in words if word]) > 1, "an answer in one piece is not a stream"
    assert {chunk["model"] for chunk in chunks} == {active["served_name"]}


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_the_key_there_is_no_answer(host: Host, active: Engine, key: str | None) -> None:
    status, text = chat(host, active, key)
    assert status == 401, text


def test_command_is_on_the_path(host: Host) -> None:
    assert host.run("hearth --help").rc == 0


def test_model_of_the_catalog_serves_by_its_unit(host: Host, engines: list[Engine], api_key: str) -> None:
    engine = next(engine for engine in engines if engine["name"] == "gemma-2-2b")
    unit = f"systemctl cat {engine['unit']}"
    assert "--flash-attn on" in host.check_output(unit), "a flag of the catalog"
    assert "--ctx-size 512" in host.check_output(unit), "a flag of the inventory"
    started = host.run(f"systemctl start {engine['unit']}")
    try:
        assert started.rc == 0, journal(host, engine["unit"])
        status, text = chat(host, engine, api_key)
        assert status == 200, text
        assert json.loads(text)["model"] == "gemma-2-2b"
    finally:
        host.run(f"systemctl stop {engine['unit']}")
