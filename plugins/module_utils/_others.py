# SPDX-License-Identifier: Apache-2.0
"""What a box has of others: its clock, names it is to resolve, and who else is on the GPU. Standard library only.

PRIVATE to the collection.
"""

from __future__ import annotations

import ctypes
import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils._program import Program

# A resolver that answers does so within tens of milliseconds; one that does not must not hold a run.
_NAME_TIMEOUT_S = 2.0
# It was started together with the question for the driver's version, which has had its 5 seconds by then.
_GPU_TIMEOUT_S = 1.0
# adjtimex(2): struct timex on 64-bit Linux is 208 bytes; maxerror (microseconds) is its fourth word.
_TIMEX_BYTES, _MAXERROR_AT = 208, 24
# systemd's own bound for timedatectl's NTPSynchronized (ntp_synced): 16 s.
_SYNCED_BELOW_US = 16_000_000
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_MIB_PER_GIB = 1024


def clock_synchronised() -> bool | None:
    """Whether the kernel's clock is kept by somebody (NTP, PTP), as timedatectl tells it; None where it cannot be told.

    Asked of the kernel: timedatectl starts a service for that, which takes a tenth of a second.
    """
    if struct.calcsize("P") != 8:
        return None
    answer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        if ctypes.CDLL(None).adjtimex(answer) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return bool(struct.unpack_from("q", answer, _MAXERROR_AT)[0] < _SYNCED_BELOW_US)


def ask_names(names: Sequence[str]) -> dict[str, Program]:
    """Start to resolve names; ``unresolved`` takes the answers."""
    return {name: Program("getent", "ahosts", name) for name in names}


def unresolved(asked: Mapping[str, Program]) -> list[str]:
    """The names that have no address; none where there is no getent to ask."""
    answers = {name: program.answer(_NAME_TIMEOUT_S) for name, program in asked.items()}
    return [name for name, answer in answers.items() if answer.found and not answer.text.strip()]


def ask_gpu_users() -> Program:
    """Start nvidia-smi; ``gpu_users`` takes its answer. The query works on GB10, where totals do not."""
    return Program("nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits")


def gpu_users(root: Path, asked: Program) -> list[dict[str, Any]]:
    """Programs with memory on the GPU: ``pid``, ``name``, ``gib``, and the id of their ``container``, where in one."""
    found = []
    for line in asked.answer(_GPU_TIMEOUT_S).text.splitlines():
        pid, rest = line.partition(",")[::2]
        name, mib = rest.rpartition(",")[::2]
        if not pid.strip().isdecimal():
            continue
        try:
            ids = _CONTAINER.findall((root / "proc" / pid.strip() / "cgroup").read_text(encoding="utf-8"))
        except OSError:
            ids = []
        found.append(
            {
                "pid": int(pid),
                "name": Path(name.strip()).name,
                # "[N/A]" where the driver does not tell.
                "gib": round(float(mib) / _MIB_PER_GIB, 1) if mib.strip().isdecimal() else 0.0,
                "container": ids[-1] if ids else "",
            }
        )
    return found


def our_containers(contract: str) -> list[str]:
    """The names of the containers of Hearth's engines, by the contract that is on the box."""
    try:
        return [str(one["container"]) for one in json.loads(contract)["engines"]]
    except (ValueError, KeyError, TypeError):
        return []
