# SPDX-License-Identifier: Apache-2.0
"""The SSH server's configuration, looked at before it is put in place. Standard library only.

PRIVATE to the collection.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.hearth.spark.plugins.module_utils import _program

SSH = Path("/etc/ssh")
_PROGRAMS = ("/usr/sbin/sshd", "/usr/local/sbin/sshd")
_TIMEOUT_S = 20.0
# sshd wants this folder even where it only checks; its unit makes it when it starts.
_PRIVSEP = Path("/run/sshd")


class SshdError(Exception):
    """One sentence."""


def program() -> str:
    """The path of sshd; empty where there is none."""
    return next((path for path in _PROGRAMS if Path(path).exists()), "")


def candidate(main: str, folder: Path, instead: Path) -> str:
    """The text of the main file, with drop-ins read from ``instead`` and no longer from ``folder``.

    Includes without a leading slash are below /etc/ssh (sshd_config(5)).
    """
    name = re.escape(folder.name)
    pattern = r"(?im)^(\s*Include\b.*)$"
    inner = rf"(?:{re.escape(str(folder.parent))}/)?{name}/"
    return re.sub(pattern, lambda line: re.sub(rf"(?<=[\s\"=]){inner}", f"{instead}/", line[1]), main)


def effective(text: str) -> dict[str, list[str]]:
    """Keywords in lower case with their values, from what ``sshd -T`` says."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        word, value = line.strip().partition(" ")[::2]
        found.setdefault(word.lower(), []).append(value)
    return found


def unlike(settings: Mapping[str, list[str]], wanted: Mapping[str, str]) -> list[str]:
    """The keywords of ``wanted`` that sshd would have otherwise, each with the value it would have."""
    return [
        f"{word} {' '.join(settings.get(word.lower(), ['(unknown)']))}"
        for word, value in wanted.items()
        if settings.get(word.lower()) != [value]
    ]


def ports(settings: Mapping[str, list[str]], socket: str = "") -> list[int]:
    """The ports that sshd listens on, by its own word and by that of ssh.socket (``Listen=`` of ``systemctl show``).

    Where a socket of systemd is given, that one listens, and it may have ports of its own.
    """
    found = {int(value) for value in settings.get("port", []) if value.isdigit()}
    found |= {int(one[1]) for value in settings.get("listenaddress", []) if (one := re.search(r":(\d+)$", value))}
    found |= {int(one) for one in re.findall(r"(?:^|:)(\d+) \(Stream\)", socket.replace("Listen=", ""), re.MULTILINE)}
    return sorted(found)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run sshd. Raises SshdError where it cannot be."""
    name = program()
    if not name:
        raise SshdError(
            "there is no SSH server on this box: install openssh-server, log in by a key, and run this again"
        )
    _PRIVSEP.mkdir(mode=0o755, exist_ok=True)
    done = _program.run(name, *words, timeout_s=_TIMEOUT_S)
    if done.returncode == _program.LATE:
        raise SshdError(f"{name} does not answer: {done.stderr}")
    return done


def check(files: Mapping[Path, str | None], wanted: Mapping[str, str], ssh: Path = SSH) -> None:
    """What would be if these drop-ins were there (or, with None, not): is it valid, and does it say what is wanted?

    Nothing is put in place. Raises SshdError.
    """
    main, folder = ssh / "sshd_config", ssh / "sshd_config.d"
    with tempfile.TemporaryDirectory(prefix="hearth-sshd-") as name:
        instead = Path(name, "sshd_config.d")
        if folder.is_dir():
            shutil.copytree(folder, instead, ignore_dangling_symlinks=True)
        instead.mkdir(exist_ok=True)
        for path, text in files.items():
            if path.parent != folder:
                continue
            if text is None:
                (instead / path.name).unlink(missing_ok=True)
            else:
                (instead / path.name).write_text(text, encoding="utf-8")
        whole = Path(name, "sshd_config")
        try:
            whole.write_text(candidate(main.read_text(encoding="utf-8"), folder, instead), encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SshdError(f"{main} cannot be read: {error}") from None
        tested = run("-t", "-f", str(whole))
        if tested.returncode:
            said = tested.stderr.replace(str(instead), str(folder)).replace(str(whole), str(main)).strip()
            raise SshdError(f"sshd refuses this configuration ({'; '.join(said.splitlines())})")
        other = unlike(effective(run("-T", "-f", str(whole)).stdout), wanted)
    if other:
        raise SshdError(
            f"sshd would still have {', '.join(other)}, for what it reads first counts: see that {main} begins with "
            f"'Include {folder}/*.conf', and that no file in there that comes before Hearth's says otherwise"
        )
