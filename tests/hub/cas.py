# SPDX-License-Identifier: Apache-2.0
"""As much of a Xet storage as a download asks for: reconstructions, and ranges of xorbs (huggingface.co/docs/xet).

A file is cut into chunks of 64 KiB, not compressed; 256 of them are a xorb. Hashes of files and xorbs are names here: a
download trusts the storage for them, which is why Hearth verifies the SHA-256 of what comes.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from repos import Blob

_CHUNK = 64 * 1024
_CHUNKS = 256
_XORB = _CHUNK * _CHUNKS
# In front of each chunk: version, length as sent, compression (0: none), length; lengths of three bytes, little-endian.
_HEADER = 8


class Cas:
    def __init__(self) -> None:
        self._blobs: dict[str, Blob] = {}
        self._xorbs: dict[str, tuple[Blob, int]] = {}
        # Xet hash by SHA-256.
        self.hashes: dict[str, str] = {}

    def register(self, blob: Blob) -> str:
        """Offer a file; returns its Xet hash."""
        ident = hashlib.sha256(f"file {blob.sha256}".encode()).hexdigest()
        if ident not in self._blobs:
            self.hashes[blob.sha256] = ident
            for number in range(-(-blob.size // _XORB)):
                self._xorbs[self._xorb(ident, number)] = (blob, number)
            self._blobs[ident] = blob
        return ident

    def answer(self, path: str, headers: dict[str, str], base: str) -> Any:
        """JSON of a reconstruction, bytes of a xorb, or None for what there is not."""
        parts = path.removeprefix("/cas/").split("/")
        if parts[:2] == ["v1", "reconstructions"] and parts[2] in self._blobs:
            start, end = _range(headers)
            return self._reconstruction(parts[2], start, end, base)
        if parts[0] == "xorb" and parts[1] in self._xorbs:
            start, end = _range(headers)
            return self._serialized(*self._xorbs[parts[1]], start, end)
        return None

    @staticmethod
    def _xorb(ident: str, number: int) -> str:
        return hashlib.sha256(f"xorb {ident} {number}".encode()).hexdigest()

    def _reconstruction(self, ident: str, start: int, end: int, base: str) -> Any:
        blob = self._blobs[ident]
        end = min(end, blob.size - 1)
        if start >= blob.size:
            return None
        first, last = start // _CHUNK, end // _CHUNK
        terms, fetch = [], {}
        at = first
        while at <= last:
            number = at // _CHUNKS
            until = min(last, (number + 1) * _CHUNKS - 1) + 1
            chunks = {"start": at - number * _CHUNKS, "end": until - number * _CHUNKS}
            name = self._xorb(ident, number)
            length = min(until * _CHUNK, blob.size) - at * _CHUNK
            terms.append({"hash": name, "unpacked_length": length, "range": chunks})
            # All but the last chunk of a file are of one size.
            since = chunks["start"] * (_CHUNK + _HEADER)
            size = length + _HEADER * (until - at)
            fetch[name] = [
                {"range": chunks, "url": f"{base}/xorb/{name}", "url_range": {"start": since, "end": since + size - 1}}
            ]
            at = until
        return {"offset_into_first_range": start - first * _CHUNK, "terms": terms, "fetch_info": fetch}

    @staticmethod
    def _serialized(blob: Blob, number: int, start: int, end: int) -> bytes:
        """These bytes of a xorb; the chunks around them are made, not the whole of it."""
        step = _CHUNK + _HEADER
        first = start // step
        content = blob.read(
            number * _XORB + first * _CHUNK, min(_XORB - first * _CHUNK, (end // step - first + 1) * _CHUNK)
        )
        made = bytearray()
        for at in range(0, len(content), _CHUNK):
            chunk = content[at : at + _CHUNK]
            length = len(chunk).to_bytes(3, "little")
            made += b"\0" + length + b"\0" + length + chunk
        return bytes(made[start - first * step : end + 1 - first * step])


def _range(headers: dict[str, str]) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
    if not found:
        return 0, 1 << 62
    return int(found[1]), int(found[2] or 1 << 62)
