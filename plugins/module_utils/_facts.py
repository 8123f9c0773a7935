# SPDX-License-Identifier: Apache-2.0
"""What can be read of a box without asking anything of it. Standard library only: it runs on a fresh host.

PRIVATE to the collection.
"""

from __future__ import annotations

import http.client
import json
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The one key of a CDI spec that matters here, in YAML or JSON: no YAML library can be counted on on a fresh host.
_KIND = re.compile(r"""(?:^|[\s{,])["']?kind["']?\s*:\s*["']?([\w.-]+/[\w.-]+)""")
_LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN is 10


def read(root: Path) -> dict[str, Any]:
    """All facts of the system whose files are below ``root`` ("/", or a folder of a test)."""
    units = engine_units()
    return {
        "os": os_release(_text(root / "etc/os-release")),
        "dgx": dgx_release(_text(root / "etc/dgx-release")),
        "arch": platform.machine(),
        "kernel": platform.release(),
        "memory": memory(_text(root / "proc/meminfo")),
        "systemd": (root / "run/systemd/system").is_dir(),
        "docker": docker(root),
        "cdi": cdi_kinds(root),
        "listening": listening(root),
        "units": units,
        "engine_ports": engine_ports(_text(root / "etc/hearth/engines.json"), units),
        "runtime": (root / "opt/hearth/venv/bin/python").exists(),
    }


def look_at(path: str, user: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is at ``path``: ``exists``, ``is_dir``, ``size`` in bytes, ``path`` with the home of ``user`` for ``~``."""
    full = Path(path)
    if path.startswith("~/") and user:
        full = Path(user["home"]) / path[2:]
    try:
        stat = full.stat()
    except OSError:
        return {"path": str(full), "exists": False, "is_dir": False, "size": 0}
    return {"path": str(full), "exists": True, "is_dir": full.is_dir(), "size": stat.st_size}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _assignments(text: str) -> list[tuple[str, str]]:
    found = re.findall(r"^([A-Z_]+)=(.*)$", text, flags=re.MULTILINE)
    return [(name, value.strip().strip("\"'")) for name, value in found]


def os_release(text: str) -> dict[str, str]:
    """``id``, ``version`` and ``name`` of /etc/os-release; empty strings where it does not say."""
    values = dict(_assignments(text))
    return {
        "id": values.get("ID", ""),
        "version": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
        "name": values.get("PRETTY_NAME", ""),
    }


def dgx_release(text: str) -> dict[str, str]:
    """``platform``, ``build`` and ``ota`` of /etc/dgx-release; empty on anything else than DGX OS.

    One DGX_OTA_VERSION line is appended by every update: the last one counts. The serial number is left out.
    """
    values = dict(_assignments(text))
    if not values:
        return {}
    return {
        "platform": values.get("DGX_PLATFORM", ""),
        "build": values.get("DGX_SWBUILD_VERSION", ""),
        "ota": values.get("DGX_OTA_VERSION", ""),
    }


def memory(text: str) -> dict[str, float]:
    """``total_gib`` and ``available_gib`` of /proc/meminfo, in GiB."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, flags=re.MULTILINE)}
    return {
        "total_gib": round(kib.get("MemTotal", 0) / 2**20, 1),
        "available_gib": round(kib.get("MemAvailable", 0) / 2**20, 1),
    }


def docker(root: Path) -> dict[str, Any]:
    """Is there a Docker engine, whose is it, and does it answer?

    ``installed``: an engine's binary is there; ``packaged``: it is the distribution's own package docker.io;
    ``version`` of the running one, else empty, and then ``error``.
    """
    packaged = (root / "var/lib/dpkg/info/docker.io.list").exists()
    installed = any((root / folder / "dockerd").exists() for folder in ("usr/bin", "usr/sbin", "usr/local/bin"))
    try:
        answer = _docker_get(str(root / "run/docker.sock"), "/version")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {"installed": installed, "packaged": packaged, "version": "", "error": str(error)}
    return {"installed": True, "packaged": packaged, "version": str(answer.get("Version", "")), "error": ""}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _docker_get(path: str, url: str) -> dict[str, Any]:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", url)
        answer = json.load(connection.getresponse())
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}


def cdi_kinds(root: Path) -> list[str]:
    """The kinds of device that CDI specs offer, such as nvidia.com/gpu."""
    kinds: set[str] = set()
    for folder in ("etc/cdi", "var/run/cdi", "run/cdi"):
        # By their endings, as Docker and every other reader of CDI chooses them.
        for spec in sorted([*(root / folder).glob("*.json"), *(root / folder).glob("*.yaml")]):
            kinds.update(_KIND.findall(_text(spec)))
    return sorted(kinds)


def listening(root: Path) -> dict[str, str]:
    """TCP ports that somebody listens on, as text, and that program's name where it can be read."""
    inodes: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in _text(root / "proc/net" / table).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                inodes[fields[9]] = str(int(fields[1].rpartition(":")[2], 16))
    ports = dict.fromkeys(sorted(set(inodes.values()), key=int), "")
    for process in (root / "proc").glob("[0-9]*"):
        for inode in _sockets(process):
            if inode in inodes:
                ports[inodes[inode]] = _text(process / "comm").strip()
    return ports


def _sockets(process: Path) -> list[str]:
    """The inodes of a process's sockets; none where it has ended meanwhile or is not ours to look at."""
    found = []
    try:
        links = list((process / "fd").iterdir())
    except OSError:
        return []
    for link in links:
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.append(target[8:-1])
    return found


def engine_units() -> dict[str, str]:
    """The engine units that systemd knows, and whether each is active, failed, …; empty without systemd."""
    command = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", "hearth-engine-*.service"]
    try:
        answer = subprocess.run(  # pylint: disable=ansible-bad-function
            command, capture_output=True, text=True, timeout=15, check=False
        )
        files = subprocess.run(  # pylint: disable=ansible-bad-function
            ["systemctl", "list-unit-files", "--plain", "--no-legend", "--no-pager", "hearth-engine-*.service"],
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    units = {line.split()[0]: "inactive" for line in files.stdout.splitlines() if line.split()}
    for line in answer.stdout.splitlines():
        fields = line.lstrip("●* ").split()
        if len(fields) >= 4:
            units[fields[0]] = fields[2]
    return dict(sorted(units.items()))


def engine_ports(contract: str, units: Mapping[str, str]) -> list[int]:
    """The ports of the engines that run now, by the contract that is on the box; empty before the first run."""
    try:
        engines = json.loads(contract)["engines"]
        running = [one for one in engines if units.get(one["unit"], "inactive") not in ("inactive", "failed")]
        return sorted(int(one["port"]) for one in running)
    except (ValueError, KeyError, TypeError):
        return []
