# SPDX-License-Identifier: Apache-2.0
"""A change of what lets people in, which undoes itself unless somebody who came in anew confirms it.

PRIVATE to the collection. Standard library only: it runs on a fresh host.

The files as they were lie in ``pending`` while the change waits for its confirmation. Whoever renames that folder
first decides: the confirmation, which throws it away, or the undoing, which a timer starts, and after a reboot the
boot itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.hearth.spark.plugins.module_utils import _fileset, _program

FOLDER = Path("/var/lib/hearth/hardening")
SYSTEMD = Path("/etc/systemd/system")
FIREWALL = Path("/etc/hearth/firewall.nft")
FIREWALL_UNIT = "hearth-firewall.service"
UNDO_UNIT, UNDO_TIMER = "hearth-hardening-undo.service", "hearth-hardening-undo.timer"
_TIMEOUT_S = 60.0
_MANAGED = "# Managed by Hearth (role hardening): the next run undoes changes made here.\n"

# --no-block: at boot this runs before sshd starts, and must not wait for that.
_SCRIPT = """\
#!/bin/sh
# Puts back what was before a change of sshd and firewall that nobody confirmed. May be cut off, and run again.
folder={folder}
[ -d "$folder/undoing" ] || mv "$folder/pending" "$folder/undoing" 2>/dev/null || exit 0
while IFS= read -r path; do
  if [ -e "$folder/undoing/old$path" ]; then
    cp -p "$folder/undoing/old$path" "$path.undo" && mv -f "$path.undo" "$path"
  else
    rm -f "$path"
  fi || exit 1
done <"$folder/undoing/paths"
if [ -e {firewall} ]; then nft -f {firewall}; else nft delete table inet hearth 2>/dev/null; fi
[ -e {systemd}/{unit} ] || rm -f {systemd}/*.wants/{unit}
sync
systemctl daemon-reload
systemctl --no-block try-reload-or-restart ssh.service
echo "a change of SSH and firewall was not confirmed: what was before is back"
rm -r "$folder/undoing"
"""
_UNIT = """\
[Unit]
Description=Hearth: undo a change of SSH and firewall that was not confirmed
ConditionPathExists=|{folder}/pending
ConditionPathExists=|{folder}/undoing
# At boot what was not confirmed goes before anybody may come in by it.
DefaultDependencies=no
RequiresMountsFor={folder} /etc
After=local-fs.target
Before=ssh.service ssh.socket {firewall_unit}

[Service]
Type=oneshot
ExecStart=/bin/sh {folder}/undo

[Install]
WantedBy=sysinit.target
"""
_TIMER = """\
[Unit]
Description=Hearth: a change of SSH and firewall waits for its confirmation

[Timer]
OnActiveSec={seconds}
AccuracySec=1
Unit={unit}
"""


class GuardedError(Exception):
    """One sentence."""


def _run(*words: str, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
    done = _program.run(*words, timeout_s=_TIMEOUT_S)
    if done.returncode and not may_fail:
        said = "; ".join((done.stderr or done.stdout).strip().splitlines())
        raise GuardedError(f"{' '.join(words)} failed ({said})")
    return done


class Guarded:
    """The change on this host. ``folder`` and ``systemd`` are other ones in tests."""

    def __init__(self, folder: Path = FOLDER, systemd: Path = SYSTEMD) -> None:
        self._folder, self._systemd = folder, systemd
        self._pending = folder / "pending"

    @property
    def waits(self) -> bool:
        """Whether a change is there that was neither confirmed nor undone."""
        return self._pending.is_dir() or (self._folder / "undoing").is_dir()

    def prepare(self, seconds: int) -> None:
        """Have what undoes a change, before there is one; the timer gives it so many seconds."""
        names = {"folder": self._folder, "systemd": self._systemd, "firewall": FIREWALL, "unit": FIREWALL_UNIT}
        unit = _UNIT.format(folder=self._folder, firewall_unit=FIREWALL_UNIT)
        texts = {
            self._folder / "undo": (_SCRIPT.format(**names), "0700"),
            self._systemd / UNDO_UNIT: (_MANAGED + unit, "0644"),
            self._systemd / UNDO_TIMER: (_MANAGED + _TIMER.format(seconds=seconds, unit=UNDO_UNIT), "0644"),
        }
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, (text, mode) in texts.items():
            _fileset.apply([entry(path, text, mode)], [], check=False)
        _run("systemctl", "daemon-reload")
        _run("systemctl", "enable", "--quiet", UNDO_UNIT)

    def save(self, paths: Sequence[Path]) -> None:
        """Keep these files as they are now. From here on the change is undone unless it is confirmed."""
        new = self._folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        (new / "old").mkdir(parents=True, mode=0o700)
        for path in paths:
            if path.exists():
                kept = new / "old" / path.relative_to("/")
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, kept)
        (new / "paths").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
        os.sync()
        # The timer first: without a saved state it does nothing.
        _run("systemctl", "restart", UNDO_TIMER)
        new.rename(self._pending)

    def confirm(self) -> None:
        """The change stays. Raises GuardedError where it was undone meanwhile."""
        done = self._folder / "done"
        shutil.rmtree(done, ignore_errors=True)
        try:
            self._pending.rename(done)
        except FileNotFoundError:
            raise GuardedError("the change was undone before it was confirmed: run this again") from None
        _run("systemctl", "stop", UNDO_TIMER)
        shutil.rmtree(done)

    def undo(self) -> None:
        """Put back what was saved, now."""
        _run("systemctl", "stop", UNDO_TIMER, may_fail=True)
        # By its unit: the timer may be at it too, and systemd lets one of them run.
        _run("systemctl", "start", UNDO_UNIT)

    def forget(self) -> None:
        """Remove the means of undoing, when nothing is left to undo."""
        _run("systemctl", "stop", UNDO_TIMER, may_fail=True)
        _run("systemctl", "disable", "--quiet", UNDO_UNIT, may_fail=True)
        for name in (UNDO_UNIT, UNDO_TIMER):
            (self._systemd / name).unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def entry(path: Path, text: str | None, mode: str = "0644") -> _fileset.Entry:
    """A file of root's with this text; with None, no file."""
    return _fileset.entry_from(
        {
            "path": str(path),
            "state": "absent" if text is None else "file",
            "content": text,
            "generate": "",
            "mode": mode,
            "owner": "root" if os.geteuid() == 0 else "",
            "group": "",
            "adopt": False,
            "secret": False,
        }
    )


def check_firewall(text: str) -> None:
    """Does nft take these rules? Nothing is loaded. Raises GuardedError."""
    done = _program.run("nft", "-c", "-f", "-", timeout_s=_TIMEOUT_S, given=text)
    if done.returncode:
        raise GuardedError(f"nft refuses these rules ({'; '.join(done.stderr.strip().splitlines()[:3])})")


def firewall_loaded() -> bool:
    """Whether the kernel has the table."""
    return (
        shutil.which("nft") is not None and not _run("nft", "list", "table", "inet", "hearth", may_fail=True).returncode
    )


def reload(*, sshd: bool, firewall: bool, wanted: bool) -> None:
    """Have the files acted on. ``wanted``: whether there is to be a firewall."""
    _run("systemctl", "daemon-reload")
    if firewall and wanted:
        _run("systemctl", "enable", "--quiet", FIREWALL_UNIT)
        _run("systemctl", "reload-or-restart", FIREWALL_UNIT)
    elif firewall:
        for link in SYSTEMD.glob(f"*.wants/{FIREWALL_UNIT}"):
            link.unlink()
        # The unit's file is gone; what it loaded goes by hand.
        _run("systemctl", "stop", FIREWALL_UNIT, may_fail=True)
        if firewall_loaded():
            _run("nft", "delete", "table", "inet", "hearth")
    if sshd:
        # Where a socket of systemd listens, sshd may not run now, and reads its files when it starts.
        _run("systemctl", "try-reload-or-restart", "ssh.service")
