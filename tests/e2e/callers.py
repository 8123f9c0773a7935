# SPDX-License-Identifier: Apache-2.0
"""Clients of a box's gateway, from outside, and a gateway that weighs in seconds what it usually weighs in minutes."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pytest
from boxes import Box
from sampler import FOLDER, Stage

PORT = 8009
# Longer than anything here takes.
PATIENCE_S = 90.0
# Of a test's patience.
QUICK = {
    "min_residency_s": 2.0,
    "calm_s": 1.0,
    "max_wait_s": 8.0,
    "drain_s": 30.0,
    "idle_stop_s": 0.0,
    "breaker_open_s": 4.0,
    "promise_s": 10.0,
}
MESSAGES = [{"role": "user", "content": "Hi"}]
# An answer without an end of its own, as far as a real engine is asked.
ENDLESS = {"max_tokens": 1_000_000, "ignore_eos": True}


class Answer:
    """A whole answer."""

    def __init__(self, status: int, headers: dict[str, str], text: bytes, seconds: float) -> None:
        self.status = status
        self.headers = headers
        self.text = text
        self.seconds = seconds

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def error(self) -> dict[str, Any]:
        """The error that it is, in OpenAI's shape."""
        told = self.json
        assert told["request_id"] == self.headers["x-request-id"]
        found: dict[str, Any] = told["error"]
        return found


# How a stream can end: with [DONE], with an error in an event, or (which is a lost answer) neither.
End = Literal["done", "error", "lost"]


class Stream(threading.Thread):
    """A streamed answer that is read as it comes, by a thread of its own."""

    def __init__(self, caller: Caller, fields: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(daemon=True)
        self._caller = caller
        self._fields = fields
        self._headers = headers or {}
        self.status = 0
        self.comments: list[str] = []
        self.events: list[str] = []
        self.error: dict[str, Any] = {}
        self.end: End = "lost"
        self.began = threading.Event()
        self._connection = caller.connection()
        self.start()

    def run(self) -> None:
        try:
            answer = self._caller.post(self._connection, {**self._fields, "stream": True}, self._headers)
            self.status = answer.status
            if answer.status != http.HTTPStatus.OK:
                self.error = json.loads(answer.read())["error"]
                self.end = "error"
                return
            for line in answer:
                self._line(line.decode().rstrip("\r\n"))
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            # Broken off, by the gateway or by ``leave``; whether that was told stands in the last event.
            pass
        finally:
            self.began.set()
            self._connection.close()

    def _line(self, line: str) -> None:
        if line.startswith(":"):
            self.comments.append(line)
        elif line.startswith("data: [DONE]"):
            self.end = "error" if self.error else "done"
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                self.error = event["error"]
                self.end = "error"
            else:
                self.events.append(line)
                self.began.set()

    def until_began(self) -> Stream:
        """Wait for the engine's first word."""
        assert self.began.wait(PATIENCE_S), "the stream did not begin"
        assert self.events, f"the stream ended before it began: {self.status} {self.error}"
        return self

    def result(self, timeout_s: float = PATIENCE_S) -> End:
        """Wait for the end, and say which it was."""
        self.join(timeout_s)
        assert not self.is_alive(), f"the stream did not end: {self.events[-1:]}"
        return self.end

    def leave(self) -> None:
        """The client goes away."""
        sock = self._connection.sock
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self.join(PATIENCE_S)


class Caller:
    """A client of a gateway, with a key."""

    def __init__(self, host: str, key: str, port: int = PORT) -> None:
        self.host = host
        self.key = key
        self.port = port

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)

    def post(
        self, connection: http.client.HTTPConnection, fields: dict[str, Any], headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Ask for a chat; the answer is to be read."""
        body = json.dumps({"messages": MESSAGES, "max_tokens": 4, **fields})
        connection.request(
            "POST",
            "/v1/chat/completions",
            body,
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **(headers or {})},
        )
        return connection.getresponse()

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Any request; a body that is not bytes goes as JSON."""
        connection = self.connection()
        begun = time.monotonic()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {"Authorization": f"Bearer {self.key}", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return Answer(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, text, time.monotonic() - begun
        )

    def ask(self, model: str, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """A chat's whole answer."""
        body = {"model": model, "messages": MESSAGES, "max_tokens": 4, **fields}
        return self.request(
            "POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **(headers or {})}
        )

    def stream(self, model: str, **fields: Any) -> Stream:
        """A chat's answer as a stream."""
        return Stream(self, {"model": model, **fields})

    def raw(self, data: bytes, *, quiet_s: float = 20) -> bytes:
        """Send bytes as they are; all that comes until the gateway closes, or nothing came for so long."""
        said = b""
        sock = socket.create_connection((self.host, self.port), timeout=quiet_s)
        with sock, suppress(TimeoutError, ConnectionError):
            sock.sendall(data)
            while more := sock.recv(65536):
                said += more
                sock.settimeout(min(quiet_s, 1))
        return said


def together(count: int, call: Callable[[int], Any]) -> list[Any]:
    """So many calls at once; their results, in order."""
    results: list[Any] = [None] * count

    def one(number: int) -> None:
        results[number] = call(number)

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a call did not end"
    return results


class Door:
    """The gateway of a stage: its clients, and what is done to it."""

    def __init__(self, stage: Stage, key: str, admin_key: str) -> None:
        self.stage = stage
        self.box: Box = stage.box
        address = self.box.address()
        self.models = Caller(address, key)
        self.admin = Caller(address, admin_key)
        self._drips = False

    def drip(self, seconds: int) -> None:
        """Have big stream each answer for so long, ten words a second."""
        self._drips = True
        self.stage.mood("big", f"drip {seconds}")
        self.box.out("systemctl restart hearth-engine-big")
        self.until_phase("big", "ready")

    def reset(self) -> None:
        """After a test: nothing of it is under way, and big is the real one again from its next start on."""
        deadline = time.monotonic() + 10
        # A caller has his answer a moment before the gateway is done with him.
        while under_way := self.admin.request("GET", "/api/requests").json["requests"]:
            assert time.monotonic() < deadline, under_way
            time.sleep(0.05)
        if self._drips:
            self._drips = False
            self.box.out("systemctl stop hearth-engine-big")

    def restart(self) -> None:
        self.box.out("systemctl restart hearth-gateway")

    def cut_power(self) -> None:
        """Reboot the box. Docker may give it another address when it comes back."""
        self.box.cut_power()
        self.models.host = self.admin.host = self.box.address()

    def starts(self, engine: str) -> int:
        """How often an engine became ready since the box was made."""
        log = self.box.out(f"journalctl --no-pager -o cat -u hearth-engine-{engine} | grep -c 'is ready after' || true")
        return int(log)

    def view(self, model: str) -> dict[str, Any]:
        """How things stand with a model, as the gateway says it."""
        return self.admin.request("GET", f"/api/models/{model}").json

    def until(self, model: str, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 60) -> None:
        """Wait until the gateway says so of a model."""
        deadline = time.monotonic() + timeout_s
        while not condition(now := self.view(model)):
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {now}"
            time.sleep(0.05)

    def until_phase(self, model: str, phase: str) -> None:
        self.until(model, lambda now: now["phase"] == phase)


_SETTINGS = "/etc/hearth/gateway.json"


@contextmanager
def opened(stage: Stage) -> Iterator[Door]:
    """The gateway of a stage, with short times; as it was found afterwards."""
    box = stage.box
    # Not in /run, which a power cut empties.
    kept = f"{FOLDER}/gateway.kept"
    box.out(f"cp -p {_SETTINGS} {kept}")
    box.python(
        f"import json, pathlib; path = pathlib.Path('{_SETTINGS}'); told = json.loads(path.read_text());"
        f" told.update(scheduling={QUICK!r}, keepalive_s=0.5, stop_s=60.0); path.write_text(json.dumps(told))"
    )
    key = box.out("hearth keys add e2e-models 2>/dev/null")
    admin_key = box.out("hearth keys add e2e-admin --scope admin 2>/dev/null")
    door = Door(stage, key, admin_key)
    door.restart()
    try:
        yield door
    finally:
        box.out(f"mv {kept} {_SETTINGS} && hearth keys revoke e2e-models && hearth keys revoke e2e-admin")
        box.sh("systemctl reset-failed hearth-gateway; systemctl restart hearth-gateway")


@pytest.fixture(scope="module")
def open_door(made: Stage) -> Iterator[Door]:
    with opened(made) as door:
        yield door


@pytest.fixture
def door(open_door: Door, stage: Stage) -> Iterator[Door]:
    """Big and helper run, small and other do not; whatever a test does, never too much may be alive at once."""
    yield open_door
    open_door.reset()
