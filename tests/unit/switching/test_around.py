# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.around: something takes all engines down for a moment; who ran before runs again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from hearth import errors
from hearth.switching import around as module
from hearth.switching.around import Around, around
from hearth.switching.switch import box_lock

if TYPE_CHECKING:
    from switchbox import Box

Go = Callable[..., Any]


@pytest.fixture
def go(box: Box, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Do some work around which engines are out of the way; by default it takes none of them down."""
    monkeypatch.setattr(module, "Systemd", box.systemd)

    async def go(work: Callable[[], str] = str, **fields: Any) -> Around:
        given = {"drain_s": 0.0, "lock_timeout_s": 0.0, "host": box.host, **fields}
        return await around(box.contract, work, **given)

    return go


def takes_down(box: Box, *names: str) -> Callable[[], str]:
    """What a restart of Docker does where systemd has not started the engines again yet."""

    def work() -> str:
        for name in names:
            box.systemd.set(box.unit(name), active="inactive")
        return "done"

    return work


async def test_who_ran_before_runs_again_and_who_did_not_does_not(box: Box, go: Go) -> None:
    done = await go(takes_down(box, "old", "embed"))

    assert (done.said, done.restored, done.failures) == ("done", ("old", "embed"), ())
    assert box.up == {"old", "embed"}
    assert box.at_boot == {"old", "embed"}


async def test_who_is_up_already_is_left_alone(box: Box, go: Go) -> None:
    done = await go()

    assert (done.restored, box.calls) == (("old", "embed"), [])


async def test_the_work_is_done_under_the_lock_of_all_changes(box: Box, go: Go) -> None:
    def work() -> str:
        with pytest.raises(errors.BusyError), box_lock(0.0, box.lock):
            pass
        return "held"

    assert (await go(work)).said == "held"


async def test_while_a_change_is_under_way_nothing_is_done(box: Box, go: Go) -> None:
    def work() -> str:
        pytest.fail("it was done")

    with box_lock(0.0, box.lock), pytest.raises(errors.BusyError):
        await go(work)


async def test_who_does_not_come_back_is_told_and_does_not_keep_the_others(box: Box, go: Go) -> None:
    box.systemd.start_ends[box.unit("old")] = ("failed", "failed")

    done = await go(takes_down(box, "old", "embed"))

    assert done.restored == ("embed",)
    assert done.failures[0].startswith("old could not be brought back: ")
    assert "embed" in box.up
