# SPDX-License-Identifier: Apache-2.0
"""`make bench-switch`: what a switch takes by Hearth, and by hand, on a box of its own.

By hand is ``docker rm -f``, ``docker run`` with the words of the engine's unit, a look at /health every 0.1 s, and one
chat request. Both in turns, in one run, from the same model to the same model in the same image. Beside that: how soon
readiness is noticed, and what ``hearth status`` takes. Prints the lines of the table in docs/performance.md.

The clock is read inside the box: this file runs there too, as ``switch.py inside ROUNDS``, by the box's own runtime.
"""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BOX = "hearth-bench"
ROUNDS = 10
MODELS = ("tiny-a", "tiny-b")
HAND_INTERVAL_S = 0.1
# How closely the one looks who says when an engine was really ready; a try that hangs is given up as soon.
CLOSE_S = 0.005
HANGS_S = 0.05


def run(*command: str) -> str:
    """What a program prints. Raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def contract() -> dict[str, dict[str, Any]]:
    """The box's engines by name."""
    text = Path("/etc/hearth/engines.json").read_text(encoding="utf-8")
    return {engine["name"]: engine for engine in json.loads(text)["engines"]}


def key() -> str:
    """The key that engines ask for."""
    lines = Path("/etc/hearth/secrets/engine.env").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("LLAMA_API_KEY="))


def docker_run(name: str) -> list[str]:
    """The command of the engine's unit, for a container in the background that is called hand."""
    unit = Path(f"/etc/systemd/system/hearth-engine-{name}.service").read_text(encoding="utf-8")
    text = unit.partition("ExecStart=")[2].replace("\\\n", " ").partition("\n")[0]
    words = shlex.split(text.replace("%%", "%").replace("$$", "$"))
    words[words.index("--name") + 1] = "hand"
    return [*words[:2], "--detach", *words[2:]]


def healthy(port: int, timeout_s: float) -> bool:
    """One look at /health."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        client.request("GET", "/health")
        return client.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()


def ask(engine: dict[str, Any], secret: str) -> None:
    """One chat request of one token."""
    client = http.client.HTTPConnection("127.0.0.1", engine["port"], timeout=60)
    body = {"model": engine["name"], "max_tokens": 1, "messages": [{"role": "user", "content": "Say yes."}]}
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = client.getresponse()
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(f"{engine['name']} answered with {answer.status}")
    client.close()


def until_gone() -> None:
    """Wait until there is no container called hand."""
    while run("docker", "ps", "--all", "--quiet", "--filter", "name=^hand$"):
        time.sleep(CLOSE_S)


class Docker(http.client.HTTPConnection):
    """HTTP over Docker's socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect("/run/docker.sock")


def is_running(container: str) -> bool:
    """Whether a container's process runs."""
    client = Docker("docker")
    try:
        client.request("GET", f"/containers/{container}/json")
        return bool(json.loads(client.getresponse().read()).get("State", {}).get("Running"))
    finally:
        client.close()


class Witness(threading.Thread):
    """Looks at an engine's /health all the time; ``ready`` is when the first 200 came, of time.monotonic().

    Only once its container runs: to connect earlier delays the first answer by a second (src/hearth/probe.py).
    """

    def __init__(self, container: str, port: int) -> None:
        super().__init__(daemon=True)
        self._container = container
        self._port = port
        self.ready = 0.0

    def run(self) -> None:
        while not is_running(self._container):
            time.sleep(CLOSE_S)
        while not healthy(self._port, HANGS_S):
            time.sleep(CLOSE_S)
        self.ready = time.monotonic()


def by_hearth(name: str) -> float:
    """The seconds of ``hearth switch``."""
    begun = time.monotonic()
    run("hearth", "switch", name)
    return time.monotonic() - begun


def by_hand(engine: dict[str, Any], secret: str) -> float:
    """The seconds of a switch by hand."""
    words = docker_run(engine["name"])
    begun = time.monotonic()
    run("docker", "rm", "-f", "hand")
    run(*words)
    while not healthy(engine["port"], HAND_INTERVAL_S):
        time.sleep(HAND_INTERVAL_S)
    ask(engine, secret)
    return time.monotonic() - begun


def of_the_engine(engine: dict[str, Any], secret: str) -> float:
    """What nobody can do without: the seconds of a stop in peace, of a start until really ready, and of one answer."""
    words = docker_run(engine["name"])
    begun = time.monotonic()
    run("docker", "stop", "hand")
    stop_s = time.monotonic() - begun
    # The container removes itself; that it has is waited for without the clock.
    until_gone()
    witness = Witness("hand", engine["port"])
    begun = time.monotonic()
    witness.start()
    run(*words)
    witness.join()
    ask(engine, secret)
    return stop_s + time.monotonic() - begun


def notice(engine: dict[str, Any]) -> float:
    """The seconds between an engine's first answer and the end of its unit's start."""
    run("systemctl", "stop", engine["unit"])
    witness = Witness(engine["container"], engine["port"])
    witness.start()
    run("systemctl", "start", engine["unit"])
    witness.join()
    # The end of ExecStartPost, which is `hearth ready`, in microseconds of the same clock.
    active = int(run("systemctl", "show", "--value", "-p", "ActiveEnterTimestampMonotonic", engine["unit"]))
    return active / 1e6 - witness.ready


def timed(*command: str) -> float:
    """The seconds of a command."""
    begun = time.monotonic()
    run(*command)
    return time.monotonic() - begun


def inside(rounds: int) -> dict[str, list[float]]:
    """All measurements, in seconds, by what they are of."""
    engines, secret = contract(), key()
    found: dict[str, list[float]] = {name: [] for name in ("hearth", "hand", "engine", "notice", "status")}
    for turn in range(rounds):
        old, new = (MODELS[(turn + side) % 2] for side in (0, 1))
        run("hearth", "switch", old)
        found["hearth"].append(by_hearth(new))
        found["status"] += [timed("hearth", "status") for _ in range(3)]
        found["notice"].append(notice(engines[new]))
        run("hearth", "switch", "none")
        for what in ("hand", "engine"):
            run(*docker_run(old))
            while not healthy(engines[old]["port"], HANGS_S):
                time.sleep(HAND_INTERVAL_S)
            measure = by_hand if what == "hand" else of_the_engine
            found[what].append(measure(engines[new], secret))
            run("docker", "rm", "-f", "hand")
            until_gone()
        print(f"  round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    run("hearth", "switch", MODELS[0])
    return found


def spread(values: list[float], unit_s: float = 1.0, digits: int = 2) -> str:
    """Median and range."""
    low, middle, high = (one / unit_s for one in (min(values), statistics.median(values), max(values)))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def outside() -> None:
    """Make a box, measure in it, remove it, and print the table."""
    sys.path.insert(0, str(ROOT / "tests/e2e"))
    from boxes import brought_up

    print("  making a box, about a minute", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch, brought_up(BOX, Path(scratch)) as box:
        box.ok("site.yml")
        subprocess.run(["docker", "cp", __file__, f"{BOX}:/opt/switch.py"], check=True, capture_output=True)
        command = ["docker", "exec", BOX, "/opt/hearth/venv/bin/python", "/opt/switch.py", "inside", str(ROUNDS)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    beyond = statistics.median(found["hearth"]) - statistics.median(found["engine"])
    print("| what | median (range) | promised |")
    print("|---|---|---|")
    print(f"| `hearth switch`, to the first answer | {spread(found['hearth'])} s | |")
    print(f"| by hand: `docker rm -f`, `docker run`, /health every 0.1 s, a chat | {spread(found['hand'])} s | |")
    print(f"| the engine's own stop, load and answer | {spread(found['engine'])} s | |")
    print(f"| **Hearth, beyond the engine's own** | **{beyond:.2f} s** | less than 1 s |")
    print(f"| readiness noticed after | {spread(found['notice'], 1e-3, 0)} ms | 100 ms |")
    print(f"| `hearth status` | {spread(found['status'], 1e-3, 0)} ms | less than 150 ms |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        print(json.dumps(inside(int(sys.argv[2]))))
    else:
        outside()
