# SPDX-License-Identifier: Apache-2.0
"""Brings a host's guards to what they should be: units, settings of the kernel, the target of a boot. Stdlib only.

Files are written by others before; what is done here follows from what is there, so that a run that was cut off is
healed by the next one. What was changed of the host is kept on it, and goes back when it is no longer wanted.

PRIVATE to the collection.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _program

KEPT = "var/lib/hearth/host.json"
_HEADLESS = "multi-user.target"
_SHOWN = "Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestamp"
# Units start within a second; a host that swaps may take its time.
_SYSTEMD_TIMEOUT_S = 90
_NAME = re.compile(r"[a-z0-9_]+(?:[./][A-Za-z0-9_-]+)+")


class GuardsError(Exception):
    """One sentence: what, where, what to do."""


@dataclass(frozen=True)
class Unit:
    """A unit that is to run, now and at boot; where one of ``files`` is newer than its start, it is restarted."""

    name: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How the host is to be.

    ``gone``: units that are not to run. ``read``: others whose files systemd is to have read. ``watchdog_s``: what
    systemd's watchdog is to be, in seconds, and 0 where that is nobody's wish; ``manager``: systemd itself is to read
    its settings again.
    """

    units: tuple[Unit, ...] = ()
    gone: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=dict)
    headless: bool = False
    watchdog_s: int = 0
    manager: bool = False


class Host:
    """systemd and the files of a host; tests have their own."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def systemctl(self, *words: str) -> str:
        """What systemctl says. Raises GuardsError where it fails."""
        done = _program.run("systemctl", "--no-pager", *words, timeout_s=_SYSTEMD_TIMEOUT_S)
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise GuardsError(f"systemctl {' '.join(words)}: {said.rstrip('.')}; journalctl -u {words[-1]} says more")
        return done.stdout

    def text(self, path: str) -> str | None:
        try:
            return (self.root / path).read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text, encoding="utf-8")

    def changed_s(self, path: str) -> float:
        """When it was last changed, in seconds since the epoch; of a link itself. 0 where it is missing."""
        try:
            return (self.root / path.lstrip("/")).lstat().st_mtime
        except OSError:
            return 0.0

    def keep(self, kept: Mapping[str, Any]) -> None:
        """Keep what is to go back, for root alone to change; nothing kept, no file."""
        path = self.root / KEPT
        if not any(kept.values()):
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(path.name + ".new")
        made.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        made.replace(path)


def wrong(sysctl: Mapping[str, Any]) -> tuple[str, str]:
    """Why these settings of the kernel are refused, and what to do; both empty where they are not."""
    for name, value in sysctl.items():
        if not _NAME.fullmatch(str(name)) or ".." in str(name):
            return f"host_sysctl: {name} is no name of a setting, such as vm.swappiness", "correct it"
        if not re.fullmatch(r"-?[0-9]+(?:\s+-?[0-9]+)*", str(value)):
            return f"host_sysctl.{name}: must be a number, is {value!r}", "correct it, or leave it out"
        if name == "vm.swappiness" and int(str(value)) == 0:
            says = "0 keeps the kernel from swapping until it is too late, and has locked up Sparks"
            return f"host_sysctl.vm.swappiness: {says}", "set 1 or more (10 is the default)"
    return "", ""


def bring(wanted: Wanted, host: Host, *, check: bool = False) -> list[str]:
    """Do what is missing; returns what was done, or with ``check`` would be. Raises GuardsError."""
    kept = _kept(host)
    done = [
        *_sysctl(wanted.sysctl, kept["sysctl"], host, check),
        *_target(wanted.headless, kept, host, check),
    ]
    if not check:
        host.keep(kept)
    names = [unit.name for unit in wanted.units]
    seen = _seen(host, (*names, *wanted.gone, *wanted.read))
    if wanted.manager or (wanted.watchdog_s and _watchdog_s(host) != wanted.watchdog_s):
        done.append("have systemd read its own settings again")
        if not check:
            host.systemctl("daemon-reexec")
    # Before systemd reads its units again: it then forgets how one without a file is stopped.
    for name in wanted.gone:
        if seen[name]["ActiveState"] not in ("inactive", "failed"):
            done.append(f"stop {name}")
            if not check:
                host.systemctl("stop", name)
    if any(unit["NeedDaemonReload"] == "yes" for unit in seen.values()):
        done.append("have systemd read changed units")
    if not check and any(unit["NeedDaemonReload"] == "yes" or unit["LoadState"] != "loaded" for unit in seen.values()):
        host.systemctl("daemon-reload")
        seen = _seen(host, names)
    for unit in wanted.units:
        done += _run(unit, seen[unit.name], host, check)
    return done


def _run(unit: Unit, seen: Mapping[str, str], host: Host, check: bool) -> list[str]:
    done = []
    if seen["UnitFileState"] not in ("enabled", "enabled-runtime"):
        done.append(f"have {unit.name} start at boot")
        if not check:
            host.systemctl("enable", "--quiet", unit.name)
    started_s = _epoch_s(seen["ExecMainStartTimestamp"])
    newer = [path for path in unit.files if started_s and host.changed_s(path) > started_s]
    if seen["ActiveState"] != "active":
        done.append(f"start {unit.name}")
    elif newer:
        done.append(f"restart {unit.name}, for {newer[0]} is newer than its start")
    else:
        return done
    if not check:
        host.systemctl("restart", unit.name)
    return done


def _seen(host: Host, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What systemd says of units, by name."""
    if not names:
        return {}
    text = host.systemctl("show", "--timestamp=us+utc", f"--property={_SHOWN}", *names)
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    empty = dict.fromkeys(_SHOWN.split(","), "")
    return {name: {**empty, **block} for name, block in zip(names, blocks, strict=True)}


def _epoch_s(timestamp: str) -> float:
    """Seconds since the epoch of "Sat 2026-11-28 08:31:23.123456 UTC"; 0 where there is none."""
    words = timestamp.split()
    if len(words) != 4:
        return 0.0
    return dt.datetime.strptime(f"{words[1]} {words[2]}+0000", "%Y-%m-%d %H:%M:%S.%f%z").timestamp()


def _watchdog_s(host: Host) -> float:
    """What systemd's watchdog is now, in seconds: systemd says "0", "30s", "1min 30s"."""
    sizes = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
    said = host.systemctl("show", "--property=RuntimeWatchdogUSec", "--value")
    return sum(float(number) * sizes[size] for number, size in re.findall(r"(\d+)(us|ms|s|min|h)\b", said))


def _kept(host: Host) -> dict[str, Any]:
    empty: dict[str, Any] = {"sysctl": {}, "target": ""}
    try:
        found = json.loads(host.text(KEPT) or "{}")
        return {**empty, **found, "sysctl": dict(found.get("sysctl", {}))}
    except (ValueError, TypeError, AttributeError):
        return empty


def _sysctl(wanted: Mapping[str, str], kept: dict[str, Any], host: Host, check: bool) -> list[str]:
    """Set what is wanted, and set back what is not any more, unless somebody else has set it meanwhile."""
    done = []
    for name, value in wanted.items():
        path = f"proc/sys/{name.replace('.', '/')}"
        now = host.text(path)
        if now is None:
            raise GuardsError(f"host_sysctl.{name}: this kernel has no such setting; leave it out")
        if now.split() == value.split():
            if name in kept:
                kept[name]["ours"] = value
            continue
        done.append(f"set {name} to {value} (it is {now})")
        kept[name] = {"before": kept.get(name, {}).get("before", now), "ours": value}
        if not check:
            try:
                host.write(path, value)
            except OSError as error:
                raise GuardsError(
                    f"host_sysctl.{name}: cannot be set to {value} here ({error.strerror}); leave it out"
                ) from None
    for name in [name for name in kept if name not in wanted]:
        before, ours = kept[name]["before"], kept[name]["ours"]
        path = f"proc/sys/{name.replace('.', '/')}"
        if (host.text(path) or "").split() == ours.split() != before.split():
            done.append(f"set {name} back to {before}")
            if not check:
                host.write(path, before)
        del kept[name]
    return done


def _target(headless: bool, kept: dict[str, Any], host: Host, check: bool) -> list[str]:
    """What the box boots to. Back is only what was changed here, and only where nobody changed it since."""
    if not headless and not kept["target"]:
        return []
    now = host.systemctl("get-default").strip()
    wanted = _HEADLESS if headless else kept["target"]
    if headless:
        kept["target"] = kept["target"] or ("" if now == _HEADLESS else now)
    else:
        kept["target"] = ""
        if now != _HEADLESS:
            return []
    if now == wanted:
        return []
    if not check:
        host.systemctl("set-default", "--quiet", wanted)
    return [f"have the box boot to {wanted} (it is {now}); it counts from the next boot on"]
