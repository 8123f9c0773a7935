# SPDX-License-Identifier: Apache-2.0
"""hearth completion: what shells complete the command by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import commands
import pytest
from commands import Run

from hearth.cli import app, arguments, completion

if TYPE_CHECKING:
    from switchbox import Box


@pytest.fixture
def run(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return commands.runner(box, monkeypatch, capsys)


def test_models_are_names_and_aliases(run: Run, box: Box) -> None:
    box.change_engine("new", aliases=("newest",))

    assert run("completion", "models") == (0, "old\nnew\nnewest\nsmall\nembed\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_needs_no_contract(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert app.main(["--engines", "/nonexistent/engines.json", "completion", shell]) == 0

    assert "hearth completion models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("hearth", "sw"), ["switch"]),
        (("hearth", "switch", "n"), ["new", "newest", "none"]),
        (("hearth", "start", "n"), ["new", "newest"]),
        (("hearth", "switch", "--lane", ""), ["main", "utility"]),
        (("hearth", "logs", "new", "--f"), ["--follow"]),
    ],
)
def test_bash_completes(tmp_path: Path, words: tuple[str, ...], found: list[str]) -> None:
    command = tmp_path / "hearth"
    command.write_text("#!/bin/sh\nprintf '%s\\n' old new newest\n")
    command.chmod(0o755)
    script = completion.script(arguments.parser(), "bash")
    asks = f"""{script}
COMP_WORDS=({" ".join(word or "''" for word in words)}); COMP_CWORD={len(words) - 1}
$(complete -p hearth | sed 's/.*-F \\([^ ]*\\).*/\\1/') hearth "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", asks], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )

    assert done.stdout.split() == found


def test_the_library_that_writes_it_is_asked_of_nobody_else() -> None:
    code = "import sys, hearth.cli.app; sys.exit('shtab' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, env=commands.ENVIRONMENT).returncode == 0
