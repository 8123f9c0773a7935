# SPDX-License-Identifier: Apache-2.0
"""_daemon_back: what Hearth wrote into Docker's settings goes back, and what somebody changed since is his."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _daemon, _daemon_back

MINE = {"data-root": "/srv", "features": {"buildkit": True, "cdi": False}}
OURS = {"features": {"cdi": True}, "log-opts": {"max-size": "50m"}}


def written(note: dict[str, Any], have: dict[str, Any] | str, settings: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The note and the text after Hearth has written settings."""
    before = have if isinstance(have, str) else json.dumps(have)
    after = _daemon.merge(before, settings, {}).text
    return _daemon_back.noted(note, before, after), after


def test_a_setting_that_was_there_has_its_value_again_and_a_new_one_is_gone_with_its_table() -> None:
    note, text = written({}, MINE, OURS)

    assert _daemon_back.without(note, text) == (MINE, ["features.cdi", "log-opts.max-size"], [])


def test_what_somebody_changed_since_stays_and_is_named() -> None:
    note, text = written({}, MINE, OURS)
    text = text.replace("50m", "9m")

    want, back, kept = _daemon_back.without(note, text)

    assert want == {**MINE, "log-opts": {"max-size": "9m"}}
    assert (back, kept) == (["features.cdi"], ["log-opts.max-size"])


def test_what_was_there_at_first_stays_noted_through_later_changes_of_hearths() -> None:
    note, text = written({}, MINE, {"features": {"cdi": True}})
    note, text = written(note, text, {"features": {"cdi": "on"}})

    assert _daemon_back.without(note, text)[0] == MINE


def test_what_somebody_set_between_two_changes_of_hearths_is_what_comes_back() -> None:
    note, _ = written({}, {}, {"debug": True})
    note, text = written(note, {"debug": 1.5}, {"debug": False})

    assert _daemon_back.without(note, text)[0] == {"debug": 1.5}


def test_a_change_that_docker_did_not_run_with_and_that_was_taken_back_leaves_nothing_to_do() -> None:
    note, _ = written({}, MINE, OURS)

    assert _daemon_back.without(note, json.dumps(MINE)) == (MINE, [], [])


def test_the_note_tells_whether_the_file_was_there() -> None:
    note, text = written({}, "", OURS)
    again, _ = written(note, text, {"debug": True})
    others, _ = written({}, "{}", OURS)

    assert (note["made"], again["made"], others["made"]) == (True, True, False)


_leaf = st.one_of(st.booleans(), st.integers(0, 3), st.text("ab", max_size=2), st.lists(st.integers(0, 2), max_size=2))
_key = st.sampled_from("abc")
_settings = st.dictionaries(_key, st.one_of(_leaf, st.dictionaries(_key, _leaf, min_size=1)), max_size=3)


@given(_settings, st.lists(_settings, max_size=3))
def test_after_any_changes_of_hearths_the_file_says_what_it_said(have: dict[str, Any], changes: list[Any]) -> None:
    note: dict[str, Any] = {}
    text = json.dumps(have)
    for settings in changes:
        try:
            note, text = written(note, text, settings)
        except _daemon.SettingsError:
            continue

    assert _daemon_back.without(note, text)[0] == have
