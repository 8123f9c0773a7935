# SPDX-License-Identifier: Apache-2.0
"""What ``docker buildx build`` tells while it builds: its steps, how far they are, and what went wrong. Pure, no I/O.

``--progress=rawjson`` (buildx 0.13) gives BuildKit's own messages (SolveStatus of moby/buildkit, client/graph.go): one
JSON object a message, over several lines in 0.13 and on one line in later versions, and around them plain lines of
buildx itself. An older buildx gives plain lines, which are told as they are.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections import deque
from collections.abc import Iterator

import msgspec

# Log lines that are kept of each step, for who asks why it failed.
_KEPT_LINES = 40
_STEP = re.compile(r"\[(?:(?P<stage>[^\s\]]+) )?(?P<number>\d+)/(?P<of>\d+)\] (?P<what>.*)", re.DOTALL)
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LONGEST_WHAT = 60


class Vertex(msgspec.Struct):
    """A step of BuildKit's graph."""

    digest: str
    name: str = ""
    started: str | None = None
    completed: str | None = None
    cached: bool = False
    error: str = ""


class Status(msgspec.Struct):
    """Something countable of a step, such as a layer that is pulled; in bytes where ``total`` is given."""

    vertex: str
    id: str = ""
    current: int = 0
    total: int = 0


class LogLine(msgspec.Struct):
    """Output of a step's process, in base64."""

    vertex: str
    data: str = ""


class Message(msgspec.Struct):
    """One message of BuildKit; fields that this does not know are passed over."""

    vertexes: list[Vertex] = []
    statuses: list[Status] = []
    logs: list[LogLine] = []


class Standing(msgspec.Struct, frozen=True):
    """How far a build is: steps that are done, of how many, the one at work, its last word, bytes that it pulls."""

    done: int
    steps: int
    doing: str
    said: str
    bytes_done: int
    bytes_total: int


class BuildLog:
    """Follows a build line by line."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._vertexes: dict[str, Vertex] = {}
        self._numbers: dict[str, int] = {}
        self._lines: dict[str, deque[str]] = {}
        self._pulled: dict[str, dict[str, tuple[int, int]]] = {}
        self._error = ""
        self._last = ""

    def feed(self, line: str) -> list[str]:
        """Take a line of buildx, and give those for a log that a person reads."""
        line = line.rstrip("\r\n")
        if not self._open and line != "{" and not (line.startswith("{") and line.endswith("}")):
            return self._plain(line)
        self._open.append(line)
        # An object ends with a brace at the line's beginning, or is one line.
        if line == "{" or (len(self._open) > 1 and line != "}"):
            return []
        whole, self._open = "\n".join(self._open), []
        try:
            message = msgspec.json.decode(whole.encode(), type=Message)
        except msgspec.DecodeError:
            return self._plain(whole)
        return list(self._take(message))

    def _plain(self, line: str) -> list[str]:
        words = _COLOURS.sub("", line)
        if found := re.match(r"ERROR: (?:failed to (?:build|solve): )*(.*)", words):
            self._error = found[1]
        elif words.strip():
            self._last = words
        return [words]

    def _take(self, message: Message) -> Iterator[str]:
        for vertex in message.vertexes:
            yield from self._vertex(vertex)
        for status in message.statuses:
            if status.total:
                self._pulled.setdefault(status.vertex, {})[status.id] = (status.current, status.total)
        for log in message.logs:
            yield from self._log(log)

    def _vertex(self, vertex: Vertex) -> Iterator[str]:
        before = self._vertexes.get(vertex.digest)
        number = self._numbers.setdefault(vertex.digest, len(self._numbers) + 1)
        self._vertexes[vertex.digest] = vertex
        if vertex.started and not (before and before.started):
            yield f"#{number} {vertex.name}"
        if vertex.completed and not (before and before.completed):
            yield f"#{number} {f'ERROR: {vertex.error}' if vertex.error else 'CACHED' if vertex.cached else 'DONE'}"

    def _log(self, log: LogLine) -> Iterator[str]:
        text = ""
        with contextlib.suppress(binascii.Error, ValueError):
            text = base64.b64decode(log.data).decode(errors="replace")
        number = self._numbers.setdefault(log.vertex, len(self._numbers) + 1)
        kept = self._lines.setdefault(log.vertex, deque(maxlen=_KEPT_LINES))
        for line in text.splitlines():
            # A progress bar rewrites its line: what it came to counts.
            words = _COLOURS.sub("", line).rsplit("\r", 1)[-1].rstrip()
            if not words:
                continue
            kept.append(words)
            yield f"#{number} {words}"

    @property
    def standing(self) -> Standing:
        steps = [vertex for vertex in self._vertexes.values() if _STEP.match(vertex.name)]
        at_work = [vertex for vertex in steps if vertex.started and not vertex.completed]
        # Of several at once, the one that began last says most.
        now = max(at_work, key=lambda vertex: vertex.started or "", default=None)
        pulled = self._pulled.get(now.digest, {}).values() if now else ()
        lines = self._lines.get(now.digest) if now else None
        return Standing(
            done=sum(1 for vertex in steps if vertex.completed and not vertex.error),
            steps=len(steps),
            doing=step_name(now.name) if now else "",
            said=lines[-1] if lines else "" if self._vertexes else self._last,
            bytes_done=sum(current for current, _ in pulled),
            bytes_total=sum(total for _, total in pulled),
        )

    @property
    def cached(self) -> int:
        """Steps that were not done again; of a base image, nothing was pulled."""
        steps = [vertex for vertex in self._vertexes.values() if _STEP.match(vertex.name)]
        return sum(1 for one in steps if one.cached or ("] FROM " in one.name and one.digest not in self._pulled))

    @property
    def error(self) -> str:
        """What buildx said in the end, where it failed."""
        failed = self._failed
        return self._error or (failed.error if failed else "")

    @property
    def failed_step(self) -> str:
        """The step of the Dockerfile that failed, for a person; empty where none did."""
        return step_name(self._failed.name) if self._failed and _STEP.match(self._failed.name) else ""

    @property
    def failed_lines(self) -> tuple[str, ...]:
        """The last lines of the step that failed."""
        return tuple(self._lines.get(self._failed.digest, ())) if self._failed else ()

    @property
    def _failed(self) -> Vertex | None:
        # Where one step fails, the others end as cancelled.
        failed = [vertex for vertex in self._vertexes.values() if vertex.error]
        return next((vertex for vertex in failed if "context canceled" not in vertex.error), None)


def step_name(name: str) -> str:
    """``[stage 2/3] RUN --mount=… words`` as a person wants it: stage, step, and the beginning of what it does."""
    found = _STEP.match(name)
    if not found:
        return name
    words = re.sub(r"--(?:mount|chmod|checksum|from)=\S+ ", "", " ".join(found["what"].split()))
    if len(words) > _LONGEST_WHAT:
        words = words[: _LONGEST_WHAT - 1].rstrip() + "…"
    return f"{found['stage'] or 'image'} {found['number']}/{found['of']}: {words}"
