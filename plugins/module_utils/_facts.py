# SPDX-License-Identifier: Apache-2.0
"""What can be read of a box without asking anything of it. Standard library only: it runs on a fresh host.

PRIVATE to the collection.
"""

from __future__ import annotations

import grp
import http.client
import json
import os
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _nvidia, _others
from ansible_collections.hearth.spark.plugins.module_utils._program import Program

_LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN is 10
_SYSTEMD_TIMEOUT_S = 15.0
# What the kernel takes for no (lib/kstrtox.c, kstrtobool).
_NO = re.compile(r"0|[nf].*|of.*", flags=re.IGNORECASE)


def read(root: Path, names: Sequence[str] = ()) -> dict[str, Any]:
    """All facts of the system whose files are below ``root`` ("/", or a folder of a test).

    ``names`` are hosts that it is to resolve.
    """
    # Programs think while files are read.
    driver_asked, systemd_asked = _nvidia.ask_driver(), ask_systemd()
    names_asked, users_asked = _others.ask_names(names), _others.ask_gpu_users()
    meminfo = _text(root / "proc/meminfo")
    kernel = _text(root / "proc/sys/kernel/osrelease").strip() or platform.release()
    cdi, cdi_devices = _nvidia.cdi(root)
    toolkit = _nvidia.packages(root, *_nvidia.TOOLKIT)
    facts = {
        "os": os_release(_text(root / "etc/os-release")),
        "dgx": dgx_release(_text(root / "etc/dgx-release")),
        "arch": platform.machine(),
        "kernel": kernel,
        "kho": kho(_text(root / "proc/cmdline"), kernel, meminfo),
        "memory": memory(meminfo),
        "systemd": (root / "run/systemd/system").is_dir(),
        # systemd writes it at boot, in a container only (systemd's CONTAINER_INTERFACE).
        "container": _text(root / "run/systemd/container").strip(),
        "clock_synchronised": _others.clock_synchronised(),
        "docker": docker(root),
        "toolkit": _nvidia.toolkit(toolkit),
        "toolkit_packages": toolkit,
        "cdi": cdi,
        "cdi_devices": cdi_devices,
        "listening": listening(root),
        "images": known_images(_text(root / "var/lib/hearth/images.json")),
        "runtime": (root / "opt/hearth/venv/bin/python").exists(),
    }
    units = engine_units(systemd_asked)
    contract = _text(root / "etc/hearth/engines.json")
    return {
        **facts,
        "units": units,
        "engine_ports": engine_ports(contract, units),
        "gpu": {
            **_nvidia.gpu(root, driver_asked),
            "users": strangers(root, _others.gpu_users(root, users_asked), _others.our_containers(contract)),
        },
        "unresolved": _others.unresolved(names_asked),
    }


def _at_home(path: str, user: Mapping[str, Any] | None) -> Path:
    """``path``, with the home of ``user`` for a leading ``~``."""
    first, rest = path.partition("/")[::2]
    return Path(user["home"], rest) if first == "~" and user else Path(path)


def look_at(path: str, user: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is at ``path``: ``exists``, ``is_dir``, ``size`` in bytes, ``path`` with the home of ``user`` for ``~``."""
    full = _at_home(path, user)
    try:
        stat = full.stat()
    except OSError:
        return {"path": str(full), "exists": False, "is_dir": False, "size": 0}
    return {"path": str(full), "exists": True, "is_dir": full.is_dir(), "size": stat.st_size}


def groups(name: str, gid: int) -> list[str]:
    """The names of the groups that a user is in, sorted; ``gid`` is the one of the password file."""
    known = {entry.gr_gid: entry.gr_name for entry in grp.getgrall()}
    return sorted(known.get(one, str(one)) for one in os.getgrouplist(name, gid))


def disk(path: str, user: Mapping[str, Any] | None) -> dict[str, Any]:
    """The file system that ``path`` is on, or will be: ``path`` as far as that exists, ``total_gb`` and ``free_gb``.

    In decimal GB, as disks and models are sold; free is what programs other than root's may have. Empty where it cannot
    be told.
    """
    full = _at_home(path, user)
    if not full.is_absolute():
        return {}
    for folder in (full, *full.parents):
        try:
            seen = os.statvfs(folder)
        except OSError:
            continue
        sizes = {"total_gb": seen.f_blocks, "free_gb": seen.f_bavail}
        return {"path": str(folder), **{name: round(size * seen.f_frsize / 1e9, 1) for name, size in sizes.items()}}
    return {}


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
    """``name``, ``platform``, ``build``, ``ota`` and ``release`` of /etc/dgx-release; empty on anything but DGX OS.

    ``build`` came from the factory; one DGX_OTA_VERSION line is appended by every update, and the last one counts;
    ``release`` is the later of the two. The serial number is left out.
    """
    values = dict(_assignments(text))
    if not values:
        return {}
    build, ota = values.get("DGX_SWBUILD_VERSION", ""), values.get("DGX_OTA_VERSION", "")
    return {
        "name": values.get("DGX_PRETTY_NAME", ""),
        "platform": values.get("DGX_PLATFORM", ""),
        "build": build,
        "ota": ota,
        "release": ota or build,
    }


def _kib(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, flags=re.MULTILINE)}


def memory(text: str) -> dict[str, float]:
    """Total and available memory, total and free swap of /proc/meminfo, in GiB; 0 where it does not say."""
    kib = _kib(text)
    fields = {
        "total_gib": "MemTotal",
        "available_gib": "MemAvailable",
        "swap_total_gib": "SwapTotal",
        "swap_free_gib": "SwapFree",
    }
    return {field: round(kib.get(name, 0) / 2**20, 1) for field, name in fields.items()}


def kho(cmdline: str, kernel: str, meminfo: str) -> dict[str, Any]:
    """Kexec HandOver: what the kernel's ``cmdline`` says, whether it is ``disabled`` there, and whether a ``problem``.

    NVIDIA's kernels from 7.0 on have it on unless told otherwise. It then keeps about 9 GiB to itself, and RDMA cannot
    register memory; the mark of that is free contiguous memory (CMA) where there is none in all.
    """
    said = re.findall(r"(?:^|\s)kho=(\S*)", cmdline.partition(" -- ")[0])
    disabled = bool(said and _NO.fullmatch(said[-1]))
    kib = _kib(meminfo)
    version = re.match(r"(\d+)\.", kernel)
    by_default = version is not None and int(version[1]) >= 7 and "nvidia" in kernel
    marked = kib.get("CmaFree", 0) > 0 and kib.get("CmaTotal") == 0
    return {
        "cmdline": said[-1] if said else "",
        "disabled": disabled,
        "problem": marked or (by_default and not disabled),
    }


def docker(root: Path) -> dict[str, Any]:
    """Is there a Docker engine, whose is it, and does it answer?

    ``installed``: an engine's binary is there; ``packaged``: it is the distribution's own package docker.io;
    ``version`` of the running one, else empty, and then ``error``; ``cdi``: that one gives containers CDI devices.
    """
    packaged = (root / "var/lib/dpkg/info/docker.io.list").exists()
    installed = any((root / folder / "dockerd").exists() for folder in ("usr/bin", "usr/sbin", "usr/local/bin"))
    socket_path = root / "run/docker.sock"
    try:
        answer = docker_get(socket_path, "/version")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {"installed": installed, "packaged": packaged, "version": "", "error": str(error), "cdi": False}
    return {
        "installed": True,
        "packaged": packaged,
        "version": str(answer.get("Version", "")),
        "error": "",
        "cdi": docker_has_cdi(socket_path),
    }


def docker_has_cdi(socket_path: Path) -> bool:
    """Whether the running engine looks at folders of CDI specifications: it tells none where CDI is off, or unknown."""
    try:
        folders = docker_get(socket_path, "/info").get("CDISpecDirs")
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return isinstance(folders, list) and any(folders)


def strangers(root: Path, users: Sequence[dict[str, Any]], ours: Sequence[str]) -> list[dict[str, Any]]:
    """Those of the GPU's ``users`` that are in no container of the names ``ours``. Docker is asked where one may be."""
    ids = set()
    if any(user["container"] for user in users):
        for name in ours:
            with suppress(OSError, ValueError, http.client.HTTPException):
                ids.add(str(docker_get(root / "run/docker.sock", f"/containers/{name}/json").get("Id", "")))
    return [user for user in users if not user["container"] or user["container"] not in ids]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def docker_get(socket_path: Path, url: str) -> dict[str, Any]:
    """What the engine answers. Raises OSError, ValueError and HTTPException."""
    connection = _UnixConnection(str(socket_path))
    try:
        connection.request("GET", url)
        answer = json.load(connection.getresponse())
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}


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


def known_images(text: str) -> dict[str, Any]:
    """What the box knows of its images, as far as it decides what engines run from; empty before the first run.

    ``images`` by their names on the box, ``models`` with what each runs from, ``pins`` with what tags meant.
    """
    try:
        known = json.loads(text)
        kept = ("engine", "keep_entrypoint", "source")
        images = {name: {field: one[field] for field in kept} for name, one in known["images"].items()}
        return {"images": images, "models": dict(known["models"]), "pins": dict(known["pins"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"images": {}, "models": {}, "pins": {}}


def ask_systemd() -> tuple[Program, Program]:
    """Start asking systemd for the engine units it has loaded, and for those it has files of; see ``engine_units``."""
    words = ("--plain", "--no-legend", "--no-pager", "hearth-engine-*.service")
    return Program("systemctl", "list-units", "--all", *words), Program("systemctl", "list-unit-files", *words)


def engine_units(asked: tuple[Program, Program]) -> dict[str, str]:
    """The engine units that systemd knows, and whether each is active, failed, …; empty without systemd."""
    loaded, files = (program.answer(_SYSTEMD_TIMEOUT_S) for program in asked)
    if loaded.late or files.late:
        return {}
    units = {line.split()[0]: "inactive" for line in files.text.splitlines() if line.split()}
    for line in loaded.text.splitlines():
        fields = line.lstrip("●* ").split()
        # systemd remembers that a unit failed after its file is gone: nothing is left of that one to be stopped.
        if len(fields) >= 4 and (fields[1] != "not-found" or fields[2] not in ("failed", "inactive")):
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
