# SPDX-License-Identifier: Apache-2.0
"""Which model a request is for: from its path, its JSON, a field of its form, or its query; and nothing more of it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from hearth.gateway.replies import Refusal
from hearth.gateway.wire import Exchange
from hearth.gateway.wire.head import Head

# What may stand after /v1/ and is no model: the API of OpenAI, of Anthropic, and what vLLM, SGLang and llama.cpp add.
ROOTS = frozenset(
    {
        "audio", "batches", "chat", "classify", "completions", "detokenize", "embeddings", "files", "images",
        "infill", "messages", "models", "moderations", "pooling", "rerank", "reranking", "responses", "score",
        "tokenize",
    }
)  # fmt: skip
_MODELS = "/v1/models/"
_BOUNDARY = re.compile(rb';[ \t]*boundary=(?:"([^"\r\n]{1,200})"|([^";,\s]{1,200}))', re.IGNORECASE)
_NAME = re.compile(rb';[ \t]*name=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
_MAX_PART_HEAD = 16 * 1024
_MAX_NAME = 1024
_READ = frozenset({b"model", b"stream"})


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for. ``model`` is None where it names none. ``stream`` says that it wants events."""

    model: str | None = None
    stream: bool = False


class _Fields(msgspec.Struct):
    """The two fields of a JSON body that are read; msgspec skips the others without making them."""

    model: Any = None
    stream: Any = None


_DECODER = msgspec.json.Decoder(_Fields)


def model_in_path(path: str) -> tuple[str, bytes] | None:
    """The model that a path names, as in /v1/scout/chat/completions, and the path without it."""
    parts = path.split("/", 3)
    if len(parts) < 4 or parts[0] or parts[1] != "v1" or not parts[2] or parts[2] in ROOTS:
        return None
    if parts[3].partition("/")[0] not in ROOTS:
        return None
    return unquote(parts[2]), f"/v1/{parts[3]}".encode()


def model_asked_about(path: str) -> str | None:
    """The model in /v1/models/NAME."""
    return unquote(path[len(_MODELS) :]) if path.startswith(_MODELS) and len(path) > len(_MODELS) else None


async def asked(exchange: Exchange) -> Asked:
    """Read on in the body until it says what it asks for; the relay hands on what was read.

    Raises Refusal for JSON that is none, and as ``Exchange.peek``.
    """
    if not exchange.body.complete:
        delimiter = exchange.head.once(_kind).delimiter
        if delimiter is not None:
            return await exchange.peek(lambda data, complete: in_form(delimiter, data, complete=complete)) or Asked()
        await exchange.read()
    return asked_in_whole(exchange)


def asked_in_whole(exchange: Exchange) -> Asked:
    """The same where the whole body has come."""
    body = exchange.body
    if body.length == 0:
        return Asked(parse_qs(exchange.query).get("model", [None])[0])
    kind = exchange.head.once(_kind)
    if kind.delimiter is None:
        return in_json(body.buffered, must=kind.is_json)
    return in_form(kind.delimiter, body.buffered, complete=True) or Asked()


class _Kind(msgspec.Struct, frozen=True):
    """What the head says of the body. ``delimiter`` is what stands before the parts of a form; None: it is none."""

    is_json: bool
    delimiter: bytes | None


def _kind(head: Head) -> _Kind:
    """Raises Refusal for a body that cannot be read."""
    coding = head.headers.get(b"content-encoding")
    if coding is not None and coding.lower() != b"identity":
        raise Refusal(415, "encoded_body", "The model of a compressed body cannot be read: send it as it is.")
    kind = head.headers.get(b"content-type") or b""
    if kind[:19].lower() != b"multipart/form-data":
        return _Kind(b"json" in kind.lower(), None)
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        raise Refusal(400, "invalid_form", "The form's Content-Type names no boundary.")
    return _Kind(False, b"--" + (boundary[1] or boundary[2]))


def in_json(data: bytes, *, must: bool = True) -> Asked:
    """What a whole JSON body asks for; ``must`` says that nothing else will do. Raises Refusal."""
    try:
        fields = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # curl -d says that it sends a form, so a body is looked at that does not say that it is JSON.
        if must or data.lstrip()[:1] == b"{":
            raise Refusal(400, "invalid_json", f"The request's body is no JSON object: {error}.") from error
        return Asked()
    if fields.model is not None and not isinstance(fields.model, str):
        raise Refusal(400, "invalid_model", "The field model holds no text.", param="model")
    return Asked(fields.model or None, fields.stream is True)


def in_form(delimiter: bytes, data: bytes, *, complete: bool) -> Asked | None:
    """What a form asks for; None while that has not come yet. ``delimiter`` is the boundary with its two hyphens.

    ``stream`` is seen where it stands before ``model``. Raises Refusal for a form that ends early or has no parts.
    """
    found: dict[bytes, str] = {}
    at = data.find(delimiter)
    while at >= 0 and b"model" not in found:
        at += len(delimiter)
        if data[at : at + 2] == b"--":
            return _asked(found)
        head = data.find(b"\r\n\r\n", at, at + _MAX_PART_HEAD)
        if head < 0:
            if len(data) - at > _MAX_PART_HEAD:
                raise Refusal(400, "invalid_form", "A part of the form has no proper head.")
            at = -1
            break
        name = _name_of(data[at:head])
        at = data.find(b"\r\n" + delimiter, head + 2)
        if name in _READ and at >= 0:
            value = data[head + 4 : at]
            if len(value) > _MAX_NAME:
                raise Refusal(400, "invalid_model", "The field model is no name.", param="model")
            found[name] = value.decode(errors="replace").strip()
        at = at + 2 if at >= 0 else -1
    if b"model" in found:
        return _asked(found)
    if complete:
        raise Refusal(400, "invalid_form", "The form has no end.")
    return None


def _name_of(head: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        if line[:20].lower() == b"content-disposition:":
            name = _NAME.search(line)
            return (name[1] or name[2] or b"") if name is not None else b""
    return b""


def _asked(found: dict[bytes, str]) -> Asked:
    return Asked(found.get(b"model") or None, found.get(b"stream", "").lower() == "true")
