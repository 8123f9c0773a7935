# SPDX-License-Identifier: Apache-2.0
"""Trying an image out before it may serve: does it run here, and does it know the flags that its engines would give it?

It runs as its engines do, without a network, a model, and anything that lasts; it tells its version and its help, and
takes no memory of the GPU. What its help names is kept, so that a changed flag of a model is looked up without a run.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from hearth.images.book import Smoke, now
from hearth.images.errors import ImageError
from hearth.images.progress import Progress, Tell
from hearth.images.request import Want

# In commands, where the image's name belongs: a tag that was never asked for has none yet.
IMAGE = "{image}"
# vLLM imports for 15 s on a Spark, and for minutes where its image is read from the disk for the first time.
_RUN_S = 600.0
# A help that names fewer flags is no list of them: llama-server has 200, vLLM 300, SGLang 500.
_FEWEST = 30
_FLAG = re.compile(r"(?<![\w-])--[A-Za-z][\w.-]*")
# llama-server: "version: 5000 (abc)"; Ollama: "client version is 0.35.1"; vLLM and SGLang, after warnings: "0.32.0".
_VERSIONS = (
    re.compile(r"\bversion(?: is|:)? v?(\d[\w.+-]*)"),
    re.compile(r"^v?(\d+\.\d[\w.+-]*)$", flags=re.MULTILINE),
)


def flags_of(help_text: str) -> tuple[str, ...]:
    """All long flags that a help names, sorted; none where it is no list of them."""
    found = sorted({_plain(flag) for flag in _FLAG.findall(help_text)})
    return tuple(found) if len(found) >= _FEWEST else ()


def version_of(said: str) -> str:
    """The engine's version, in what it says when it is asked for that; empty where that is nothing known."""
    return next((found[1] for pattern in _VERSIONS if (found := pattern.search(said))), "")


def unknown(flags: Sequence[str], known: Sequence[str]) -> list[str]:
    """The flags that a parser with these would not take. Where none are known, nothing is."""
    if not known:
        return []
    names = set(known)
    return [flag for flag in flags if not _is_known(_plain(flag), names)]


def _plain(flag: str) -> str:
    """As parsers compare them: without a value, and a field of a value (vLLM's --compilation-config.mode)."""
    return flag.partition("=")[0].partition(".")[0].rstrip("-").replace("_", "-").lower()


def _is_known(flag: str, names: set[str]) -> bool:
    opposite = f"--{flag[5:]}" if flag.startswith("--no-") else f"--no-{flag[2:]}"
    if flag in names or opposite in names:
        return True
    # argparse takes the beginning of a flag for it, where it can be of one only.
    return sum(name.startswith(flag) for name in names) == 1


def assert_flags(want: Want, smoke: Smoke) -> None:
    """Raises ImageError with the first flag that the image would not take, of which engine, and what to do."""
    for user in want.users:
        missing = unknown(user.flags, smoke.flags)
        if missing:
            version = f" ({want.engine} {smoke.version})" if smoke.version else ""
            raise ImageError(
                f"{want.words}{version} knows no flag {missing[0]}, which {user.name} is run with: leave it out "
                f'(engines_models.{user.name}.argv: {{"{missing[0]}": false}}), or name another image'
            )


def try_out(want: Want, name: str, tell: Tell) -> Smoke:
    """Have the image of that name tell its version and its flags. Raises ImageError where it does not run."""
    tell(Progress(phase="smoke", words="its version"))
    command = _of(want.version, name)
    code, said = _run(command, want)
    if code:
        # Of the program, or of docker where there is no such program or it is for another machine.
        raise ImageError(
            f"{want.words} does not run on this box ({_last(said) or f'exit code {code}'}), so it may not serve: name "
            f"another image, or try it by hand: {' '.join(command)}",
            tuple(said.splitlines()[-20:]),
        )
    flags: tuple[str, ...] = ()
    for line in want.help:
        tell(Progress(phase="smoke", words="its flags"))
        # One that ends with an error may have said all the same what is asked; an older engine knows another way.
        flags = flags_of(_run(_of(line, name), want)[1])
        if flags:
            break
    return Smoke(at=now(), version=version_of(said), flags=flags)


def _of(command: Sequence[str], name: str) -> list[str]:
    return [name if word == IMAGE else word for word in command]


def _run(command: Sequence[str], want: Want) -> tuple[int, str]:
    """Its exit code, and what it says. Raises ImageError where it cannot be run, or does not end."""
    # A unit's processes end with the unit, a container does not: a killed run leaves it.
    container = command[command.index("--name") + 1]
    _remove(command[0], container)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_RUN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ImageError(
            f"{want.words} did not tell its version and flags within {_RUN_S:g} s, so it may not serve: try it by hand "
            f"({' '.join(command)}), or name another image"
        ) from None
    except OSError as error:
        raise ImageError(f"{command[0]} cannot be run ({error.strerror}): is Docker installed?") from None
    finally:
        _remove(command[0], container)
    return done.returncode, done.stdout.decode(errors="replace")


def _remove(docker: str, container: str) -> None:
    with suppress(OSError):
        subprocess.run(
            (docker, "rm", "--force", container), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )


def _last(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("See 'docker run")]
    return lines[-1] if lines else ""
