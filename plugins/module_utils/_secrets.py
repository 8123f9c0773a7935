# SPDX-License-Identifier: Apache-2.0
"""Who may read the secrets on this host. Looks only, and says no secret. Standard library only.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Shorter values are words such as true, found everywhere.
_LEAST_SECRET = 16


def look(root: Path, home: Path | None, *, owner: int = 0) -> list[dict[str, str]]:
    """Verdicts on files below ``root`` ("/", or a folder of a test): ``level`` (ok, warning), ``says``, ``todo``.

    ``home`` is that of the owner of the models; ``owner`` the number of root, another one in tests.
    """
    found = [*_hearths(root, owner), *_host_keys(root, owner), *_told(root)]
    for folder in dict.fromkeys(one for one in (root / "root", home) if one):
        found += [*_docker(folder), *_token(folder)]
    return found or [
        {"level": "ok", "says": "no secret of Hearth, Docker, Hugging Face or sshd is open to others", "todo": ""}
    ]


def _verdict(says: str, todo: str) -> dict[str, str]:
    return {"level": "warning", "says": says, "todo": todo}


def _wrong(path: Path, most: int, owner: int) -> Iterator[dict[str, str]]:
    """Whether ``path`` is anybody else's, or has mode bits beyond ``most``. What cannot be looked at is not there."""
    with suppress(OSError):
        seen = path.stat()
        mode = stat.S_IMODE(seen.st_mode)
        if seen.st_uid != owner:
            yield _verdict(f"{path} belongs to the user {seen.st_uid}", f"chown root {path}")
        if mode & ~most:
            yield _verdict(
                f"{path} has mode {mode:04o}, and should have no more than {most:04o}", f"chmod {most:04o} {path}"
            )


def _below(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_file())
    return []


def _hearths(root: Path, owner: int) -> Iterator[dict[str, str]]:
    for path in _below(root / "etc/hearth/secrets"):
        yield from _wrong(path, 0o600, owner)
    yield from _wrong(root / "etc/hearth/keys.json", 0o640, owner)


def _host_keys(root: Path, owner: int) -> Iterator[dict[str, str]]:
    for path in _below(root / "etc/ssh"):
        if re.fullmatch(r"ssh_host_\w+_key", path.name):
            yield from _wrong(path, 0o600, owner)


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _docker(home: Path) -> Iterator[dict[str, str]]:
    path = home / ".docker/config.json"
    # Not Hearth's file: whatever it is, it is looked at and no more.
    with suppress(ValueError, AttributeError):
        logins = json.loads(_text(path) or "{}").get("auths", {})
        names = [name for name, login in logins.items() if isinstance(login, dict) and login.get("auth")]
        if names:
            yield _verdict(
                f"{path} has the password of {', '.join(sorted(names))} in plain text (base64)",
                f"docker logout {names[0]} as its owner; images_registries has logins that stay in no file",
            )


def _token(home: Path) -> Iterator[dict[str, str]]:
    path = home / ".cache/huggingface/token"
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield _verdict(f"{path} has mode {mode:04o}, so others may read the token", f"chmod 0600 {path}")


def _told(root: Path) -> Iterator[dict[str, str]]:
    """Whether a secret of Hearth's is said where everybody can read it: in units, and on command lines."""
    secrets = {
        value
        for path in _below(root / "etc/hearth/secrets")
        for value in re.findall(rf"[^\s=\"']{{{_LEAST_SECRET},}}", _text(path))
    }
    if not secrets:
        return
    for path in _below(root / "etc/systemd/system"):
        if path.name.startswith("hearth-") and any(secret in _text(path) for secret in secrets):
            yield _verdict(
                f"{path} says a secret of {root / 'etc/hearth/secrets'}", "run site.yml, and make a new secret"
            )
    for process in sorted((root / "proc").glob("[0-9]*/cmdline")):
        said = _text(process)
        if any(secret in said for secret in secrets):
            program = said.partition("\0")[0]
            yield _verdict(
                f"the command line of {program} (pid {process.parent.name}) says a secret of Hearth",
                "everybody on the box can read it there: have that program read it from a file, and make a new secret",
            )
