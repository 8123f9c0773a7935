# SPDX-License-Identifier: Apache-2.0
"""An apt repository with its key and a pin of its packages, added whole or not at all.

PRIVATE to the collection. Standard library and Ansible's own HTTP only: it runs on a fresh host.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.hearth.spark.plugins.module_utils import _fileset, _openpgp, _program

_UPDATE_S = 300.0
_LOCK_INTERVAL_S = 2.0
# apt.conf(5): only this source, whose lists alone are fetched, and every failure is one.
_ONLY = ("-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Get::List-Cleanup=0", "-o", "APT::Update::Error-Mode=any")
_LOCKED = "Could not get lock"


class SourceError(Exception):
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is wanted. ``repository`` is what follows the options in a line of sources.list(5).

    ``key`` is a key's text, and ``key_url`` where that is fetched from otherwise; ``fingerprint`` is that of the only
    primary key that may be in it, empty for a text that is trusted as it is. ``packages`` are pinned to ``version``
    where that is not empty.
    """

    name: str
    repository: str
    key: str
    key_url: str
    fingerprint: str
    packages: Sequence[str]
    version: str


class Apt:
    """apt on this host. ``fetch`` gets what is at a URL, and raises OSError or ValueError."""

    def __init__(self, fetch: Callable[[str], bytes], root: Path = Path("/")) -> None:
        self._fetch = fetch
        self._etc = root / "etc/apt"

    def keyring(self, source: Source) -> Path:
        return self._etc / f"keyrings/{source.name}.asc"

    def source_list(self, source: Source) -> Path:
        return self._etc / f"sources.list.d/{source.name}.list"

    def key(self, source: Source) -> str:
        """The key's text: the one that is on the box already, where it is the right one. Raises SourceError."""
        wanted = re.sub(r"\s", "", source.fingerprint).upper()
        if source.key:
            return _checked(source.key, "the key", wanted)
        with suppress(OSError, UnicodeDecodeError, SourceError):
            return _checked(self.keyring(source).read_text(encoding="utf-8"), "", wanted)
        try:
            text = self._fetch(source.key_url).decode()
        except (OSError, ValueError) as error:
            raise SourceError(
                f"the key of the repository could not be fetched from {source.key_url} ({error}): check the box's way "
                "there, or give the key's text"
            ) from None
        return _checked(text, f"what is at {source.key_url}", wanted)

    def entries(self, source: Source, key: str) -> list[_fileset.Entry]:
        """The files: keyring, list, and the pin."""
        line = f"deb [signed-by={self.keyring(source)}] {source.repository}\n"
        files = {self.keyring(source): key, self.source_list(source): line}
        pin = self._etc / f"preferences.d/{source.name}"
        if source.version:
            # apt_preferences(5): 1000 is chosen before any newer version, and takes none back.
            files[pin] = f"Package: {' '.join(source.packages)}\nPin: version {source.version}\nPin-Priority: 1000\n"
        return [
            _entry(self._etc / "keyrings", state="directory"),
            *(_entry(path, content=content) for path, content in files.items()),
            *([] if source.version else [_entry(pin, state="absent")]),
        ]

    def update(self, source: Source, lock_timeout_s: float) -> None:
        """Fetch the repository's list of packages, and see that what is wanted is in it. Raises SourceError."""
        file = self.source_list(source)
        deadline = time.monotonic() + lock_timeout_s
        while True:
            said = _apt("apt-get", "update", "-o", f"Dir::Etc::SourceList={file}", *_ONLY)
            if _LOCKED not in said or time.monotonic() >= deadline:
                break
            time.sleep(_LOCK_INTERVAL_S)
        if said:
            raise SourceError(f"apt cannot use {source.repository} ({said})")
        for package in source.packages:
            code, known = _output("apt-cache", "madison", package)
            if code:
                # One that was there before may say other things of the same repository.
                raise SourceError(f"apt cannot use its sources with {source.repository} ({_words(known)})")
            there = _versions(known)
            if not there or (source.version and source.version not in there):
                raise SourceError(
                    f"{source.repository} has no {package}{f' {source.version}' if source.version else ''}: it has "
                    f"{', '.join(there) or 'none at all'}"
                )


def ensure(apt: Apt, source: Source, *, fresh: bool, lock_timeout_s: float, check: bool) -> _fileset.Result:
    """Bring its files to what they should be; where that changes anything, or with ``fresh``, look at its packages.

    Raises SourceError, with all files as they were.
    """
    if check and not source.key and not apt.keyring(source).exists():
        key = f"(the key {source.fingerprint} from {source.key_url})\n"
    else:
        key = apt.key(source)
    entries = apt.entries(source, key)
    before = {entry.path: entry.path.read_bytes() if entry.path.is_file() else None for entry in entries}
    try:
        result = _fileset.apply(entries, [], check)
        if not check and (result.changed or fresh):
            apt.update(source, lock_timeout_s)
    except (_fileset.FileSetError, SourceError) as error:
        if not check:
            _restore(before)
        raise SourceError(str(error)) from None
    return result


def _restore(before: dict[Path, bytes | None]) -> None:
    for path, content in before.items():
        if content is not None:
            _fileset.write(path, content, 0o644, os.geteuid(), os.getegid())
        elif path.is_file():
            path.unlink()


def _entry(path: Path, state: str = "file", content: str = "") -> _fileset.Entry:
    mode = 0o755 if state == "directory" else 0o644
    return _fileset.Entry(
        path=path, state=state, content=content, generate="", mode=mode, owner="", group="", adopt=False, secret=False
    )


def _checked(text: str, what: str, wanted: str) -> str:
    """The text, which has the wanted key in it and no other. Raises SourceError."""
    try:
        found = _openpgp.fingerprints(text)
    except _openpgp.KeyFileError as error:
        raise SourceError(f"{what} {error}: check where it is from") from None
    if wanted and set(found) != {wanted}:
        raise SourceError(
            f"{what} has the fingerprint {' and '.join(found)}, and {wanted} is wanted: ask whose key that is before "
            "you trust it"
        )
    return text if text.endswith("\n") else text + "\n"


def _versions(madison: str) -> list[str]:
    """The versions in what apt-cache madison says, newest first as it has them."""
    fields = (line.split("|") for line in madison.splitlines())
    return list(dict.fromkeys(parts[1].strip() for parts in fields if len(parts) > 2 and "Packages" in parts[2]))


def _apt(*command: str) -> str:
    """Why a command of apt failed, in its words; empty where it did not."""
    code, said = _output(*command)
    return (_words(said) or f"{command[0]} ended with {code}") if code else ""


def _words(said: str) -> str:
    """What it complains of, each once."""
    lines = [line.strip() for line in said.splitlines()]
    return "; ".join(dict.fromkeys(line[2:].strip() for line in lines if line.startswith(("E:", "W:"))))


def _output(*command: str) -> tuple[int, str]:
    done = _program.run(*command, timeout_s=_UPDATE_S)
    if done.returncode in (_program.NO_PROGRAM, _program.LATE):
        return 1, f"E: {command[0]}: {done.stderr}"
    return done.returncode, done.stdout + done.stderr
