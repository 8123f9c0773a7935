# SPDX-License-Identifier: Apache-2.0
"""``hearth`` on the box: the shell face of the package. ``hearth --help`` and docs/box.md have its exit codes."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING

import msgspec

# All else is imported where it is needed: units run `admit` and `ready` at each start, and every import takes time.
from hearth import contract, errors
from hearth.cli import arguments

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from hearth.switching.change import Change

# A download may last for hours, and the journal keeps every line.
_FETCH_EVERY_S = 30.0
_EXIT_CODES = {errors.UnknownModelError: 2, errors.UnknownKeyError: 2, errors.BusyError: 3}


def main(words: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = arguments.parser().parse_args(words)
    try:
        code = _run(options)
        sys.stdout.flush()
    except errors.HearthError as error:
        for line in error.log:
            _complain(f"  | {line}")
        _complain(f"hearth: {error}")
        return _EXIT_CODES.get(type(error), 1)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        # Whoever read has gone, as `head` does, or the terminal. Nor can Python flush what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def _run(options: argparse.Namespace) -> int:
    # What can do without the contract, or with a damaged one.
    alone = {"doctor": _doctor, "keys": _keys, "images": _images, "serve": _serve, "guard": _guard}
    if options.verb in alone:
        return alone[options.verb](options)
    if options.verb == "completion" and options.shell != "models":
        from hearth.cli import completion

        print(completion.script(arguments.parser(), options.shell))
        return 0
    known = contract.load(options.engines)
    match options.verb:
        case "status":
            return _status(known, options)
        case "switch" | "start" | "stop":
            return _change(known, options)
        case "logs":
            return _logs(known.find(options.model), options)
        case "admit":
            return _admit(known, known.find(options.model), options)
        case "fetch":
            return _fetch(known.find(options.model))
        case "ready":
            return _ready(known.find(options.model), options.pid)
        case _:
            _print(name for engine in known.engines for name in (engine.name, *engine.aliases))
            return 0


def _status(known: contract.Contract, options: argparse.Namespace) -> int:
    from hearth.admission import admit
    from hearth.cli import standing, tables

    states = admit.HOST.read_states([engine.unit for engine in known.engines])
    found = standing.look(known, states, admit.HOST)
    if options.json:
        _print_json(found)
    else:
        _print(tables.status(found, time.time()))
    return 0


def _asked(options: argparse.Namespace) -> Change:
    """The change that the options ask for."""
    from hearth.switching.change import Change

    match options.verb:
        case "switch":
            name = None if options.model == "none" else options.model
            wanted = Change(name=name, lane=options.lane, force=options.force, timeout_s=options.timeout)
        case "start":
            wanted = Change(name=options.model, beside=True, force=options.force, timeout_s=options.timeout)
        case _:
            wanted = Change(name=options.model, stop=True)
    return msgspec.structs.replace(wanted, boot=options.boot, drain_s=options.drain)


def _change(known: contract.Contract, options: argparse.Namespace) -> int:
    import asyncio

    from hearth.admission import admit
    from hearth.cli import console, standing
    from hearth.switching import jobrun

    change, host = _asked(options), admit.HOST
    if options.dry_run:
        result = asyncio.run(jobrun.foretell(known, [change], host=host))
    else:
        watcher = console.Watcher(sys.stderr)
        with console.uninterrupted(watcher, lambda line: _complain(f"hearth: {line}"), host.run):
            pending = standing.pending(host.run)
            if pending is not None and pending.holder and options.wait:
                watcher.say(f"{pending.words}; waiting up to {options.wait:g} s for it to end")
            work = jobrun.carry_out(known, [change], lock_timeout_s=options.wait, tell=watcher, host=host)
            result = asyncio.run(work)
    if options.json:
        _print_json(result)
    else:
        _print(result.lines(foretold=options.dry_run))
    return 0


def _logs(engine: contract.Engine, options: argparse.Namespace) -> int:
    command = ["journalctl", f"--unit={engine.unit}", f"--lines={options.lines}"]
    if options.follow:
        command.append("--follow")
    try:
        os.execvp(command[0], command)  # noqa: S606 - in place of this process: Ctrl-C is then the log's
    except OSError as error:
        raise errors.HearthError(
            f"journalctl cannot be run ({error.strerror}): the log of {engine.name} is in systemd's journal"
        ) from None


def _admit(known: contract.Contract, engine: contract.Engine, options: argparse.Namespace) -> int:
    from hearth.admission import admit
    from hearth.engines import service

    if not (options.explain or options.json):
        invocation, host = service.invocation(), admit.HOST
        admit.admit(known, engine, invocation=invocation, say=lambda line: print(line, flush=True), host=host)
        return 0
    found = admit.explain(known, engine, host=admit.HOST)
    if options.json:
        _print_json(found)
    else:
        from hearth.cli import tables

        _print(tables.admission(found))
    return 0 if found.admitted else 1


def _ready(engine: contract.Engine, pid: int | None) -> int:
    if engine.engine == "ollama":
        from hearth.engines.ollama import make_ready

        seconds = make_ready(engine, pid)
    else:
        from hearth.engines.probe import wait_ready

        seconds = wait_ready(engine, engine.start_timeout_s, pid)
    from hearth.admission import admit
    from hearth.engines import service

    taken = admit.settle(engine, seconds, invocation=service.invocation(), host=admit.HOST)
    took = f", and took {max(0.0, taken):.1f} GiB" if taken is not None else ""
    print(f"hearth: {engine.name} is ready after {seconds:.1f} s on {engine.base_url}{took}")
    return 0


def _fetch(engine: contract.Engine) -> int:
    from hearth.admission import admit
    from hearth.cli import console
    from hearth.engines import fetching
    from hearth.switching.progress import Progress
    from hearth.words import gigabytes

    watcher = console.Watcher(sys.stderr, every_s=_FETCH_EVERY_S)
    try:
        result = fetching.fetch(
            engine,
            lambda progress: watcher(Progress(phase="fetching", engine=engine.name, note=progress.words)),
            admit.HOST.run,
        )
    finally:
        watcher.close()
    if result is None:
        print(f"hearth: the files of {engine.name} are there")
    else:
        print(
            f"hearth: brought {gigabytes(result.bytes_fetched)} GB of {engine.name} in {result.seconds:.1f} s, commit "
            f"{result.commit[:12]}, {gigabytes(result.bytes_total)} GB in all"
        )
    return 0


def _images(options: argparse.Namespace) -> int:
    from hearth.cli import tables
    from hearth.images import book, listing
    from hearth.images.dockerd import Docker

    rows = listing.look(book.read(), Docker())
    if options.json:
        _print_json(rows)
    else:
        _print(tables.images(rows))
    return 0


def _keys(options: argparse.Namespace) -> int:
    from hearth.cli import tables
    from hearth.gateway import keys

    if options.action == "list":
        known = keys.read(options.file)
        if options.json:
            _print_json([keys.shown(key) for key in known.values()])
        else:
            _print(tables.keys(list(known.values())))
        return 0
    if options.action == "revoke":
        with keys.change(options.file) as known:
            keys.revoke(known, options.name)
        _complain(f"hearth: the key {options.name} is good for nothing any more")
        return 0
    secret = keys.new_secret()
    with keys.change(options.file) as known:
        keys.add(
            known,
            keys.Key(
                name=options.name,
                sha256=keys.digest(secret),
                scopes=tuple(options.scope or ("models",)),
                concurrency=options.concurrency,
                per_minute=options.per_minute,
                made=keys.now(),
            ),
        )
    _complain(f"hearth: this is the key {options.name}; nobody can show it again")
    print(secret)
    return 0


def _serve(options: argparse.Namespace) -> int:
    from hearth.gateway import process, settings

    wanted = settings.load(options.settings)
    if options.engines != contract.PATH:
        wanted = msgspec.structs.replace(wanted, engines=str(options.engines))
    return process.main(wanted)


def _guard(options: argparse.Namespace) -> int:
    from hearth.guard import watch

    watch.run(options.engines, options.floor)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from hearth.admission import admit
    from hearth.cli import examine, tables

    checks = examine.box(options.engines, examine.Places(host=admit.HOST))
    if options.json:
        _print_json(checks)
    else:
        _print(tables.doctor(checks))
    return 1 if any(check.verdict == "failed" for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
