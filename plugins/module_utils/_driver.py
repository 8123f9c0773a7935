# SPDX-License-Identifier: Apache-2.0
"""Does a driver go with an image, and with a GPU? Pure functions, no I/O.

An image may have a newer CUDA than the driver: NVIDIA's own images (NGC) bring CUDA's forward compatibility, with which
CUDA 13.4 runs on driver 580 (seen on 580.142, GB10 platform survey, 2.1). So what counts is the ``min_driver`` of the
image's catalog entry, not its ``cuda``.

PRIVATE to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils._gpu import numbers

# GPU (part of its name), driver branch, what is known of it (GB10 platform survey, 1.1).
BAD_BRANCHES = (("GB10", 590, "engines stand still while CUDA graphs are captured"),)


def refusal(name: str, image: Mapping[str, Any], driver: str, gpu_name: str) -> str:
    """Why the image ``name`` cannot run with this driver, in one sentence; empty where it can, or nobody knows."""
    have = numbers(driver)
    if not have:
        return ""
    wanted = numbers(image["min_driver"] or "")
    if have[: len(wanted)] < wanted:
        return (
            f"{name} wants NVIDIA's driver {image['min_driver']} or newer, and this host has {driver}: update the "
            "driver, or name another image"
        )
    for gpu, branch, what in BAD_BRANCHES:
        if gpu in gpu_name and have[0] == branch:
            return (
                f"{name} would run with NVIDIA's driver {driver}, and with {branch} on {gpu} {what}: go back to 580, "
                "or set force: true to run it all the same"
            )
    return ""
