# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.switch: what a change that fails leaves behind, and what it says.

In every test the box's memory is watched: the host's share was never touched, by whatever ran at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fakes import CHAT, EMBEDDINGS, said

from hearth import errors

if TYPE_CHECKING:
    from switchbox import Box

LOG = ("last words of hearth-engine-new.service",)


async def failure(box: Box, name: str | None = "new", **fields: Any) -> errors.HearthError:
    with pytest.raises(errors.HearthError) as caught:
        await box.run(name, **fields)
    return caught.value


def assert_old_is_back(box: Box) -> None:
    assert box.up == {"old", "embed"}
    assert box.systemd.table[box.unit("old")].active == "active"
    assert box.at_boot == {"old", "embed"}
    assert not box.journal.exists()


@pytest.mark.parametrize(
    ("active", "result", "why"),
    [
        pytest.param("failed", "exit-code", "failed to start", id="crashes while loading"),
        pytest.param("activating", "exit-code", "failed to start", id="would be started again by itself"),
        pytest.param("failed", "timeout", "was not ready within 5 s", id="never ready"),
    ],
)
async def test_an_engine_that_does_not_come_up_is_stopped_and_the_old_one_serves_again(
    box: Box, active: str, result: str, why: str
) -> None:
    box.systemd.start_ends[box.unit("new")] = (active, result)

    error = await failure(box)

    assert str(error) == f"engine new {why}; old serves again"
    assert error.log == LOG
    assert box.calls == ["stop old", "start new", "stop new", "start old"]
    assert_old_is_back(box)


async def test_an_engine_that_serves_another_name_is_stopped_and_the_old_one_serves_again(box: Box) -> None:
    box.systemd.plays(box.engine("new"), serves="somebody-else")

    error = await failure(box)

    assert str(error) == (
        f"engine new on port {box.engine('new').port} serves somebody-else instead of new: check its argv, or who else "
        "listens on that port; old serves again"
    )
    assert error.log == LOG
    assert_old_is_back(box)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        pytest.param(200, said(""), "engine new answered a chat with nothing", id="empty"),
        pytest.param(200, {"choices": []}, "engine new answered a chat with something else", id="no choice"),
        pytest.param(200, b"\x00\x01", f"engine new answered POST {CHAT} with no JSON object", id="noise"),
        pytest.param(500, b"CUDA error", f"engine new answered POST {CHAT} with HTTP 500: CUDA error", id="an error"),
    ],
)
async def test_an_engine_that_answers_nonsense_is_stopped_and_the_old_one_serves_again(
    box: Box, status: int, body: Any, words: str
) -> None:
    box.answers("new", CHAT, status, body)

    error = await failure(box)

    assert str(error).startswith(words)
    assert str(error).endswith("; old serves again")
    assert error.log == LOG
    assert_old_is_back(box)


async def test_an_embedder_without_embeddings_is_stopped_and_was_never_asked_to_chat(box: Box) -> None:
    box.change_engine("new", capabilities=("embeddings",))
    box.answers("new", EMBEDDINGS, 200, {"data": []})

    error = await failure(box)

    assert str(error) == "engine new answered an embedding with something else; old serves again"


async def test_a_start_that_systemd_refuses_is_told_in_its_own_words(box: Box) -> None:
    box.systemd.breaks.add(("start", box.unit("new")))

    error = await failure(box)

    assert str(error) == "engine new failed to start: systemd refused start: of the test; old serves again"
    assert_old_is_back(box)


async def test_an_engine_that_failed_and_does_not_stop_either_is_told_of_as_well(box: Box) -> None:
    box.change_engine("new", memory_gib=1.0)
    box.systemd.start_ends[box.unit("new")] = ("activating", "exit-code")
    box.systemd.stop_ends[box.unit("new")] = "deactivating"

    error = await failure(box)

    assert str(error) == (
        "engine new failed to start; engine new did not stop: it is deactivating; see systemctl status "
        "hearth-engine-new.service; old serves again"
    )


async def test_a_limit_of_the_caller_that_passes_is_told_with_its_length(box: Box) -> None:
    box.systemd.hangs.add(box.unit("new"))

    error = await failure(box, timeout_s=0.05)

    assert str(error) == "engine new was not ready within 0.05 s; old serves again"
    assert_old_is_back(box)


async def test_memory_that_does_not_come_back_is_told_and_the_old_one_serves_again(box: Box) -> None:
    box.change_engine("new", memory_gib=14.0)
    box.memory.leaks = 2.0

    error = await failure(box)

    assert str(error).startswith(
        "engine new needs 14.0 GiB, but of the 17.0 GiB available 4.0 GiB stay with the host, so 1.0 GiB are missing; "
    )
    assert str(error).endswith("; old serves again")
    assert box.calls == ["stop old", "start old"]
    assert_old_is_back(box)


async def test_memory_of_what_failed_is_waited_for_before_the_old_one_starts(box: Box) -> None:
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")
    box.memory.late_s = 7.0
    begun = box.host.clock.now()

    await failure(box)

    # Once after the stop of the old one, once after that of the new one.
    assert box.host.clock.now() - begun == pytest.approx(14, abs=0.4)
    assert_old_is_back(box)


async def test_an_old_engine_that_does_not_stop_keeps_the_new_one_from_starting_and_is_had_back(box: Box) -> None:
    box.systemd.stop_ends[box.unit("old")] = "deactivating"

    error = await failure(box)

    assert str(error) == (
        "engine old did not stop: it is deactivating; see systemctl status hearth-engine-old.service; old serves again"
    )
    assert error.log == ("last words of hearth-engine-old.service",)
    assert box.calls == ["stop old", "start old"]
    assert_old_is_back(box)


async def test_an_old_engine_that_may_not_be_stopped_goes_on_and_systemd_is_quoted(box: Box) -> None:
    box.systemd.breaks.add(("stop", box.unit("old")))

    error = await failure(box)

    assert str(error) == (
        "engine old did not stop (systemd refused stop: of the test): it is active; see systemctl status "
        "hearth-engine-old.service; old serves again"
    )
    assert box.calls == ["stop old"]
    assert_old_is_back(box)


async def test_if_the_old_one_does_not_come_back_either_nothing_pretends_that_something_serves(box: Box) -> None:
    for name in ("new", "old"):
        box.systemd.start_ends[box.unit(name)] = ("failed", "exit-code")

    error = await failure(box)

    assert str(error) == (
        "engine new failed to start; old could not be brought back: engine old failed to start; "
        "nothing serves in the main lane now: hearth status tells more"
    )
    assert error.log == LOG
    assert box.up == {"embed"}
    assert box.at_boot == {"old", "embed"}
    assert not box.journal.exists()


async def test_if_the_old_one_does_not_fit_any_more_it_is_not_tried(box: Box) -> None:
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")
    await failure(box)
    box.systemd.calls.clear()
    box.memory.leaks = 6.0

    error = await failure(box)

    assert "; old could not be brought back: engine old needs 10.0 GiB, but of the 13.0 GiB available" in str(error)
    assert str(error).endswith("; nothing serves in the main lane now: hearth status tells more")
    assert box.calls == ["stop old"]


async def test_all_that_was_stopped_is_had_back(box: Box) -> None:
    await box.run("small", beside=True)
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

    error = await failure(box)

    assert str(error) == "engine new failed to start; old and small serve again"
    assert box.up == {"old", "small", "embed"}
    assert box.at_boot == {"old", "small", "embed"}


async def test_of_several_one_that_does_not_come_back_is_told_apart_from_those_that_do(box: Box) -> None:
    await box.run("small", beside=True)
    for name in ("new", "small"):
        box.systemd.start_ends[box.unit(name)] = ("failed", "exit-code")

    error = await failure(box)

    assert str(error) == (
        "engine new failed to start; old serves again; small could not be brought back: engine small failed to start"
    )


async def test_what_a_start_beside_others_made_room_with_is_had_back(box: Box) -> None:
    await box.run("small", beside=True)
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

    error = await failure(box, beside=True)

    assert str(error) == "engine new failed to start; old serves again"
    assert box.up == {"old", "small", "embed"}


async def test_a_sick_engine_that_fails_again_is_left_stopped_and_that_is_said(box: Box) -> None:
    box.systemd.running[box.unit("old")].script["/health"] = [(503, {})]
    box.systemd.start_ends[box.unit("old")] = ("failed", "exit-code")

    error = await failure(box, "old")

    assert str(error) == ("engine old failed to start; nothing serves in the main lane now: hearth status tells more")
    assert box.calls == ["stop old", "start old", "stop old"]


async def test_where_nothing_ran_before_nothing_is_started_for_it(box: Box) -> None:
    await box.run(None)
    box.systemd.calls.clear()
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

    error = await failure(box)

    assert str(error).endswith("; nothing serves in the main lane now: hearth status tells more")
    assert box.calls == ["start new", "stop new"]


async def test_a_failure_in_the_utility_lane_leaves_the_main_lane_alone(box: Box) -> None:
    await box.run("embed", stop=True)
    box.systemd.calls.clear()
    box.systemd.start_ends[box.unit("embed")] = ("failed", "exit-code")

    error = await failure(box, "embed")

    assert str(error).endswith("; nothing serves in the utility lane now: hearth status tells more")
    assert box.calls == ["start embed", "stop embed"]
    assert box.up == {"old"}


async def test_with_force_a_start_that_is_not_expected_to_fit_is_tried(box: Box) -> None:
    # Something on the box is about to end that nobody but its owner knows of.
    box.change_engine("new", memory_gib=16.0)
    assert "so 1.0 GiB are missing" in str(await failure(box))
    box.memory.leaks = -2.0

    await box.run("new", force=True)

    assert box.up == {"new", "embed"}


async def test_with_force_admission_decides_all_the_same_and_the_old_one_serves_again(box: Box) -> None:
    box.change_engine("new", memory_gib=16.0)

    error = await failure(box, force=True)

    assert str(error).startswith("engine new needs 16.0 GiB, but of the 19.0 GiB available 4.0 GiB stay with the host")
    assert box.calls == ["stop old", "start old"]
    assert_old_is_back(box)


async def test_with_force_beside_others_the_unit_itself_is_refused(box: Box) -> None:
    box.refusals = [box.unit("new")]
    box.change_engine("old", pinned=True)

    error = await failure(box, beside=True, force=True)

    assert str(error) == "engine new failed to start"
    assert_old_is_back(box)


@pytest.mark.parametrize("call", ["enable new", "disable old"])
async def test_a_boot_default_that_cannot_be_moved_does_not_cost_the_engine_that_serves(box: Box, call: str) -> None:
    verb, name = call.split()
    box.systemd.breaks.add((verb, box.unit(name)))

    error = await failure(box)

    assert str(error) == (
        f"new serves, but what starts at boot could not be changed: systemd refused {verb}: of the test"
    )
    assert box.up == {"new", "embed"}
    assert "old" in box.at_boot
    assert not box.journal.exists()


async def test_the_same_change_again_converges_after_a_failure(box: Box) -> None:
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")
    await failure(box)
    box.systemd.start_ends.clear()

    await box.run("new")

    assert box.up == {"new", "embed"}
    assert box.at_boot == {"new", "embed"}
