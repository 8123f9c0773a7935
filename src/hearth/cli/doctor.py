# SPDX-License-Identifier: Apache-2.0
"""The checks of ``hearth doctor``: pure, from what was read to a verdict and what to do."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from hearth.contract import Engine

if TYPE_CHECKING:
    from hearth.cli.standing import Pending
    from hearth.engines.units import UnitState
    from hearth.guard.record import Ended
    from hearth.memory import Memory
    from hearth.updates.changes import Book

Verdict = Literal["ok", "warning", "failed"]

# Below this share of a file system's size, the next model does not fit, and logs may not either.
_DISK_FREE = 0.10
# A device by its CDI name, as `docker run` takes it (vendor/class=name).
_CDI = re.compile(r"--device[=\s\\]+([\w.-]+/[\w.-]+)=\S+")
# What the kernel takes for no (lib/kstrtox.c, kstrtobool).
_NO = re.compile(r"0|[nf].*|of.*", flags=re.IGNORECASE)
_KHO_SINCE = 7


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what it looked at, its verdict, what it found, and what to do (empty where all is well)."""

    name: str
    verdict: Verdict
    says: str
    remedy: str = ""


def ok(name: str, says: str) -> Check:
    return Check(name=name, verdict="ok", says=says)


def warning(name: str, says: str, remedy: str) -> Check:
    return Check(name=name, verdict="warning", says=says, remedy=remedy)


def failed(name: str, says: str, remedy: str = "") -> Check:
    return Check(name=name, verdict="failed", says=says, remedy=remedy)


def package(version: str, schema: int, prefix: str, venv: str) -> Check:
    """That this is the package whose ``hearth`` the units call; ``venv`` is where the current one's link leads."""
    if venv and prefix != venv:
        return warning("package", f"this is hearth {version} in {prefix}, units use the one in {venv}", "run site.yml")
    return ok("package", f"hearth {version}, reads schema {schema}")


def preconditions(what: str, complaints: Mapping[str, str], well: str) -> list[Check]:
    """What a change itself would say of each engine's image, model or port; its sentence says what to do as well."""
    return [failed(what, complaint) for complaint in complaints.values() if complaint] or [ok(what, well)]


def key_file(path: str, mode: int | None, owner: int, error: str = "") -> Check:
    """That the key is root's alone. ``mode`` as of stat(2); None where the file could not be looked at."""
    if mode is None:
        remedy = "run site.yml, which makes one" if not error else "run this as root"
        return failed("key", f"{path} {f'cannot be read ({error})' if error else 'is missing'}", remedy)
    if stat.S_IMODE(mode) & 0o077 or owner != 0:
        said = f"{path} has mode {stat.S_IMODE(mode):04o} and owner {owner}, not 0600 and root"
        return failed("key", said, f"chown root: {path} && chmod 600 {path}; others may have read it: see docs/box.md")
    return ok("key", f"{path} is root's alone")


def units(engines: Sequence[Engine], states: Mapping[str, UnitState], restart: Iterable[str]) -> list[Check]:
    """That systemd knows each unit as it is on disk; ``restart`` names engines that run from an older one."""
    checks: list[Check] = []
    for engine in engines:
        now = states[engine.unit]
        if now.load != "loaded":
            checks.append(failed("units", f"{engine.unit} is {now.load}", "run site.yml"))
        elif now.active == "failed":
            remedy = f"hearth logs {engine.name} says why; hearth start {engine.name} tries again"
            checks.append(failed("units", f"{engine.unit} has failed ({now.result})", remedy))
        elif now.outdated:
            said = f"{engine.unit} was changed, and systemd has not read it again"
            checks.append(warning("units", said, "systemctl daemon-reload, or any hearth switch"))
        elif engine.name in restart:
            said = f"{engine.name} runs from an older unit than the one on disk"
            checks.append(warning("units", said, f"hearth start {engine.name} restarts it"))
    return checks or [ok("units", f"{_count(engines, 'unit')} loaded, none failed")]


def boot(engines: Sequence[Engine], states: Mapping[str, UnitState]) -> Check:
    """That something starts at boot, where the inventory wants that."""
    names = [engine.name for engine in engines if states[engine.unit].enabled]
    main = [engine for engine in engines if engine.lane == "main"]
    wanted = [engine.name for engine in main if engine.start == "boot"]
    if wanted and not any(states[engine.unit].enabled for engine in main):
        said = f"nothing of the main lane starts at boot, though {_and(wanted)} should"
        return warning("boot", said, f"hearth switch {wanted[0]}, or leave it so")
    return ok("boot", f"{_and(names)} {'starts' if len(names) == 1 else 'start'}" if names else "nothing is to start")


def memory(now: Memory, floor_gib: float) -> Check:
    """That the host has its floor."""
    said = f"{now.available_gib:.1f} of {now.total_gib:.1f} GiB available, {floor_gib:.1f} GiB stay with the host"
    if now.available_gib < floor_gib:
        return warning("memory", said, "the host is short of memory: stop a model (hearth status), or what else runs")
    return ok("memory", said)


def guard(*, installed: bool, watches: bool, last: Ended | None) -> Check:
    """That somebody ends an engine before the host stands still; ``last``: whom it ended within a day."""
    if not installed:
        return ok("guard", "this box has none (host_guards)")
    if not watches:
        return failed("guard", "does not watch the memory", "journalctl -u hearth-guard says why")
    if last is not None:
        remedy = f"hearth logs {last.engine}; give it less context, or more memory_gib in engines_models"
        return warning("guard", last.words, remedy)
    return ok("guard", "watches, and ended nobody within a day")


def boot_memory(total_gib: float, floor_gib: float, needs: Mapping[str, float]) -> Check:
    """That all that starts at boot fits; ``needs`` (GiB) has those engines."""
    wanted = sum(needs.values()) + floor_gib
    said = f"what starts at boot needs {wanted - floor_gib:.1f} GiB, {floor_gib:.1f} GiB stay with the host"
    if wanted > total_gib:
        remedy = f"have fewer start: hearth stop {max(needs, key=lambda name: needs[name])}"
        return failed("boot memory", f"{said}, and it has {total_gib:.1f} GiB", remedy)
    return ok("boot memory", said)


def gateway(listen: tuple[str, int], error: str) -> Check:
    """That the gateway answers; ``error`` says why it does not."""
    if error:
        return failed("gateway", f"does not answer ({error})", "journalctl -u hearth-gateway says why")
    return ok("gateway", f"answers, listens on {listen[0]} port {listen[1]}")


def keys(names: Sequence[str], *, open_to_all: bool) -> Check:
    """That somebody may ask the gateway; ``open_to_all``: it asks for no key."""
    if open_to_all:
        return ok("keys", "none is asked for, on this box's loopback only")
    if not names:
        return warning("keys", "there is none, so the gateway lets nobody in", "hearth keys add NAME")
    return ok("keys", _and(names))


def swap(total_gib: float, swappiness: str) -> Check:
    """For information: whether to have swap is the owner's choice."""
    said = f"{total_gib:.1f} GiB" if total_gib else "off"
    return ok("swap", f"{said}, swappiness {swappiness or 'unknown'}")


def cdi_kinds(unit_text: str) -> set[str]:
    """The kinds of device (nvidia.com/gpu) that a unit's `docker run` asks for by CDI."""
    return set(_CDI.findall(unit_text))


def gpu(asked: Mapping[str, Iterable[str]], specs: Iterable[str]) -> list[Check]:
    """That each kind of device that units ask for has a CDI spec. ``asked`` by engine; ``specs`` are texts."""
    kinds = sorted({kind for kinds in asked.values() for kind in kinds})
    if not kinds:
        return [ok("gpu", "no engine asks for one")]
    texts = list(specs)
    checks = []
    for kind in kinds:
        spec = re.compile(rf"""\bkind["']?\s*:\s*["']?{re.escape(kind)}["']?\s*(?:,|$|\}})""", flags=re.MULTILINE)
        if not any(spec.search(text) for text in texts):
            users = [name for name, its in asked.items() if kind in its]
            remedy = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
            checks.append(failed("gpu", f"no CDI spec has {kind}, which {_and(users)} would run with", remedy))
    return checks or [ok("gpu", f"a CDI spec has {_and(kinds)}")]


def kernel(release: str, cmdline: str) -> Check:
    """That Kexec HandOver is off on NVIDIA's kernels that have it on by default.

    From 7.0 on: it then keeps about 9 GiB that nobody counts, and RDMA cannot register memory.
    """
    major = re.match(r"(\d+)\.", release)
    said = re.findall(r"(?:^|\s)kho=(\S*)", cmdline.partition(" -- ")[0])
    if major and int(major[1]) >= _KHO_SINCE and "nvidia" in release and not (said and _NO.fullmatch(said[-1])):
        remedy = "apt-get install nvidia-spark-grub-kho, or add kho=off to the kernel's command line; then reboot"
        return warning("kernel", f"{release} keeps about 9 GiB for Kexec HandOver", remedy)
    return ok("kernel", release)


def disks(free: Mapping[str, tuple[int, int]]) -> list[Check]:
    """That there is room where models are; ``free`` has, by folder, free and all bytes of its file system."""
    said = {
        folder: f"{left / 1e9:.0f} of {size / 1e9:.0f} GB free at {folder}" for folder, (left, size) in free.items()
    }
    checks = [
        warning("disk", said[folder], "remove models that nobody uses")
        for folder, (left, size) in free.items()
        if left < size * _DISK_FREE
    ]
    return checks or [ok("disk", _and(list(said.values())) or "no models")]


def change(pending: Pending | None) -> Check:
    """That no change of engines was cut off."""
    if pending is None:
        return ok("change", "none under way, none cut off")
    if pending.holder:
        return ok("change", pending.words)
    return failed("change", pending.words, pending.remedy)


def updates(books: Mapping[str, Book], holder: str) -> Check:
    """That the last update came to its end. ``holder``: who is at one now, in words; ``books`` by step."""
    play = "ansible-playbook playbooks/update.yml"
    if holder:
        return ok("updates", f"one is under way ({holder})")
    for step, book in books.items():
        if book.state == "begun":
            return warning("updates", f"the step {step} of {book.at} was cut off", f"{play} goes on with it")
        if book.state == "installed":
            said = f"since the step {step} of {book.at} nobody has looked whether all is well"
            return warning("updates", said, f"{play} looks, and takes it back where it is not")
    return ok("updates", "none is open")


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def _count(things: Iterable[object], what: str) -> str:
    number = len(list(things))
    return f"{number} {what}{'' if number == 1 else 's'}"
