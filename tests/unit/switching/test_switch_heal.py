# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.switch: a change that is killed at any of its steps is healed by the next one, whichever that is.

In every test the box's memory is watched: the host's share was never touched, by whatever ran at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from fakes import CHAT, Killed, said

from hearth import errors
from hearth.switching import journal
from hearth.switching.journal import Journal

if TYPE_CHECKING:
    from switchbox import Box


class Cut(NamedTuple):
    """Where a switch from old to new is killed: what would run had it been undone or finished, and start at boot."""

    call: str
    when: str
    lane: str

    @property
    def id(self) -> str:
        return f"{self.when} {self.call}"


# Until systemd was asked to start the new one, the change is undone; from then on it is finished.
CUTS = (
    Cut("stop old", "before", "old"),
    Cut("stop old", "during", "old"),
    Cut("stop old", "after", "old"),
    Cut("start new", "before", "old"),
    Cut("start new", "during", "new"),
    Cut("start new", "after", "new"),
    Cut("enable new", "before", "new"),
    Cut("enable new", "after", "new"),
    Cut("disable old", "before", "new"),
    Cut("disable old", "after", "new"),
)
# The same while it goes back, because the new one has failed.
CUTS_BACK = (
    Cut("stop new", "before", "old"),
    Cut("stop new", "after", "old"),
    Cut("start old", "before", "old"),
    Cut("start old", "during", "old"),
    Cut("start old", "after", "old"),
)
everywhere = pytest.mark.parametrize("cut", CUTS + CUTS_BACK, ids=lambda cut: cut.id)


async def killed(box: Box, cut: Cut, name: str | None = "new", **fields: Any) -> None:
    """A change to ``name`` up to that call; systemd and engines go on."""
    verb, engine = cut.call.split()
    if cut in CUTS_BACK:
        box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")
    box.systemd.cut = ((verb, box.unit(engine)), cut.when)
    with pytest.raises(Killed):
        await box.run(name, **fields)
    box.systemd.start_ends.clear()
    box.systemd.calls.clear()


async def assert_converges(
    box: Box, name: str | None, up: Collection[str], at_boot: Collection[str] | None = None, **fields: Any
) -> None:
    """The change ends with exactly these engines, answering; once more, and it changes nothing."""
    await box.run(name, **fields)

    assert box.up == {*up}
    assert box.at_boot == {*(up if at_boot is None else at_boot)}
    assert {box.systemd.table[box.unit(one)].active for one in up} <= {"active"}
    assert not box.journal.exists()
    box.systemd.calls.clear()
    outcome = await box.run(name, **fields)
    assert (box.calls, outcome.healed) == ([], "")


@everywhere
async def test_the_same_switch_again(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "new", {"new", "embed"})


@everywhere
async def test_a_switch_back(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "old", {"old", "embed"})


@everywhere
async def test_a_switch_to_another_engine(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "small", {"small", "embed"})


@everywhere
async def test_a_switch_to_another_engine_that_leaves_the_boot_default(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "small", {"small", "embed"}, {"old", "embed"}, boot=False)


@everywhere
async def test_a_switch_to_none(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, None, {"embed"})


@everywhere
async def test_a_start_beside_what_runs(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "small", {cut.lane, "small", "embed"}, beside=True)


@everywhere
async def test_a_start_of_the_same_engine_beside_what_runs(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await box.run("new", beside=True)

    assert box.up == {"new", "embed"}
    assert "new" in box.at_boot
    assert not box.journal.exists()


@everywhere
async def test_a_stop_of_an_engine_that_had_no_part_in_it(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "embed", {cut.lane}, stop=True)


@everywhere
async def test_a_stop_of_the_old_engine(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "old", {"embed"} | {cut.lane} - {"old"}, stop=True)


@everywhere
async def test_a_stop_of_the_new_engine(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    is_up = box.systemd.table[box.unit("new")].is_up
    old_at_boot = "old" in box.at_boot

    # While it loads, it is a change that is called off; once it is up, the change was all but done.
    up = {"embed"} if is_up else {"old", "embed"}
    await assert_converges(box, "new", up, {"old", "embed"} if old_at_boot else {"embed"}, stop=True)


@everywhere
async def test_a_change_that_keeps_what_was_chosen(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "small", {cut.lane, "embed"}, keep=True)


@everywhere
async def test_a_change_in_the_other_lane(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    await assert_converges(box, "embed", {cut.lane, "embed"})


@everywhere
async def test_while_it_is_healed_it_may_be_killed_again(box: Box, cut: Cut) -> None:
    await killed(box, cut)
    for unit in ("old", "new"):
        box.systemd.cut = (("start", box.unit(unit)), "during")
        try:
            await box.run("embed")
        except Killed:
            continue
        box.systemd.cut = None

    await assert_converges(box, "embed", {cut.lane, "embed"})


async def test_what_was_undone_is_told(box: Box) -> None:
    await killed(box, Cut("start new", "before", "old"))

    outcome = await box.run("small", beside=True)

    assert outcome.healed == ("a change to new that began at 2026-11-21T05:00:00Z was cut off; old serves again")


async def test_what_was_finished_is_told(box: Box) -> None:
    await killed(box, Cut("start new", "during", "new"))

    outcome = await box.run("embed")

    assert outcome.healed == "a change to new that began at 2026-11-21T05:00:00Z was cut off; new serves now"


async def test_what_came_up_meanwhile_and_talks_nonsense_is_stopped_and_the_old_one_serves_again(box: Box) -> None:
    box.answers("new", CHAT, 200, said(""))
    await killed(box, Cut("start new", "after", "new"))

    outcome = await box.run("embed")

    assert outcome.healed.endswith("was cut off; engine new answered a chat with nothing; old serves again")
    assert box.up == {"old", "embed"}
    assert box.at_boot == {"old", "embed"}


async def test_what_came_up_meanwhile_and_talks_nonsense_does_not_pass_as_switched_to(box: Box) -> None:
    box.answers("new", CHAT, 200, said(""))
    await killed(box, Cut("start new", "after", "new"))

    with pytest.raises(errors.EngineFailedError) as caught:
        await box.run("new")

    assert str(caught.value) == (
        "engine new answered a chat with nothing; old serves again; before that, a change to new that began at "
        "2026-11-21T05:00:00Z was cut off"
    )
    assert box.up == {"old", "embed"}


async def test_a_change_that_takes_over_and_fails_goes_back_to_what_ran_before_either(box: Box) -> None:
    await killed(box, Cut("start new", "after", "new"))
    box.systemd.start_ends[box.unit("small")] = ("failed", "exit-code")

    with pytest.raises(errors.EngineFailedError, match=r"^engine small failed to start; old serves again; before that"):
        await box.run("small")

    assert box.up == {"old", "embed"}
    assert not box.journal.exists()


@pytest.mark.parametrize(("when", "up"), [("before", "old"), ("during", "new")])
async def test_a_change_that_is_refused_leaves_no_box_without_its_model(box: Box, when: str, up: str) -> None:
    await killed(box, Cut("start new", when, up))
    (box.models / "small.gguf").unlink()

    with pytest.raises(
        errors.EngineFailedError, match=r"small\.gguf is missing.*; (old serves again|new serves now); "
    ):
        await box.run("small")

    assert box.up == {up, "embed"}
    assert box.at_boot == {up, "embed"}
    assert not box.journal.exists()


async def test_an_engine_that_cannot_be_brought_back_is_told_and_the_next_change_is_carried_out(box: Box) -> None:
    await killed(box, Cut("start new", "before", "old"))
    box.systemd.start_ends[box.unit("old")] = ("failed", "exit-code")

    outcome = await box.run("small", beside=True)

    assert outcome.healed.endswith("was cut off; old could not be brought back: engine old failed to start")
    assert box.up == {"small", "embed"}


async def test_what_cannot_be_put_right_is_told_and_the_next_change_is_carried_out(box: Box) -> None:
    await killed(box, Cut("enable new", "before", "new"))
    box.systemd.breaks.add(("enable", box.unit("new")))

    outcome = await box.run("small", beside=True)

    assert outcome.healed.endswith(
        "; new serves now; what starts at boot could not be put right: systemd refused enable: of the test"
    )
    assert box.up == {"new", "small", "embed"}
    assert not box.journal.exists()


async def test_an_engine_that_was_about_to_be_restarted_runs_again(box: Box) -> None:
    box.systemd.running[box.unit("old")].script["/health"] = [(503, {})]
    await killed(box, Cut("start old", "before", "old"), "old")
    assert box.up == {"embed"}

    await assert_converges(box, "embed", {"old", "embed"})


async def test_a_pinned_engine_that_was_about_to_be_restarted_runs_again(box: Box) -> None:
    box.change_engine("small", pinned=True)
    await box.run("small", beside=True)
    box.systemd.running[box.unit("small")].script["/health"] = [(503, {})]
    await killed(box, Cut("start small", "before", "old"), "small", beside=True)

    await assert_converges(box, "new", {"new", "small", "embed"})


async def killed_while_embed_restarts(box: Box) -> None:
    box.systemd.running[box.unit("embed")].script["/health"] = [(503, {})]
    await killed(box, Cut("start embed", "before", "old"), "embed")
    assert box.up == {"old"}


async def test_a_switch_in_the_main_lane_brings_back_what_the_utility_lane_lost(box: Box) -> None:
    await killed_while_embed_restarts(box)

    await assert_converges(box, "new", {"new", "embed"})


async def test_a_switch_in_the_utility_lane_brings_back_what_runs_there_beside_it(box: Box) -> None:
    box.change_engine("small", lane="utility")
    await killed_while_embed_restarts(box)

    await assert_converges(box, "small", {"old", "small", "embed"})


async def test_what_was_chosen_and_does_not_start_at_boot_is_kept_too(box: Box) -> None:
    box.systemd.set(box.unit("old"), enabled=False)
    await killed(box, Cut("start new", "before", "old"))

    await assert_converges(box, "small", {"old", "embed"}, keep=True)


async def test_a_first_engine_that_came_up_meanwhile_is_verified_and_gets_its_start_at_boot(box: Box) -> None:
    await box.run(None)
    await killed(box, Cut("start new", "after", "new"))

    await assert_converges(box, "embed", {"new", "embed"})


@pytest.mark.parametrize("call", ["enable new", "disable old"])
async def test_an_engine_that_failed_after_it_was_switched_to_does_not_keep_the_start_at_boot(
    box: Box, call: str
) -> None:
    await killed(box, Cut(call, "after", "new"))
    box.systemd.set(box.unit("new"), active="failed")

    await assert_converges(box, "small", {"old", "small", "embed"}, beside=True)


async def test_what_is_to_be_stopped_is_not_brought_back_for_that(box: Box) -> None:
    await killed(box, Cut("stop old", "after", "old"))

    await box.run("old", stop=True)

    assert "start old" not in box.calls


async def test_a_stop_that_was_cut_off_is_not_undone(box: Box) -> None:
    await killed(box, Cut("stop old", "after", "old"), "old", stop=True)

    await box.run("embed")

    assert box.up == {"embed"}
    assert not box.journal.exists()


async def test_an_engine_that_is_in_the_contract_no_more_is_not_looked_for(box: Box) -> None:
    journal.write(Journal(target="gone", previous=("gone too", "old"), at="2026-11-21T05:00:00Z"), box.journal)
    box.systemd.set(box.unit("old"), active="inactive")

    await assert_converges(box, "embed", {"old", "embed"})


async def test_a_damaged_journal_is_as_good_as_none(box: Box) -> None:
    box.journal.parent.mkdir()
    box.journal.write_bytes(b'{"target": "new", "prev')

    await assert_converges(box, "new", {"new", "embed"})


async def test_a_dry_run_heals_nothing(box: Box) -> None:
    await killed(box, Cut("start new", "before", "old"))
    before = dict(box.states)

    await box.run("embed", dry=True)

    assert (box.calls, box.states) == ([], before)
    assert box.journal.exists()


async def test_a_change_that_is_interrupted_is_healed_like_one_that_was_killed(box: Box) -> None:
    box.systemd.hangs.add(box.unit("new"))
    changing = asyncio.create_task(box.run("new"))
    await box.systemd.hanging.wait()
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    box.systemd.hangs.clear()

    await assert_converges(box, "embed", {"new", "embed"})
