# SPDX-License-Identifier: Apache-2.0
"""`make bench-gateway`: what the gateway costs beside nginx and LiteLLM, each alone on one core, in one run.

An engine of gateway_load.py answers at once (JSON), or a token at a time (events that carry the time they were sent
at). It and the clients share the other core. No two requests or answers in a row have the same length, and answers
carry the date. Rounds are interleaved, and in a round each figure is taken of all before the next one. The CPU time is
that of the measured process and its threads, from /proc/<pid>/task/*/schedstat, to which other processes add nothing.
Ratios are to nginx, each round's own: their median and their range.
Prints the table of docs/performance.md. Hearth is all of `hearth serve` but systemd; wire is its relay behind a handler
that compares a key and reads the model; bare is two sockets on the same event loop and nothing between.

nginx is Debian's (`apt-get install nginx-light`), LiteLLM is PyPI's, in a venv of its own below .cache (made once).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateway_load import KEY

ROOT = Path(__file__).resolve().parent.parent
LOAD = str(ROOT / "bench/gateway_load.py")
WHOLE = str(ROOT / "bench/gateway_whole.py")

NAMES = ("direct", "nginx", "bare", "wire", "Hearth", "LiteLLM")
LITELLM = "litellm[proxy]==1.106.2"
LITELLM_VENV = ROOT / ".cache/bench/litellm"
PROXY_CPU, LOAD_CPU = 0, 1
UPLOAD = 8_000_000


NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_max_body_size 100m; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 1000000;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_request_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""
LITELLM_CONFIG = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{engine}/v1", api_key: none}}
"""


def free_port() -> int:
    """A port that nobody has."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(cpu: int, *command: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core."""
    words = ["taskset", "-c", str(cpu), *command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, env=os.environ | env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def until_open(port: int, seconds: float = 300) -> None:
    """Wait until a port answers. Raises SystemExit."""
    import socket

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"nobody listens on port {port}")


def litellm_command() -> str:
    """LiteLLM's program, installed when it is not there."""
    program = LITELLM_VENV / "bin/litellm"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(LITELLM_VENV)], check=True)
        subprocess.run([str(LITELLM_VENV / "bin/pip"), "install", "--quiet", LITELLM], check=True)
    return str(program)


def children(pid: int) -> list[int]:
    """A process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *[found for one in below for found in children(int(one))]]


def cpu_s(pids: list[int]) -> float:
    """The CPU time that processes have used, in seconds."""
    threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def rss_mb(pids: list[int]) -> float:
    """What is resident of processes, in MB."""
    lines = [Path(f"/proc/{pid}/status").read_text(encoding="ascii") for pid in pids]
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in lines) * 1024 / 1e6


class Subject:
    """One gateway that is measured. ``weight`` is how much less of the load it gets, where it could not take it."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes] | None, weight: int = 1) -> None:
        self.name = name
        self.port = port
        self.weight = weight
        self.process = process
        self.found: dict[str, list[float]] = {}

    @property
    def pids(self) -> list[int]:
        return children(self.process.pid) if self.process is not None else []

    def keep(self, what: str, value: float) -> None:
        self.found.setdefault(what, []).append(value)

    def load(self, cost: str, *words: str) -> tuple[int, float]:
        """Let clients on their own core run; how many things they did, and the median of them in seconds.

        The CPU time of each thing is kept as ``cost``, in microseconds.
        """
        before = cpu_s(self.pids)
        command = ["taskset", "-c", str(LOAD_CPU), sys.executable, LOAD, words[0], str(self.port), *words[1:]]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        if cost:
            self.keep(cost, (cpu_s(self.pids) - before) / int(done[0]) * 1e6)
        return int(done[0]), float(done[1])


def one_round(subjects: list[Subject], seconds: float, streams: int) -> None:
    """Measure all once. What is compared is measured right after each other: noise of the machine comes and goes."""
    for subject in subjects:
        subject.load("", "ask", "4", "0.3", "1000")
        if "rss" not in subject.found:
            subject.keep("rss", rss_mb(subject.pids))
    for subject in subjects:
        count, _ = subject.load("cpu_request", "ask", "16", str(seconds), "1000")
        subject.keep("rate", count / seconds)
    for subject in subjects:
        _, median_s = subject.load("", "ask", "1", str(seconds / 2), "1000")
        subject.keep("p50", median_s * 1e6)
    for subject in subjects:
        _, median_s = subject.load("cpu_chunk", "listen", str(max(1, streams // subject.weight)))
        subject.keep("late", median_s * 1e6)
    for subject in subjects:
        _, median_s = subject.load("cpu_upload", "ask", "1", str(seconds / 2), str(UPLOAD))
        subject.keep("upload", median_s * 1e3)
        subject.keep("rss_after", rss_mb(subject.pids))


ROWS = (
    ("cpu_request", "CPU a request, µs", "≤ 4.5"), ("cpu_chunk", "CPU a token streamed, µs", "≤ 2.0"),
    ("p50", "answer at c=1, median, µs", "≤ 2"), ("late", "token late by, median, µs", ""),
    ("rate", "requests/s at c=16", ""), ("upload", "8 MB upload, median, ms", "≤ 2"),
    ("cpu_upload", "CPU an 8 MB upload, µs", ""),
    ("rss", "resident, idle, MB", "≤ 60 MB"), ("rss_after", "resident after uploads, MB", "≤ 80 MB"),
)  # fmt: skip


def table(subjects: list[Subject]) -> None:
    """Print what was found: medians, and of the rounds' ratios to nginx the median and the range."""
    base = next(one for one in subjects if one.name == "nginx")
    print("| |" + "".join(f" {one.name} |" for one in subjects) + " Hearth : nginx | promised |")
    print("|---|" + "---|" * (len(subjects) + 2))
    for what, label, promised in ROWS:
        cells = [one.found.get(what) for one in subjects]
        texts = [
            f" {statistics.median(values):,.{0 if values[0] > 100 else 1}f} |" if values else " |" for values in cells
        ]
        ratio = ""
        hearth = next((one for one in subjects if one.name == "Hearth"), None)
        if hearth is not None and what not in {"rss", "rss_after"} and base.found.get(what):
            ratios = [mine / theirs for mine, theirs in zip(hearth.found[what], base.found[what], strict=True)]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {label} |{''.join(texts)} {ratio} | {promised} |")


def main() -> None:
    """Start everything, measure in turns, print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--seconds", type=float, default=3.0)
    words.add_argument("--streams", type=int, default=32)
    words.add_argument("--python", default=sys.executable, help="the gateway's interpreter, with its packages")
    words.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    given = words.parse_args()
    names = given.only
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed: apt-get install nginx-light")
    engine = free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(running(LOAD_CPU, sys.executable, LOAD, "stub", str(engine)))
        until_open(engine)
        subjects = []
        for name in names:
            port, weight = free_port(), 1
            if name == "direct":
                subjects.append(Subject(name, engine, None))
                continue
            if name == "nginx":
                place = Path(folder, name)
                place.mkdir(mode=0o755)
                Path(folder).chmod(0o755)
                config = place / "nginx.conf"
                config.write_text(NGINX.format(folder=place, engine=engine, port=port))
                process = stack.enter_context(
                    running(PROXY_CPU, "nginx", "-c", str(config), "-e", str(place / "error.log"))
                )
            elif name in {"bare", "wire"}:
                process = stack.enter_context(running(PROXY_CPU, given.python, LOAD, name, str(port), str(engine)))
            elif name == "Hearth":
                words_of_it = (given.python, WHOLE, str(port), str(engine), folder)
                process = stack.enter_context(running(PROXY_CPU, *words_of_it, PYTHONPATH=str(ROOT / "src")))
            else:
                config = Path(folder, "litellm.yaml")
                config.write_text(LITELLM_CONFIG.format(engine=engine))
                flags = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
                env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY, "LITELLM_LOG": "ERROR"}
                process = stack.enter_context(running(PROXY_CPU, litellm_command(), *flags, **env))
                weight = 8
            until_open(port)
            subjects.append(Subject(name, port, process, weight))
        for turn in range(given.rounds):
            one_round(subjects, given.seconds, given.streams)
            print(f"  round {turn + 1} of {given.rounds}", file=sys.stderr, flush=True)
        table(subjects)


if __name__ == "__main__":
    main()
