# SPDX-License-Identifier: Apache-2.0
"""`make soak`: clients that stream from three models that do not fit together, until there were 1,000 switches.

On a box of its own, with everything real but the engines and Docker: engines are this file, started by systemd with
Hearth's own admission and readiness, and they answer with as many numbered words as they are asked for, so that a lost
word is seen. Their memory is played by lab/meter.py. Every answer has to end with [DONE] and all its words, or with a
well-formed error; anything else is a lost answer, and the exit code is 1.

``--switches N`` and ``--minutes M`` bound it; ``--seed S`` makes the clients ask for the same again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxes import Box
    from callers import Caller

ROOT = Path(__file__).resolve().parent.parent
BOX = "hearth-soak"
FOLDER = "/var/lib/hearth-lab"
MEMINFO = "/run/hearth-lab/meminfo"
MODELS = ("red", "green", "blue")
PORT = 8080
# Of lab/meter.py's 119 GiB, so that no two fit.
NEED_GIB = 60.0
CLIENTS = 16
WORDS = 60
PACE_S = 0.01
# As short as it takes for a switch a second: what is looked for are answers that get lost on the way.
POLICY = {
    "min_residency_s": 0.2,
    "calm_s": 0.1,
    "max_wait_s": 1.0,
    "drain_s": 20.0,
    "settle_s": 0.1,
    "idle_stop_s": 0.0,
}

_SYSTEM = f"""
mkdir -p {FOLDER} /etc/systemd/system.conf.d
printf '[Manager]\\nDefaultEnvironment=HEARTH_MEMINFO={MEMINFO}\\n' >/etc/systemd/system.conf.d/hearth-lab.conf
cat >/etc/systemd/system/hearth-lab-meter.service <<'END'
[Service]
Type=notify
ExecStart=/usr/bin/python3 {FOLDER}/meter.py {FOLDER} {MEMINFO}
END
systemctl daemon-reload
systemctl restart hearth-lab-meter
systemctl restart hearth-gateway
"""
_UNIT = f"""[Unit]
Description=Hearth engine {{name}} (of the soak)
StartLimitIntervalSec=0
[Service]
Type=exec
NotifyAccess=exec
ExecStartPre=/usr/local/bin/hearth admit {{name}}
ExecStart=/usr/bin/python3 {FOLDER}/{{program}} engine --name {{name}} --port {{port}}
ExecStartPost=/usr/local/bin/hearth ready {{name}} --pid $MAINPID
TimeoutStartSec=60
"""


# The engine

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# Answers one question: the model's name, the path, the question, and the connection.
Answer = Callable[[str, str, dict[str, Any], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def event(value: Any) -> bytes:
    data = b"data: %b\n\n" % json.dumps(value).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


async def answer(
    name: str, path: str, asked: dict[str, Any], _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer whole, or in so many words."""
    if not asked.get("stream"):
        told: dict[str, Any] = {"status": "ok"}
        if path == "/v1/models":
            told = {"object": "list", "data": [{"id": name, "object": "model"}]}
        elif path == "/v1/chat/completions":
            message = {"role": "assistant", "content": "yes"}
            told = {"model": name, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        text = json.dumps(told).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text
        )
        return
    writer.write(STREAM_HEAD)
    for number in range(asked["words"]):
        writer.write(event({"model": name, "choices": [{"index": 0, "delta": {"content": f"{number} "}}]}))
        await writer.drain()
        await asyncio.sleep(PACE_S)
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def engine(name: str, port: int, answer: Answer = answer) -> None:
    """Answer until SIGTERM, which ends it at once: nobody stops an engine in the middle of an answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?im)^content-length:\s*(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                await answer(name, head.split(" ")[1], json.loads(body or b"{}"), reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


# The clients


class Tally:
    """What became of the answers, and how long the longest took."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.done = 0
        self.longest_s = 0.0
        self.words = 0
        self.errors: Counter[str] = Counter()
        self.lost: list[str] = []
        self.begun = time.monotonic()

    def note(self, model: str, words: int, seconds: float, stream: Any) -> None:
        """One answer came to its end."""
        heard = [json.loads(event[6:])["choices"][0]["delta"]["content"] for event in stream.events]
        whole = heard == [f"{number} " for number in range(words)]
        models = {json.loads(event[6:])["model"] for event in stream.events}
        with self.lock:
            self.longest_s = max(self.longest_s, seconds)
            self.words += len(heard)
            if stream.end == "done" and whole and models == {model}:
                self.done += 1
            elif stream.end == "error" and {"message", "type", "code"} <= stream.error.keys():
                self.errors[stream.error["code"]] += 1
            else:
                self.lost.append(f"{model}: {len(heard)} of {words} words, ended {stream.end}, status {stream.status}")


def client(number: int, seed: int, caller: Caller, tally: Tally, over: threading.Event) -> None:
    """Ask for one model or another, answer after answer."""
    from callers import PATIENCE_S, Stream

    dice = random.Random(seed * 1000 + number)  # noqa: S311 - so that it can be done again
    while not over.is_set():
        # Whoever talks to a model usually goes on with it.
        model = dice.choice(MODELS)
        for _ in range(dice.randint(1, 3)):
            words = dice.randint(1, WORDS)
            begun = time.monotonic()
            stream = Stream(caller, {"model": model, "words": words})
            stream.join(PATIENCE_S)
            tally.note(model, words, time.monotonic() - begun, stream)


def switches(admin: Caller) -> int:
    """How often the gateway stopped one model for another."""
    page = admin.request("GET", "/metrics").text.decode()
    found = re.search(r"(?m)^hearth_switches_total (\S+)", page)
    return int(float(found[1])) if found else 0


# The box


def set_up(box: Box, program: Path, models: Sequence[str]) -> tuple[str, str]:
    """Give the box engines that are a program of its own; returns a key for models and one for administration."""
    # A Docker that runs would be asked for the engines' containers, and there are none.
    box.out(f"mkdir -p {FOLDER}; systemctl stop 'hearth-engine-*' docker.socket docker")
    for source in {ROOT / "lab/meter.py", Path(__file__), program}:
        subprocess.run(
            ["docker", "cp", str(source), f"{box.name}:{FOLDER}/{source.name}"], check=True, capture_output=True
        )
    for at, name in enumerate(models):
        unit = _UNIT.format(name=name, port=PORT + at, program=program.name)
        box.out(f"cat >/etc/systemd/system/hearth-engine-{name}.service <<'END'\n{unit}END")
    box.python(
        f"""
import json, pathlib
path = pathlib.Path("/etc/hearth/engines.json")
contract = json.loads(path.read_text())
first = contract["engines"][0]
contract["engines"] = [
    {{
        **first, "name": name, "served_name": name, "unit": f"hearth-engine-{{name}}.service",
        "container": f"hearth-{{name}}", "port": {PORT} + at, "memory_gib": {NEED_GIB}, "start": "demand",
        "aliases": [],
    }}
    for at, name in enumerate({tuple(models)!r})
]
contract["floor_gib"] = 10.0
path.write_text(json.dumps(contract))
path = pathlib.Path("/etc/hearth/gateway.json")
settings = json.loads(path.read_text())
settings["scheduling"] = {POLICY!r}
path.write_text(json.dumps(settings))
"""
    )
    box.out(_SYSTEM)
    return (
        box.out("hearth keys add soak 2>/dev/null"),
        box.out("hearth keys add soak-admin --scope admin 2>/dev/null"),
    )


def soak(box: Box, wanted: int, minutes: float, seed: int) -> bool:
    """Run the clients, print what became of it; whether all was well."""
    from callers import Caller

    key, admin_key = set_up(box, Path(__file__), MODELS)
    caller, admin = Caller(box.address(), key), Caller(box.address(), admin_key)
    tally, over = Tally(), threading.Event()
    clients = [
        threading.Thread(target=client, args=(number, seed, caller, tally, over), daemon=True)
        for number in range(CLIENTS)
    ]
    before = json.loads(box.out("systemctl show -P MainPID hearth-gateway"))
    for thread in clients:
        thread.start()
    made, said = 0, time.monotonic()
    while made < wanted and time.monotonic() - tally.begun < minutes * 60 and not tally.lost:
        time.sleep(1)
        made = switches(admin)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"  {made} of {wanted} switches, {tally.done} answers", file=sys.stderr, flush=True)
    over.set()
    for thread in clients:
        thread.join(180)
    hung = sum(thread.is_alive() for thread in clients)
    seconds = time.monotonic() - tally.begun
    log = box.out("journalctl --no-pager -o cat -u hearth-gateway")
    worst = max(sum(json.loads(line)["alive"].values()) for line in box.out(f"cat {FOLDER}/samples.jsonl").splitlines())
    restarted = before != json.loads(box.out("systemctl show -P MainPID hearth-gateway"))
    resident_kib = int(box.out("grep VmRSS /proc/$(systemctl show -P MainPID hearth-gateway)/status | tr -dc 0-9"))
    print(f"switches            {made} in {seconds:.0f} s, {seconds / max(1, made):.2f} s each")
    print(f"answers             {tally.done} whole ({tally.words} words), the longest after {tally.longest_s:.1f} s")
    print(f"errors, well-formed {sum(tally.errors.values())} {dict(tally.errors) or ''}")
    print(f"lost or truncated   {len(tally.lost)}, hung {hung}")
    print(f"memory at once      {worst:.0f} GiB of models at most, of {NEED_GIB:.0f} that fit")
    print(f"the gateway         {resident_kib / 1024:.0f} MB resident{', and it was restarted' if restarted else ''}")
    for one in tally.lost[:10]:
        print(f"  lost: {one}")
    if "Traceback" in log:
        print(log[-4000:])
    return not (tally.lost or hung or restarted or "Traceback" in log or worst > NEED_GIB or made < wanted)


def main_of_engine(answer: Answer = answer) -> None:
    """Be an engine, as its unit says."""
    words = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    asyncio.run(engine(words["--name"], int(words["--port"]), answer))


def main() -> int:
    """Make a box, run, remove it."""
    parser = argparse.ArgumentParser(description="Clients, models, and many switches; see the head of the file.")
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests/e2e"))
    from boxes import brought_up

    print("  making a box, about a minute", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch, brought_up(BOX, Path(scratch)) as box:
        box.ok("site.yml")
        return 0 if soak(box, options.switches, options.minutes, options.seed) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        main_of_engine()
    else:
        sys.exit(main())
