# SPDX-License-Identifier: Apache-2.0
"""met.py WHO [ALLOWED…]: fails where WHO asks for what is not installed in that version.

WHO is a file of requirements, or an installed distribution. Lock files and sources are pinned apart from each other:
here it shows whether they belong together. ALLOWED are those that the image has in another version, or not, on purpose.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def asked(who: str) -> list[str]:
    if not who.endswith(".txt"):
        return list(requires(who) or ())
    lines: list[str] = []
    for line in Path(who).read_text(encoding="utf-8").splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).strip()
        if words.startswith("-r "):
            lines += asked(str(Path(who).parent / words.removeprefix("-r ").strip()))
        elif words and not words.startswith("-"):
            lines.append(words)
    return lines


def main() -> int:
    who, *allowed = sys.argv[1:]
    wrong = []
    for line in asked(who):
        wanted = Requirement(line)
        if plain(wanted.name) in map(plain, allowed) or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            have = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{line}: it is missing")
            continue
        if not wanted.specifier.contains(have, prereleases=True):
            wrong.append(f"{line}: it is {have}")
    for one in wrong:
        print(f"met: {who} asks for {one}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
