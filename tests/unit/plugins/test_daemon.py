# SPDX-License-Identifier: Apache-2.0
"""_daemon: Docker's settings are merged into what a user's daemon.json says, and nothing else in it changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _daemon

ROTATE = {"log-opts": {"max-size": "50m", "max-file": "3"}}
CDI = {"features": {"cdi": True}}
MINE = """{
  "data-root": "/srv/docker",
  "features": {"buildkit": true},
  "registry-mirrors": ["https://mirror.example"]
}
"""


def merged(text: str, settings: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None) -> Any:
    return json.loads(_daemon.merge(text, settings or {}, defaults or {}).text)


def test_a_file_that_is_not_there_gets_what_is_wanted() -> None:
    done = _daemon.merge("", CDI, ROTATE)

    assert json.loads(done.text) == {**CDI, **ROTATE}
    assert (done.keys, done.before, done.reload) == (("features", "log-opts"), "", False)


def test_what_a_user_has_stays_in_its_order_and_its_indentation() -> None:
    assert _daemon.merge(MINE, CDI, {}).text == (
        '{\n  "data-root": "/srv/docker",\n  "features": {\n    "buildkit": true,\n    "cdi": true\n  },\n'
        '  "registry-mirrors": [\n    "https://mirror.example"\n  ]\n}\n'
    )


def test_a_setting_counts_more_than_the_file_and_a_default_less() -> None:
    text = '{"features": {"cdi": false}, "log-opts": {"max-size": "10m"}}'

    assert merged(text, CDI, ROTATE) == {"features": {"cdi": True}, "log-opts": {"max-size": "10m", "max-file": "3"}}


@pytest.mark.parametrize("driver", ["journald", "none", 5])
def test_options_are_for_a_log_driver_that_knows_them(driver: object) -> None:
    assert merged(json.dumps({"log-driver": driver}), {}, ROTATE) == {"log-driver": driver}


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_log_drivers_that_rotate_get_them(driver: str) -> None:
    assert merged(json.dumps({"log-driver": driver}), {}, ROTATE) == {"log-driver": driver, **ROTATE}


def test_a_file_that_says_it_all_stays_as_it_is_to_the_last_space() -> None:
    text = '{ "features":{"cdi":true} ,\n"log-opts":{"max-size":"9m","max-file":"1"}}'

    done = _daemon.merge(text, CDI, ROTATE)

    assert (done.text, done.changed, done.before, done.after) == (text, False, "", "")


def test_a_diff_has_only_what_differs_since_the_rest_may_be_secret() -> None:
    done = _daemon.merge('{"proxies": {"http-proxy": "http://me:secret@proxy"}, "features": {}}', CDI, {})

    assert (json.loads(done.before), json.loads(done.after)) == ({"features": {}}, CDI)


@pytest.mark.parametrize(
    ("settings", "reload"),
    [({"runtimes": {"nvidia": {"path": "x"}}}, True), (CDI, False), ({"runtimes": {}, "mtu": 1400}, False)],
)
def test_what_docker_takes_over_without_a_restart(settings: dict[str, Any], reload: bool) -> None:
    assert _daemon.merge("", settings, {}).reload is reload


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param('{\n  "debug" true\n}\n', "is no JSON: line 2, column 11: ", id="a colon is missing"),
        pytest.param("debug: true", "is no JSON: line 1, column 1: ", id="YAML"),
        pytest.param("[]", "must be a table of settings, {…}, is a list", id="a list"),
        pytest.param("null", "must be a table of settings, {…}, is null", id="null"),
        pytest.param('{"features": [1]}', "has a list as features, where a table is wanted", id="no table"),
        pytest.param("[" * 100_000, "is nested too deeply", id="too deep"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(_daemon.SettingsError) as error:
        _daemon.merge(text, CDI, ROTATE)

    assert str(error.value).startswith(words)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.text("ab-é", max_size=2), below, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(st.text("ab-é", max_size=2), VALUES, max_size=4)


@given(TABLES, TABLES, TABLES)
def test_once_merged_always_merged(have: dict[str, Any], settings: dict[str, Any], defaults: dict[str, Any]) -> None:
    try:
        first = _daemon.merge(json.dumps(have), settings, defaults)
    except _daemon.SettingsError:
        return
    again = _daemon.merge(first.text, settings, defaults)

    assert (again.changed, again.text) == (False, first.text)
    assert set(have) <= set(json.loads(first.text))
