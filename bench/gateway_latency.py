# SPDX-License-Identifier: Apache-2.0
"""`make bench-latency`: how long the gateway takes to pass on that somebody is gone, or that an engine is ready.

On a box of its own, as in the soak: systemd, D-Bus, admission and readiness are real, the engine is this file. Client
and engine read the same monotonic clock, for a container has its machine's. Three figures, each with all that is
between client and engine:

- a client hangs up amid a stream, until the engine sees the end of its connection;
- an engine ends amid a stream, until the client sees the error;
- systemd says that the unit is active (ActiveEnterTimestampMonotonic), until a request that waited for it has the first
  byte of its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soak

if TYPE_CHECKING:
    from boxes import Box
    from callers import Caller

BOX = "hearth-latency"
MODEL = "red"
NOTED = f"{soak.FOLDER}/noted.jsonl"
UNIT = f"hearth-engine-{MODEL}.service"
# Longer than anything here takes.
PATIENCE_S = 30.0
# A quiet moment, so that what is measured is not what came before.
CALM_S = 0.03


# The engine


async def answer(
    name: str, path: str, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Say one word, then end as the question says, or wait for the end; note when that was."""
    if not asked.get("stream"):
        await soak.answer(name, path, asked, reader, writer)
        return
    writer.write(soak.STREAM_HEAD + soak.event({"choices": [{"index": 0, "delta": {"content": "one"}}]}))
    if asked["ends"]:
        await asyncio.sleep(CALM_S)
        at = time.monotonic()
        writer.transport.abort()
    else:
        with suppress(OSError):
            await reader.read(1)
        at = time.monotonic()
        writer.close()
    _note({"round": asked["round"], "at": at})


def _note(what: dict[str, Any]) -> None:
    with Path(NOTED).open("a", encoding="ascii") as noted:
        noted.write(json.dumps(what) + "\n")


# The client


def ask(caller: Caller, **fields: Any) -> socket.socket:
    """A question on a connection of its own; its answer is still to come."""
    body = json.dumps({"model": MODEL, "messages": [], **fields}).encode()
    sock = socket.create_connection((caller.host, caller.port), PATIENCE_S)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {caller.key}\r\n"
    sock.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return sock


def until_word(sock: socket.socket) -> None:
    """Read the engine's first word. Raises SystemExit where something else comes."""
    said = b""
    while b"\n\n\r\n" not in said:
        more = sock.recv(65536)
        said += more
        if not more or b"error" in said:
            raise SystemExit(f"instead of a word there came: {said.decode(errors='replace')}")


def noted(box: Box, rounds: int) -> list[float]:
    """When it happened to the engine, by round."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        lines = [json.loads(line) for line in box.out(f"cat {NOTED}").splitlines()]
        if len(lines) == rounds:
            box.out(f"rm {NOTED}")
            return [line["at"] for line in sorted(lines, key=lambda line: int(line["round"]))]
        time.sleep(0.2)
    raise SystemExit(f"the engine noted only {len(lines)} of {rounds} ends")


def client_ends(box: Box, caller: Caller, rounds: int) -> list[float]:
    """Seconds from the client's end to the engine's hearing of it."""
    ended = []
    for number in range(rounds):
        with ask(caller, stream=True, ends=False, round=number) as sock:
            until_word(sock)
            time.sleep(CALM_S)
            ended.append(time.monotonic())
        time.sleep(CALM_S)
    return [heard - end for end, heard in zip(ended, noted(box, rounds), strict=True)]


def engine_ends(box: Box, caller: Caller, rounds: int) -> list[float]:
    """Seconds from the engine's end to the client's hearing of it."""
    heard = []
    for number in range(rounds):
        with ask(caller, stream=True, ends=True, round=number) as sock:
            until_word(sock)
            sock.recv(65536)
            heard.append(time.monotonic())
        time.sleep(CALM_S)
    return [hear - end for end, hear in zip(noted(box, rounds), heard, strict=True)]


def wakes(box: Box, caller: Caller, admin: Caller, rounds: int) -> list[float]:
    """Seconds from the unit's being active to the first byte of an answer that waited for it."""
    found = []
    for _ in range(rounds):
        admin.request("POST", f"/api/models/{MODEL}/unload", {"drain_s": 0})
        while admin.request("GET", f"/api/models/{MODEL}").json["phase"] != "stopped":
            time.sleep(0.1)
        with ask(caller) as sock:
            said = sock.recv(65536)
            at = time.monotonic()
        if b" 200 " not in said.partition(b"\r\n")[0]:
            raise SystemExit(f"a request that waited was answered with: {said.decode(errors='replace')}")
        found.append(at - int(box.out(f"systemctl show -P ActiveEnterTimestampMonotonic {UNIT}")) / 1e6)
    return found


def row(name: str, seconds: Sequence[float], promised_ms: int) -> str:
    """One row of docs/performance.md."""
    ordered = sorted(1000 * one for one in seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    figures = f"{statistics.median(ordered):.1f} | {p95:.1f} | {ordered[-1]:.1f}"
    return f"| {name} ({len(ordered)}) | {figures} | {promised_ms} |"


def measure(box: Box, rounds: int, starts: int) -> None:
    """Print the table."""
    from callers import Caller

    key, admin_key = soak.set_up(box, Path(__file__), [MODEL])
    caller, admin = Caller(box.address(), key), Caller(box.address(), admin_key)
    caller.ask(MODEL)
    figures: list[tuple[str, Callable[[], list[float]], int]] = [
        ("a client hangs up → its engine sees the end", lambda: client_ends(box, caller, rounds), 100),
        ("an engine ends → its client sees the error", lambda: engine_ends(box, caller, rounds), 100),
        ("the unit is active → the first byte for who waited", lambda: wakes(box, caller, admin, starts), 50),
    ]
    print("| ms | median | p95 | longest | promised |\n|---|---|---|---|---|", flush=True)
    for name, take, promised_ms in figures:
        print(row(name, take(), promised_ms), flush=True)


def main() -> int:
    """Make a box, measure, remove it."""
    parser = argparse.ArgumentParser(description="How soon an end, or a beginning, is passed on.")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--starts", type=int, default=30)
    options = parser.parse_args()
    sys.path.insert(0, str(soak.ROOT / "tests/e2e"))
    from boxes import brought_up

    print("  making a box, about a minute", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch, brought_up(BOX, Path(scratch)) as box:
        box.ok("site.yml")
        measure(box, options.rounds, options.starts)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        soak.main_of_engine(answer)
    else:
        sys.exit(main())
