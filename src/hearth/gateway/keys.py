# SPDX-License-Identifier: Apache-2.0
"""Who may call the gateway: named keys in /etc/hearth/keys.json, which has hashes of them and no secret.

A secret is 256 random bits, so nobody finds it by trying, and a plain SHA-256 of it is as good as a slow hash would be
for a password: it takes a microsecond a request, and no salt is needed where no two secrets are alike.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from hearth import state
from hearth.errors import KeysError, UnknownKeyError

PATH = Path("/etc/hearth/keys.json")
# Root writes, the gateway's group reads.
MODE = 0o640
# By this a person, and programs that look for leaked secrets, know one when they see it.
PREFIX = "hearth_"
_SECRET_BYTES = 32
# The headers that may carry a key: OpenAI's way, Anthropic's, and Azure's. None of them goes on to an engine.
HEADERS = (b"authorization", b"x-api-key", b"api-key")
# How long a revoked key may still be good, in seconds.
LOOK_EVERY_S = 0.5
_LOCK_TIMEOUT_S = 10.0

Scope = Literal["models", "admin"]
SCOPES: tuple[Scope, ...] = ("models", "admin")
Count = Annotated[int, msgspec.Meta(ge=0)]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key. ``sha256`` is of its secret, as hexadecimal; ``made`` is when it was made (ISO 8601, UTC).

    ``concurrency`` is how many of its requests may be under way at a time, ``per_minute`` how many may come in a
    minute; 0: as many as come.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1)] = ("models",)
    concurrency: Count = 0
    per_minute: Count = 0
    made: str = ""

    def may(self, scope: Scope) -> bool:
        """Whether the key was made for this."""
        return scope in self.scopes


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema: Literal[1]
    keys: tuple[Key, ...]


def read(path: Path = PATH) -> dict[str, Key]:
    """All keys by name. Raises KeysError where the file is missing, unreadable, or not what the schema says."""
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=_File).keys
    except FileNotFoundError:
        raise KeysError(f"{path} is missing: run site.yml against this box, which makes it") from None
    except OSError as error:
        raise KeysError(f"{path} cannot be read ({error.strerror}): run this as root") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeysError(f"{path} is not valid ({error}): {_REMEDY}") from None
    known = {key.name: key for key in keys}
    if len(known) < len(keys):
        raise KeysError(f"{path} is not valid (two keys have the same name): {_REMEDY}")
    return known


_REMEDY = "mend it, or remove it and run site.yml, and make all keys anew"


def new_secret() -> str:
    """A secret that nobody had before: 256 random bits, base64url, 50 characters in all."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def now() -> str:
    """The time of day, as ``Key.made`` has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@contextmanager
def change(path: Path = PATH) -> Iterator[dict[str, Key]]:
    """All keys by name, to be changed; what is in them at the end is written, whole or not at all.

    One at a time, and nothing is written where nothing changed or an exception came. Raises KeysError.
    """

    def busy(holder: str) -> KeysError:
        return KeysError(f"{path} is being changed by {holder}: try again")

    with state.locked(path.with_name(f".{path.name}.lock"), _LOCK_TIMEOUT_S, busy):
        before = read(path)
        known = dict(before)
        yield known
        if known == before:
            return
        try:
            # A pattern of msgspec is looked at when JSON is read, so what was made is read once.
            data = msgspec.json.format(msgspec.json.encode(_File(schema=1, keys=tuple(known.values()))))
            msgspec.json.decode(data, type=_File)
            state.replace(path, data + b"\n", MODE, path.stat().st_gid)
        except msgspec.ValidationError as error:
            raise KeysError(f"this is no key: {error}") from None
        except OSError as error:
            raise KeysError(f"{path} cannot be written ({error.strerror}): run this as root") from None


def add(known: dict[str, Key], key: Key) -> None:
    """Put a key into ``known``. Raises KeysError where there is one of that name."""
    if key.name in known:
        raise KeysError(
            f"there is a key {key.name!r}, made {known[key.name].made}: take another name, or revoke that one first"
        )
    known[key.name] = key


def shown(key: Key) -> dict[str, object]:
    """A key for programs and playbooks, without its hash."""
    return {name: value for name, value in msgspec.structs.asdict(key).items() if name != "sha256"}


def revoke(known: dict[str, Key], name: str) -> Key:
    """Take a key out of ``known``. Raises UnknownKeyError, with the closest name where one is close."""
    if name in known:
        return known.pop(name)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f": did you mean {close[0]!r}? known: " if close else "; known: "
    raise UnknownKeyError(f"there is no key {name!r}{hint}{', '.join(sorted(known)) or 'none'}")


class Keyring:
    """The keys as the gateway asks for them. It reads the file again when that has changed, at most twice a second."""

    def __init__(self, path: Path = PATH, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._known: tuple[tuple[bytes, Key], ...] = ()
        self._trouble = ""
        self._seen: tuple[int, int, int] | None = None
        self._look_at = clock()
        self._look()

    @property
    def trouble(self) -> str:
        """Why no key can be told from another, in one sentence; empty where all is well."""
        self._look()
        return self._trouble

    @property
    def known(self) -> Mapping[str, Key]:
        """All keys by name."""
        self._look()
        return {key.name: key for _, key in self._known}

    def find(self, secret: bytes) -> Key | None:
        """The key that has this secret. Takes as long for one that is nearly right as for any other.

        Raises KeysError where the file cannot be read or is damaged: then nobody is let in.
        """
        return self.of(hashlib.sha256(secret).digest())

    def of(self, sha256: bytes) -> Key | None:
        """The same, by the digest of the secret."""
        if self._clock() >= self._look_at:
            self._look()
        if self._trouble:
            raise KeysError(self._trouble)
        found = None
        for known, key in self._known:
            if hmac.compare_digest(known, sha256):
                found = key
        return found

    def _look(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        try:
            at = self._path.stat()
            # Not the time of its content: who mends its rights changes that no more than who sets the clock back.
            mark = (at.st_ctime_ns, at.st_ino, at.st_size)
        except OSError:
            mark = None
        if mark is not None and mark == self._seen:
            return
        self._seen = mark
        try:
            keys = read(self._path).values()
        except KeysError as error:
            self._known, self._trouble = (), str(error)
        else:
            self._known, self._trouble = tuple((bytes.fromhex(key.sha256), key) for key in keys), ""


def secret_in(header: Callable[[bytes], bytes | None]) -> bytes:
    """The secret of a request; empty where it has none. ``header`` gives the value of a header by its name."""
    scheme, _, rest = (header(HEADERS[0]) or b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and rest.strip():
        return rest.strip()
    for name in HEADERS[1:]:
        value = (header(name) or b"").strip()
        if value:
            return value
    return b""
