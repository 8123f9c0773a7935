# SPDX-License-Identifier: Apache-2.0
"""Amounts and times as a person reads them."""

from __future__ import annotations


def gigabytes(count: int) -> str:
    """Decimal GB, as disks and hubs count."""
    return f"{count / 1e9:.1f}" if count >= 10e9 else f"{count / 1e9:.2f}"


def amount(count: int) -> str:
    """For a person: bytes in a unit that shows more than zeros."""
    if count >= 100e6:
        return f"{gigabytes(count)} GB"
    return f"{count / 1e6:.1f} MB" if count >= 100e3 else f"{count} bytes"


def span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
