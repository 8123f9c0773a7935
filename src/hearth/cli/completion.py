# SPDX-License-Identifier: Apache-2.0
"""What a shell completes ``hearth`` by: written from the parser, with the models of the box asked for at each time."""

from __future__ import annotations

import argparse

import shtab

_MODELS = "hearth completion models 2>/dev/null"
_OR_NONE = f"{_MODELS}; echo none"


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for ``shell``, bash or zsh."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list what a parser knows
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, verb in action.choices.items():
                _mark(verb, _OR_NONE if name == "switch" else _MODELS)
    return shtab.complete(parser, shell)


def _mark(verb: argparse.ArgumentParser, names: str) -> None:
    """Have its argument ``model`` completed by the names that a command prints."""
    for action in verb._actions:  # noqa: SLF001
        if action.dest == "model":
            setattr(action, "complete", shtab.cmd(names))  # noqa: B010 - argparse does not know of it
