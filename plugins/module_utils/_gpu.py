# SPDX-License-Identifier: Apache-2.0
"""How a box's engines get its NVIDIA GPU, and what is to be installed or done for that. Pure functions, no I/O.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils._nvidia import TOOLKIT

CDI_KIND = "nvidia.com/gpu"
# All GPUs, as `docker run --device` names them, and the same for a Docker without CDI, as `docker run --gpus` does.
BY_CDI, BY_HOOK, NONE = f"{CDI_KIND}=all", "gpus=all", "none"
# Docker's release notes: CDI can be switched on since 25.0, and is on by itself since 28.2.
_CDI_SINCE = (25,)
# NVIDIA's release notes: the toolkit brings units that keep the CDI specification, in /var/run, since 1.18.
_REFRESHED_SINCE = (1, 18)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (26, 1, 5) for 26.1.5+dfsg1, (1, 20, 1, 1) for 1.20.1-1."""
    found = re.match(r"v?(\d+(?:[.-]\d+)*)", version)
    return tuple(int(part) for part in re.split(r"[.-]", found[1])) if found else ()


def plan(facts: Mapping[str, Any], gpu: str = "auto", install: bool = True, version: str = "") -> dict[str, Any]:
    """What a box is to have, and what it lacks.

    ``facts`` are those of the module spark_facts; ``gpu`` is auto, nvidia or none; with ``install`` what is missing is
    installed, but never on DGX OS; ``version`` is that of the toolkit, empty for whichever the repository has.

    Returns ``nvidia``: there is to be a GPU; ``managed``: the toolkit is ours to install; ``pin``: its version, as apt
    has it; ``packages`` to install; ``refused``: why they cannot be; ``way``: how engines get the GPU; ``spec``: where
    its CDI specification belongs; ``missing``: what is not as it should be, and what to do; ``versions``: in words.
    """
    # A DGX has one, whatever becomes of its driver.
    nvidia = gpu == "nvidia" or (gpu == "auto" and bool(facts["gpu"]["driver"] or facts["dgx"]))
    managed = nvidia and install and not facts["dgx"]
    # YAML makes a number of 1.20.
    wanted = str(version)
    pin = wanted if "-" in wanted or not wanted else f"{wanted}-1"
    packages, refused = _packages(facts["toolkit_packages"], pin) if managed else ([], "")
    way = _way(facts, managed) if nvidia else NONE
    return {
        "nvidia": nvidia,
        "managed": managed,
        "pin": pin,
        "packages": packages,
        "refused": refused,
        "way": way,
        "spec": _spec(facts["toolkit"]),
        "missing": [*_docker(facts), *(_missing(facts) if nvidia else [])],
        "versions": _versions(facts, way),
    }


def _packages(installed: Mapping[str, str], pin: str) -> tuple[list[str], str]:
    """What apt is to install, and why not, where that is so."""
    whole = len(installed) == len(TOOLKIT) and len(set(installed.values())) == 1
    if not pin:
        return ([] if whole else list(TOOLKIT)), ""
    wanted = [f"{name}={pin}" for name in TOOLKIT]
    newer = [(name, have) for name, have in installed.items() if numbers(have) > numbers(pin)]
    if not newer:
        return ([] if whole and pin in installed.values() else wanted), ""
    if whole:
        # Somebody's newer one stays: nothing is ever taken back.
        return [], ""
    name, have = newer[0]
    return [], (
        f"container_toolkit_version: {pin} is older than the {have} of {name} that is on the box, and all packages of "
        f"the toolkit have to be of one version: set it to {have}"
    )


def _way(facts: Mapping[str, Any], managed: bool) -> str:
    docker = facts["docker"]
    # One that is still to be installed is looked at again when it is.
    knows = not docker["version"] or numbers(docker["version"]) >= _CDI_SINCE
    if knows and (managed or (CDI_KIND in facts["cdi"] and (docker["cdi"] or not docker["version"]))):
        return BY_CDI
    return BY_HOOK if managed or facts["toolkit"] else NONE


def _spec(toolkit: str) -> str:
    """Where the toolkit itself would keep it; an older one forgets at a boot what is in /var/run."""
    refreshed = not toolkit or numbers(toolkit) >= _REFRESHED_SINCE
    return "/var/run/cdi/nvidia.yaml" if refreshed else "/etc/cdi/nvidia.yaml"


def _docker(facts: Mapping[str, Any]) -> list[str]:
    if not facts["dgx"]:
        return []
    said = []
    if facts["docker"]["packaged"]:
        said.append(
            "Docker is the distribution's docker.io, not the docker-ce of DGX OS: sudo apt-get install docker-ce "
            "docker-ce-cli containerd.io, which takes its place"
        )
    user = facts["user"]
    if user and "docker" not in user["groups"]:
        said.append(
            f"{user['name']} is not in the group docker, whose members may do all that root may: "
            f"sudo usermod -aG docker {user['name']} and a new login, or container_toolkit_docker_group: true"
        )
    return said


def _missing(facts: Mapping[str, Any]) -> list[str]:
    said = []
    if facts["gpu"]["error"]:
        said.append(f"nvidia-smi says: {facts['gpu']['error']}; where driver and libraries differ, a reboot mends that")
    elif not facts["gpu"]["driver"]:
        said.append(
            "no driver of NVIDIA's is loaded: nvidia-smi and dmesg on the box tell more, and a reboot may mend it"
        )
    if not facts["toolkit"]:
        said.append("the NVIDIA container toolkit is missing: sudo apt-get install nvidia-container-toolkit")
        return said
    installed = facts["toolkit_packages"]
    if len(set(installed.values())) > 1:
        listed = ", ".join(f"{name} {have}" for name, have in installed.items())
        said.append(
            f"the toolkit's packages are of several versions ({listed}): sudo apt-get install {' '.join(TOOLKIT)}"
        )
    if CDI_KIND not in facts["cdi"]:
        said.append(
            f"there is no CDI specification of the GPU: sudo nvidia-ctk cdi generate --output={_spec(facts['toolkit'])}"
        )
    docker = facts["docker"]
    if docker["version"] and not docker["cdi"]:
        said.append(
            f"Docker {docker['version']} is too old for CDI, so engines get the GPU by --gpus: nothing is to be done"
            if numbers(docker["version"]) < _CDI_SINCE
            else 'CDI is off in Docker: {"features": {"cdi": true}} belongs into /etc/docker/daemon.json '
            "(container_toolkit_daemon), and Docker is to be restarted"
        )
    return said


def _versions(facts: Mapping[str, Any], way: str) -> list[str]:
    gpu, docker = facts["gpu"], facts["docker"]
    said = [f"Docker {docker['version'] or 'is still to come'}"]
    if gpu["driver"] or gpu["name"]:
        said.append(f"{gpu['name'] or 'NVIDIA GPU'}, driver {gpu['driver'] or 'unknown'}")
    if facts["toolkit"]:
        said.append(f"NVIDIA container toolkit {facts['toolkit']}")
    if facts["cdi_devices"]:
        said.append(f"CDI devices {', '.join(facts['cdi_devices'])}")
    said.append({NONE: "engines run without a GPU"}.get(way, f"engines get the GPU as {way}"))
    return said
