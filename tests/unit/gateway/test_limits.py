# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.limits: how much a key may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.gateway.keys import Key
from hearth.gateway.limits import Excess, Limiter

NOW_S = 1000.0


def key(name: str = "laptop", **limits: Any) -> Key:
    return Key(name=name, sha256="0" * 64, **limits)


def taken(limiter: Limiter, wanted: Key, times: int, now: float = NOW_S) -> list[Excess | None]:
    return [limiter.take(wanted, now) for _ in range(times)]


def test_without_limits_everything_is_let_through() -> None:
    assert taken(Limiter(), key(), 1000) == [None] * 1000


def test_one_too_many_at_a_time_is_told_so() -> None:
    limiter = Limiter()
    assert taken(limiter, key(concurrency=2), 2) == [None, None]

    excess = limiter.take(key(concurrency=2), NOW_S)

    assert excess is not None
    assert excess.reason == "the key 'laptop' may have 2 requests under way at a time, and has them"
    assert excess.retry_after_s > 0


def test_one_that_ended_makes_room_for_another() -> None:
    limiter = Limiter()
    taken(limiter, key(concurrency=1), 2)
    assert limiter.under_way("laptop") == 1

    limiter.give_back("laptop")

    assert limiter.take(key(concurrency=1), NOW_S) is None


def test_one_too_many_in_a_minute_is_told_when_it_would_not_be() -> None:
    limiter = Limiter()
    wanted = key(per_minute=6)
    assert taken(limiter, wanted, 6) == [None] * 6

    excess = limiter.take(wanted, NOW_S)

    assert excess is not None
    assert excess.retry_after_s == pytest.approx(10.0)
    assert limiter.take(wanted, NOW_S + 9.9) is not None
    assert limiter.take(wanted, NOW_S + 10.1) is None


def test_what_is_refused_counts_for_nothing() -> None:
    limiter = Limiter()
    wanted = key(concurrency=1, per_minute=2)
    taken(limiter, wanted, 10)
    limiter.give_back("laptop")

    assert limiter.take(wanted, NOW_S) is None


def test_keys_do_not_count_for_each_other() -> None:
    limiter = Limiter()
    taken(limiter, key("a", concurrency=1, per_minute=1), 2)

    assert limiter.take(key("b", concurrency=1, per_minute=1), NOW_S) is None


def test_a_limit_that_was_changed_counts_from_the_next_request() -> None:
    limiter = Limiter()
    taken(limiter, key(), 3)

    assert limiter.take(key(concurrency=3), NOW_S) is not None
    assert limiter.take(key(concurrency=4), NOW_S) is None
    assert limiter.take(key(per_minute=1), NOW_S + 60) is None
    assert limiter.take(key(per_minute=1), NOW_S + 60) is not None


@given(
    per_minute=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_no_minute_sees_more_than_twice_its_number(per_minute: int, gaps: list[float]) -> None:
    limiter, now, let = Limiter(), NOW_S, []
    for gap in gaps:
        now += gap
        if limiter.take(key(per_minute=per_minute), now) is None:
            let.append(now)

    assert all(sum(begun <= one < begun + 60 for one in let) <= 2 * per_minute for begun in let)


@given(per_minute=st.integers(1, 20), asked=st.integers(1, 60))
def test_who_comes_again_when_told_is_let_through(per_minute: int, asked: int) -> None:
    limiter, now = Limiter(), NOW_S
    for _ in range(asked):
        excess = limiter.take(key(per_minute=per_minute), now)
        if excess is not None:
            # A microsecond for what floats lose.
            now += excess.retry_after_s + 1e-6
            assert limiter.take(key(per_minute=per_minute), now) is None
