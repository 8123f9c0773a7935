# SPDX-License-Identifier: Apache-2.0
"""Whose keys a file of OpenPGP keys has: fingerprints only. Pure functions, no I/O.

A fresh host may have no gpg. Trust is not decided here: apt verifies every signature by itself, and keys below another
one (sub-keys) count for it only where that one has signed them. So what has to be known of a file is that there is no
other primary key in it.

PRIVATE to the collection.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

_PUBLIC_KEY = 6  # RFC 9580, 5: Packet Types
_ARMOR = re.compile(
    r"^-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\n(.*?)^-----END PGP PUBLIC KEY BLOCK-----",
    flags=re.MULTILINE | re.DOTALL,
)


class KeyFileError(ValueError):
    """One sentence that goes on from what holds the keys."""


def fingerprints(armored: str) -> list[str]:
    """The fingerprints of all primary keys in a text, as upper-case hexadecimal. Raises KeyFileError."""
    blocks = _ARMOR.findall(armored.replace("\r\n", "\n"))
    if not blocks:
        raise KeyFileError("has no OpenPGP key in it (-----BEGIN PGP PUBLIC KEY BLOCK-----)")
    found = [_fingerprint(body) for block in blocks for tag, body in _packets(_decoded(block)) if tag == _PUBLIC_KEY]
    if not found:
        raise KeyFileError("has an OpenPGP block without a key in it")
    return found


def _decoded(block: str) -> bytes:
    # Headers end with an empty line; the line that begins with "=" is a checksum (RFC 4880, 6.2), which proves nothing.
    head, body = block.partition("\n\n")[::2] if not block.startswith("\n") else ("", block)
    lines = [line.strip() for line in (body or head).splitlines()]
    try:
        return base64.b64decode("".join(line for line in lines if line and not line.startswith("=")), validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileError("has an OpenPGP block that is damaged") from None


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each packet (RFC 9580, 4.2)."""
    at = 0
    try:
        while at < len(data):
            head = data[at]
            if not head & 0x80:
                raise KeyFileError("has an OpenPGP block that is damaged")
            if head & 0x40:
                tag, length, at = head & 0x3F, *_new_length(data, at + 1)
            else:
                size = (1, 2, 4)[head & 0x03]
                tag, length, at = (head >> 2) & 0x0F, int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size
            if at + length > len(data):
                raise IndexError
            yield tag, data[at : at + length]
            at += length
    except IndexError:
        raise KeyFileError("has an OpenPGP block that is cut off, or not made of keys") from None


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return ((first - 192) << 8) + data[at + 1] + 192, at + 2
    if first == 255:
        return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    # A length that is told in parts is for data only.
    raise IndexError


def _fingerprint(body: bytes) -> str:
    """RFC 9580, 5.5.4.2: version 4, which apt's repositories have."""
    version = body[0] if body else 0
    if version != 4:
        raise KeyFileError(f"has a key of OpenPGP's version {version}; only version 4 is known here")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
