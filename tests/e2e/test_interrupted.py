# SPDX-License-Identifier: Apache-2.0
"""site.yml that is killed anywhere, and run again, ends as one that was not; and what a fresh box is told."""

from __future__ import annotations

import re

import pytest
from boxes import Box

pytestmark = pytest.mark.thorough

# What site.yml makes: kind, mode, owner and content of it all, but for the key, which is each box's own.
STATE = r"""
find /etc/hearth /etc/systemd/system/hearth* /usr/local/bin/hearth /opt/hearth/venv /home/spark/ai \
  -not -path '*/secrets/*' -printf '%p %y %m %u:%g %l\n' | sort
stat -c '%n %a %U' /etc/hearth/secrets/*
sha256sum /etc/hearth/engines.json /etc/systemd/system/hearth*.s*
ls /opt/hearth/venvs
systemctl list-unit-files --no-legend 'hearth-*'
docker images --digests --format '{{.Repository}} {{.Digest}}' | sort
docker ps --all --format '{{.Names}}'
hearth status --json | grep -E '"(name|state|boot)"'
dpkg --audit
"""


def test_a_run_that_is_killed_three_times_ends_in_the_same_state(fresh_box: Box, box: Box) -> None:
    # While apt works, and with it everything on the box: the hardest case, as of a power cut.
    fresh_box.play_until_killed("Install packages", 4.0, "site.yml")
    fresh_box.cut_power()
    # While pip works; what runs on the box goes on, and the next run meets it.
    fresh_box.play_until_killed("Install the package hearth", 2.5, "site.yml")
    # While the engine is started.
    fresh_box.play_until_killed("Have the default model run", 0.7, "site.yml")

    fresh_box.ok("site.yml")

    assert fresh_box.ok("site.yml").count("changed") == 0
    assert _state(fresh_box) == _state(box)


def _state(box: Box) -> list[str]:
    return [re.sub(r" +", " ", line) for line in box.out(STATE).splitlines()]
