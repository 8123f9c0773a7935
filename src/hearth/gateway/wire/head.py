# SPDX-License-Identifier: Apache-2.0
"""The head of a request: strictly read, once, by llhttp and by rules of our own that llhttp leaves open."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar, cast

import httptools

from hearth.gateway.replies import Refusal
from hearth.gateway.wire.limits import Limits

Made = TypeVar("Made")

END = b"\r\n\r\n"
# llhttp also takes RTSP and ICE, HTTP/0.9 and 2.0, two spaces, and a fragment.
_REQUEST_LINE = re.compile(rb"([A-Z]+) ([!-\"$-~]+) HTTP/1\.([01])\r\n")
_ORIGIN_OF_ABSOLUTE = re.compile(rb"https?://[^/?]+", re.IGNORECASE)
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# More digits than any limit has, fewer than overflow anything.
_MAX_DIGITS = 18


class Headers:
    """The fields of a head, in their order, names in lower case, values as they came."""

    __slots__ = ("_first", "get", "pairs")

    def __init__(self, first: dict[bytes, bytes], pairs: list[tuple[bytes, bytes]] | None = None) -> None:
        """``pairs`` where a name comes twice; ``first`` has the first value of each."""
        self._first = first
        # The first value of a name (in lower case), None where there is none: the dict's own, asked for all the time.
        self.get: Callable[[bytes], bytes | None] = first.get
        self.pairs: Collection[tuple[bytes, bytes]] = first.items() if pairs is None else pairs

    def count(self, name: bytes) -> int:
        """How often a name (in lower case) comes."""
        if not self.has_repeats:
            return int(name in self._first)
        return sum(one == name for one, _ in self.pairs)

    @property
    def has_repeats(self) -> bool:
        """Whether a name comes more than once."""
        return len(self.pairs) > len(self._first)

    def set(self, name: bytes, value: bytes) -> None:
        """Another value for a name that comes once, where none comes more often."""
        self._first[name] = value

    def __contains__(self, name: bytes) -> bool:
        return name in self._first

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


class Head:
    """One request's head.

    ``target`` is the path and query as they came, ``path`` and ``query`` its halves, still percent-encoded. ``length``
    is the body's size in bytes, None for a chunked one. ``keep`` says whether the client wants the connection for more,
    ``expects`` whether it waits for 100 before it sends its body.
    """

    __slots__ = ("_made", "expects", "headers", "http10", "keep", "length", "method", "path", "query", "target")

    def __init__(self, method: str, target: bytes, http10: bool, headers: Headers) -> None:
        self.method = method
        self.target = target
        path, _, query = target.partition(b"?")
        self.path = path.decode()
        self.query = query.decode()
        self.http10 = http10
        self.headers = headers
        self.length = _body_length(headers, http10=http10)
        connection = headers.get(b"connection")
        # A client of HTTP/1.0 gets one answer: what it may be sent in which framing is not worth knowing.
        self.keep = not http10 and (connection is None or b"close" not in connection.lower())
        self.expects = b"expect" in headers and not http10 and self.length != 0
        self._made: dict[Callable[[Head], Any], Any] = {}

    def once(self, make: Callable[[Head], Made]) -> Made:
        """What ``make`` makes of this head, made once for all that are alike; it must not look at the length."""
        found = self._made.get(make)
        if found is None:
            found = self._made[make] = make(self)
        return cast("Made", found)


class Alike:
    """Tells that a head is the one learnt but for the number in its Content-Length, so that this is all to be read."""

    __slots__ = ("_after", "_before")

    def __init__(self) -> None:
        self._before = self._after = b""

    def learn(self, raw: bytes) -> bool:
        """Keep the bytes around the length of a head that was found to be good; False where there is none."""
        length = _LENGTH.search(raw)
        if length is None:
            self.forget()
            return False
        self._before, self._after = raw[: length.start(1)], raw[length.end(1) :]
        return True

    def forget(self) -> None:
        """Nothing is alike."""
        self._before = self._after = b""

    def length_in(self, raw: bytes) -> bytes:
        """The digits of a head that is alike; empty for any other."""
        if not self._after or not raw.startswith(self._before) or not raw.endswith(self._after):
            return b""
        length = raw[len(self._before) : -len(self._after)]
        return length if length.isdigit() and len(length) <= _MAX_DIGITS else b""


class HeadReader:
    """Reads the heads of one connection. A client's are mostly alike but for the length of the body."""

    __slots__ = ("_alike", "_last", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._alike = Alike()
        self._last: Head | None = None

    def read(self, raw: bytes) -> Head:
        """As ``parse``, which raises Refusal. One given before is changed where this is alike: its exchange is over."""
        length = self._alike.length_in(raw)
        head = self._last
        if length and head is not None:
            head.length = int(length)
            head.headers.set(b"content-length", length)
            return head
        head = self._last = parse(raw, self._limits)
        if b"expect" in head.headers or head.headers.has_repeats:
            self._alike.forget()
        else:
            self._alike.learn(raw)
        return head


class _Sink:
    """Where llhttp puts the fields: into whatever takes a name and a value."""

    __slots__ = ("on_header",)

    def __init__(self, on_header: Callable[[bytes, bytes], object]) -> None:
        self.on_header = on_header


def malformed(what: str) -> Refusal:
    """The refusal of bytes that are not a request."""
    return Refusal(400, "malformed_request", f"The request is not well-formed HTTP/1.1: {what}. Send it again as such.")


def parse(raw: bytes, limits: Limits) -> Head:
    """Read a head; ``raw`` ends with the first empty line of the connection's bytes. Raises Refusal."""
    line = _REQUEST_LINE.match(raw)
    if line is None:
        raise malformed("its first line is none of that protocol")
    headers = _fields(raw)
    if len(headers) > limits.max_headers:
        raise Refusal(431, "too_many_headers", f"The request has more than {limits.max_headers} header fields.")
    method = line[1].decode()
    if method not in _METHODS:
        raise Refusal(501, "unknown_method", f"The method {method} is not served here.")
    http10 = line[3] == b"0"
    hosts = headers.count(b"host")
    if hosts > 1 or (hosts == 0 and not http10):
        raise malformed("it needs exactly one Host field")
    if b"upgrade" in headers and b"websocket" in (headers.get(b"upgrade") or b"").lower():
        raise Refusal(400, "no_upgrade", "WebSockets are not served here: use the HTTP API.")
    return Head(method, _origin_form(line[2]), http10, headers)


def _fields(raw: bytes) -> Headers:
    """The fields of a head. Raises Refusal.

    llhttp calls for each field. A method of dict, which is written in C, costs a third of one of ours; where a name
    comes twice, the head is read once more.
    """
    first: dict[bytes, bytes] = {}
    _feed(raw, first.setdefault)
    first = {name.lower(): value for name, value in first.items()}
    if len(first) == raw.count(b"\r\n") - 2:
        return Headers(first)
    pairs: list[tuple[bytes, bytes]] = []
    _feed(raw, lambda name, value: pairs.append((name.lower(), value)))
    return Headers(dict(reversed(pairs)), pairs)


def _feed(raw: bytes, on_header: Callable[[bytes, bytes], object]) -> None:
    try:
        httptools.HttpRequestParser(_Sink(on_header)).feed_data(raw)
    except httptools.HttpParserUpgrade:
        # The fields are whole by now. Whether the upgrade is ignored or refused is for the caller.
        pass
    except httptools.HttpParserError as error:
        raise malformed(str(error).rstrip(".")) from error


def has_bare_line_feed(data: bytes) -> bool:
    """Whether these bytes can be no head of ours, so that its end need not be waited for."""
    return _BARE_LINE_FEED.search(data) is not None


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target. Raises Refusal."""
    if target[:1] == b"/":
        return target
    absolute = _ORIGIN_OF_ABSOLUTE.match(target)
    if absolute is None:
        raise malformed("its target is no path")
    rest = target[absolute.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


def _body_length(headers: Headers, *, http10: bool) -> int | None:
    """The body's length in bytes, None for a chunked one. Raises Refusal.

    llhttp refuses conflicts too, but its leniencies have changed between versions; this does not.
    """
    length = headers.get(b"content-length")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or http10 or headers.count(b"transfer-encoding") > 1:
            raise malformed("Transfer-Encoding stands beside another framing")
        if coding.strip(b" \t").lower() != b"chunked":
            raise Refusal(501, "unknown_transfer_coding", "Of the transfer codings only chunked is served here.")
        return None
    if length is None:
        return 0
    length = length.strip(b" \t")
    if not (length.isdigit() and length.isascii() and len(length) <= _MAX_DIGITS):
        raise malformed("Content-Length is no number")
    if headers.count(b"content-length") > 1:
        raise malformed("it has two Content-Length fields")
    return int(length)
