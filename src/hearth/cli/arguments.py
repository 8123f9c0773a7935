# SPDX-License-Identifier: Apache-2.0
"""The words of the command ``hearth``: verbs, options, and what ``--help`` says of them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from hearth import __version__, contract
from hearth.switching.change import DRAIN_S

# How long a change waits for another one to end; as long as the Ansible module does.
WAIT_S = 60.0
LOG_LINES = 100

_EXIT_CODES = """exit codes:
  0    done
  1    failed, with one sentence on stderr; doctor: something failed; admit: it may not start
  2    wrong usage, or an unknown model
  3    another switch, start or stop is under way
  130  interrupted; where a change was half done, the next switch, start or stop finishes or undoes it
"""


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return value


# argparse names the type in what it says of a value that is none.
_seconds.__name__ = "number of seconds"


def _gib(text: str) -> float:
    value = _seconds(text)
    if not value:
        raise ValueError
    return value


_gib.__name__ = "number of GiB"


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


_count.__name__ = "number"


def parser() -> argparse.ArgumentParser:
    """All verbs and options."""
    root = argparse.ArgumentParser(
        prog="hearth",
        description="Engines of this box: what runs, and a safe way to change it.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"hearth {__version__}")
    root.add_argument("--engines", type=Path, default=contract.PATH, help="the contract to read (default: %(default)s)")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")

    _as_json(verbs.add_parser("status", help="what runs, and where; how much memory is available"))
    _add_changes(verbs)

    logs = verbs.add_parser("logs", help="the log of one model's engine (journalctl)")
    logs.add_argument("model")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    logs.add_argument("-n", "--lines", type=_count, default=LOG_LINES, help="newest lines (default: %(default)s)")

    _as_json(verbs.add_parser("doctor", help="every check of this box, with a verdict and what to do"))

    admit = verbs.add_parser(
        "admit",
        help="may this model be started now?",
        description="May this model be started now? Its unit asks this first, and waits where waiting may help.",
    )
    admit.add_argument("model")
    admit.add_argument(
        "--explain", action="store_true", help="only tell, with all figures and who holds memory; wait for nothing"
    )
    _as_json(admit, "for programs; implies --explain")

    ready = verbs.add_parser("ready", help="wait until a model's engine answers (its unit asks this last)")
    ready.add_argument("model")
    ready.add_argument("--pid", type=int, help="give up at once when this process ends")

    guard = verbs.add_parser(
        "guard",
        help="watch memory, and end the newest engine before the host stands still (its unit runs this)",
    )
    guard.add_argument(
        "--floor", type=_gib, required=True, metavar="GIB", help="what has to stay available, in GiB (2^30 bytes)"
    )

    fetch = verbs.add_parser(
        "fetch",
        help="bring a model's files, where the box is to do that itself (its unit asks this before its first start)",
    )
    fetch.add_argument("model", help="name or alias")

    _as_json(verbs.add_parser("images", help="the images of this box: how large, tried out, and who runs from them"))

    _add_gateway(verbs)

    completion = verbs.add_parser(
        "completion",
        help="print what a shell completes this command by",
        description='Print what a shell completes this command by: eval "$(hearth completion bash)"',
    )
    completion.add_argument(
        "shell", choices=("bash", "zsh", "models"), help="models: the names that those scripts ask for, one a line"
    )
    return root


def _add_gateway(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The gateway's verbs. Where their files are is written here too: most verbs never load what knows it."""
    keys = verbs.add_parser(
        "keys",
        help="who may call the gateway: add a key, list them, revoke one",
        description="Who may call the gateway. A change counts within a second, without a restart.",
    )
    keys.add_argument("--file", type=Path, default=Path("/etc/hearth/keys.json"), help="default: %(default)s")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser(
        "add", help="make a key; its secret is printed once, to stdout, and is written nowhere on this box"
    )
    add.add_argument("name", help="whose it is: letters, digits and . _ -")
    add.add_argument(
        "--scope",
        action="append",
        choices=("models", "admin"),
        help="what it may: ask models, or load, unload and switch them; may be said twice (default: models)",
    )
    add.add_argument("--concurrency", type=_count, default=0, metavar="N", help="requests at a time (default: any)")
    add.add_argument("--per-minute", type=_count, default=0, metavar="N", help="requests a minute (default: any)")
    _as_json(actions.add_parser("list", help="all keys, without their secrets, which nobody knows here"))
    revoke = actions.add_parser("revoke", help="take a key away; requests that it has under way end by themselves")
    revoke.add_argument("name")

    serve = verbs.add_parser("serve", help="be the gateway (its unit, hearth-gateway.service, asks this)")
    serve.add_argument("--settings", type=Path, default=Path("/etc/hearth/gateway.json"), help="default: %(default)s")


def _as_json(verb: argparse.ArgumentParser, words: str = "for programs") -> None:
    verb.add_argument("--json", action="store_true", help=words)


def _add_changes(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """switch, start and stop: one transaction, asked for in three ways."""
    switch = verbs.add_parser(
        "switch",
        help="make one model the one that runs, now and at boot",
        description="Make one model the one that runs in its lane, now and at boot. If that fails, what ran before "
        "is brought back.",
    )
    switch.add_argument("model", metavar="MODEL|none", help="name or alias; none stops the lane")
    switch.add_argument(
        "--lane", choices=("main", "utility"), default="main", help="the lane that none stops (default: %(default)s)"
    )
    switch.add_argument("--no-boot", dest="boot", action="store_false", help="leave the start at boot as it is")
    _add_start(switch)
    _add_any_change(switch)

    start = verbs.add_parser(
        "start",
        help="start a model beside what runs",
        description="Start a model beside what runs. Others of the main lane stop only where its memory is needed, "
        "least recently used first.",
    )
    start.add_argument("model", help="name or alias")
    start.add_argument("--boot", action="store_true", help="have it started at boot from now on")
    _add_start(start)
    _add_any_change(start)

    stop = verbs.add_parser("stop", help="stop a model, and no longer start it at boot")
    stop.add_argument("model", help="name or alias")
    stop.add_argument("--no-boot", dest="boot", action="store_false", help="leave the start at boot as it is")
    _add_any_change(stop)


def _add_start(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--force", action="store_true", help="try it although it is not expected to fit into memory")
    verb.add_argument(
        "--timeout",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="give up on a model that is not ready after so many seconds (default: the model's own limits)",
    )


def _add_any_change(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--drain",
        type=_seconds,
        default=DRAIN_S,
        metavar="S",
        help="seconds that requests under way may take to end (default: %(default)g)",
    )
    verb.add_argument(
        "--wait",
        type=_seconds,
        default=WAIT_S,
        metavar="S",
        help="seconds to wait for another change to end (default: %(default)g)",
    )
    verb.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    _as_json(verb)
