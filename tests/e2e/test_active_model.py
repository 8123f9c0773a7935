# SPDX-License-Identifier: Apache-2.0
"""The module active_model on a real box: what it shows, what it survives, what it says."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from boxes import Box

MODEL = "/home/spark/ai/models/tiny/tiny-b/tiny-b.gguf"
DROP_IN = "/etc/systemd/system/hearth-engine-tiny-b.service.d"
INTERPRETER = "ansible_python_interpreter=/opt/hearth/venv/bin/python"
UNITS = "systemctl list-units --no-legend --plain 'hearth-switch-*' | awk '{print $1}'"


# As long as it is there, tiny-b loads; for a minute at most.
HELD = "/run/held"
HOLD = f"""[Service]
ExecStartPre=/bin/sh -c 'for i in $$(seq 600); do test -e {HELD} || exit 0; sleep 0.1; done'
"""
SWITCH = ("switch.yml", "-e", "model=tiny-b")


@pytest.fixture(autouse=True)
def _as_found(box: Box) -> Iterator[None]:
    box.out("hearth switch tiny-a")
    yield
    _wait_for_no_job(box)
    box.out(f"rm -rf {DROP_IN}; systemctl daemon-reload; test ! -e {MODEL}.kept || mv {MODEL}.kept {MODEL}")
    box.out("hearth switch tiny-a")


@pytest.fixture
def go(box: Box) -> Iterator[Callable[[], object]]:
    """tiny-b loads until this is called."""
    box.out(f"mkdir -p {DROP_IN}; cat >{DROP_IN}/slow.conf <<'END'\n{HOLD}END\ntouch {HELD}; systemctl daemon-reload")

    def done() -> None:
        box.out(f"rm -f {HELD}")

    yield done
    done()


def _wait_for_no_job(box: Box) -> None:
    deadline = time.monotonic() + 60
    while box.out(UNITS):
        assert time.monotonic() < deadline, box.out(UNITS)
        time.sleep(0.2)


def _jobs(box: Box) -> list[str]:
    return box.out("ls /run/hearth/jobs").split()


def test_a_slow_load_shows_how_it_goes_on(box: Box, go: Callable[[], object]) -> None:
    run = box.play_and(f"[{box.name}] loading tiny-b, ", go, *SWITCH, line=2)

    assert run.code == 0, run.output
    assert "tiny-b serves on http://127.0.0.1:8081 of the box (main lane)." in run.flat
    assert "stopped in " in run.flat
    assert "loaded in " in run.flat


def test_nothing_is_shown_of_a_task_with_no_log(box: Box, go: Callable[[], object]) -> None:
    book = box.inventory.with_name("no_log.yml")
    task = {"hearth.spark.active_model": {"name": "tiny-b"}, "no_log": True}
    variables = {"ansible_python_interpreter": "/opt/hearth/venv/bin/python"}
    play = {"hosts": "sparks", "gather_facts": False, "vars": variables, "tasks": [task]}
    book.write_text(json.dumps([play]), encoding="utf-8")
    # A line would come after two seconds.
    meanwhile = f"until systemctl is-active -q 'hearth-switch-*'; do sleep 0.1; done; sleep 4; rm {HELD}"
    later = threading.Thread(target=box.sh, args=(meanwhile,))
    later.start()

    run = box.ok(str(book))
    later.join()

    assert run.count("changed") == 1
    assert "tiny-b" not in run.output


def test_a_play_that_has_nothing_to_do_executes_the_module_once(box: Box) -> None:
    for _ in range(3):
        run = box.ok("switch.yml", "-e", "model=tiny-a", "-vvv")
        assert run.count("changed") == 0
        assert "Done: nothing to do." in run.flat
        # On a machine that is busy it may take more than the two seconds of a first turn.
        if run.modules == ["active_model"]:
            return

    pytest.fail(f"executed each time: {run.modules}")


def test_check_mode_tells_the_steps_and_takes_none(box: Box) -> None:
    before = _jobs(box)

    run = box.ok("switch.yml", "-e", "model=tiny-b", "--check", "--diff")

    assert "Would: stop tiny-a (" in run.flat
    assert "start tiny-b (" in run.flat
    assert "start tiny-b at boot" in run.flat
    assert "GiB available after." in run.flat
    assert "-main lane: tiny-a" in run.output
    assert "+main lane: tiny-b" in run.output
    assert box.active() == ["tiny-a"]
    assert _jobs(box) == before


def test_a_play_that_is_interrupted_does_not_stop_the_change_and_the_next_one_waits_for_it(
    box: Box, go: Callable[[], object]
) -> None:
    before = _jobs(box)
    box.play_until_killed("loading tiny-b", 0.5, *SWITCH, by=signal.SIGINT)
    first = sorted(set(_jobs(box)) - set(before))

    run = box.play_and("loading tiny-b", go, *SWITCH)

    # What the first play began, the second one reports.
    assert run.code == 0, run.output
    assert "Done: stop tiny-a (" in run.flat
    assert sorted(set(_jobs(box)) - set(before)) == first
    assert len(first) == 1
    assert box.active() == ["tiny-b"]


def test_a_change_goes_on_when_nobody_waits_for_it(box: Box, go: Callable[[], object]) -> None:
    box.play_until_killed("loading tiny-b", 0.5, *SWITCH)

    go()
    _wait_for_no_job(box)

    assert box.active() == ["tiny-b"]
    assert box.out("systemctl is-enabled hearth-engine-tiny-b") == "enabled"


def test_another_change_waits_and_says_who_holds_the_box(box: Box, go: Callable[[], object]) -> None:
    box.play_until_killed("loading tiny-b", 0.5, *SWITCH)

    run = box.play_and("waiting for another change to end (pid ", go, "switch.yml", "-e", "model=tiny-a")

    assert run.code == 0, run.output
    assert box.active() == ["tiny-a"]


def test_a_change_that_is_killed_is_told_at_once_and_set_right_by_the_next_play(
    box: Box, go: Callable[[], object]
) -> None:
    run = box.play_and("loading tiny-b", lambda: box.out(f"systemctl kill --signal=KILL $({UNITS})"), *SWITCH)

    assert run.code != 0
    assert "the change to tiny-b was cut off while loading tiny-b" in run.flat

    go()
    again = box.ok(*SWITCH)

    assert "a change to tiny-b that began at " in again.flat
    assert box.active() == ["tiny-b"]
    assert box.ok(*SWITCH).count("changed") == 0


def test_a_wait_that_is_cut_off_is_taken_up_again(box: Box, go: Callable[[], object]) -> None:
    # The process that waits, not the change: what a connection that breaks leaves.
    waits = "ps -eo pid=,args= | awk '$2 == \"/opt/hearth/venv/bin/python\" && NF == 2 {print $1}'"
    cut = f"until kill -9 $({waits}); do sleep 0.1; done 2>/dev/null"

    run = box.play_and("loading tiny-b", lambda: (box.out(cut), go()), *SWITCH)

    assert run.code == 0, run.output
    assert "the connection was lost, and is tried again" in run.flat
    assert "Done: stop tiny-a (" in run.flat


def test_a_model_that_cannot_be_loaded_is_told_with_its_log_and_what_runs_again(box: Box) -> None:
    box.out(f"cp -p {MODEL} {MODEL}.kept && echo no model >{MODEL}")

    run = box.play("switch.yml", "-e", "model=tiny-b")

    assert run.code != 0
    assert "engine tiny-b ended while it was loading: see its log; tiny-a serves again" in run.flat
    assert run.output.count("invalid magic characters") <= 2, "the log is told once"
    assert "invalid magic characters" in run.flat
    assert box.active() == ["tiny-a"]


def test_a_model_starts_beside_another_in_one_task_and_a_second_time_nothing_changes(box: Box) -> None:
    arguments = "name=tiny-a keep=true also=tiny-b boot=false"

    foretold = box.ad_hoc("hearth.spark.active_model", arguments, "-e", INTERPRETER, "--check")
    first = box.ad_hoc("hearth.spark.active_model", arguments, "-e", INTERPRETER)
    second = box.ad_hoc("hearth.spark.active_model", arguments, "-e", INTERPRETER)

    assert "start tiny-b (" in foretold.flat
    assert "CHANGED" in first.output
    assert sorted(box.active()) == ["tiny-a", "tiny-b"]
    assert "SUCCESS" in second.output
    assert "CHANGED" not in second.output
