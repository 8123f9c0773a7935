# SPDX-License-Identifier: Apache-2.0
"""What the trial of an image reads of an engine's help is what its parser takes: asked of the real programs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest
from test_parsers import CATALOG, LLAMA_IMAGE, VENV, missing, models_of

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _engines
from hearth.images import smoke

# SGLang's server looks for a GPU before it prints its help: its parser is asked for the same text.
_SGLANG = """
import argparse
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
print(parser.format_help())
"""
COMMANDS: dict[str, Sequence[str]] = {
    "vllm": (str(VENV / "bin/vllm"), "serve", "--help=all"),
    "sglang": (str(VENV / "bin/python"), "-c", _SGLANG),
    "llama.cpp": ("docker", "run", "--rm", "--network", "none", LLAMA_IMAGE, "--help"),
}
FEWEST = {"vllm": 300, "sglang": 400, "llama.cpp": 200}


@pytest.fixture(scope="session")
def helps() -> dict[str, tuple[str, ...]]:
    """The flags that each engine's help names."""
    if not (VENV / ".ready").exists():
        missing("the engines' virtualenv .cache/engines/venv is not there")
    return {
        engine: smoke.flags_of(subprocess.run(command, capture_output=True, text=True, timeout=600, check=False).stdout)
        for engine, command in COMMANDS.items()
    }


@pytest.mark.parametrize("engine", COMMANDS)
def test_a_help_is_read_as_a_list_of_flags(engine: str, helps: dict[str, tuple[str, ...]]) -> None:
    assert len(helps[engine]) >= FEWEST[engine]
    assert smoke.unknown(["--no-such-flag"], helps[engine]) == ["--no-such-flag"]


@pytest.mark.parametrize("name", models_of(*COMMANDS))
def test_flags_of_a_model_are_found_in_the_help(name: str, helps: dict[str, tuple[str, ...]]) -> None:
    model = CATALOG.models[name]
    run = _engines.Run(name=name, model=model, port=30000, total_gib=_catalog.SPARK_GIB, gpu=True)
    flags = [flag for flag in _engines.flags(run) if flag not in model["fork_flags"]]

    assert smoke.unknown(flags, helps[model["engine"]]) == []
