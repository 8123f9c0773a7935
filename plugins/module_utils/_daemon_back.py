# SPDX-License-Identifier: Apache-2.0
"""What Hearth changed in Docker's settings, and how they are without it. Pure functions, no I/O.

PRIVATE to the collection. Each setting that Hearth writes is noted with what stood there before. It goes back only
where still stands what Hearth wrote: what somebody changed since is his.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SCHEMA = 1
# Stands for "nothing", which JSON cannot say of a key.
_NOTHING = object()


def parsed(text: str) -> dict[str, Any]:
    """The settings of a file; none where that is empty. Raises ValueError for no JSON, TypeError for no table."""
    found = json.loads(text) if text.strip() else {}
    if not isinstance(found, dict):
        raise TypeError("no table")
    return found


def _leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting by its path; a table without settings is one."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _at(table: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(table, Mapping) or key not in table:
            return _NOTHING
        table = table[key]
    return table


def noted(note: Mapping[str, Any], before: str, after: str) -> dict[str, Any]:
    """The note, with what changes between two texts of the file.

    What was there at first stays noted as long as what stands there now is that, or is of Hearth.
    """
    have, want = parsed(before), parsed(after)
    known = {tuple(one["path"]): one for one in note.get("settings", [])}
    for path, value in _leaves(want):
        now = _at(have, path)
        if now is not _NOTHING and now == value:
            continue
        one = known.get(path)
        ours = one is not None and (now == one["wrote"] or now == one.get("before", _NOTHING))
        first = one.get("before", _NOTHING) if one is not None and ours else now
        known[path] = {"path": list(path), "wrote": value, **({} if first is _NOTHING else {"before": first})}
    return {
        **note,
        "schema": SCHEMA,
        # Of a file that was not there nothing has to stay, not even an empty table.
        "made": bool(note["made"]) if "made" in note else not before.strip(),
        "settings": list(known.values()),
    }


def without(note: Mapping[str, Any], text: str) -> tuple[dict[str, Any], list[str], list[str]]:
    """The settings without what Hearth wrote; which went back, and which stay since somebody changed them, by name."""
    want = copy.deepcopy(parsed(text))
    back, kept = [], []
    for one in note.get("settings", []):
        path = one["path"]
        now = _at(want, path)
        if now is _NOTHING:
            continue
        name = ".".join(path)
        if now != one["wrote"]:
            if now != one.get("before", _NOTHING):
                kept.append(name)
            continue
        back.append(name)
        _put(want, path, one.get("before", _NOTHING))
    return want, back, kept


def _put(table: dict[str, Any], path: Sequence[str], value: Any) -> None:
    parents = [table]
    for key in path[:-1]:
        parents.append(parents[-1][key])
    if value is not _NOTHING:
        parents[-1][path[-1]] = value
        return
    del parents[-1][path[-1]]
    # A table that is empty now was made for it.
    for parent, key in reversed(list(zip(parents, path[:-1], strict=False))):
        if not parent[key]:
            del parent[key]
