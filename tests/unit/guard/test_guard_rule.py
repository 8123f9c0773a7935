# SPDX-License-Identifier: Apache-2.0
"""hearth.guard.rule: when an engine has to go, and which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hearth.guard.rule import CALM_S, Guard, Running, choose

FLOOR = 5.0


def running(name: str, started: int, *, pinned: bool = False) -> Running:
    return Running(name=name, pinned=pinned, started=started)


def test_the_newest_goes() -> None:
    chosen = choose([running("old", 1), running("new", 3), running("middle", 2)])

    assert chosen is not None
    assert chosen.name == "new"


def test_pinned_ones_go_last() -> None:
    pinned = [running("old pinned", 1, pinned=True), running("new pinned", 9, pinned=True)]

    assert [
        chosen.name if chosen else None
        for chosen in (choose([*pinned, running("other", 2)]), choose(pinned), choose([]))
    ] == ["other", "new pinned", None]


def test_it_acts_at_the_first_reading_below_the_floor() -> None:
    guard = Guard(FLOOR)

    assert [guard.should_act(now, gib) for now, gib in ((0, 20), (0.2, 5.0), (0.4, 4.99))] == [False, False, True]


def test_it_then_waits_as_long_as_memory_comes_back() -> None:
    guard = Guard(FLOOR)
    assert guard.should_act(0, 1.0)

    # A GPU's memory comes back slowly, but it comes.
    readings = [(step * (CALM_S - 0.5), 1.0 + step * 0.5) for step in range(1, 8)]
    assert not any(guard.should_act(now, gib) for now, gib in readings)


def test_it_acts_again_where_memory_does_not_come_back() -> None:
    guard = Guard(FLOOR)
    assert guard.should_act(0, 4.0)

    assert not guard.should_act(CALM_S - 0.1, 4.05)
    assert guard.should_act(CALM_S + 0.1, 4.05)


def test_it_is_armed_again_only_well_above_the_floor() -> None:
    guard = Guard(FLOOR)
    assert guard.should_act(0, 4.0)

    assert not guard.should_act(1, 5.5)
    assert guard.waits
    assert not guard.should_act(2, 6.3)
    assert not guard.waits
    assert guard.should_act(2.2, 4.9)


def test_it_ends_nobody_while_enough_is_available_again_although_little() -> None:
    guard = Guard(FLOOR)
    assert guard.should_act(0, 4.0)

    assert not any(guard.should_act(now, 5.2) for now in range(1, 100))


@given(st.lists(st.floats(min_value=0, max_value=130), min_size=1))
def test_it_never_acts_above_the_floor(readings: list[float]) -> None:
    guard = Guard(FLOOR)

    acted = [gib for step, gib in enumerate(readings) if guard.should_act(step * 0.2, gib)]
    assert all(gib < FLOOR for gib in acted)


@given(st.floats(min_value=0, max_value=4.9))
def test_no_reading_below_the_floor_is_passed_over_by_an_armed_guard(gib: float) -> None:
    assert Guard(FLOOR).should_act(0, gib)
