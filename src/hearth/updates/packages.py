# SPDX-License-Identifier: Apache-2.0
"""What apt, dpkg and systemd say of a box's packages. Nothing here changes what is installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hearth import programs
from hearth.updates import changes
from hearth.updates.changes import Change, UpdateError

ASKED_S = 300.0
_ENGINE = re.compile(r"hearth-engine-(\S+)\.service(?:\s.*)?")
_WORDS = re.compile(r"^[EW]: *(.+)$|^dpkg: (.+)$", flags=re.MULTILINE)

Run = Callable[..., programs.Done]


class Packages:
    """The packages of the box, and what runs from them."""

    def __init__(self, run: Run = programs.run) -> None:
        self._run = run

    def ask(self, *command: str) -> programs.Done:
        """A program's answer; of systemd's, also where an update just now replaced systemd itself."""
        if command[0] == "systemctl":
            return programs.patiently(lambda: self._run(*command, timeout_s=ASKED_S))
        return self._run(*command, timeout_s=ASKED_S)

    def native(self) -> str:
        """The box's own architecture, as Debian calls it."""
        return self.ask("dpkg", "--print-architecture").stdout.strip()

    def versions(self) -> dict[str, str]:
        """The versions of what is installed, by names as apt has them."""
        return {name: version for name, (_, version) in self._installed().items()}

    def unique(self) -> dict[str, str]:
        """The names that dpkg has for what is installed, by those that apt has.

        dpkg wants the architecture of what may be there for several of them (Multi-Arch: same), of the box's own too.
        """
        return {name: unique for name, (unique, _) in self._installed().items()}

    def _installed(self) -> dict[str, tuple[str, str]]:
        form = "${Package} ${Architecture} ${binary:Package} ${Version} ${db:Status-Status}\n"
        native = self.native()
        found = {}
        for line in self.ask("dpkg-query", "--show", f"--showformat={form}").stdout.splitlines():
            package, architecture, unique, version, status = (*line.split(), "", "", "", "")[:5]
            if status == "installed":
                found[changes.named(package, architecture, native)] = (unique, version)
        return found

    def simulated(self, preferences: Sequence[str]) -> list[Change]:
        """What an upgrade would change, by apt itself. Raises UpdateError."""
        done = self.ask("apt-get", "--simulate", *preferences, "upgrade", "--with-new-pkgs")
        if done.returncode:
            raise UpdateError(
                f"apt cannot tell what there is to update ({_reason(done)}): dpkg --configure -a and apt-get "
                "--fix-broken install mend what was cut off"
            )
        return changes.simulated(done.stdout)

    def refresh(self, lock: str) -> list[str]:
        """Fetch the lists of packages; returns what apt complains of. A source that fails leaves its old list."""
        done = self.ask("apt-get", "update", lock)
        said = complaints(done.stdout + "\n" + done.stderr)
        return said or ([f"apt-get update ended with {done.returncode}"] if done.returncode else [])

    def in_sources(self, wanted: Sequence[Change]) -> list[Change]:
        """Those of which apt's sources have the version of before."""
        shown = self.ask("apt-cache", "show", *(f"{one.name}={one.before}" for one in wanted))
        has = changes.downloadable(shown.stdout, self.native())
        return [one for one in wanted if (one.name, one.before) in has]

    def brought_along(self) -> set[str]:
        """Names of what apt installed because something else needs it."""
        return set(self.ask("apt-mark", "showauto").stdout.split())

    def failed_units(self) -> list[str]:
        """Units that failed, or that systemd starts again and again."""
        states = "--state=failed,auto-restart"
        done = self.ask("systemctl", "list-units", "--all", "--plain", "--no-legend", states)
        return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]

    def engines(self) -> list[str]:
        """The engines that are up, or on their way."""
        states = "--state=active,activating,reloading"
        done = self.ask("systemctl", "list-units", "--plain", "--no-legend", states, "hearth-engine-*.service")
        return [found[1] for line in done.stdout.splitlines() if (found := _ENGINE.match(line))]


def is_engine(unit: str) -> bool:
    """Whether a unit is an engine's: these are started by Hearth."""
    return _ENGINE.fullmatch(unit) is not None


def complaints(said: str) -> list[str]:
    """What apt and dpkg complain of, each once."""
    return list(dict.fromkeys((of_apt or of_dpkg).strip() for of_apt, of_dpkg in _WORDS.findall(said)))


def _reason(done: programs.Done) -> str:
    return "; ".join(complaints(done.stdout + "\n" + done.stderr)[:3]) or f"it ended with {done.returncode}"
