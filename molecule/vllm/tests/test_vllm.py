# SPDX-License-Identifier: Apache-2.0
"""What a real vLLM must be that a unit of the catalog's started, looked at from inside the box."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
from testinfra.host import Host

NAME = "qwen2.5-1.5b-instruct"
UNIT = f"hearth-engine-{NAME}.service"
PORT = 8000
CACHE = "/home/spark/ai/cache/vllm"
CHAT = {"model": NAME, "max_tokens": 12, "messages": [{"role": "user", "content": "Is the fire on?"}]}


@pytest.fixture
def api_key(host: Host) -> str:
    """Return the key that vLLM wants."""
    lines = host.file("/etc/hearth/secrets/engine.env").content_string.splitlines()
    values = [line.partition("=")[2] for line in lines if line.startswith("VLLM_API_KEY=")]
    assert values, "engine.env has no VLLM_API_KEY"
    return str(values[0]).strip('"')


@pytest.fixture
def broken(host: Host) -> Iterator[str]:
    """Return the unit of a model that vLLM refuses to load; stopped and forgiven afterwards."""
    unit = "hearth-engine-too-long.service"
    yield unit
    host.run(f"systemctl stop {unit}; systemctl reset-failed {unit}")


def journal(host: Host, unit: str = UNIT) -> str:
    """Return the end of a unit's journal: what a failing test has to show."""
    return str(host.run(f"journalctl --no-pager -n 60 -u {shlex.quote(unit)}").stdout)


def ask(host: Host, path: str, key: str | None, body: dict[str, object] | None = None) -> tuple[int, str]:
    """Ask vLLM with the box's own curl; return the status and the body."""
    words = ["curl", "-sSN", "-m", "60", "-w", "\n%{http_code}"]
    if key:
        words += ["-H", f"Authorization: Bearer {key}"]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    result = host.run(shlex.join([*words, f"http://127.0.0.1:{PORT}{path}"]))
    assert result.rc == 0, f"{result.stderr}\n{journal(host)}"
    text, _, status = result.stdout.rpartition("\n")
    return int(status), text


def chat(host: Host, key: str | None) -> tuple[int, str]:
    """Ask for a chat completion."""
    return ask(host, "/v1/chat/completions", key, CHAT)


def test_unit_runs_and_starts_at_boot(host: Host) -> None:
    service = host.service(UNIT)
    assert service.is_running, journal(host)
    assert service.is_enabled


def test_unit_says_nothing_that_systemd_does_not_know(host: Host) -> None:
    done = host.run("systemd-analyze verify /etc/systemd/system/hearth-engine-*.service")
    assert (done.rc, done.stderr) == (0, "")


def test_chat_is_answered(host: Host, api_key: str) -> None:
    status, text = chat(host, api_key)
    assert status == 200, text
    answer = json.loads(text)
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == CHAT["max_tokens"]
    # Of vLLM and of nobody else.
    assert answer["system_fingerprint"].startswith("vllm-")


def test_answer_is_streamed(host: Host, api_key: str) -> None:
    status, text = ask(host, "/v1/chat/completions", api_key, {**CHAT, "stream": True})
    assert status == 200, text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    words = [choice["delta"].get("content") for event in events[:-1] for choice in json.loads(event)["choices"]]
    assert len([word for word in words if word]) > 1, "an answer in one piece is not a stream"


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_the_key_there_is_no_answer(host: Host, key: str | None) -> None:
    status, text = chat(host, key)
    assert status == 401, text


def test_served_names_are_the_models_own_and_its_aliases(host: Host, api_key: str) -> None:
    status, text = ask(host, "/v1/models", api_key)
    assert status == 200, text
    assert [model["id"] for model in json.loads(text)["data"]] == [NAME, "qwen2.5-1.5b"]


def test_context_is_the_inventorys(host: Host, api_key: str) -> None:
    _, text = ask(host, "/v1/models", api_key)
    assert {model["max_model_len"] for model in json.loads(text)["data"]} == {512}


def test_the_gateway_alone_listens_on_the_network(host: Host) -> None:
    # 127.0.0.11 is the resolver that Docker puts into every container, so into the box too.
    listening = [line.split()[3] for line in host.check_output("ss -ltnH").splitlines()]
    assert f"127.0.0.1:{PORT}" in listening
    assert [address for address in listening if not address.startswith(("127.", "[::1]"))] == ["0.0.0.0:8009"]


def test_container_may_write_only_caches(host: Host) -> None:
    [container] = json.loads(host.check_output(f"docker inspect hearth-{NAME}"))
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["Config"]["User"] == "1000:1000"
    writable = [mount["Source"] for mount in container["Mounts"] if mount["RW"]]
    assert writable == [CACHE]


def test_cache_of_the_tree_is_used_and_the_users(host: Host) -> None:
    owners = host.check_output(f"find {CACHE} -type f -printf '%u\\n'").split()
    assert owners, f"vLLM wrote nothing below {CACHE}"
    assert set(owners) == {"spark"}


def test_key_is_in_no_unit_and_on_no_command_line(host: Host, api_key: str) -> None:
    assert len(api_key) >= 32
    assert api_key not in host.check_output("systemctl cat 'hearth-*'")
    assert api_key not in host.check_output("ps -eo args")
    assert api_key not in host.check_output("journalctl --no-pager")


def test_it_answers_when_restart_returns(host: Host, api_key: str) -> None:
    before = host.check_output(f"systemctl show -P InvocationID {UNIT}")
    done = host.run(f"systemctl restart {UNIT}")
    assert done.rc == 0, journal(host)
    assert host.check_output(f"systemctl show -P InvocationID {UNIT}") != before
    status, text = chat(host, api_key)
    assert status == 200, text


def test_failed_load_fails_the_start_and_says_why(host: Host, broken: str) -> None:
    assert host.run(f"systemctl start {broken}").rc != 0
    # vLLM's own words: more context than config.json has.
    assert "max_position_embeddings" in journal(host, broken)
