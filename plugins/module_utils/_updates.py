# SPDX-License-Identifier: Apache-2.0
"""Which packages of a box an update takes forward, in which step, and what is written down of it. Pure functions.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

SCHEMA = 1
# A step was begun and nobody knows how far it came; all of it is installed, and nobody has looked whether the box is
# well; the box is well; the box was taken back.
BEGUN, INSTALLED, CONFIRMED, REVERTED = "begun", "installed", "confirmed", "reverted"
# "Inst libc6:i386 [2.36-9] (2.36-10 Debian:12/stable [i386])", without the first bracket for what is new (apt-get(8)).
_INST = re.compile(r"^Inst (\S+)(?: \[([^\]]+)\])? \((\S+)", flags=re.MULTILINE)


class BookError(Exception):
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A package's version before, empty for one that comes along anew, and after."""

    name: str
    before: str
    after: str

    @property
    def words(self) -> str:
        return f"{self.name} {self.before} → {self.after}" if self.before else f"{self.name} {self.after}, new"


@dataclass(frozen=True, kw_only=True)
class Book:
    """What is known of a step: its state, when it was begun (ISO 8601), and its changes.

    ``auto``: which of these packages apt counts as brought along; ``failed``: the units that had failed before;
    ``engines``: those that ran before.
    """

    state: str
    at: str
    changes: tuple[Change, ...]
    auto: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether something is installed, or half so, that nobody has confirmed."""
        return self.state in (BEGUN, INSTALLED)


def plain(name: str) -> str:
    """A package's name without an architecture."""
    return name.partition(":")[0]


def named(package: str, architecture: str, native: str) -> str:
    """A package's name as apt has it: with an architecture where that is not the box's own."""
    return package if architecture in (native, "all") else f"{package}:{architecture}"


def simulated(said: str) -> list[Change]:
    """The changes that ``apt-get --simulate`` names."""
    return [Change(name=name, before=old, after=new) for name, old, new in _INST.findall(said)]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a package's name, with or without an architecture, matches one of these (glob(7))."""
    return any(fnmatchcase(plain(name), pattern) for pattern in patterns)


def kept(installed: Iterable[str], hold: Sequence[str], only: Sequence[str]) -> list[str]:
    """What stays as it is, in the words of apt_preferences(5).

    The patterns of ``hold``, and where there is an ``only``, the names of all other packages that are installed.
    """
    others = {plain(name) for name in installed if only and not matches(name, only)}
    return [*hold, *sorted(others)]


def pins(names: Sequence[str], owners: str) -> str:
    """Preferences with which apt takes no version of these from anywhere, above those that the box's owner has.

    A negative priority bars a version, and the first record that names a package counts (apt_preferences(5)).
    """
    ours = f"Package: {' '.join(names)}\nPin: release *\nPin-Priority: -1\n" if names else ""
    return "\n".join(part for part in (ours, owners) if part.strip())


def merged(before: Book | None, now: Sequence[Change]) -> tuple[Change, ...]:
    """The changes of a step that goes on where it was cut off: from what was there before it, to what is to be now."""
    earlier = {change.name: change for change in before.changes} if before and before.state == BEGUN else {}
    later = {change.name: change for change in now}
    names = dict.fromkeys([*earlier, *later])
    return tuple(
        replace(later.get(name) or earlier[name], before=earlier[name].before) if name in earlier else later[name]
        for name in names
    )


def unlike(versions: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """What has not the version that it should have, in words; an empty version is none at all."""
    return [
        f"{name} is {versions.get(name) or 'missing'} and not {version or 'gone'}"
        for name, version in wanted.items()
        if versions.get(name, "") != version
    ]


def downloadable(shown: str, native: str) -> set[tuple[str, str]]:
    """Names (see ``named``) and versions that a source of apt has, of what ``apt-cache show`` says."""
    found = set()
    for stanza in shown.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Architecture|Version|Filename): (.+)$", stanza, flags=re.MULTILINE))
        # Without a Filename it is what is installed.
        if len(fields) == len(("Package", "Architecture", "Version", "Filename")):
            found.add((named(fields["Package"], fields["Architecture"], native), fields["Version"]))
    return found


def as_data(book: Book) -> dict[str, Any]:
    return {"schema": SCHEMA, **asdict(book)}


def as_book(read: Any, where: str) -> Book:
    """What was written down. Raises BookError."""
    try:
        if read["schema"] != SCHEMA:
            raise BookError(f"{where} is of another version of Hearth ({read['schema']}): use that one, or remove it")
        return Book(
            state=str(read["state"]),
            at=str(read["at"]),
            changes=tuple(Change(**change) for change in read["changes"]),
            auto=tuple(read["auto"]),
            failed=tuple(read["failed"]),
            engines=tuple(read["engines"]),
        )
    except (KeyError, TypeError):
        raise BookError(f"{where} cannot be read: remove it, and what that step changed is not known") from None
