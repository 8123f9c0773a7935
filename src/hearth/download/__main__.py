# SPDX-License-Identifier: Apache-2.0
"""A download as a process of its own: a Request as JSON on stdin; Progress and, last, the Result as lines of JSON.

``python -m hearth.download``; with the word ``verify``, all is hashed again. Fails with the sentence on stderr.
"""

from __future__ import annotations

import sys

import msgspec

from hearth.download import present, verify
from hearth.download.meter import Progress
from hearth.download.request import Request
from hearth.errors import HearthError


def main() -> int:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    do = verify if sys.argv[1:] == ["verify"] else present

    def tell(progress: Progress) -> None:
        _say({"progress": progress, "words": progress.words})

    try:
        result = do(request, tell)
    except HearthError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _say({"result": result})
    return 0


def _say(line: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
