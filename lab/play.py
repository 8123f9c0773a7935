# SPDX-License-Identifier: Apache-2.0
"""Run ansible-playbook with its whole output in a log and a few readable lines on the terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.*)\] \**$")
RESULT = re.compile(r"^(?P<state>ok|changed|skipping|fatal|failed): \[")
RECAP = re.compile(
    r"^\S+\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<gone>\d+)\s+failed=(?P<failed>\d+)"
)
# A task that is silent for longer says that it is still at work.
PATIENCE = 8.0


class PlayError(Exception):
    """A play ended with an error; `told` when its reason has been printed already."""

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told


class Narrator:
    """Turns Ansible's lines into few: what changed, how long it took, and all of an error."""

    def __init__(self) -> None:
        self.task = "starting Ansible"
        self.began = time.monotonic()
        self.spoke = self.began
        self.shown = False
        self.in_error = False
        self.told = False
        self.changed = 0
        self.tasks = 0
        self._lock = threading.Lock()

    def _say(self, text: str) -> None:
        print(text, flush=True)
        self.spoke = time.monotonic()

    def line(self, text: str) -> None:
        """Take one line of Ansible's output."""
        with self._lock:
            if match := TASK.match(text):
                self.task, self.began, self.shown = match["name"], time.monotonic(), False
                self.spoke = self.began
                self.in_error = False
                self.tasks += 1
            elif text.startswith(("PLAY [", "PLAY RECAP")):
                self.in_error = False
            elif match := RECAP.match(text):
                self.changed += int(match["changed"])
            elif text.startswith("[ERROR]") or (
                (match := RESULT.match(text)) and match["state"] in {"fatal", "failed"}
            ):
                self.in_error = self.told = True
                print(f"  {self.task}\n    {text}", file=sys.stderr, flush=True)
            elif self.in_error:
                print(f"    {text}", file=sys.stderr, flush=True)
            elif text.startswith("changed: [") and not self.shown:
                self.shown = True
                self._say(f"  changed  {self.task} ({time.monotonic() - self.began:.1f} s)")
            elif text.startswith(("[WARNING]", "[DEPRECATION WARNING]")):
                self._say(f"  {text}")

    def heartbeat(self) -> None:
        """Say that the present task is still at work, if nobody has said anything for a while."""
        with self._lock:
            now = time.monotonic()
            if now - self.spoke > PATIENCE:
                self._say(f"           {self.task}: {now - self.began:.0f} s so far")


def run_play(words: list[str], *, cwd: Path, log: Path) -> int:
    """Run ansible-playbook; return the sum of the recaps' changed counts.

    Raises:
        PlayError: Ansible ended with an error.
    """
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(cwd / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_NOCOWS": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
    }
    program = str(Path(sys.executable).parent / "ansible-playbook")
    narrator = Narrator()
    over = threading.Event()

    def beat() -> None:
        while not over.wait(1):
            narrator.heartbeat()

    threading.Thread(target=beat, daemon=True).start()
    started = time.monotonic()
    try:
        with (
            log.open("a", encoding="utf-8") as record,
            subprocess.Popen(
                [program, *words],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            record.write(f"\n$ ansible-playbook {' '.join(words)}\n")
            for raw in process.stdout or ():
                record.write(raw)
                record.flush()
                narrator.line(raw.rstrip("\n"))
            status = process.wait()
    finally:
        over.set()
    if status != 0:
        raise PlayError(f"ansible-playbook ended with status {status} in '{narrator.task}'", told=narrator.told)
    print(
        f"  {narrator.tasks} tasks, {narrator.changed} changed, {time.monotonic() - started:.1f} s",
        flush=True,
    )
    return narrator.changed
