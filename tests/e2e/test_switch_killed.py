# SPDX-License-Identifier: Apache-2.0
"""A change of engines that is killed, at each of its steps, and what the next command makes of it.

The killer (lab/killer.py) ends whoever holds the box's lock with SIGKILL, as soon as the change is at the named step.
Every test ends with the proof that never more engines were alive at once than memory allows (lab/meter.py).
"""

from __future__ import annotations

import pytest
from sampler import Stage

pytestmark = pytest.mark.thorough


def kill_at(stage: Stage, step: str) -> None:
    """Switch from big to other, slowly where needed, and kill that at the step; then all is quick again."""
    if step == "draining":
        stream = stage.stream("big")
        stage.until_in_flight("big")
    if step == "stopping":
        stage.mood("big", "stubborn")
        stage.box.out("systemctl restart hearth-engine-big")
    if step == "memory":
        stage.memory(linger_s=5)
    moods = {"loading": "load 2", "verifying": "pause 3", "restoring": "crash 1"}
    if step in moods:
        stage.mood("other", moods[step])
    if step == "restoring":
        stage.mood("big", "load 2")
    with stage.begin("switch", "other") as switch:
        stage.kill_at(step, "big", "other")
        switch.communicate(timeout=60)
    assert switch.returncode != 0
    if step == "draining":
        stage.end(stream)
    stage.mood("big")
    stage.mood("other")


STEPS = ["draining", "stopping", "memory", "loading", "verifying", "boot", "restoring"]


@pytest.mark.parametrize("step", STEPS)
def test_the_same_command_again_finishes_what_was_killed_while(stage: Stage, step: str) -> None:
    kill_at(stage, step)

    stage.assert_converges("switch", "other", running=["other", "helper"])

    assert stage.boots() == ["helper", "other"] or stage.boots() == ["other", "helper"]


@pytest.mark.parametrize("step", ["memory", "loading", "boot", "restoring"])
def test_going_back_is_possible_after_a_kill_while(stage: Stage, step: str) -> None:
    kill_at(stage, step)

    stage.assert_converges("switch", "big", running=["big", "helper"])

    assert stage.boots() == ["big", "helper"]


@pytest.mark.parametrize("step", ["memory", "restoring"])
def test_a_command_about_another_model_brings_back_what_ran(stage: Stage, step: str) -> None:
    kill_at(stage, step)

    stage.ok("stop", "small")

    assert stage.active() == ["big", "helper"]
    assert stage.answers("big")


@pytest.mark.parametrize("step", ["memory", "verifying", "boot"])
def test_after_a_power_cut_a_model_of_the_lane_comes_up_by_itself(stage: Stage, step: str) -> None:
    kill_at(stage, step)

    stage.box.cut_power()

    # Between the two moves of the start at boot both are to start, and admission decides.
    stage.until("systemctl is-active hearth-engine-big hearth-engine-other | grep -qx active")
    main = [name for name in stage.active() if name != "helper"]
    assert main == ["big"] or (step == "boot" and len(main) == 1)
    assert stage.answers(main[0])
    stage.assert_converges("switch", "other", running=["other", "helper"])
