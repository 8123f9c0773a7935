# SPDX-License-Identifier: Apache-2.0
"""Boxes for black-box tests: each a container with systemd and a Docker engine of its own, made as the demo's is."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = str(Path(sys.executable).parent / "ansible-playbook")
ANSIBLE = str(Path(sys.executable).parent / "ansible")
# Longest play of these tests: a fresh box takes about a minute here.
PLAY_TIMEOUT_S = 900


@dataclass(frozen=True)
class Run:
    """One finished play: its exit code, its output, and the counts of its recap."""

    code: int
    output: str

    def count(self, name: str) -> int:
        """A count of the recap, such as changed or failed, over all hosts."""
        return sum(int(value) for value in re.findall(rf"^\S+ +: .*\b{name}=(\d+)", self.output, flags=re.MULTILINE))

    @property
    def flat(self) -> str:
        """The output on one line, so that a sentence can be looked for that was wrapped."""
        return re.sub(r"\s+", " ", self.output).replace("''", "'")

    @property
    def modules(self) -> list[str]:
        """The modules that were executed on the box, from the output of -vvv."""
        return re.findall(r"^Using module file \S+/(\w+)\.py$", self.output, flags=re.MULTILINE)

    @property
    def changed_tasks(self) -> list[str]:
        """The names of the tasks that changed something."""
        task, found = "", []
        for line in self.output.splitlines():
            if match := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\]", line):
                task = match[1]
            elif line.startswith("changed: ") and (not found or found[-1] != task):
                found.append(task)
        return found


class Box:
    """A box, driven as a user would: by ansible-playbook from outside, by a shell inside."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.inventory = folder / f"{name}.json"
        lab = json.loads((ROOT / ".cache/lab/facts.json").read_text(encoding="utf-8"))
        self.image: str = lab["llama_image"]
        self.write_inventory()

    @property
    def local_image(self) -> str:
        """What that image is called on a box that site.yml has finished."""
        return f"localhost/hearth/llama.cpp:{self.image.partition('@sha256:')[2][:12]}"

    def models(self) -> dict[str, dict[str, Any]]:
        """The two models of the lab, as an inventory says them."""
        common = {"engine": "llama.cpp", "image": self.image, "family": "tiny", "context": 512, "memory_gib": 0.3}
        return {
            "tiny-a": {**common, "file": "tiny-a.gguf", "start": "boot"},
            "tiny-b": {**common, "file": "tiny-b.gguf"},
        }

    def write_inventory(self, **variables: Any) -> None:
        """Write the inventory; ``variables`` stand beside and above the usual ones."""
        host = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": self.name,
            "ansible_python_interpreter": "/usr/bin/python3",
            "layout_user": "spark",
            "engines_gpu": "none",
            # It has the memory of this machine, which tests play with; molecule/host has guards.
            "host_guards": False,
            "engines_models": self.models(),
            **variables,
        }
        group = {"hosts": {self.name: host}, "vars": {"lab_cache": str(ROOT / ".cache/lab")}}
        self.inventory.write_text(json.dumps({"all": {"children": {"sparks": group}}}), encoding="utf-8")

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [PLAYBOOK, "-i", str(self.inventory), *words]

    def _process(self) -> dict[str, Any]:
        """How every Ansible of these tests is started: from the root, without a terminal, one stream of output."""
        settings = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "300"}
        # Ansible does not flush: into a pipe, its lines would come in blocks of 8 KiB, long after what they tell.
        settings["PYTHONUNBUFFERED"] = "1"
        return {
            "cwd": ROOT,
            "env": {**os.environ, **settings},
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }

    def play(self, *words: str) -> Run:
        """Run ansible-playbook to its end."""
        return self._run(self._command(words))

    def ad_hoc(self, module: str, arguments: str, *words: str) -> Run:
        """Run one module with `ansible`."""
        return self._run([ANSIBLE, "-i", str(self.inventory), "all", "-m", module, "-a", arguments, *words])

    def _run(self, command: list[str]) -> Run:
        done = subprocess.run(command, timeout=PLAY_TIMEOUT_S, check=False, **self._process())
        return Run(done.returncode, done.stdout)

    def ok(self, *words: str) -> Run:
        """Run ansible-playbook and insist on success."""
        run = self.play(*words)
        assert run.code == 0, run.output[-6000:]
        return run

    def play_and(self, words: str, act: Callable[[], object], *command: str, line: int = 1) -> Run:
        """Run ansible-playbook to its end, and do something as soon as so many of its lines have these words."""
        seen = []
        with subprocess.Popen(self._command(command), **self._process()) as process:
            for said in process.stdout or ():
                seen.append(said)
                if words in said:
                    line -= 1
                    if line == 0:
                        act()
        run = Run(process.returncode, "".join(seen))
        assert line <= 0, f"the play did not say {words!r} so often:\n{run.output[-3000:]}"
        return run

    def play_until_killed(self, task: str, seconds: float, *words: str, by: signal.Signals = signal.SIGKILL) -> None:
        """Start a play and kill it, with all it started here, ``seconds`` after the task begins, or says that line."""
        # What a shell starts in the background ignores SIGINT, and so would what it starts in turn.
        command = ["env", "--default-signal=INT", *self._command(words)]
        with subprocess.Popen(command, start_new_session=True, **self._process()) as process:
            seen = []
            for line in process.stdout or ():
                seen.append(line)
                if task in line:
                    break
            else:
                pytest.fail(f"the play ended before {task!r}:\n{''.join(seen)[-3000:]}")
            time.sleep(seconds)
            assert process.poll() is None, f"the play ended within {seconds} s of {task!r}"
            os.killpg(process.pid, by)

    def sh(self, script: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside."""
        return subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def out(self, script: str, timeout_s: float = 120) -> str:
        """Run a shell script inside, insist on success, and give what it printed."""
        done = self.sh(script, timeout_s)
        assert done.returncode == 0, f"{script}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def python(self, script: str) -> str:
        """Run a Python script inside with the runtime's interpreter."""
        return self.out(f"/opt/hearth/venv/bin/python -c {shlex.quote(script)}")

    def address(self) -> str:
        """The box's address on the lab's network."""
        form = '{{(index .NetworkSettings.Networks "hearth-lab").IPAddress}}'
        shown = subprocess.run(
            ["docker", "container", "inspect", "--format", form, self.name], capture_output=True, text=True, check=True
        )
        return shown.stdout.strip()

    def active(self) -> list[str]:
        """The models that are up, by ``hearth status``."""
        rows = json.loads(self.out("hearth status --json"))["engines"]
        return [row["name"] for row in rows if row["state"] == "active"]

    def cut_power(self) -> None:
        """Stop everything inside at once, and boot again."""
        subprocess.run(["docker", "kill", self.name], check=True, capture_output=True)
        subprocess.run(["docker", "start", self.name], check=True, capture_output=True)
        self.wait_booted()

    def wait_booted(self) -> None:
        """Wait until systemd has started what it starts at boot."""
        deadline = time.monotonic() + 120
        while self.sh("systemctl is-system-running").stdout.strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline, self.sh("systemctl list-jobs").stdout
            time.sleep(0.5)


@contextmanager
def brought_up(name: str, where: Path) -> Iterator[Box]:
    """A box of this name, made anew and prepared, and removed in the end; ``where`` is for its inventory."""
    box = Box(name, where)
    shared = ROOT / "molecule/shared"
    box.ok(str(shared / "destroy.yml"))
    box.ok(str(shared / "create.yml"), str(shared / "prepare.yml"))
    try:
        yield box
    finally:
        box.write_inventory()
        box.ok(str(shared / "destroy.yml"))
