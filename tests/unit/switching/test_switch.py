# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.switch: the steps of a change that succeeds, and what is refused before the first of them."""

from __future__ import annotations

import socketserver
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest
from fakes import CHAT, docker

from hearth import errors
from hearth.switching import switch
from hearth.switching.change import Change

if TYPE_CHECKING:
    from switchbox import Box


def metrics(count: int) -> bytes:
    return f"llamacpp:requests_processing {count}\nllamacpp:requests_deferred 0\n".encode()


async def test_the_old_stops_before_the_new_starts_and_the_boot_default_moves_last(box: Box) -> None:
    outcome = await box.run("new")

    assert box.calls == ["stop old", "start new", "enable new", "disable old"]
    assert outcome.active == "new"
    assert box.up == {"new", "embed"}
    assert box.at_boot == {"new", "embed"}


async def test_a_change_that_has_ended_leaves_no_journal(box: Box) -> None:
    await box.run("new")

    assert not box.journal.exists()


async def test_the_new_engine_is_asked_for_its_name_and_one_token_before_the_boot_default_moves(box: Box) -> None:
    await box.run("new")

    seen = [(path, body) for _, path, _, body in box.systemd.running[box.unit("new")].seen]
    assert [path for path, _ in seen] == ["/v1/models", CHAT]
    assert seen[1][1]["max_tokens"] == 1


async def test_a_change_tells_its_phases_in_their_order(box: Box) -> None:
    await box.run("new")

    assert [(one.phase, one.engine) for one in box.told] == [
        ("stopping", "old"),
        ("memory", "new"),
        ("loading", "new"),
        ("verifying", "new"),
    ]


async def test_how_long_the_load_is_expected_to_take_is_told_while_it_lasts(box: Box) -> None:
    box.change_engine("new", load_s=84.0)

    await box.run("new")

    assert [one.expected_s for one in box.told if one.phase == "loading"] == [84.0]


async def test_that_nobody_listens_any_more_does_not_keep_a_change_from_its_end(box: Box) -> None:
    def broken(_: object) -> None:
        raise BrokenPipeError

    await switch.switch(box.contract, Change(name="new", drain_s=0), tell=broken, host=box.host)

    assert box.up == {"new", "embed"}


async def test_memory_that_comes_back_late_is_waited_for_before_the_new_one_starts(box: Box) -> None:
    box.memory.late_s = 7.0
    begun = box.host.clock.now()

    await box.run("new")

    assert box.host.clock.now() - begun == pytest.approx(7, abs=0.2)
    assert box.up == {"new", "embed"}


async def test_units_that_systemd_has_not_read_again_are_read_before_anything_is_decided(box: Box) -> None:
    box.systemd.set(box.unit("new"), outdated=True)

    await box.run("new")

    assert box.calls[0] == "reload"
    assert box.calls.count("reload") == 1


async def test_an_alias_does_as_well(box: Box) -> None:
    box.change_engine("new", aliases=("newest",))

    assert (await box.run("newest")).active == "new"


async def test_none_stops_the_lane_and_takes_it_from_boot(box: Box) -> None:
    outcome = await box.run(None)

    assert box.calls == ["stop old", "disable old"]
    assert outcome.active is None
    assert box.up == {"embed"}


async def test_none_stops_the_utility_lane_where_that_is_meant(box: Box) -> None:
    await box.run(None, lane="utility")

    assert box.up == {"old"}


async def test_none_stops_the_others_as_well_where_one_does_not_stop(box: Box) -> None:
    await box.run("small", beside=True)
    box.systemd.stop_ends[box.unit("old")] = "deactivating"

    with pytest.raises(errors.EngineFailedError, match=r"^engine old did not stop: it is deactivating; see [^;]*$"):
        await box.run(None)

    assert box.systemd.table[box.unit("small")].active == "inactive"
    assert "start old" not in box.calls


async def test_without_boot_the_boot_default_stays(box: Box) -> None:
    await box.run("new", boot=False)

    assert box.calls == ["stop old", "start new"]
    assert box.at_boot == {"old", "embed"}


async def test_what_is_right_already_is_left_alone(box: Box) -> None:
    outcome = await box.run("old")

    assert box.calls == []
    assert not outcome.plan.changes
    assert outcome.active == "old"


async def test_a_pinned_engine_of_the_main_lane_stays_whatever_is_switched_to(box: Box) -> None:
    box.change_engine("small", pinned=True)
    await box.run("small", beside=True)

    await box.run("new")

    assert box.up == {"new", "small", "embed"}
    assert box.at_boot == {"new", "small", "embed"}


async def test_an_engine_that_is_to_be_spared_stays(box: Box) -> None:
    await box.run("small", beside=True)

    await box.run("new", spare=("small",))

    assert box.up == {"new", "small", "embed"}


async def test_the_utility_lane_goes_on(box: Box) -> None:
    before = box.systemd.running[box.unit("embed")]

    await box.run("new")

    assert box.systemd.running[box.unit("embed")] is before


async def test_an_engine_starts_beside_the_others_where_it_fits(box: Box) -> None:
    await box.run("small", beside=True)

    assert box.calls == ["start small", "enable small"]
    assert box.up == {"old", "small", "embed"}
    assert box.at_boot == {"old", "small", "embed"}


async def test_a_start_beside_others_stops_only_as_many_as_it_needs_least_recently_used_first(box: Box) -> None:
    await box.run("small", beside=True)
    box.systemd.calls.clear()
    # Either of the two would do for 4 GiB; old was started first.
    box.systemd.set(box.unit("small"), started_us=2)
    box.systemd.set(box.unit("old"), started_us=1)
    box.change_engine("new", memory_gib=5.0)

    await box.run("new", beside=True)

    assert box.calls == ["stop old", "start new", "enable new"]
    assert box.up == {"small", "new", "embed"}


async def test_stop_stops_one_engine_and_takes_it_from_boot(box: Box) -> None:
    await box.run("embed", stop=True)

    assert box.calls == ["stop embed", "disable embed"]


async def test_an_engine_that_was_to_stop_and_does_not_is_not_started_again(box: Box) -> None:
    box.systemd.stop_ends[box.unit("old")] = "deactivating"

    with pytest.raises(errors.EngineFailedError, match="engine old did not stop"):
        await box.run("old", stop=True)

    assert box.calls == ["stop old"]


async def test_with_keep_the_choice_somebody_made_stays(box: Box) -> None:
    outcome = await box.run("new", keep=True)

    assert box.calls == []
    assert outcome.active == "old"


async def test_with_keep_the_default_is_taken_where_nobody_chose(box: Box) -> None:
    await box.run(None)

    assert (await box.run("new", keep=True)).active == "new"


async def test_an_engine_that_serves_another_name_is_restarted(box: Box) -> None:
    box.systemd.running[box.unit("old")].serves("somebody-else")

    await box.run("old")

    assert box.calls == ["stop old", "start old"]


async def test_a_target_that_loads_already_is_waited_for_and_counts_as_nobodys_change(box: Box) -> None:
    box.systemd.set(box.unit("old"), active="activating")

    outcome = await box.run("old")

    assert box.calls == ["start old"]
    assert not outcome.plan.changes


async def test_an_engine_that_still_loads_is_stopped_for_another_one(box: Box) -> None:
    box.systemd.set(box.unit("old"), active="activating")

    await box.run("new")

    assert box.calls[:2] == ["stop old", "start new"]
    assert box.up == {"new", "embed"}


async def test_a_target_that_is_just_stopping_is_no_stranger_on_its_own_port(box: Box) -> None:
    box.systemd.stops_later(box.unit("old"))

    assert (await box.run("old")).active == "old"
    assert box.told[0].phase == "waiting"


async def test_requests_under_way_are_waited_for_and_counted(box: Box) -> None:
    old = box.systemd.running[box.unit("old")]
    old.script["/metrics"] = [(200, metrics(2)), (200, metrics(1)), (200, metrics(0))]

    outcome = await box.run("new", drain_s=60.0)

    assert outcome.drained == 2
    assert [one.phase for one in box.told][:2] == ["draining", "stopping"]


async def test_requests_under_way_are_waited_for_no_longer_than_asked(box: Box) -> None:
    old = box.systemd.running[box.unit("old")]
    old.script["/metrics"] = [(200, metrics(2))]

    outcome = await box.run("new", drain_s=0.05)

    assert outcome.drained == 0
    assert box.up == {"new", "embed"}


async def test_without_time_to_drain_nobody_is_asked(box: Box) -> None:
    old = box.systemd.running[box.unit("old")]

    await box.run("new", drain_s=0.0)

    assert "/metrics" not in [path for _, path, _, _ in old.seen]


async def test_a_limit_of_the_caller_bounds_the_start(box: Box) -> None:
    await box.run("new", timeout_s=17.0)

    assert box.systemd.limits == [17.0]


async def test_an_unknown_name_is_refused_before_anything_is_asked(box: Box) -> None:
    with pytest.raises(errors.UnknownModelError, match="did you mean 'old'"):
        await box.run("odl")

    assert box.calls == []


async def test_a_dry_run_plans_the_same_and_touches_nothing(box: Box) -> None:
    before = dict(box.states)

    dry = await box.run("new", dry=True)

    assert (box.calls, box.told, box.states) == ([], [], before)
    assert not box.host.run.exists()
    assert dry.active == "new"
    assert dry.plan == (await box.run("new")).plan


async def test_a_dry_run_has_systemd_read_nothing(box: Box) -> None:
    box.systemd.set(box.unit("new"), outdated=True)

    await box.run("new", dry=True)

    assert box.calls == []


async def test_several_changes_are_foretold_as_if_each_had_been_carried_out(box: Box) -> None:
    changes = [Change(name="new"), Change(name="small", beside=True), Change(name="old")]

    foretold = await switch.foretell(box.contract, changes, host=box.host)

    assert [outcome.plan for outcome in foretold] == [(await box.carry_out(change)).plan for change in changes]


class TestRefused:
    """What cannot start must not cost the model that runs."""

    @pytest.fixture(autouse=True)
    def untouched(self, box: Box) -> Iterator[None]:
        before = dict(box.states)
        yield
        assert (box.calls, box.states) == ([], before)
        assert not box.journal.exists()

    @pytest.mark.parametrize("dry", [True, False])
    async def test_a_model_that_is_missing(self, box: Box, dry: bool) -> None:
        (box.models / "new.gguf").unlink()

        with pytest.raises(errors.EngineFailedError, match=r"^engine new: its model .*new\.gguf is missing"):
            await box.run("new", dry=dry)

    async def test_a_port_that_a_stranger_has(self, box: Box) -> None:
        stranger = socketserver.TCPServer(("127.0.0.1", box.engine("new").port), BaseHTTPRequestHandler)
        with stranger, pytest.raises(errors.EngineFailedError, match="is taken by another program"):
            await box.run("new")

    async def test_an_image_that_is_missing_is_named_with_what_brings_it(self, box: Box) -> None:
        with docker(box.host.docker_socket, status=404) as asked, pytest.raises(errors.EngineFailedError) as caught:
            await box.run("new")

        assert str(caught.value) == (
            "engine new: its image registry.example/llama.cpp@sha256:0 is not on this box; "
            "run site.yml, which brings it"
        )
        assert asked == ["/images/registry.example/llama.cpp@sha256:0/json"]

    async def test_more_memory_than_there_would_be(self, box: Box) -> None:
        box.change_engine("new", memory_gib=16.0)

        with pytest.raises(errors.EngineFailedError) as caught:
            await box.run("new")

        assert str(caught.value) == (
            "engine new needs 16.0 GiB; 19.0 GiB would be available once old stopped, and 4.0 GiB stay with the host, "
            "so 1.0 GiB are missing: hearth admit --explain new says who holds memory"
        )

    async def test_a_journal_that_cannot_be_written(self, box: Box) -> None:
        box.journal.parent.mkdir()
        box.journal.with_name("switch.json.new").mkdir()

        with pytest.raises(errors.HearthError, match=r"switch\.json cannot be written"):
            await box.run("new")
