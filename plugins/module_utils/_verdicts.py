# SPDX-License-Identifier: Apache-2.0
"""Can Hearth work on a box? Verdicts from what was read of it. Pure functions, no I/O.

Each verdict is {check, level, says, todo}. A blocker is what site.yml stops for, before it changes anything; a warning
is shown and stops nothing. What the roles themselves check (ports, files of models, settings) is not here.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _guards
from ansible_collections.hearth.spark.plugins.module_utils._driver import BAD_BRANCHES
from ansible_collections.hearth.spark.plugins.module_utils._gpu import numbers

# The branch that DGX OS has, and that everything known of GB10 was seen with (GB10 platform survey, 1.1).
KNOWN_BRANCH = 580
# The DGX OS of Sparks so far: 7.2.3 from the factory to 7.6.0.
KNOWN_DGX = 7
_PYTHON = (3, 11)
# Most models of the catalog want more than this.
_SMALL_GIB = 16.0
# A model of 30 GB, its download, and an image or two.
_DISK_GB = 60.0

Verdict = dict[str, str]


def verdicts(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Verdict]:
    """All verdicts on a box; ``facts`` are those of the module spark_facts, ``settings`` the role's.

    ``settings``: ``systems``, the lowest version of each supported system; ``architectures``; ``user``, who is to own
    the models; ``install_docker``, whether a missing Docker is installed; ``names``, which names it was to resolve. Of
    the guards: ``guards``, whether there are any; ``floor_gib``, what admission leaves to the host;
    ``guard_floor_gib``; ``earlyoom_gib``, before SIGTERM and before SIGKILL; ``sysctl``; ``watchdog_s``;
    ``has_watchdog``; ``clock_mhz``.
    """
    return [
        _system(facts["os"], settings["systems"]),
        _architecture(facts["arch"], settings["architectures"]),
        _systemd(facts),
        _python(facts["python"]),
        _user(facts["user"], settings["user"]),
        _dgx(facts["dgx"]),
        _kernel(facts),
        *_driver(facts["gpu"], bool(facts["dgx"])),
        _docker(facts, bool(settings["install_docker"])),
        _memory(facts["memory"]),
        _disk(facts["disk"]),
        _clock(facts["clock_synchronised"]),
        _names(facts["unresolved"], settings["names"]),
        _gpu_users(facts["gpu"]["users"]),
        *_guards_verdicts(settings),
    ]


def report(
    facts: Mapping[str, Any], settings: Mapping[str, Any], answers: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """``verdicts``, ``lines`` that show them to a person, and the sentences of all ``blockers`` and ``warnings``.

    ``answers`` are of roles that were asked for their own checks: ``check``, and what was ``refused``, which has what
    to do in it and is empty where nothing was.
    """
    found = verdicts(facts, settings)
    for one in answers:
        refused = " ".join(one["refused"].split())
        found.append(_blocker(one["check"], refused, "") if refused else _ok(one["check"], "its own checks hold"))
    return {
        "verdicts": found,
        "lines": _lines(found),
        "blockers": [_sentence(one) for one in found if one["level"] == "blocker"],
        "warnings": [_sentence(one) for one in found if one["level"] == "warning"],
    }


def _lines(found: Sequence[Verdict]) -> list[str]:
    """A line a verdict, and below it what to do; at last how many there are of each level."""
    width = max(len(one["check"]) for one in found)
    said = []
    for one in found:
        said.append(f"{one['level']:<7}  {one['check']:<{width}}  {one['says']}")
        if one["todo"]:
            said.append(f"{'':<7}  {'':<{width}}  do: {one['todo']}")
    count = {level: sum(one["level"] == level for one in found) for level in ("ok", "warning", "blocker")}
    return [*said, ", ".join(f"{number} {level}" for level, number in count.items())]


def _sentence(one: Verdict) -> str:
    return f"{one['says'].rstrip('.')}{'; ' if one['todo'] else ''}{one['todo'].rstrip('.')}."


def _ok(check: str, says: str) -> Verdict:
    return {"check": check, "level": "ok", "says": says, "todo": ""}


def _warning(check: str, says: str, todo: str) -> Verdict:
    return {"check": check, "level": "warning", "says": says, "todo": todo}


def _blocker(check: str, says: str, todo: str) -> Verdict:
    return {"check": check, "level": "blocker", "says": says, "todo": todo}


def _system(system: Mapping[str, str], supported: Mapping[str, Any]) -> Verdict:
    lowest = supported.get(system["id"])
    if lowest is not None and _version(system["version"]) >= _version(str(lowest)):
        return _ok("system", system["name"] or system["id"])
    *most, last = [f"{name} {version}" for name, version in sorted(supported.items())] or ["nothing else"]
    listed = f"{', '.join(most)} and {last}" if most else last
    return _blocker(
        "system",
        f"This box runs {system['name'] or 'an unknown system'}; Hearth supports DGX OS, {listed} or newer",
        "reinstall the box with one of these, or add it to host_supported_systems at your own risk",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _architecture(arch: str, supported: Sequence[str]) -> Verdict:
    if arch in supported:
        return _ok("architecture", arch)
    return _blocker(
        "architecture",
        f"This box is {arch}; Hearth's images and packages exist for {' and '.join(supported)}",
        "use another box, or set host_supported_architectures at your own risk",
    )


def _systemd(facts: Mapping[str, Any]) -> Verdict:
    if facts["systemd"]:
        return _ok("systemd", "runs the box")
    return _blocker(
        "systemd",
        "systemd does not run this box (/run/systemd/system is missing); Hearth's engines are systemd units",
        "boot it with systemd",
    )


def _python(python: Mapping[str, Any]) -> Verdict:
    if numbers(str(python["version"])) >= _PYTHON:
        return _ok("python", f"{python['executable']} is {python['version']}")
    return _blocker(
        "python",
        f"{python['executable']} is Python {python['version']}; Hearth needs 3.11 or newer on the box",
        "name one with ansible_python_interpreter",
    )


def _user(user: Mapping[str, Any], wanted: str) -> Verdict:
    if user and int(user["uid"]) > 0:
        return _ok("user", f"{user['name']} owns the models")
    why = "root is not to own ~/ai" if wanted == "root" else f"there is no user {wanted or '(empty)'} on this box"
    return _blocker("user", f"layout_user: {why}", "set layout_user to the one who does")


def _dgx(dgx: Mapping[str, str]) -> Verdict:
    if not dgx:
        return _ok("dgx release", "this is no DGX OS")
    said = f"{dgx['name'] or 'DGX OS'} {dgx['release'] or 'of an unknown release'}"
    if numbers(dgx["release"])[:1] == (KNOWN_DGX,):
        return _ok("dgx release", said)
    return _warning("dgx release", f"{said} is not known to Hearth", f"what is known was seen on DGX OS {KNOWN_DGX}")


def _kernel(facts: Mapping[str, Any]) -> Verdict:
    if not facts["kho"]["problem"]:
        return _ok("kernel", facts["kernel"])
    return _warning(
        "kernel",
        f"{facts['kernel']} keeps about 9 GiB for Kexec HandOver, and RDMA does not work with that",
        "apt-get install nvidia-spark-grub-kho, or add kho=off to the kernel's command line; then reboot",
    )


def _driver(gpu: Mapping[str, Any], dgx: bool) -> Iterator[Verdict]:
    name, driver = gpu["name"] or "NVIDIA GPU", gpu["driver"]
    if gpu["error"]:
        yield _warning(
            "driver",
            f"nvidia-smi says: {gpu['error']}",
            "where driver and libraries differ, a reboot mends that; dmesg tells more",
        )
    elif not driver and dgx:
        yield _warning(
            "driver", "no driver of NVIDIA's is loaded", "nvidia-smi and dmesg tell more, and a reboot may mend it"
        )
    elif not driver:
        yield _ok("driver", "no NVIDIA GPU")
    elif numbers(driver)[0] == KNOWN_BRANCH:
        yield _ok("driver", f"{name}, {driver}")
    else:
        bad = [what for part, branch, what in BAD_BRANCHES if part in name and numbers(driver)[0] == branch]
        why = f": {bad[0]}" if bad else ""
        yield _warning(
            "driver",
            f"{name} has driver {driver}, and the branch known to be good is {KNOWN_BRANCH}{why}",
            f"go back to {KNOWN_BRANCH}" if bad else "nothing, where your engines work",
        )


def _docker(facts: Mapping[str, Any], install: bool) -> Verdict:
    docker, dgx = facts["docker"], bool(facts["dgx"])
    if docker["version"]:
        return _ok("docker", f"Docker {docker['version']}")
    if docker["installed"]:
        return _warning("docker", f"Docker does not answer ({docker['error']})", "site.yml starts it")
    if install and not dgx:
        return _ok("docker", "missing; site.yml installs it")
    # The role container_toolkit, which knows what is to be done, stops for it.
    return _warning("docker", "Docker is missing", "the check of the container toolkit says what to do")


def _memory(memory: Mapping[str, float]) -> Verdict:
    said = f"{memory['total_gib']:.1f} GiB, {memory['available_gib']:.1f} of them available"
    if memory["total_gib"] < _SMALL_GIB:
        return _warning("memory", said, "choose small models: playbooks/models.yml says which fit")
    return _ok("memory", said)


def _disk(disk: Mapping[str, Any]) -> Verdict:
    if not disk:
        return _warning("disk", "the models' disk cannot be told", "look at layout_root and layout_user")
    said = f"{disk['free_gb']:.0f} of {disk['total_gb']:.0f} GB free at {disk['path']}"
    if disk["free_gb"] < _DISK_GB:
        return _warning("disk", said, "large models will not fit: make room, or link ~/ai/models to a larger disk")
    return _ok("disk", said)


def _clock(synchronised: bool | None) -> Verdict:
    if synchronised is None:
        return _ok("time", "whether the clock is kept cannot be told here")
    if synchronised:
        return _ok("time", "the clock is kept by somebody (NTP)")
    return _warning(
        "time",
        "nobody keeps the box's clock, or it is not there yet; certificates are refused when it is wrong",
        "timedatectl set-ntp true, and timedatectl tells how it stands",
    )


def _names(unresolved: Sequence[str], asked: Sequence[str]) -> Verdict:
    if unresolved:
        return _warning(
            "dns",
            f"the box finds no address for {' and '.join(unresolved)}",
            "look at resolvectl status; where the box is offline on purpose, set host_names to []",
        )
    return _ok("dns", f"{' and '.join(asked)} found" if asked else "no name to find")


def _gpu_users(users: Sequence[Mapping[str, Any]]) -> Verdict:
    if not users:
        return _ok("gpu users", "nobody but Hearth's engines")
    listed = ", ".join(f"{one['name']} (pid {one['pid']}) with {one['gib']:.1f} GiB" for one in users)
    return _warning(
        "gpu users",
        f"others use the GPU: {listed}",
        "what they hold is missing for models: stop them where they are yours",
    )


def _guards_verdicts(settings: Mapping[str, Any]) -> Iterator[Verdict]:
    if not settings["guards"]:
        yield _ok("guards", "none are wanted (host_guards)")
        return
    floor, guard, (term, kill) = settings["floor_gib"], settings["guard_floor_gib"], settings["earlyoom_gib"]
    wrong = [(says, todo) for says, todo in _wrong(settings, floor, guard, term, kill) if says]
    for says, todo in wrong:
        yield _blocker("guards", says, todo)
    if not wrong:
        yield _ok(
            "guards", f"below {guard:.1f} GiB the newest engine is ended, below {term:.1f} and {kill:.1f} programs are"
        )


def _wrong(
    settings: Mapping[str, Any], floor: float, guard: float, term: float, kill: float
) -> Iterator[tuple[str, str]]:
    if not 0 < guard < floor:
        says = f"{guard:g} GiB must be more than 0 and less than the {floor:g} GiB that admission leaves to the host"
        yield f"host_guard_floor_gib: {says}", "choose less, or leave it 0"
    if not 0 < kill <= term:
        says = f"{kill:g} GiB must be more than 0 and not more than the {term:g} GiB of host_earlyoom_term_gib"
        yield f"host_earlyoom_kill_gib: {says}", "choose less, or leave both 0"
    yield _guards.wrong(settings["sysctl"])
    if settings["watchdog_s"] and not settings["has_watchdog"]:
        yield "host_watchdog_s: this box has no hardware watchdog (/dev/watchdog0 is missing)", "set it to 0"
    if not re.fullmatch(r"([0-9]+,[0-9]+)?", settings["clock_mhz"]):
        says = f"must be two numbers such as 300,2200, is {settings['clock_mhz']}"
        yield f"host_clock_mhz: {says}", "correct it, or leave it empty"
