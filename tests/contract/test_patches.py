# SPDX-License-Identifier: Apache-2.0
"""Patches of the recipes fit the sources that PyPI has.

The engines' virtualenv has a later SGLang than the recipe: that its patch still fits says that the repair is still
needed. Where it does not fit any more, see whether SGLang has the repair itself, and the recipe may go.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".cache" / "engines" / "venv"
RECIPE = ROOT / "catalog" / "recipes" / "sglang-llama4"
LOADER = Path("sglang/srt/models/mllama4.py")


def test_the_repair_of_llama_4_fits_the_sglang_that_is_installed(tmp_path: Path) -> None:
    installed = next(VENV.glob(f"lib/python*/site-packages/{LOADER}"), None)
    if installed is None:
        if os.environ.get("HEARTH_CONTRACT"):
            pytest.fail("no engines' virtualenv: scripts/engines-venv.sh makes it")
        pytest.skip("no engines' virtualenv")
    target = tmp_path / "sglang" / LOADER
    target.parent.mkdir(parents=True)
    shutil.copy(installed, target)
    before = target.read_text(encoding="utf-8")
    done = subprocess.run(
        [str(RECIPE / "patch.sh"), str(RECIPE / "patches"), str(tmp_path)],
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert target.read_text(encoding="utf-8") != before
    compile(target.read_text(encoding="utf-8"), str(target), "exec")
