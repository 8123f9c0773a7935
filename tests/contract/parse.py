# SPDX-License-Identifier: Apache-2.0
"""Asks the engines' own argument parsers. Runs inside the engines' virtualenv (scripts/engines-venv.sh), not in .venv.

Reads ``[{"name": …, "engine": "vllm" | "sglang", "argv": […]}]`` on standard input, where argv is what follows
``vllm serve`` or ``python3 -m sglang.launch_server``. Prints a list of the same length and order on standard output:
``{"name": …, "engine": …, "accepted": bool, "reason": "…", "notes": ["…"]}``. Notes: what the engine would warn about.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, get_args

# No engine may look for anything outside, nor report that it was used.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")

# How an engine's help begins or goes on where a flag is kept for the sake of old scripts only.
_OUTDATED = re.compile(r"^\W*deprecated|\b(?:is|are) deprecated\b|\bhas no effect\b", re.IGNORECASE)


class RefusedError(Exception):
    """The parser's own words."""


@dataclass
class Engine:
    """A parser, what is added before the argv, and what the engine itself looks at before it loads a model."""

    parser: argparse.ArgumentParser
    # The one that knows the flags: of vLLM, the subcommand's.
    flags: argparse.ArgumentParser
    before: tuple[str, ...] = ()
    underscores: bool = False
    checks: list[Callable[[argparse.Namespace], Iterator[str]]] = field(default_factory=list)
    warns: Callable[[argparse.Namespace], Iterable[str]] = lambda args: ()

    def __post_init__(self) -> None:
        for parser in (self.parser, self.flags):
            # An abbreviation works until the next release has a second flag that begins like it.
            parser.allow_abbrev = False
            parser.error = _refuse  # type: ignore[method-assign]


def _refuse(message: str) -> NoReturn:
    raise RefusedError(message)


def vllm() -> Engine:
    """The parser of ``vllm serve``, and what ``serve`` checks of its result before it loads anything."""
    from vllm.config.speculative import SpeculativeMethod
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.entrypoints.launchers.launcher import ReasoningParserManager, ToolParserManager
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    parser = FlexibleArgumentParser(prog="vllm")
    (command,) = cmd_init()
    serve = command.subparser_init(parser.add_subparsers(dest="subparser"))

    def names(args: argparse.Namespace) -> Iterator[str]:
        # The parser takes any word for these; the engine then knows these ones.
        if not args.tool_parser_plugin:
            yield from _known("--tool-call-parser", args.tool_call_parser, ToolParserManager.list_registered())
        if not args.reasoning_parser_plugin:
            yield from _known("--reasoning-parser", args.reasoning_parser, ReasoningParserManager.list_registered())
        yield from _known("--quantization", args.quantization, QUANTIZATION_METHODS)
        if args.attention_backend and args.attention_backend.lower() != "auto":
            yield from _known("--attention-backend", args.attention_backend.upper(), AttentionBackendEnum.__members__)
        yield from _known("--load-format", args.load_format, _LOAD_FORMAT_TO_MODEL_LOADER)
        method = (args.speculative_config or {}).get("method")
        yield from _known("--speculative-config, method", method, get_args(SpeculativeMethod))

    def own(args: argparse.Namespace) -> Iterator[str]:
        # A template is a path in the container.
        args.chat_template = None
        try:
            command.validate(args)
        except (TypeError, ValueError) as error:
            yield str(error).removeprefix("Error: ")

    return Engine(parser, serve, before=("serve",), underscores=True, checks=[names, own])


def sglang() -> Engine:
    """The parser of ``sglang.launch_server``, made as it does, and what it looks at before it loads anything."""
    from sglang.srt.arg_groups.serving_hook import handle_deprecated_args
    from sglang.srt.server_args import ServerArgs
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    parser = argparse.ArgumentParser(prog="sglang serve")
    ServerArgs.add_cli_args(parser)

    def names(args: argparse.Namespace) -> Iterator[str]:
        # The parser takes any word for it.
        try:
            SpeculativeAlgorithm.from_string(args.speculative_algorithm)
        except ValueError as error:
            yield f"argument --speculative-algorithm: {error}"

    def old_values(args: argparse.Namespace) -> Iterable[str]:
        with _listening(handle_deprecated_args.__module__) as said:
            handle_deprecated_args(ServerArgs.from_cli_args(args))
        return said

    return Engine(parser, parser, checks=[names], warns=old_values)


ENGINES: dict[str, Callable[[], Engine]] = {"vllm": vllm, "sglang": sglang}


@contextlib.contextmanager
def _listening(name: str) -> Iterator[list[str]]:
    """What a logger says meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _known(flag: str, value: str | None, names: Any) -> Iterator[str]:
    if value and value not in names:
        yield f"argument {flag}: {value!r} is none of {', '.join(sorted(map(str, names)))}"


def _option(engine: Engine, word: str) -> str:
    """The flag in a word of the argv as the parser spells it; empty for a value."""
    if not word.startswith("--") or len(word) == 2 or " " in word:
        return ""
    flag = word.split("=", 1)[0]
    if engine.underscores:
        # vLLM reads --a_b as --a-b, and --config.key value as one key of --config.
        head, dot, _ = flag.partition(".")
        flag = head.replace("_", "-") if dot or head not in engine.flags._option_string_actions else head
    return flag


def _unknown(engine: Engine, flag: str) -> str:
    options = engine.flags._option_string_actions
    longer = sorted(option for option in options if option.startswith(flag))
    if longer:
        return f"{flag} is an abbreviation: write {' or '.join(longer[:4])}"
    close = difflib.get_close_matches(flag, options, n=3)
    return f"{flag} is unknown" + (f" (close to it: {', '.join(close)})" if close else "")


def _outdated(engine: Engine, flags: Sequence[str]) -> Iterator[str]:
    old = getattr(engine.flags, "_deprecated", ())
    for flag in flags:
        action = engine.flags._option_string_actions[flag]
        text = " ".join(str(action.help or "").split())
        if (
            action in old
            or getattr(action, "deprecated", False)
            or type(action).__name__.startswith("Deprecated")
            or _OUTDATED.search(text)
        ):
            yield f"{flag} is deprecated: {text}" if text else f"{flag} is deprecated"


def ask(engine: Engine, argv: Sequence[str]) -> tuple[str, list[str]]:
    """Why the engine would refuse (empty: it would not), and what it would warn about."""
    flags = [flag for word in argv if (flag := _option(engine, word))]
    options = engine.flags._option_string_actions
    unknown = [_unknown(engine, flag) for flag in dict.fromkeys(flags) if flag not in options]
    if unknown:
        return "; ".join(unknown), []
    notes = list(_outdated(engine, list(dict.fromkeys(flags))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args = engine.parser.parse_args([*engine.before, *argv])
    except RefusedError as error:
        return str(error), notes
    except SystemExit:
        return "the argv makes the engine print something and end", notes
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine would die of it just so
        return f"{type(error).__name__}: {error}", notes
    reason = "; ".join(reason for check in engine.checks for reason in check(args))
    if not reason:
        notes += [note for note in engine.warns(args) if note not in notes]
    return reason, notes


def main() -> None:
    entries = json.load(sys.stdin)
    engines: dict[str, Engine] = {}
    answers = []
    # What the engines print must not come between the lines of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        for entry in entries:
            name = entry["engine"]
            if name not in engines:
                engines[name] = ENGINES[name]()
            reason, notes = ask(engines[name], entry["argv"])
            answers.append(
                {"name": entry["name"], "engine": name, "accepted": not reason, "reason": reason, "notes": notes}
            )
    json.dump(answers, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
