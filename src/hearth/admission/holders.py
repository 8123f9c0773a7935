# SPDX-License-Identifier: Apache-2.0
"""Who holds memory: engines of this box by name, and everybody else by program and process.

Read from /proc, from ``nvidia-smi`` where there is one, and from Docker's socket, which alone knows a container's name.
Each of them may be missing: then less is known, and nothing fails. A look costs tens of milliseconds, so it is taken
when there is something to explain, not at every start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

PROC = Path("/proc")
DOCKER_SOCKET = Path("/run/docker.sock")
# Below this, a program is not what keeps an engine from starting.
WORTH_NAMING_GIB = 1.0
NAMED_AT_MOST = 4
# nvidia-smi answers within 0.1 s on a healthy driver; a hung one must not hold a refusal.
_TIMEOUT_S = 2.0
_KIB_PER_GIB = 2**20
_MIB_PER_GIB = 2**10
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_SERVICE = re.compile(r"/([^/]+\.service)(?:/|$)")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody with ``gib`` GiB of the host's memory.

    Either an engine, with what the ledger says of it, or a program with what its processes have: ``pid`` is then the
    biggest of them, ``container`` and ``unit`` where they run.
    """

    name: str
    gib: float
    engine: bool = False
    pid: int = 0
    container: str = ""
    unit: str = ""

    @property
    def words(self) -> str:
        if self.engine:
            return f"{self.name} holds {self.gib:.1f} GiB"
        where = f", container {self.container}" if self.container else f", {self.unit}" if self.unit else ""
        return f"{self.name} (pid {self.pid}{where}) holds {self.gib:.1f} GiB"

    @property
    def remedy(self) -> str:
        """What gives its memory back."""
        if self.engine:
            return f"hearth stop {self.name}"
        if self.container:
            return f"docker stop {self.container}"
        return f"systemctl stop {self.unit}" if self.unit else f"end {self.name} (pid {self.pid})"


class _Process(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    name: str
    gib: float
    container_id: str
    unit: str


def programs(
    ours: Collection[str] = (),
    *,
    proc: Path = PROC,
    docker_socket: Path = DOCKER_SOCKET,
) -> tuple[Holder, ...]:
    """The programs with 1 GiB or more, biggest first, at most 4; ``ours`` names containers and units left out."""
    big = [members for members in _groups(proc) if _sum(members) >= WORTH_NAMING_GIB]
    # Docker is asked only where a container is among them.
    names = containers(docker_socket) if any(members[0].container_id for members in big) else {}
    found = []
    for members in big:
        biggest = max(members, key=lambda process: process.gib)
        container = names.get(biggest.container_id, "")
        if container not in ours and biggest.unit not in ours:
            found.append(
                Holder(name=biggest.name, gib=_sum(members), pid=biggest.pid, container=container, unit=biggest.unit)
            )
    return tuple(sorted(found, key=lambda holder: -holder.gib)[:NAMED_AT_MOST])


def held_by(container: str, unit: str, *, proc: Path = PROC, docker_socket: Path = DOCKER_SOCKET) -> float:
    """The GiB that the processes of one container and of one unit hold, as far as they are seen."""
    names = containers(docker_socket)
    return sum(
        _sum(members)
        for members in _groups(proc)
        if members[0].unit == unit or names.get(members[0].container_id) == container
    )


def _groups(proc: Path) -> list[list[_Process]]:
    """All processes, those together that are stopped as one: of a container, of a service, or each by itself."""
    groups: dict[str | int, list[_Process]] = {}
    for process in _processes(proc, gpu_processes()):
        groups.setdefault(process.container_id or process.unit or process.pid, []).append(process)
    return list(groups.values())


def _sum(processes: Iterable[_Process]) -> float:
    return sum(process.gib for process in processes)


def _processes(proc: Path, gpu: Mapping[int, tuple[str, float]]) -> Iterable[_Process]:
    """All processes that hold memory of their own, those that only the GPU's driver knows included."""
    unseen = dict(gpu)
    root = _root(proc)
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        pid = int(folder.name)
        try:
            status = _status(_text(folder / "status"))
            gib = (_kib(status, "RssAnon") + _kib(status, "RssShmem")) / _KIB_PER_GIB
            # On GB10 what the GPU holds is no part of the process's resident set.
            gib += unseen.pop(pid, ("", 0.0))[1]
            if gib:
                container_id, unit = _place(_path(_text(folder / "cgroup")), root)
                name = " ".join(_name(status.get("Name", ""), (folder / "cmdline").read_bytes()).split())
                yield _Process(pid=pid, name=name, gib=gib, container_id=container_id, unit=unit)
        except OSError:
            # It ended meanwhile, or is not ours to read.
            continue
    for pid, (name, gib) in unseen.items():
        yield _Process(pid=pid, name=Path(name).name or "a GPU process", gib=gib, container_id="", unit="")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _status(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _kib(status: Mapping[str, str], field: str) -> float:
    """A size of proc_pid_status(5) in KiB.

    RssAnon and RssShmem, not VmRSS: pages of a mapped file (RssFile, a model's above all) are page cache that
    MemAvailable counts as available. Kernel threads have neither.
    """
    number = status.get(field, "").removesuffix(" kB")
    return float(number) if number.isdecimal() else 0.0


def _name(comm: str, cmdline: bytes) -> str:
    """The program; for Python its script or module beside it. Never more of a command line: it may hold a secret."""
    arguments = cmdline.decode(errors="replace").split("\0")
    if comm.startswith("python"):
        for number, argument in enumerate(arguments[1:], 1):
            if argument == "-m" and number + 1 < len(arguments):
                return f"{comm} -m {arguments[number + 1]}"
            if argument.endswith(".py"):
                return f"{comm} {Path(argument).name}"
            if argument == "-c":
                break
    return comm or "a process"


def _path(cgroup: str) -> str:
    """A process's place in the hierarchy of systemd: a named one on cgroup v1, the only one on v2 (cgroups(7))."""
    found = ""
    for line in cgroup.splitlines():
        hierarchy, _, path = line.partition(":")[2].partition(":")
        if hierarchy == "name=systemd":
            return path
        if not hierarchy:
            found = path
    return found


def _root(proc: Path) -> str:
    """Where the host's own systemd begins: below the root where the host is a container itself."""
    try:
        return _path(_text(proc / "1" / "cgroup")).removesuffix("/init.scope").removesuffix("/")
    except OSError:
        return ""


def _place(path: str, root: str) -> tuple[str, str]:
    """The id of the container a process is in, else the system service it belongs to; neither for a user's session."""
    path = path.removeprefix(root)
    ids = _CONTAINER.findall(path)
    if ids:
        return ids[-1], ""
    match = _SERVICE.search(path)
    return "", match.group(1) if match and not path.startswith("/user.slice/") else ""


def gpu_processes() -> dict[int, tuple[str, float]]:
    """Processes with memory on the GPU, by pid: name and GiB; none where nvidia-smi is missing, fails or hangs.

    The query works on GB10, where totals do not: ``pid, name, MiB`` a line (nvidia-smi --help-query-compute-apps).
    """
    if not has_gpu():
        return {}
    import subprocess

    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[int, tuple[str, float]] = {}
    for line in answer.stdout.splitlines():
        pid, _, rest = line.partition(",")
        name, _, mib = rest.rpartition(",")
        # "[N/A]" where the driver does not tell.
        if pid.strip().isdecimal() and mib.strip().isdecimal():
            before = found.get(int(pid), ("", 0.0))[1]
            found[int(pid)] = (name.strip(), before + float(mib) / _MIB_PER_GIB)
    return found


def has_gpu() -> bool:
    """NVIDIA's driver brings nvidia-smi; where it is missing, no engine uses a GPU."""
    # Not shutil.which: its module costs every start some milliseconds.
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(Path(folder, "nvidia-smi"), os.X_OK) for folder in folders if folder)


class _Container(msgspec.Struct, frozen=True):
    Id: str
    Names: list[str] | None = None


def containers(socket_path: Path = DOCKER_SOCKET) -> dict[str, str]:
    """The names of the running containers by id; none where Docker does not answer.

    ``GET /containers/json`` without a version, so that no Docker is too old or too new for it (Docker Engine API).
    """
    import http.client

    from hearth.engines.images import TIMEOUT_S
    from hearth.local import LocalConnection

    connection = LocalConnection(socket_path, TIMEOUT_S)
    try:
        connection.request("GET", "/containers/json")
        answer = msgspec.json.decode(connection.getresponse().read(), type=list[_Container])
    except (OSError, http.client.HTTPException, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    finally:
        connection.close()
    return {one.Id: one.Names[0].removeprefix("/") for one in answer if one.Names}
