# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's driver, its container toolkit and CDI specifications say of a box. Standard library only.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils._program import Program

# All of one version, or none: each wants its own of the others (NVIDIA's installation guide).
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)

# A driver that is broken may take minutes to say so.
_TIMEOUT_S = 5.0
# The one key of a CDI spec that matters most, in YAML or JSON: no YAML library can be counted on on a fresh host.
_KIND = re.compile(r"""(?:^|[\s{,])["']?kind["']?\s*:\s*["']?([\w.-]+/[\w.-]+)""")
_TOP_KIND = re.compile(r"""^["']?kind["']?\s*:\s*["']?([\w.-]+/[\w.-]+)""", flags=re.MULTILINE)
# CDI's SPEC.md, "CDI JSON Specification": a device's name begins and ends with a letter or digit.
_DEVICE = re.compile(r"[A-Za-z0-9](?:[\w.:-]*[A-Za-z0-9])?", flags=re.ASCII)
_YAML_NAME = re.compile(
    r"""["']?name["']?\s*:\s+(?:"(?P<double>[^"\\]*)"|'(?P<single>[^']*)'|(?P<plain>[^\s"'#]+))\s*(?:\s\#.*)?""",
)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def ask_driver() -> Program:
    """Start nvidia-smi; ``gpu`` takes its answer."""
    return Program("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", errors=True)


def gpu(root: Path, asked: Program) -> dict[str, Any]:
    """``name`` of the first GPU, ``count``, version of the ``driver``; ``error``: why nvidia-smi cannot tell.

    The driver's own files answer first for the driver, and for the name where nvidia-smi fails: its libraries may be
    newer than the driver that runs, until the next boot.
    """
    models = [
        model
        for information in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
        for model in re.findall(r"^Model:\s*(\S.*?)\s*$", _text(information), flags=re.MULTILINE)
    ]
    answer = asked.answer(_TIMEOUT_S)
    rows = re.findall(r"^(\S.*), (\d+\.[\d.]+)\s*$", answer.text, flags=re.MULTILINE)
    names = [row[0] for row in rows] or models
    error = ""
    if answer.late:
        error = f"nvidia-smi gave no answer within {_TIMEOUT_S:g} s"
    elif answer.found and not rows:
        error = " ".join(answer.text.split()) or "nvidia-smi said nothing"
    return {
        "name": names[0] if names else "",
        "count": len(names),
        "driver": driver(_text(root / "proc/driver/nvidia/version")) or (rows[0][1] if rows else ""),
        "error": error,
    }


def driver(text: str) -> str:
    """The version in /proc/driver/nvidia/version, such as 580.178.04; empty where there is none."""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d[\d.]*)\s", f"{text}\n", flags=re.MULTILINE)
    return str(found[1]) if found else ""


def packages(root: Path, *names: str) -> dict[str, str]:
    """The installed ones of these Debian packages, and the version of each; empty without a package manager's record.

    The record costs a millisecond, and cannot hang as a program can.
    """
    try:
        record = b"\n" + (root / "var/lib/dpkg/status").read_bytes()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for name in names:
        begin = record.find(f"\nPackage: {name}\n".encode())
        if begin < 0:
            continue
        lines = record[begin:].partition(b"\n\n")[0]
        entry: dict[bytes, bytes] = dict(re.findall(rb"^(Status|Version): (.*)$", lines, flags=re.MULTILINE))
        if entry.get(b"Status", b"").endswith(b" ok installed"):
            found[name] = entry.get(b"Version", b"").decode(errors="replace")
    return found


def toolkit(installed: Mapping[str, str]) -> str:
    """The version of the container toolkit, such as 1.20.1; empty where there is none.

    ``installed`` are its packages; nvidia-ctk is asked only where there are none.
    """
    # The second one alone is all that CDI needs, and brings nvidia-ctk.
    for package in ("nvidia-container-toolkit", "nvidia-container-toolkit-base"):
        version = installed.get(package, "")
        if version:
            return version.rpartition("-")[0] or version
    found = re.search(r"\bversion (\d\S*)", Program("nvidia-ctk", "--version").answer(_TIMEOUT_S).text)
    return str(found[1]) if found else ""


def cdi(root: Path) -> tuple[list[str], list[str]]:
    """The kinds of device that CDI specs offer, such as nvidia.com/gpu, and the devices, such as nvidia.com/gpu=all.

    A spec whose YAML is not of the plain shape that nvidia-ctk writes has its kind, and no devices.
    """
    kinds: set[str] = set()
    found: set[str] = set()
    for folder in ("etc/cdi", "var/run/cdi", "run/cdi"):
        # By their endings, as Docker and every other reader of CDI chooses them.
        for spec in sorted([*(root / folder).glob("*.json"), *(root / folder).glob("*.yaml")]):
            text = _text(spec)
            kinds.update(_KIND.findall(text))
            found.update(devices(text))
    return sorted(kinds), sorted(found)


def devices(text: str) -> list[str]:
    """The fully qualified names of a CDI spec's devices; none where they cannot be told for sure."""
    try:
        spec = json.loads(text)
    except ValueError:
        kinds, names = _TOP_KIND.findall(text), _yaml_names(text)
    else:
        spec = spec if isinstance(spec, dict) else {}
        kinds = [kind for kind in (spec.get("kind"),) if isinstance(kind, str)]
        listed = spec.get("devices")
        listed = listed if isinstance(listed, list) else []
        names = [one.get("name") if isinstance(one, dict) else None for one in listed]
    if len(kinds) != 1 or not all(isinstance(name, str) and _DEVICE.fullmatch(name) for name in names):
        return []
    return [f"{kinds[0]}={name}" for name in names]


def _yaml_names(text: str) -> list[str | None]:
    """The ``name`` of each entry of the list ``devices`` in YAML's block style; None for an entry that has none.

    nvidia-ctk sorts a device's keys up to 1.17 and puts the name first from 1.18 on (its pkg/nvcdi/spec/spec_test.go);
    what lies deeper than an entry's own keys is passed over.
    """
    names: list[str | None] = []
    inside, dash, column = False, -1, -1
    for line in text.splitlines():
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        depth = len(line) - len(line.lstrip(" "))
        if not inside:
            inside = bool(re.fullmatch(r"""["']?devices["']?\s*:\s*(?:#.*)?""", line))
            continue
        begins = words == "-" or words.startswith("- ")
        if depth == 0 and not begins:
            break
        if dash < 0:
            dash = depth
        if depth == dash:
            names.append(None)
            words = words[1:].lstrip()
            # The entry's keys stand below its first one; after a lone dash the next line tells where.
            column = line.index(words, depth + 1) if words else -1
        elif column < 0:
            column = depth
        if depth not in (dash, column):
            continue
        if names and names[-1] is None and (match := _YAML_NAME.fullmatch(words)):
            names[-1] = match["double"] or match["single"] or match["plain"]
    return names
