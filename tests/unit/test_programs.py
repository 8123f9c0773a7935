# SPDX-License-Identifier: Apache-2.0
"""hearth.programs: a program's end, whatever becomes of it."""

from __future__ import annotations

import time

from hearth import programs


def test_what_it_said_and_how_it_ended_is_given() -> None:
    done = programs.run("sh", "-c", "echo out; echo err >&2; exit 3", timeout_s=10)

    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_one_that_is_not_there_is_named() -> None:
    done = programs.run("hearth-no-such-program", timeout_s=10)

    assert (done.returncode, done.stderr) == (programs.NO_PROGRAM, "hearth-no-such-program is not installed")


def test_one_that_does_not_end_is_ended() -> None:
    begun = time.monotonic()

    done = programs.run("sleep", "60", timeout_s=0.2)

    assert (done.returncode, done.stderr) == (programs.LATE, "no end after 0 s")
    assert time.monotonic() - begun < 30


def test_meanwhile_something_else_is_done() -> None:
    done: list[None] = []

    programs.run("sleep", "0.3", timeout_s=10, meanwhile=lambda: done.append(None), every_s=0.05)

    assert done


def test_what_is_no_text_does_not_end_it() -> None:
    assert programs.run("printf", r"\377", timeout_s=10).stdout == "\ufffd"
