# SPDX-License-Identifier: Apache-2.0
"""apt, dpkg and systemd of a box, played, for tests of updates."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from hearth.updates import changes

NATIVE = "arm64"


def architecture(name: str) -> str:
    """Of a package, by its name as apt has it."""
    return name.partition(":")[2] or NATIVE


class Played:
    """What apt and dpkg would do: versions that are installed, newer ones, and the words that were said to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installed = {"curl": "1", "vim": "1", "linux-image": "1"}
        self.newer = {"curl": "2", "linux-image": "2"}
        self.in_sources = {("curl", "1")}
        self.failed: list[str] = []
        # Words of a command that fails, and what it says.
        self.fails: dict[str, str] = {}
        self.said: list[str] = []
        # Of apt's unit: what it is in the end, and before that, the last one first.
        self.states = ["inactive"]
        self.begun: list[tuple[str, ...]] = []
        # What systemctl says as long as systemd does not answer.
        self.away: list[str] = []
        self.at_work: Callable[[], None] = lambda: None

    def __call__(self, *command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        words = " ".join(command)
        out, code = "", 0
        if command[0] == "systemd-run":
            self.begun.append(command)
            program = next(place for place, word in enumerate(command) if place and not word.startswith("-"))
            done = self._work(" ".join([Path(command[program]).name, *command[program + 1 :]]))
            if done.stderr:
                (self.folder / "apt.log").write_text(done.stderr)
            self.states = ["failed" if done.returncode else "inactive", "active"]
            return subprocess.CompletedProcess(command, 0, "", "")
        if command[:2] == ("apt-get", "--simulate"):
            out = "".join(self._inst(name) for name in self.newer if not self._held(name, words))
        elif command[0] == "dpkg-query":
            out = "".join(self._listed(name) for name in self.installed)
        elif command[0] == "dpkg":
            out = f"{NATIVE}\n"
        elif command[:2] == ("apt-cache", "show"):
            out = "\n\n".join(
                f"Package: {changes.plain(n)}\nArchitecture: {architecture(n)}\nVersion: {v}\nFilename: pool/{n}.deb"
                for n, v in self.in_sources
            )
        elif command[:2] == ("apt-mark", "showauto"):
            out = "curl\n"
        elif command[:2] == ("systemctl", "show") and self.away:
            return subprocess.CompletedProcess(command, 1, "", self.away.pop())
        elif command[:2] == ("systemctl", "show"):
            self.said.append(words)
            out = (self.states.pop() if len(self.states) > 1 else self.states[0]) + "\n"
        elif command[0] == "systemctl":
            out = "".join(f"{unit} loaded failed failed\n" for unit in self.failed)
            code = 3 if "is-active" in words else 0
            if command[1] == "start":
                self.failed = [unit for unit in self.failed if unit not in command]
            self.said.append(words)
        else:
            self.said.append(words)
        return subprocess.CompletedProcess(command, code, out, "")

    def _listed(self, name: str) -> str:
        """A line of dpkg-query's; dpkg wants the architecture where there are several of a package."""
        several = sum(changes.plain(other) == changes.plain(name) for other in self.installed) > 1
        unique = f"{changes.plain(name)}:{architecture(name)}" if several else name
        return f"{changes.plain(name)} {architecture(name)} {unique} {self.installed[name]} installed\n"

    def _inst(self, name: str) -> str:
        old = f" [{self.installed[name]}]" if name in self.installed else ""
        return f"Inst {name}{old} ({self.newer[name]} Debian:13/stable [all])\n"

    def _held(self, name: str, words: str) -> bool:
        if self.newer[name] == self.installed.get(name):
            return True
        pins = re.search(r"-oDir::Etc::Preferences=(\S+)", words)
        return pins is not None and changes.matches(name, Path(pins[1]).read_text().partition("\n")[0].split()[1:])

    def _work(self, words: str) -> subprocess.CompletedProcess[str]:
        self.said.append(words)
        for part, complaint in self.fails.items():
            if part in words:
                return subprocess.CompletedProcess(words, 100, "", complaint)
        if words.startswith("apt-get upgrade"):
            self.at_work()
            self.installed |= {name: newer for name, newer in self.newer.items() if not self._held(name, words)}
        elif words.startswith(("apt-get download", "dpkg-repack")):
            for name in (word.partition("=")[0] for word in words.split()[1:] if word != "download"):
                known = name.removesuffix(f":{NATIVE}")
                file = f"{changes.plain(name)}_{self.installed[known]}_{architecture(name)}.deb"
                (self.folder / file).touch()
        elif words.startswith("apt-get install"):
            for word in words.split():
                if word.endswith(".deb"):
                    package, version, built_for = Path(word).stem.split("_")
                    self.installed[changes.named(package, built_for, NATIVE)] = version
                elif word.endswith("-"):
                    self.installed.pop(word[:-1])
        return subprocess.CompletedProcess(words, 0, "", "")

    def did(self, *beginnings: str) -> list[str]:
        """The beginnings of what was done, in its order."""
        return [start for words in self.said for start in beginnings if words.startswith(start)]
