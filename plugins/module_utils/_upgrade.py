# SPDX-License-Identifier: Apache-2.0
"""Takes packages of a box forward in steps that can be taken back. Standard library only: it runs with any Python.

PRIVATE to the collection. The work itself is a unit of systemd, which a lost connection does not end; a run that was
cut off is gone on with by the next one.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.hearth.spark.plugins.module_utils import _fileset, _program, _updates
from ansible_collections.hearth.spark.plugins.module_utils._updates import Book, Change

FOLDER = Path("/var/lib/hearth/updates")
PREFERENCES = Path("/etc/apt/preferences")
UNIT = "hearth-update.service"
# A whole release's packages on a slow disk. dpkg is never killed by us: it would leave the box half done.
_WORK_S = 7200.0
_ASKED_S = 300.0
# A service that dies at once after its restart has died by then (systemd's RestartSec= is 0.1 s where it says nothing).
_SETTLED_S = 3.0
# A file of settings that the box's owner has changed stays as it is.
_KEEP = ("--force-confdef", "--force-confold")
_CONFFILES = tuple(f"-oDpkg::Options::={word}" for word in _KEEP)
_CONFIGURE = ("dpkg", *_KEEP, "--configure", "--pending")
_ENGINE = re.compile(r"hearth-engine-(\S+)\.service(?:\s.*)?")
_WORDS = re.compile(r"^[EW]: *(.+)$|^dpkg: (.+)$", flags=re.MULTILINE)


class UpgradeError(Exception):
    """One sentence."""


Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a step would change, and what is held back."""

    changes: tuple[Change, ...]
    held: tuple[Change, ...] = ()


class Step:
    """One step of an update, by its name; ``hold`` and ``only`` are patterns of package names.

    With ``scratch``, a folder of the caller's, nothing is written beside what is known of the step.
    """

    def __init__(
        self,
        name: str,
        hold: Sequence[str],
        only: Sequence[str],
        lock_timeout_s: float,
        *,
        scratch: Path | None = None,
        folder: Path = FOLDER,
        run: Run = _program.run,
    ) -> None:
        self.folder = folder / name
        self._pins = (scratch or self.folder) / "preferences"
        self.log = self.folder / "apt.log"
        self._hold, self._only = hold, only
        self._lock = f"-oDPkg::Lock::Timeout={int(lock_timeout_s)}"
        self._run = run

    # What is written down.

    def book(self) -> Book | None:
        """Raises UpgradeError."""
        path = self.folder / "book.json"
        try:
            return _updates.as_book(json.loads(path.read_text(encoding="utf-8")), str(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise UpgradeError(f"{path} cannot be read: remove it, and what that step changed is not known") from None
        except _updates.BookError as error:
            raise UpgradeError(str(error)) from None

    def write(self, book: Book) -> None:
        """Raises UpgradeError."""
        content = json.dumps(_updates.as_data(book), indent=1).encode() + b"\n"
        try:
            _fileset.write(self.folder / "book.json", content, 0o644, os.geteuid(), os.getegid())
        except OSError as error:
            raise UpgradeError(f"{self.folder} cannot be written ({error.strerror}): nothing was installed") from None

    # What would be done.

    def refresh(self) -> list[str]:
        """Fetch the lists of packages; returns what apt complains of. A source that fails leaves its old list."""
        done = self._run("apt-get", "update", self._lock, timeout_s=_ASKED_S)
        said = _said(done)
        return said or ([f"apt-get update ended with {done.returncode}"] if done.returncode else [])

    def plan(self) -> Plan:
        """Raises UpgradeError."""
        everything = self._simulated(())
        wanted = self._simulated(self._preferences())
        held = [one for one in everything if _updates.matches(one.name, self._hold)]
        loose = [one.name for one in wanted if _updates.matches(one.name, self._hold)]
        if loose:
            raise UpgradeError(f"apt would change {', '.join(loose)}, which is held: nothing was changed")
        return Plan(changes=tuple(wanted), held=tuple(held))

    def _simulated(self, preferences: Sequence[str]) -> list[Change]:
        done = self._run("apt-get", "--simulate", *preferences, "upgrade", "--with-new-pkgs", timeout_s=_ASKED_S)
        if done.returncode:
            raise UpgradeError(
                f"apt cannot tell what there is to update ({_reason(done)}): dpkg --configure -a and apt-get "
                "--fix-broken install mend what was cut off"
            )
        return _updates.simulated(done.stdout)

    def _preferences(self) -> Sequence[str]:
        """Words for apt; the file is made anew, since what is installed changes."""
        owners = PREFERENCES.read_text(encoding="utf-8") if PREFERENCES.is_file() else ""
        content = _updates.pins(_updates.kept(self.versions(), self._hold, self._only), owners)
        try:
            self._pins.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _fileset.write(self._pins, content.encode(), 0o644, os.geteuid(), os.getegid())
        except OSError as error:
            raise UpgradeError(f"{self._pins} cannot be written ({error.strerror})") from None
        return [f"-oDir::Etc::Preferences={self._pins}"]

    def versions(self) -> dict[str, str]:
        """The versions of what is installed, by names as apt has them."""
        return {name: version for name, (_, version) in self._installed().items()}

    def _installed(self) -> dict[str, tuple[str, str]]:
        """The names that dpkg has for what is installed, and its versions, by names as apt has them.

        dpkg wants the architecture of what may be there for several of them (Multi-Arch: same), of the box's own too.
        """
        form = "${Package} ${Architecture} ${binary:Package} ${Version} ${db:Status-Status}\n"
        native = self._native()
        found = {}
        for line in self._run("dpkg-query", "--show", f"--showformat={form}", timeout_s=_ASKED_S).stdout.splitlines():
            package, architecture, unique, version, status = (*line.split(), "", "", "", "")[:5]
            if status == "installed":
                found[_updates.named(package, architecture, native)] = (unique, version)
        return found

    def _native(self) -> str:
        return self._run("dpkg", "--print-architecture", timeout_s=_ASKED_S).stdout.strip()

    # Doing it.

    def recover(self) -> None:
        """Wait for a run that goes on without us, and finish what a power cut left of it."""
        book = self.book()
        if book is None or book.state != _updates.BEGUN:
            return
        deadline = time.monotonic() + _WORK_S
        while self._run("systemctl", "is-active", "--quiet", UNIT, timeout_s=_ASKED_S).returncode == 0:
            if time.monotonic() >= deadline:
                raise UpgradeError(f"{UNIT} of an earlier run does not end: see {self.log}")
            time.sleep(1)
        self._work(*_CONFIGURE)

    def fetch(self) -> None:
        """Fetch what the step installs: what cannot be had is known before anything changes. Raises UpgradeError."""
        words = ("--download-only", *self._upgrade())
        done = self._work("apt-get", *words)
        if done:
            raise UpgradeError(f"the packages could not be fetched ({done}): nothing was changed")

    def keep_way_back(self, changes: Iterable[Change]) -> None:
        """Have the packages of before as files: from apt's sources, or packed again from what is installed.

        Raises UpgradeError, with nothing changed.
        """
        wanted = self._lacking(one for one in changes if one.before)
        if not wanted:
            return
        shown = self._run("apt-cache", "show", *(f"{one.name}={one.before}" for one in wanted), timeout_s=_ASKED_S)
        has = _updates.downloadable(shown.stdout, self._native())
        there = [one for one in wanted if (one.name, one.before) in has]
        if there:
            self._work("apt-get", "download", *(f"{one.name}={one.before}" for one in there), folder=True)
        rest = self._lacking(wanted)
        # Of a release's updates the archives have the newest only.
        unique = {name: unique for name, (unique, _) in self._installed().items()} if rest else {}
        names = [unique.get(one.name, one.name) for one in rest]
        said = self._work("dpkg-repack", *names, folder=True) if rest else ""
        lost = [one.name for one in self._lacking(rest)]
        if lost:
            raise UpgradeError(
                f"there would be no way back for {', '.join(lost)} ({said or 'dpkg-repack said nothing'}): nothing was "
                "changed"
            )

    def _files(self) -> dict[str, Path]:
        """The packages of before, by their names; a file is called name_version_architecture.deb."""
        native = self._native()
        return {
            _updates.named(path.name.partition("_")[0], path.stem.rpartition("_")[2], native): path
            for path in self.folder.glob("*.deb")
        }

    def _lacking(self, changes: Iterable[Change]) -> list[Change]:
        """Those of which there is no package of before."""
        here = self._files()
        return [one for one in changes if one.name not in here]

    def forget(self) -> None:
        """Have no files of an earlier update."""
        for path in self.folder.glob("*.deb"):
            path.unlink()

    def install(self, plan: Plan, engines: Sequence[str] = ()) -> str:
        """Install it; returns what went wrong, in words. ``engines``: those that ran before, to be written down.

        Raises UpgradeError where nothing was changed.
        """
        before = self.book()
        going_on = before is not None and before.state == _updates.BEGUN
        changes = _updates.merged(before, plan.changes)
        self.fetch()
        if not going_on:
            self.forget()
        self.keep_way_back(changes)
        book = before if going_on and before else self._new_book(changes, engines)
        self.write(replace(book, changes=changes))
        said = self._work("apt-get", *self._upgrade()) if plan.changes else ""
        left = _updates.unlike(self.versions(), {one.name: one.after for one in changes})
        if said or left:
            return "; ".join([*([said] if said else []), *left[:3]])
        self.write(replace(book, changes=changes, state=_updates.INSTALLED))
        return self.troubled(book)

    def _new_book(self, changes: Sequence[Change], engines: Sequence[str]) -> Book:
        auto = set(self._run("apt-mark", "showauto", timeout_s=_ASKED_S).stdout.split())
        return Book(
            state=_updates.BEGUN,
            at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            changes=tuple(changes),
            auto=tuple(one.name for one in changes if one.name in auto),
            failed=tuple(self.failed_units()),
            engines=tuple(engines),
        )

    def troubled(self, book: Book) -> str:
        """The units that do not run since then, in words."""
        time.sleep(_SETTLED_S)
        failed = self._failed_since(book)
        return f"{', '.join(failed)} failed since then" if failed else ""

    def _failed_since(self, book: Book) -> list[str]:
        return [unit for unit in self.failed_units() if unit not in book.failed]

    def failed_units(self) -> list[str]:
        """Units that failed, or that systemd starts again and again."""
        words = ("list-units", "--all", "--plain", "--no-legend", "--state=failed,auto-restart")
        done = self._run("systemctl", *words, timeout_s=_ASKED_S)
        return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]

    def revert(self, book: Book) -> None:
        """Have the versions of before. Raises UpgradeError."""
        self._work(*_CONFIGURE)
        now = self.versions()
        wanted = {one.name: one.before for one in book.changes}
        files = self._files()
        back = [name for name, version in wanted.items() if version and now.get(name) != version]
        new = [name for name, version in wanted.items() if not version and name in now]
        missing = [name for name in back if name not in files]
        if missing:
            raise UpgradeError(
                f"{self.folder} has no package of before for {', '.join(missing)}: the box stays as it is"
            )
        said = ""
        if back or new:
            words = ("install", "--yes", "--allow-downgrades", "--fix-broken", *_CONFFILES, self._lock)
            old = [str(files[name]) for name in back]
            said = self._work("apt-get", *words, *old, *(f"{name}-" for name in new))
        left = _updates.unlike(self.versions(), wanted)
        if left:
            raise UpgradeError(
                f"the packages of before could not be installed again ({said or '; '.join(left[:3])}): they lie in "
                f"{self.folder}"
            )
        # Whoever names a package to apt has asked for it, as far as apt knows.
        brought = [name for name in book.auto if wanted.get(name)]
        if brought:
            self._run("apt-mark", "auto", *brought, timeout_s=_ASKED_S)
        self.write(replace(book, state=_updates.REVERTED))
        self._start_again(book)

    def _start_again(self, book: Book) -> None:
        """Start what failed since then: its package may have tried, and systemd refused what had failed too often."""
        self._run("systemctl", "daemon-reload", timeout_s=_ASKED_S)
        failed = [unit for unit in self._failed_since(book) if not _ENGINE.fullmatch(unit)]
        if failed:
            self._run("systemctl", "reset-failed", *failed, timeout_s=_ASKED_S)
            self._run("systemctl", "start", *failed, timeout_s=_ASKED_S)

    def engines(self) -> list[str]:
        """The engines that are up, or on their way."""
        words = (
            "list-units",
            "--plain",
            "--no-legend",
            "--state=active,activating,reloading",
            "hearth-engine-*.service",
        )
        done = self._run("systemctl", *words, timeout_s=_ASKED_S)
        return [found[1] for line in done.stdout.splitlines() if (found := _ENGINE.match(line))]

    def start_engines(self, book: Book) -> str:
        """Start those that ran before the step and do not run now; returns what went wrong, in words."""
        up = self.engines()
        ends = {name: self._run("hearth", "start", name) for name in book.engines if name not in up}
        return "; ".join(f"{name}: {' '.join(done.stderr.split())}" for name, done in ends.items() if done.returncode)

    def _upgrade(self) -> Sequence[str]:
        return ("upgrade", "--with-new-pkgs", "--yes", *_CONFFILES, self._lock, *self._preferences())

    def _work(self, *command: str, folder: bool = False) -> str:
        """Run something as a unit; returns what it complains of where it failed."""
        begins = self.log.stat().st_size if self.log.exists() else 0
        settings = {
            "DEBIAN_FRONTEND": "noninteractive",
            # Services are restarted by us or by their packages; needrestart only lists the others.
            "NEEDRESTART_MODE": "l",
            "LC_ALL": "C.UTF-8",
            "PATH": _program.PROGRAMS,
        }
        program = shutil.which(command[0], path=_program.PROGRAMS)
        if program is None:
            return f"{command[0]} is not installed"
        done = self._run(
            "systemd-run",
            "--quiet",
            "--wait",
            "--collect",
            f"--unit={UNIT}",
            "--description=Hearth: packages of the box",
            f"--property=StandardOutput=append:{self.log}",
            f"--property=StandardError=append:{self.log}",
            *([f"--working-directory={self.folder}"] if folder else []),
            *(f"--setenv={name}={value}" for name, value in settings.items()),
            program,
            *command[1:],
            timeout_s=_WORK_S,
        )
        if not done.returncode:
            return ""
        said = self.log.read_bytes()[begins:].decode(errors="replace") if self.log.exists() else ""
        words = _complaints(said) or _complaints(done.stderr) or [f"{command[0]} ended with {done.returncode}"]
        return "; ".join(words[:3])


def _said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return _complaints(done.stdout + "\n" + done.stderr)


def _complaints(said: str) -> list[str]:
    return list(dict.fromkeys((of_apt or of_dpkg).strip() for of_apt, of_dpkg in _WORDS.findall(said)))


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    return "; ".join(_said(done)[:3]) or f"it ended with {done.returncode}"
