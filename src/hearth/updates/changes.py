# SPDX-License-Identifier: Apache-2.0
"""Which packages of a box an update takes forward, in which step, and what is written down of it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from hearth.errors import HearthError

SCHEMA = 1
# begun: nobody knows how far it came; installed: nobody has looked whether the box is well with it; confirmed: it is;
# reverted: the box was taken back.
State = Literal["begun", "installed", "confirmed", "reverted"]
# "Inst libc6:i386 [2.36-9] (2.36-10 Debian:12/stable [i386])", without the first bracket for what is new (apt-get(8)).
_INST = re.compile(r"^Inst (\S+)(?: \[([^\]]+)\])? \((\S+)", flags=re.MULTILINE)
# What apt-get and dpkg say while they work, a line each, in this order of kinds.
_AT_WORK = re.compile(r"^(?:(Get):(\d+) |(Unpacking) (\S+) |(Setting up) (\S+) )", flags=re.MULTILINE)
_DID = {"Get": "fetched", "Unpacking": "unpacked", "Setting up": "set up"}


class UpdateError(HearthError):
    """A step of an update was not begun, or not finished."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A package's version before, empty for one that comes along anew, and after."""

    name: str
    before: str
    after: str

    @property
    def words(self) -> str:
        if not self.after:
            return f"{self.name} {self.before}, gone"
        return f"{self.name} {self.before} → {self.after}" if self.before else f"{self.name} {self.after}, new"

    @property
    def back(self) -> Change:
        return Change(name=self.name, before=self.after, after=self.before)


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a step: its state, when it was begun (ISO 8601), and its changes.

    ``auto``: which of these packages apt counts as brought along; ``failed``: the units that had failed before;
    ``engines``: those that ran before.
    """

    schema: int = SCHEMA
    state: State
    at: str
    changes: tuple[Change, ...]
    auto: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether something is installed, or half so, that nobody has confirmed."""
        return self.state in ("begun", "installed")

    def stays(self, *, unconfirmed: bool) -> bool:
        """Whether nothing is to be taken back; with ``unconfirmed``, of what nobody confirmed."""
        return self.state == "reverted" or (unconfirmed and self.state == "confirmed")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did; ``held``: what stays as it is, ``trouble``: what went wrong, ``told``: what apt complains of."""

    changed: bool
    changes: tuple[Change, ...] = ()
    held: tuple[Change, ...] = ()
    trouble: str = ""
    told: tuple[str, ...] = ()


def plain(name: str) -> str:
    """A package's name without an architecture."""
    return name.partition(":")[0]


def named(package: str, architecture: str, native: str) -> str:
    """A package's name as apt has it: with an architecture where that is not the box's own."""
    return package if architecture in (native, "all") else f"{package}:{architecture}"


def simulated(said: str) -> list[Change]:
    """The changes that ``apt-get --simulate`` names."""
    return [Change(name=name, before=old, after=new) for name, old, new in _INST.findall(said)]


def at_work(said: str, count: int) -> str:
    """How far a run of apt is that is to change ``count`` packages, of what it said until now; empty: nothing yet."""
    seen: dict[str, dict[str, None]] = {}
    for words in _AT_WORK.findall(said):
        kind, name = filter(None, words)
        seen.setdefault(kind, {})[name] = None
    if not seen:
        return ""
    kind = next(kind for kind in reversed(_DID) if kind in seen)
    names = list(seen[kind])
    far = f"{min(len(names), count)} of {count} {_DID[kind]}"
    return far if kind == "Get" else f"{far}, {names[-1]}"


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
    earlier = {change.name: change for change in before.changes} if before and before.state == "begun" else {}
    later = {change.name: change for change in now}
    names = dict.fromkeys([*earlier, *later])
    return tuple(
        msgspec.structs.replace(later.get(name) or earlier[name], before=earlier[name].before)
        if name in earlier
        else later[name]
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


def filed(name: str, version: str) -> tuple[str, str]:
    """What tells a package's file from others. An epoch does not: apt-get has it in a file's name, dpkg-deb has not."""
    return name, version.split(":", 1)[-1]


def file_of(stem: str, native: str) -> tuple[str, str]:
    """The same, of a file's name without its ending: package_version_architecture (deb(5))."""
    package, _, rest = stem.partition("_")
    version, _, architecture = rest.rpartition("_")
    return filed(named(package, architecture, native), version.replace("%3a", ":"))


def as_book(data: bytes, where: str) -> Book:
    """What was written down. Raises UpdateError."""
    try:
        schema = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("schema", msgspec.Raw(b""))
        if bytes(schema) not in (b"", b"%d" % SCHEMA):
            said = bytes(schema).decode(errors="replace")
            raise UpdateError(f"{where} is of another version of Hearth ({said}): use that one, or remove it")
        return msgspec.json.decode(data, type=Book)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UpdateError(f"{where} cannot be read: remove it, and what that step changed is not known") from None
