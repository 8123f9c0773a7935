# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.box: what the gateway's transactions do on a box, what they leave alone, and how they end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hearth import state
from hearth.contract import Fetch
from hearth.errors import BusyError, EngineFailedError, SystemdGoneError
from hearth.gateway import box as hands
from hearth.gateway.scheduler.events import Loaded, LoadFailed
from hearth.switching import switch, transition

if TYPE_CHECKING:
    from switchbox import Box
    from tests.unit.conftest import MakeEngine, MakeState


@pytest.fixture
def gateway(box: Box, monkeypatch: pytest.MonkeyPatch) -> hands.Box:
    """The gateway's hands on the box of ``switching``."""
    monkeypatch.setattr(hands, "Systemd", box.systemd)
    monkeypatch.setattr(hands, "_MOMENT_S", 0.0)
    monkeypatch.setattr(hands, "_LOCK_INTERVAL_S", 0.001)
    monkeypatch.setattr(hands, "_FIRST_S", 0.001)
    return hands.Box(box.contract, tell=box.told.append, host=box.host)


def failed(result: Loaded | LoadFailed) -> LoadFailed:
    assert isinstance(result, LoadFailed), result
    return result


async def test_who_has_to_go_stops_and_the_other_starts(gateway: hands.Box, box: Box) -> None:
    result = await gateway.begin("new", ("old",))

    assert isinstance(result, Loaded)
    assert (result.engine, box.calls) == ("new", ["stop old", "start new"])
    assert box.up == {"new", "embed"}


async def test_nobody_goes_who_is_not_named(gateway: hands.Box, box: Box) -> None:
    await gateway.begin("small", ())

    assert box.calls == ["start small"]
    assert box.up == {"old", "small", "embed"}


async def test_the_start_at_boot_stays_where_it_is(gateway: hands.Box, box: Box) -> None:
    await gateway.begin("new", ("old",))

    assert box.at_boot == {"old", "embed"}


async def test_the_served_name_is_asked_and_the_first_answer_is_left_to_the_request(
    gateway: hands.Box, box: Box
) -> None:
    await gateway.begin("new", ("old",))

    assert [path for _, path, _, _ in box.systemd.running[box.unit("new")].seen] == ["/v1/models"]


async def test_who_goes_is_not_asked_what_it_works_on(gateway: hands.Box, box: Box) -> None:
    seen = box.systemd.running[box.unit("old")].seen

    await gateway.begin("new", ("old",))

    assert "/metrics" not in [path for _, path, _, _ in seen]
    assert "draining" not in [one.phase for one in box.told]


async def test_an_engine_that_loads_already_is_waited_for_and_nobody_goes_for_it(gateway: hands.Box, box: Box) -> None:
    await gateway.begin("small", ())
    box.systemd.set(box.unit("small"), active="activating")
    box.systemd.calls.clear()

    result = await gateway.begin("small", ("old",))

    assert isinstance(result, Loaded)
    assert box.calls == ["start small"]


@pytest.mark.parametrize("left", [True, False], ids=["a journal that was left", "no journal"])
async def test_a_journal_is_neither_read_nor_written(gateway: hands.Box, box: Box, left: bool) -> None:
    text = b'{"target": "new", "previous": ["old"], "at": "2026-11-21T05:00:00Z", "enable": true}'
    if left:
        box.journal.parent.mkdir(exist_ok=True)
        box.journal.write_bytes(text)

    await gateway.begin("small", ())

    assert box.calls == ["start small"]
    assert (box.journal.read_bytes() if box.journal.exists() else None) == (text if left else None)


async def test_units_that_root_has_to_have_read_again_are_left_to_root(gateway: hands.Box, box: Box) -> None:
    box.systemd.set(box.unit("small"), outdated=True)

    await gateway.begin("small", ())

    assert box.calls == ["start small"]


async def test_a_model_that_may_not_be_looked_at_is_left_to_the_unit(
    gateway: hands.Box, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.stat

    def stat(path: Path, **how: Any) -> Any:
        if path.suffix == ".gguf":
            raise PermissionError(13, "Permission denied")
        return real(path, **how)

    monkeypatch.setattr(Path, "stat", stat)

    assert isinstance(await gateway.begin("small", ()), Loaded)


@pytest.fixture
def fetched(gateway: hands.Box, box: Box, make_state: MakeState) -> str:
    """The unit that brings the model of "small", which is not there as far as can be seen."""
    fetch = Fetch(
        folder=str(box.models / "nowhere"),
        repo="me/small",
        revision="main",
        include=(),
        exclude=(),
        extra_files=(),
        endpoint="https://hub.invalid",
        token_file="",
        offline=False,
        uid=0,
        gid=0,
        reserve_bytes=0,
    )
    box.change_engine("small", fetch=fetch)
    gateway.contract = box.contract
    unit = "hearth-fetch@small.service"
    box.systemd.table[unit] = make_state(box.engine("small"), unit=unit)
    return unit


async def test_files_that_cannot_be_seen_are_made_sure_of_before_anybody_goes(
    gateway: hands.Box, box: Box, fetched: str
) -> None:
    assert isinstance(await gateway.begin("small", ("old",)), Loaded)

    assert box.calls == [f"start {fetched.removesuffix('.service')}", "stop old", "start small"]


async def test_a_request_does_not_wait_for_a_download(
    gateway: hands.Box, box: Box, fetched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "_FETCH_ON_DEMAND_S", 0.01)
    box.systemd.hangs.add(fetched)

    result = failed(await gateway.begin("small", ("old",)))

    assert result.kind == "failed"
    assert result.reason == f"the files of small are on their way ({fetched}): try again later"
    assert box.up == {"old", "embed", fetched.removesuffix(".service")}


async def test_a_start_that_fails_is_told_with_its_log_and_nobody_is_brought_back(gateway: hands.Box, box: Box) -> None:
    box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

    result = failed(await gateway.begin("new", ("old",)))

    assert (result.kind, result.reason) == ("failed", "engine new failed to start")
    assert result.log == f"last words of {box.unit('new')}"
    assert box.up == {"embed"}


async def test_an_engine_that_serves_another_name_has_failed_and_is_stopped(gateway: hands.Box, box: Box) -> None:
    box.answers("small", "/v1/models", 200, {"data": [{"id": "somebody-else"}]})

    result = failed(await gateway.begin("small", ()))

    assert result.kind == "failed"
    assert "serves somebody-else instead of small" in result.reason
    assert "small" not in box.up


@pytest.mark.parametrize(
    ("result", "log"),
    [("oom-kill", ""), ("exit-code", "cudaMalloc failed: out of memory")],
    ids=["by systemd's word", "by the engine's word"],
)
async def test_an_engine_that_ran_out_of_memory_is_told_apart(
    gateway: hands.Box, box: Box, monkeypatch: pytest.MonkeyPatch, result: str, log: str
) -> None:
    box.systemd.start_ends[box.unit("small")] = ("failed", result)
    monkeypatch.setattr(transition, "log_tail", lambda unit, lines: (log,))

    assert failed(await gateway.begin("small", ())).kind == "oom"


async def test_a_refusal_is_admissions_sentence(gateway: hands.Box, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "engine new needs 10.0 GiB, but of the 9.0 GiB available 4.0 GiB stay with the host"
    box.refusals.append(box.unit("new"))
    monkeypatch.setattr(transition, "log_tail", lambda unit, lines: (f"hearth: {words}",))

    result = failed(await gateway.begin("new", ()))

    assert (result.kind, result.reason) == ("refused", words)


async def test_what_cannot_fit_costs_nobody(gateway: hands.Box, box: Box) -> None:
    await gateway.begin("small", ())
    box.systemd.calls.clear()

    result = failed(await gateway.begin("new", ("small",)))

    assert result.kind == "refused"
    assert result.reason.startswith("engine new needs 10.0 GiB; ")
    assert box.calls == []


async def test_memory_that_does_not_come_back_is_a_refusal(gateway: hands.Box, box: Box) -> None:
    box.memory.leaks = 10.0

    result = failed(await gateway.begin("new", ("old",)))

    assert result.kind == "refused"
    assert result.reason.startswith("engine new needs 10.0 GiB, but of the ")
    assert box.calls == ["stop old"]


async def test_a_load_that_is_not_wanted_any_more_is_stopped_and_told_as_cancelled(
    gateway: hands.Box, box: Box
) -> None:
    box.systemd.hangs.add(box.unit("small"))
    loading = asyncio.ensure_future(gateway.begin("small", ()))
    await asyncio.wait_for(box.systemd.hanging.wait(), 5)

    await gateway.cancel("small")
    result = failed(await asyncio.wait_for(loading, 5))

    assert result.kind == "cancelled"
    assert box.calls == ["start small", "stop small"]
    assert "small" not in box.up


async def test_memory_is_not_waited_for_any_more_once_nobody_wants_the_engine(
    gateway: hands.Box, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.memory.late_s = 1e9
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    passes = box.host.clock.sleep

    def sleep(seconds: float) -> None:
        loop.call_soon_threadsafe(asked.set)
        passes(0.0)

    monkeypatch.setattr(box.host.clock, "sleep", sleep)
    waiting = asyncio.ensure_future(gateway.begin("new", ("old",)))
    await asyncio.wait_for(asked.wait(), 5)

    await gateway.cancel("new")

    assert failed(await asyncio.wait_for(waiting, 5)).kind == "cancelled"
    assert box.calls == ["stop old"]


async def test_another_engine_is_not_cancelled(gateway: hands.Box, box: Box) -> None:
    box.systemd.hangs.add(box.unit("small"))
    loading = asyncio.ensure_future(gateway.begin("small", ()))
    await asyncio.wait_for(box.systemd.hanging.wait(), 5)

    await gateway.cancel("new")
    done, _ = await asyncio.wait({loading}, timeout=0.05)

    assert not done
    await gateway.cancel("small")
    await loading


async def test_a_gateway_that_ends_leaves_the_engine_loading(gateway: hands.Box, box: Box) -> None:
    box.systemd.hangs.add(box.unit("small"))
    loading = asyncio.ensure_future(gateway.begin("small", ()))
    await asyncio.wait_for(box.systemd.hanging.wait(), 5)

    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading

    assert box.calls == ["start small"]
    assert box.systemd.table[box.unit("small")].is_starting
    assert state.holder(box.lock) == ""


async def test_another_change_is_waited_for_and_nothing_was_touched(gateway: hands.Box, box: Box) -> None:
    with switch.box_lock(0, box.lock):
        beginning = asyncio.ensure_future(gateway.begin("small", ()))
        done, _ = await asyncio.wait({beginning}, timeout=0.05)
        assert not done

    result = failed(await asyncio.wait_for(beginning, 5))

    assert (result.kind, box.calls) == ("busy", [])
    assert isinstance(await gateway.begin("small", ()), Loaded)


async def test_who_waits_for_another_change_can_be_cancelled(gateway: hands.Box, box: Box) -> None:
    with switch.box_lock(0, box.lock):
        beginning = asyncio.ensure_future(gateway.begin("small", ()))
        await asyncio.wait({beginning}, timeout=0.02)

        await gateway.cancel("small")

        assert failed(await asyncio.wait_for(beginning, 5)).kind == "cancelled"
    assert box.calls == []


async def test_a_connection_to_systemd_that_breaks_is_made_anew_and_the_load_goes_on(
    gateway: hands.Box, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = box.systemd.start

    async def start(unit: str, timeout_s: float) -> str:
        monkeypatch.setattr(box.systemd, "start", real)
        box.systemd.calls.append(("start", unit))
        box.systemd.set(unit, active="activating")
        raise SystemdGoneError("the connection to systemd broke: try again")

    monkeypatch.setattr(box.systemd, "start", start)

    result = await gateway.begin("new", ("old",))

    assert isinstance(result, Loaded)
    assert box.calls == ["stop old", "start new", "start new"]


async def test_an_engine_that_there_is_not_is_told_as_failed(gateway: hands.Box) -> None:
    result = failed(await gateway.begin("nobody", ()))

    assert (result.kind, result.engine) == ("failed", "nobody")
    assert "unknown model 'nobody'" in result.reason


async def test_a_stop_stops_and_moves_no_start_at_boot(gateway: hands.Box, box: Box) -> None:
    await gateway.stop("old")

    assert box.calls == ["stop old"]
    assert box.at_boot == {"old", "embed"}


async def test_an_engine_that_does_not_stop_is_told(gateway: hands.Box, box: Box) -> None:
    box.systemd.stop_ends[box.unit("old")] = "deactivating"

    with pytest.raises(EngineFailedError, match="engine old did not stop"):
        await gateway.stop("old")


async def test_a_stop_that_had_to_wait_for_another_change_is_for_who_decides(gateway: hands.Box, box: Box) -> None:
    with switch.box_lock(0, box.lock):
        stopping = asyncio.ensure_future(gateway.stop("old"))
        await asyncio.wait({stopping}, timeout=0.02)

    with pytest.raises(BusyError):
        await asyncio.wait_for(stopping, 5)
    assert box.calls == []


async def test_a_contract_that_is_new_counts_from_the_next_transaction_on(gateway: hands.Box, box: Box) -> None:
    box.change_engine("small", served_name="tiny")
    gateway.contract = box.contract

    assert isinstance(await gateway.begin("small", ()), Loaded)


async def test_phases_are_what_systemd_says(gateway: hands.Box, box: Box) -> None:
    assert await gateway.phases(["old", "small"]) == {"old": "ready", "small": "stopped"}


@pytest.mark.parametrize(
    ("active", "phase"),
    [
        ("active", "ready"),
        ("reloading", "ready"),
        ("activating", "starting"),
        ("deactivating", "stopping"),
        ("inactive", "stopped"),
        ("failed", "failed"),
        ("maintenance", "stopped"),
    ],
)
def test_a_state_of_systemd_is_a_phase(make_engine: MakeEngine, make_state: MakeState, active: str, phase: str) -> None:
    assert hands.phase_of(make_state(make_engine(), active)) == phase
