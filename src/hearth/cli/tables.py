# SPDX-License-Identifier: Apache-2.0
"""What ``hearth`` prints for a person: lines of text from what was found or done. Pure."""

from __future__ import annotations

import calendar
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hearth.words import amount

if TYPE_CHECKING:
    from hearth.admission.verdict import Admission
    from hearth.cli.doctor import Check
    from hearth.cli.standing import Row, Standing
    from hearth.gateway.keys import Key
    from hearth.images.listing import Row as Image

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells of one column below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """How long something has lasted, to two digits or so: 12 s, 3 min, 5 h, 2 d."""
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def status(standing: Standing, now_s: float) -> list[str]:
    """``hearth status``; ``now_s`` is the time of day, in seconds since the epoch."""
    rows = [("MODEL", "STATE", "SINCE", "BOOT", "LANE", "ENGINE", "ADDRESS", "NEEDS")]
    rows += [
        (
            one.name,
            one.state,
            duration(now_s - _epoch(one.since)) if one.since else "-",
            "yes" if one.boot else "-",
            one.lane,
            one.engine,
            one.url,
            _need(one),
        )
        for one in standing.engines
    ]
    memory = standing.memory
    lines = columns(rows)
    fetching = [f"{one.name}: its files come, {one.fetching}" for one in standing.engines if one.fetching]
    lines += ["", *fetching] if fetching else []
    figures = f"{memory.available_gib:.1f} of {memory.total_gib:.1f} GiB available"
    lines += ["", f"memory: {figures}, of which {standing.floor_gib:.1f} GiB stay with the host"]
    if standing.ended is not None:
        lines.append(standing.ended.words)
    if standing.change is not None:
        remedy = standing.change.remedy
        lines.append(f"{standing.change.words}{': ' if remedy else ''}{remedy}")
    return lines


def _epoch(iso: str) -> int:
    return calendar.timegm(time.strptime(iso, "%Y-%m-%dT%H:%M:%SZ"))


def _need(row: Row) -> str:
    return f"{row.need_gib:.1f} GiB{' (measured)' if row.need_source == 'measured' else ''}"


def admission(found: Admission) -> list[str]:
    """``hearth admit --explain``: the sentence, then the figures and who holds memory."""
    source = "measured on this box" if found.source == "measured" else "of the catalog or the inventory"
    figures = [
        ("needs", found.need_gib, source),
        ("available", found.available_gib, f"of {found.total_gib:.1f} GiB; {found.free_gib:.1f} GiB of it free"),
        ("stays with the host", found.floor_gib, "the floor"),
    ]
    figures += [("missing", found.missing_gib, "")] if found.missing_gib else []
    figures += [("held", holder.gib, holder.words) for holder in found.holders]
    lines = [found.sentence, ""]
    lines += columns([(what, f"{gib:.1f} GiB", words) for what, gib, words in figures])
    if found.drops_cache:
        lines.append("page cache of model files would be given back first: too little memory is free for a GPU")
    return lines


def keys(known: Sequence[Key]) -> list[str]:
    """``hearth keys list``."""
    if not known:
        return ["there is no key: nobody is let in"]
    rows = [("KEY", "MAY", "AT A TIME", "A MINUTE", "MADE")]
    rows += [
        (one.name, ", ".join(one.scopes), str(one.concurrency or "any"), str(one.per_minute or "any"), one.made or "-")
        for one in known
    ]
    return columns(rows)


def images(rows: Sequence[Image]) -> list[str]:
    """``hearth images``."""
    if not rows:
        return ["no image is known here: site.yml brings them"]
    cells = [("IMAGE", "SIZE", "ENGINE", "TRIED OUT", "CAME", "USED BY")]
    for one in rows:
        used = [f"{name} (held)" if name in one.held_by else name for name in one.used_by]
        used += [f"{name}, to go back" for name in one.previous_of]
        used += [f"{name}, to go forward" for name in one.next_of]
        cells.append(
            (
                one.name.removeprefix("localhost/hearth/"),
                amount(one.size) if one.size else "-",
                f"{one.engine} {one.version}".strip(),
                one.smoke,
                f"{one.how} {one.at[:10]}",
                "; ".join(used) or "-",
            )
        )
    return columns(cells)


def doctor(checks: Sequence[Check]) -> list[str]:
    """``hearth doctor``: a line a check, what to do below it, and a count."""
    lines: list[str] = []
    width = max(len(check.name) for check in checks)
    for check in checks:
        lines.append(f"{check.verdict:7}  {check.name:{width}}  {check.says}")
        if check.remedy:
            lines.append(f"{'':7}  {'':{width}}  -> {check.remedy}")
    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in ("ok", "warning", "failed")}
    lines += ["", ", ".join(f"{count} {verdict}" for verdict, count in counts.items())]
    return lines
