# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.progress: what somebody who waits for a change is told."""

from __future__ import annotations

from typing import get_args

import pytest

from hearth.switching.progress import Phase, Progress, say_nothing


@pytest.mark.parametrize(
    ("elapsed_s", "expected_s", "words"),
    [
        (0.0, 84.0, "loading scout"),
        (0.9, 84.0, "loading scout"),
        (12.4, 84.0, "loading scout, 12 of about 84 s"),
        (12.4, 0.0, "loading scout, 12 s"),
        (12.4, 0.5, "loading scout, 12 s"),
        (84.0, 84.0, "loading scout, 84 of about 84 s"),
        (90.0, 84.0, "loading scout, 90 s; 84 s were expected"),
    ],
)
def test_a_load_in_words(elapsed_s: float, expected_s: float, words: str) -> None:
    assert Progress(phase="loading", engine="scout", elapsed_s=elapsed_s, expected_s=expected_s).words == words


@pytest.mark.parametrize("phase", get_args(Phase))
def test_every_phase_has_words_that_name_the_engine(phase: Phase) -> None:
    assert "scout" in Progress(phase=phase, engine="scout").words


def test_no_two_phases_sound_the_same() -> None:
    phases = get_args(Phase)

    assert len({Progress(phase=phase, engine="scout").words for phase in phases}) == len(phases)


def test_nobody_has_to_listen() -> None:
    say_nothing(Progress(phase="loading", engine="scout"))
