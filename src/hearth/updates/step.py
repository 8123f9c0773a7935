# SPDX-License-Identifier: Apache-2.0
"""Takes packages of a box forward in steps that can be taken back.

apt is a unit of systemd of its own: it is never killed with whoever waits for it, since that would leave the box half
done. A run that was cut off is gone on with by the next one.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hearth import programs, proxy, state
from hearth.updates import changes, packages
from hearth.updates.changes import Book, Change, UpdateError
from hearth.updates.packages import Packages, Run

FOLDER = state.LEARNED / "updates"
# One update of a box at a time.
LOCK = "lock"
PREFERENCES = Path("/etc/apt/preferences")
UNIT = "hearth-apt.service"
# A whole release's packages on a slow disk.
_WORK_S = 7200.0
# How long to wait between two looks at apt: at first, and later.
_LOOK_S = (0.05, 1.0)
# A service that dies at once after its restart has died by then (systemd's RestartSec= is 0.1 s where it says nothing).
_SETTLED_S = 3.0
# A file of settings that the box's owner has changed stays as it is.
_KEEP = ("--force-confdef", "--force-confold")
_CONFFILES = tuple(f"-oDpkg::Options::={word}" for word in _KEEP)
_CONFIGURE = ("dpkg", *_KEEP, "--configure", "--pending")
# Services are restarted by us or by their packages; needrestart only lists the others.
_SETTINGS = ("DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l", "LC_ALL=C.UTF-8", f"PATH={programs.FOLDERS}")

# The phase that is under way, and in words how far it is.
Tell = Callable[[str, str], None]


def say_nothing(_phase: str, _words: str) -> None:
    """For callers whom nobody watches."""


def books(folder: Path = FOLDER) -> dict[str, Book]:
    """What is known of the last update, by step; empty where there was none. Raises UpdateError."""
    found = {path.parent.name: Step(path.parent.name, folder=folder).book() for path in folder.glob("*/book.json")}
    return {name: book for name, book in sorted(found.items()) if book is not None}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
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
        hold: Sequence[str] = (),
        only: Sequence[str] = (),
        lock_timeout_s: float = 0.0,
        *,
        scratch: Path | None = None,
        folder: Path = FOLDER,
        run: Run = programs.run,
        tell: Tell = say_nothing,
    ) -> None:
        self.folder = folder / name
        self.packages = Packages(run)
        self._pins = (scratch or self.folder) / "preferences"
        self.log = self.folder / "apt.log"
        self._hold, self._only = hold, only
        self._lock = f"-oDPkg::Lock::Timeout={int(lock_timeout_s)}"
        self._run, self._listener = run, tell

    def _tell(self, phase: str, far: str = "") -> None:
        self._listener(phase, f"{phase}: {far}" if far else phase)

    # What is written down.

    def book(self) -> Book | None:
        """Raises UpdateError."""
        path = self.folder / "book.json"
        try:
            return changes.as_book(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UpdateError(f"{path} cannot be read ({error.strerror}): run this as root") from None

    def write(self, book: Book) -> None:
        """Raises UpdateError."""
        try:
            state.replace(self.folder / "book.json", msgspec.json.format(msgspec.json.encode(book), indent=1) + b"\n")
        except OSError as error:
            raise UpdateError(f"{self.folder} cannot be written ({error.strerror}): nothing was installed") from None

    # What would be done.

    def refresh(self) -> list[str]:
        """Fetch the lists of packages; returns what apt complains of."""
        self._tell("fetching the lists of packages")
        return self.packages.refresh(self._lock)

    def plan(self) -> Plan:
        """Raises UpdateError."""
        everything = self.packages.simulated(())
        wanted = self.packages.simulated(self._preferences())
        held = [one for one in everything if changes.matches(one.name, self._hold)]
        loose = [one.name for one in wanted if changes.matches(one.name, self._hold)]
        if loose:
            raise UpdateError(f"apt would change {', '.join(loose)}, which is held: nothing was changed")
        return Plan(changes=tuple(wanted), held=tuple(held))

    def _preferences(self) -> Sequence[str]:
        """Words for apt; the file is made anew, since what is installed changes."""
        owners = PREFERENCES.read_text(encoding="utf-8") if PREFERENCES.is_file() else ""
        content = changes.pins(changes.kept(self.packages.versions(), self._hold, self._only), owners)
        try:
            state.replace(self._pins, content.encode())
        except OSError as error:
            raise UpdateError(f"{self._pins} cannot be written ({error.strerror})") from None
        return [f"-oDir::Etc::Preferences={self._pins}"]

    # Doing it.

    def recover(self) -> None:
        """Finish what was cut off, as by a power cut."""
        book = self.book()
        if book is not None and book.state == "begun":
            self._work(*_CONFIGURE, telling="finishing what was cut off")

    def prepare(self, plan: Plan) -> tuple[Change, ...]:
        """Have everything on the box that the step needs, and the packages of before; returns the step's changes.

        Raises UpdateError, with nothing changed: what cannot be had is known before engines have to go out of the way.
        """
        wanted = changes.merged(self.book(), plan.changes)
        count = len(plan.changes)
        words = ("--download-only", *self._upgrade())
        said = self._work("apt-get", *words, telling="fetching packages", count=count) if plan.changes else ""
        if said:
            raise UpdateError(f"the packages could not be fetched ({said}): nothing was changed")
        self._keep_way_back(wanted)
        return wanted

    def _keep_way_back(self, wanted: Iterable[Change]) -> None:
        """Have the packages of before as files: from apt's sources, or packed again from what is installed."""
        lacking = self._lacking(one for one in wanted if one.before)
        if not lacking:
            return
        there = self.packages.in_sources(lacking)
        if there:
            names = (f"{one.name}={one.before}" for one in there)
            self._work(
                "apt-get", "download", *names, folder=True, telling="fetching the packages of before", count=len(there)
            )
        rest = self._lacking(lacking)
        said = ""
        if rest:
            # Of a release's updates the archives have the newest only.
            unique = self.packages.unique()
            names = (unique.get(one.name, one.name) for one in rest)
            said = self._work("dpkg-repack", *names, folder=True, telling=f"packing {len(rest)} of before again")
        lost = [one.name for one in self._lacking(rest)]
        if lost:
            raise UpdateError(
                f"there would be no way back for {', '.join(lost)} ({said or 'dpkg-repack said nothing'}): nothing was "
                "changed"
            )

    def _files(self) -> dict[tuple[str, str], Path]:
        """The packages of before."""
        native = self.packages.native()
        return {changes.file_of(path.stem, native): path for path in self.folder.glob("*.deb")}

    def _lacking(self, wanted: Iterable[Change]) -> list[Change]:
        """Those of which there is no package of before."""
        here = self._files()
        return [one for one in wanted if changes.filed(one.name, one.before) not in here]

    def _forget_all_but(self, wanted: Iterable[Change]) -> None:
        """Have no files of an earlier update."""
        needed = {changes.filed(one.name, one.before) for one in wanted}
        for key, path in self._files().items():
            if key not in needed:
                path.unlink(missing_ok=True)

    def install(self, plan: Plan, wanted: Sequence[Change], engines: Sequence[str] = ()) -> str:
        """Install what was prepared; returns what went wrong, in words. ``engines``: those that ran before.

        Raises UpdateError where nothing was changed.
        """
        before = self.book()
        going_on = before if before is not None and before.state == "begun" else None
        book = replace(going_on or self._new_book(wanted, engines), changes=tuple(wanted))
        self.write(book)
        # Only now: the way back of the update before is open until this one has begun.
        self._forget_all_but(wanted)
        said = ""
        if plan.changes:
            said = self._work("apt-get", *self._upgrade(), telling="installing packages", count=len(plan.changes))
        left = changes.unlike(self.packages.versions(), {one.name: one.after for one in wanted})
        if said or left:
            return "; ".join([*([said] if said else []), *left[:3]])
        self.write(replace(book, state="installed"))
        return self.troubled(book)

    def _new_book(self, wanted: Sequence[Change], engines: Sequence[str]) -> Book:
        along = self.packages.brought_along()
        return Book(
            state="begun",
            at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            changes=tuple(wanted),
            auto=tuple(one.name for one in wanted if one.name in along),
            failed=tuple(self.packages.failed_units()),
            engines=tuple(engines),
        )

    def troubled(self, book: Book) -> str:
        """The units that do not run since then, in words."""
        self._tell("looking for units that failed since")
        time.sleep(_SETTLED_S)
        failed = self._failed_since(book)
        return f"{', '.join(failed)} failed since then" if failed else ""

    def _failed_since(self, book: Book) -> list[str]:
        return [unit for unit in self.packages.failed_units() if unit not in book.failed]

    def revert(self, book: Book) -> None:
        """Have the versions of before. Raises UpdateError."""
        self._work(*_CONFIGURE, telling="finishing what was cut off")
        now, files = self.packages.versions(), self._files()
        old = [one for one in book.changes if one.before and now.get(one.name) != one.before]
        new = [one.name for one in book.changes if not one.before and one.name in now]
        missing = [one.name for one in self._lacking(old)]
        if missing:
            raise UpdateError(
                f"{self.folder} has no package of before for {', '.join(missing)}: the box stays as it is"
            )
        said = ""
        if old or new:
            words = ("install", "--yes", "--allow-downgrades", "--fix-broken", *_CONFFILES, self._lock)
            paths = (str(files[changes.filed(one.name, one.before)]) for one in old)
            said = self._work(
                "apt-get",
                *words,
                *paths,
                *(f"{name}-" for name in new),
                telling="installing the packages of before",
                count=len(old),
            )
        left = changes.unlike(self.packages.versions(), {one.name: one.before for one in book.changes})
        if left:
            raise UpdateError(
                f"the packages of before could not be installed again ({said or '; '.join(left[:3])}): they lie in "
                f"{self.folder}"
            )
        # Whoever names a package to apt has asked for it, as far as apt knows.
        brought = [one.name for one in book.changes if one.before and one.name in book.auto]
        if brought:
            self.packages.ask("apt-mark", "auto", *brought)
        self.write(replace(book, state="reverted"))
        self._start_again(book)

    def _start_again(self, book: Book) -> None:
        """Start what failed since then: its package may have tried, and systemd refused what had failed too often."""
        self.packages.ask("systemctl", "daemon-reload")
        failed = [unit for unit in self._failed_since(book) if not packages.is_engine(unit)]
        if failed:
            self.packages.ask("systemctl", "reset-failed", *failed)
            self.packages.ask("systemctl", "start", *failed)

    def start_engines(self, book: Book) -> str:
        """Start those that ran before the step and do not run now; returns what went wrong, in words."""
        up = self.packages.engines()
        said = []
        for name in book.engines:
            if name not in up:
                self._tell(f"starting {name} again")
                done = self._run("hearth", "start", name, timeout_s=_WORK_S)
                said += [f"{name}: {' '.join(done.stderr.split())}"] if done.returncode else []
        return "; ".join(said)

    def _upgrade(self) -> Sequence[str]:
        return ("upgrade", "--with-new-pkgs", "--yes", *_CONFFILES, self._lock, *self._preferences())

    def _work(self, *command: str, telling: str, count: int = 0, folder: bool = False) -> str:
        """Run something as a unit; returns what it complains of where it failed. ``count``: packages it changes."""
        program = programs.found(command[0])
        if program is None:
            return f"{command[0]} is not installed"
        # Whoever began it may have been killed: it goes on.
        self._ended(lambda: None)
        begins = self.log.stat().st_size if self.log.exists() else 0

        def tell() -> None:
            self._tell(telling, changes.at_work(self._said(begins), count) if count else "")

        self._clear()
        words = (
            "systemd-run",
            "--quiet",
            "--service-type=exec",
            f"--unit={UNIT}",
            "--description=Hearth: packages of the box",
            f"--property=StandardOutput=append:{self.log}",
            f"--property=StandardError=append:{self.log}",
            *([f"--working-directory={self.folder}"] if folder else []),
            *(f"--setenv={setting}" for setting in _SETTINGS),
            # By name alone: there may be a password in it.
            *(f"--setenv={name}" for name in proxy.VARIABLES if name in os.environ),
            program,
            *command[1:],
        )
        begun = programs.patiently(lambda: self._run(*words, timeout_s=packages.ASKED_S), begins=True)
        if begun.returncode:
            return f"{command[0]} could not be begun: {' '.join(begun.stderr.split())}"
        if self._ended(tell):
            return ""
        self._clear()
        complaints = packages.complaints(self._said(begins)) or [f"{command[0]} failed, see {self.log}"]
        return "; ".join(complaints[:3])

    def _ended(self, meanwhile: Callable[[], None]) -> bool:
        """Wait until apt's unit has ended; whether it ended well. Raises UpdateError.

        systemd is asked for its state, and nobody waits by a connection: apt may just be replacing systemd.
        """
        deadline, pause_s = time.monotonic() + _WORK_S, _LOOK_S[0]
        while time.monotonic() < deadline:
            meanwhile()
            state_now = self.packages.ask("systemctl", "show", "--value", "--property=ActiveState", UNIT).stdout.strip()
            if state_now in ("inactive", "failed"):
                return state_now == "inactive"
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_S[1])
        raise UpdateError(f"{UNIT} does not end: see {self.log}")

    def _clear(self) -> None:
        """A unit that failed is known, and in the way, until somebody clears it."""
        self.packages.ask("systemctl", "reset-failed", UNIT)

    def _said(self, begins: int) -> str:
        """What apt wrote into its log from there on."""
        try:
            with self.log.open("rb") as log:
                log.seek(begins)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
