# SPDX-License-Identifier: Apache-2.0
"""Disks of this box."""

from __future__ import annotations

from pathlib import Path


def of(folder: Path) -> Path:
    """Where the disk of a folder is mounted, which need not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists()).resolve()
    return next(path for path in (there, *there.parents) if path.is_mount())
