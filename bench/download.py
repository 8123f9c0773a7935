# SPDX-License-Identifier: Apache-2.0
"""Downloads beside `hf download` and curl, from one hub on this machine, in turns: rates, ratios and memory.

Hearth's time has verification in it, and the disk's: the others neither hash nor wait for the disk. Needs as much free
disk as twice the largest case; `--scale 0.25` makes all of it a quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv/bin"
_BLOCK = 1 << 20
# Name of the case: how many files, and bytes of each at scale 1.
CASES = {"one": (1, 4_000_000_000), "twenty": (20, 200_000_000), "small": (2000, 20_000)}
WORDS = {"one": "one file", "twenty": "20 files", "small": "2,000 files"}


class Hub:
    """The hub of the tests, in a process of its own."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            (sys.executable, str(ROOT / "tests/hub/server.py"), str(root)), stdout=subprocess.PIPE, text=True
        )
        self.endpoint = self._process.stdout.readline().strip() if self._process.stdout else ""

    def files(self, repo: str) -> list[str]:
        """Their paths; asked once before anything is measured, since the hub hashes them then."""
        with urllib.request.urlopen(f"{self.endpoint}/api/models/{repo}?blobs=true") as answer:  # noqa: S310
            return [one["rfilename"] for one in json.load(answer)["siblings"]]

    def sent(self) -> int:
        with urllib.request.urlopen(f"{self.endpoint}/_hub/seen") as answer:  # noqa: S310
            return sum(one["sent"] for one in json.load(answer))

    def forget(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/_hub/faults", method="DELETE"))  # noqa: S310

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Bench:
    def __init__(self, work: Path, hub: Hub) -> None:
        self.hub = hub
        self.work = work
        self.out = work / "out"

    def commands(self, repo: str) -> dict[str, tuple[tuple[str, ...], bytes]]:
        """What is started for each, and what it reads on stdin."""
        request = {"folder": str(self.out / "hearth" / "model"), "repo": repo, "endpoint": self.hub.endpoint}
        config = "".join(
            f'url = "{self.hub.endpoint}/{repo}/resolve/main/{path}"\noutput = "{self.out}/curl/{path}"\n'
            for path in self.hub.files(repo)
        )
        curl = (
            "curl",
            "--silent",
            "--show-error",
            "--no-progress-meter",
            "--fail",
            "--location",
            "--create-dirs",
            "--parallel",
        )
        return {
            "hearth": ((str(BIN / "python"), "-m", "hearth.download"), json.dumps(request).encode()),
            "hf": ((str(BIN / "hf"), "download", repo, "--local-dir", str(self.out / "hf"), "--quiet"), b""),
            "curl": ((*curl, "--parallel-max", "8", "--config", "-"), config.encode()),
        }

    def run(self, command: tuple[str, ...], stdin: bytes) -> tuple[float, int, bytes]:
        """Seconds from start to end, largest resident memory in bytes, and what it said."""
        begun = time.monotonic()
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as read:
            read.write(stdin)
            read.seek(0)
            process = subprocess.Popen(command, stdin=read, stdout=said, env=self.environment())
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begun
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{' '.join(command[:4])} failed with {process.returncode}: its words are above.")
            said.seek(0)
            return seconds, usage.ru_maxrss * 1024, said.read()

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        more = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        return {
            **kept,
            **more,
            "HF_HOME": str(self.work / "hf-home"),
            "HF_ENDPOINT": self.hub.endpoint,
            "PYTHONPATH": str(ROOT / "src"),
        }

    @contextmanager
    def clean(self) -> Iterator[None]:
        """What an earlier run left on the disk, or has still to write, is nobody's burden."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        os.sync()
        self.hub.forget()
        yield
        shutil.rmtree(self.out, ignore_errors=True)

    def compare(self, name: str, size: int, rounds: int) -> None:
        repo = f"bench/{name}"
        commands = self.commands(repo)
        seconds: dict[str, list[float]] = {who: [] for who in commands}
        memory = dict.fromkeys(commands, 0)
        for turn in range(rounds):
            order = list(commands)
            # Nobody has the best place each time.
            for who in order[turn % len(order) :] + order[: turn % len(order)]:
                with self.clean():
                    took, used, _ = self.run(*commands[who])
                seconds[who].append(took)
                memory[who] = max(memory[who], used)
        rate = {who: size / statistics.median(took) / 1e6 for who, took in seconds.items()}
        # Of one turn each: what the machine did beside it is the same.
        ratios = [theirs / ours for ours, theirs in zip(seconds["hearth"], seconds["hf"], strict=True)]
        print(
            f"| {WORDS[name]}, {size / 1e9:.2f} GB | {rate['hearth']:.0f} | {rate['hf']:.0f} | {rate['curl']:.0f} "
            f"| **{statistics.median(ratios):.2f}** | {memory['hearth'] / 1e6:.0f} | {memory['hf'] / 1e6:.0f} |",
            flush=True,
        )

    def nothing_to_do(self, name: str) -> None:
        command, stdin = self.commands(f"bench/{name}")["hearth"]
        with self.clean():
            self.run(command, stdin)
            inside, whole = [], []
            for _ in range(5):
                self.hub.forget()
                took, _, said = self.run(command, stdin)
                result = json.loads(said.splitlines()[-1])["result"]
                if result["changed"]:
                    raise SystemExit("the second run found something to do: nothing is measured.")
                whole.append(took)
                inside.append(result["seconds"])
        print(
            f"nothing to do, {WORDS[name]}: {statistics.median(inside):.2f} s in the process, "
            f"{statistics.median(whole):.2f} s with its start"
        )

    def killed(self, name: str, size: int) -> None:
        command, stdin = self.commands(f"bench/{name}")["hearth"]
        with self.clean():
            with tempfile.TemporaryFile() as read:
                read.write(stdin)
                read.seek(0)
                process = subprocess.Popen(command, stdin=read, stdout=subprocess.DEVNULL, env=self.environment())
            blobs = self.out / "hearth" / ".model.partial" / "blobs"
            while sum(path.stat().st_size for path in blobs.glob("*")) < size / 2:
                time.sleep(0.01)
            process.kill()
            process.wait()
            came = sum(path.stat().st_size for path in blobs.glob("*"))
            _, _, said = self.run(command, stdin)
            fetched = json.loads(said.splitlines()[-1])["result"]["bytes_fetched"]
            sent = self.hub.sent()
        print(
            f"killed at half, {WORDS[name]}: {came / 1e6:.0f} MB were on the disk, {fetched / 1e6:.0f} MB came then; "
            f"the hub had handed {(sent - size) / 1e6:.1f} MB to the kernel that nobody read any more"
        )


def _fill(folder: Path, count: int, size: int) -> None:
    """Files of noise, none like another: of one block, with a number in each."""
    noise = os.urandom(_BLOCK)
    folder.mkdir(parents=True)
    suffix = "safetensors" if size >= _BLOCK else "json"
    for number in range(count):
        with (folder / f"file-{number}.{suffix}").open("wb") as file:
            for block in range(0, size, _BLOCK):
                mark = f"{number} {block} ".encode()
                file.write((mark + noise)[: min(_BLOCK, size - block)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes of the large files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, action="append", help="only this one; may be given again")
    parser.add_argument("--work", type=Path, help="where to work; a folder in it is made and removed")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="hearth-bench-", dir=options.work))
    try:
        print("| | Hearth, MB/s | hf, MB/s | curl, MB/s | Hearth : hf | Hearth, MB of memory | hf, MB of memory |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for name in options.case or CASES:
            count, full = CASES[name]
            size = int(full * options.scale) if full > _BLOCK else full
            _fill(work / "hub" / "bench" / name, count, size)
            hub = Hub(work / "hub")
            try:
                bench = Bench(work, hub)
                bench.compare(name, count * size, options.rounds)
                bench.nothing_to_do(name)
                if size > _BLOCK:
                    bench.killed(name, count * size)
            finally:
                hub.close()
                shutil.rmtree(work / "hub")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
