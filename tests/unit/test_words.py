# SPDX-License-Identifier: Apache-2.0
"""Amounts and times, as a person reads them."""

from __future__ import annotations

import pytest

from hearth import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (600, "10 min"), (7140, "119 min"), (7200, "2 h 0 min")],
)
def test_times_are_told_as_people_do(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (12, "12 bytes"),
        (100_000, "0.1 MB"),
        (99_900_000, "99.9 MB"),
        (100_000_000, "0.10 GB"),
        (65_400_000_000, "65.4 GB"),
    ],
)
def test_amounts_are_told_in_a_unit_that_shows_more_than_zeros(count: int, text: str) -> None:
    assert words.amount(count) == text
