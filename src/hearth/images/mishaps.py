# SPDX-License-Identifier: Apache-2.0
"""Why a build failed and what to do about it, from what BuildKit and the failed step's process said. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class _Mishap(NamedTuple):
    """What to look for in a line, and what it means; the group ``what`` may stand in the words."""

    seen: str
    words: str


# In this order: whoever has no room or no memory fails in many ways.
_MISHAPS = (
    _Mishap(
        r"no space left on device",
        "the disk is full: make room ('docker buildx prune' gives back what earlier builds left), and run this again",
    ),
    _Mishap(
        r"exit code: 137|died due to signal 9|killed signal terminated program|^killed$|cannot allocate memory",
        "a process of it was killed, as the kernel does when memory runs out: stop an engine, or lower max_jobs in a "
        "recipe of your own, and run this again; what was compiled is kept",
    ),
    _Mishap(
        r"(?:patch: (?P<what>\S+) )?does not apply",
        "the patch {what} of the recipe does not fit its source, and nothing of it was applied: they belong to "
        "different versions; take the recipe as it was released, or mend the patch",
    ),
    _Mishap(
        r"expect: (?P<what>.*does not say.*)",
        "the sources do not go together ({what}): take the recipe as it was released, or move the other sources too",
    ),
    _Mishap(
        r"met: (?P<what>.*asks for.*)",
        "the recipe's lock file does not go with its sources ({what}): take the recipe as released, or lock anew",
    ),
    _Mishap(
        r"digest mismatch|computed checksums? did not match|do not match the hashes|head is \w+ and not",
        "what was downloaded is not what the recipe names, by its checksum, so it was not used: a proxy changed it, or "
        "its owner replaced it; run this again, and if it stays so, take a newer recipe",
    ),
    _Mishap(
        r"metadata for .*(?:401 unauthorized|403 forbidden|failed to authorize|authorization failed|denied|"
        r"authentication required|no basic auth credentials|insufficient_scope)",
        "the registry {registry} gives the base image only to whoever is logged in: {login}",
    ),
    _Mishap(
        r"certificate verify failed|x509: certificate|unable to get local issuer certificate",
        "the certificate of {host} is not one that is trusted there: is the box's clock right, and does a proxy open "
        "what is encrypted? The box then needs a way around that proxy",
    ),
    _Mishap(
        r"no such host|could not resolve host|name resolution|name or service not known|i/o timeout|connection refused|"
        r"network is unreachable|no route to host|tls handshake timeout|connection timed out|connection reset by peer|"
        r"failed to establish a new connection|max retries exceeded|unexpected eof",
        "the box does not reach {host}: see to its network, its name resolution and its proxy, and run this again",
    ),
    _Mishap(
        r"metadata for (?P<what>\S+): .*not found",
        "the base image {what} is not in its registry (any more): take a newer recipe, or name a mirror in [args] of a "
        "recipe of your own",
    ),
    _Mishap(
        r"does not give commit (?P<what>\w+)",
        "a git server does not give commit {what}: it was removed there, or a mirror lags behind; take a newer recipe",
    ),
    _Mishap(
        r"invalid response status (?P<what>\d+)",
        "an address of the recipe answers with HTTP {what}: the file was moved; take a newer recipe, or give another "
        "address in [args] of a recipe of your own",
    ),
)
_HOST = re.compile(r"https?://([^/\s\"':]+)|lookup (\S+)|resolve host:? '?([\w.-]+)", re.IGNORECASE)
_NGC = "make an account and a key at ngc.nvidia.com, and give both as images_registries (the user is $oauthtoken)"


def reason(error: str, lines: Sequence[str]) -> str:
    """Half a sentence: why the build failed, and what to do. ``lines`` are the last ones of the step that failed."""
    # BuildKit's own word first, without the command of the step, which it repeats and which says nothing.
    own = re.sub(r'process ".*" did not complete', "process did not complete", error, flags=re.DOTALL)
    for mishap in _MISHAPS:
        # The last line that says it is nearest to the end.
        for line in (own, *reversed(lines)):
            if found := re.search(mishap.seen, line, re.IGNORECASE):
                words = mishap.words.format(what=_what(found), host=_host(line, lines), **_registry(error))
                return " ".join(words.split())
    last = next((line.strip() for line in reversed(lines) if line.strip()), own)
    return f"its last word was: {last}"


def _what(found: re.Match[str]) -> str:
    return (found.groupdict().get("what") or "").strip()


def _registry(error: str) -> dict[str, str]:
    found = re.search(r"metadata for ([^/\s]+)/", error)
    name = found[1] if found else "of the base image"
    return {"registry": name, "login": _NGC if name == "nvcr.io" else "give its user and password as images_registries"}


def _host(line: str, lines: Sequence[str]) -> str:
    for text in (line, *reversed(lines)):
        if found := _HOST.search(text):
            return next(group for group in found.groups() if group)
    return "the network"
