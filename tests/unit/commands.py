# SPDX-License-Identifier: Apache-2.0
"""``hearth`` as a person types it, on the box of ``switching``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import hearth
from hearth.admission import admit
from hearth.cli import app
from hearth.switching import jobrun

if TYPE_CHECKING:
    import pytest
    from switchbox import Box

# The exit code, and what went to stdout and stderr.
Run = Callable[..., tuple[int, str, str]]
# For a process of its own, which must not find another package of this name.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(hearth.__file__).parents[1])}


def runner(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs one command."""
    monkeypatch.setattr(admit, "HOST", box.host)
    monkeypatch.setattr(jobrun, "Systemd", box.systemd)
    path = box.models / "engines.json"

    def run(*words: str) -> tuple[int, str, str]:
        path.write_bytes(msgspec.json.encode(box.contract))
        code = app.main(["--engines", str(path), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
