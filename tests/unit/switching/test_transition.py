# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.transition: how an engine is drained, stopped, started and verified."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeSystemd, ScriptedServer

from hearth.admission.admit import Host
from hearth.contract import Contract, Engine
from hearth.errors import EngineFailedError, OutOfMemoryError, SystemdGoneError
from hearth.switching import transition
from hearth.switching.progress import Progress
from hearth.switching.transition import Hand

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState


class Stage:
    """One engine, what systemd says of it, and a hand on both."""

    def __init__(self, engine: Engine, systemd: FakeSystemd, hand: Hand, told: list[Progress]) -> None:
        self.engine, self.systemd, self.hand, self.told = engine, systemd, hand, told

    @property
    def calls(self) -> list[str]:
        return [verb for verb, _ in self.systemd.calls]


@pytest.fixture
def stage(
    make_engine: MakeEngine,
    make_state: MakeState,
    make_contract: Callable[..., Contract],
    fake_systemd: Callable[..., FakeSystemd],
    fake_host: Host,
    free_port: int,
) -> Callable[..., Stage]:
    """Puts up an engine in some state, which answers while it is up."""

    def make(active: str = "inactive", **fields: Any) -> Stage:
        engine = make_engine(port=free_port, **fields)
        systemd = fake_systemd(make_state(engine, active))
        systemd.plays(engine)
        told: list[Progress] = []
        hand = Hand(systemd=systemd, contract=make_contract(engine), key="", host=fake_host, tell=told.append)  # type: ignore[arg-type]
        return Stage(engine, systemd, hand, told)

    return make


@pytest.mark.parametrize(("kind", "at_least_s"), [("llama.cpp", 5), ("ollama", 5 + 5)])
async def test_an_engine_that_listens_before_it_loads_is_given_the_time_for_both(
    stage: Callable[..., Stage], kind: str, at_least_s: float
) -> None:
    made = stage(engine=kind)

    await transition.start(made.hand, made.engine)

    # Beyond its own time: a minute for memory that comes back, and half a one for what systemd does around it.
    [limit_s] = made.systemd.limits
    assert at_least_s < limit_s <= at_least_s + 60 + 30


async def test_the_time_that_admission_may_wait_for_another_start_comes_on_top(
    stage: Callable[..., Stage], make_engine: MakeEngine, make_contract: Callable[..., Contract]
) -> None:
    made = stage()
    slow = make_engine("slow", start_timeout_s=1200)
    hand = dataclasses.replace(made.hand, contract=make_contract(made.engine, slow))

    await transition.start(hand, made.engine)

    [limit_s] = made.systemd.limits
    assert limit_s > 1200 + 5


async def test_while_an_engine_loads_its_phase_is_told_again_and_again(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transition, "_REPORT_INTERVAL_S", 0.01)
    made = stage(load_s=84.0)
    made.systemd.hangs.add(made.engine.unit)

    with pytest.raises(EngineFailedError):
        await transition.start(made.hand, made.engine, 0.2)

    loading = [one for one in made.told if one.phase == "loading"]
    elapsed = [one.elapsed_s for one in loading]
    assert len(loading) > 2
    assert elapsed == sorted(elapsed)
    assert {one.expected_s for one in loading} == {84.0}


async def test_an_engine_that_stays_up_after_its_stop_is_an_error_with_its_log(stage: Callable[..., Stage]) -> None:
    made = stage("active")
    made.systemd.stop_ends[made.engine.unit] = "deactivating"

    with pytest.raises(EngineFailedError) as caught:
        await transition.stop(made.hand, made.engine)

    assert str(caught.value) == (
        "engine scout did not stop: it is deactivating; see systemctl status hearth-engine-scout.service"
    )
    assert caught.value.log == ("last words of hearth-engine-scout.service",)


async def test_a_start_that_admission_refused_is_told_in_its_words(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage("inactive")
    made.systemd.start_ends[made.engine.unit] = ("failed", "exit-code")
    words = "engine scout needs 60.0 GiB, but of the 20.0 GiB available 10.0 GiB stay with the host"
    monkeypatch.setattr(
        transition, "log_tail", lambda unit, lines: (f"hearth: {words}", "unit: Control process exited")
    )

    with pytest.raises(EngineFailedError) as caught:
        await transition.start(made.hand, made.engine)

    assert str(caught.value) == words


async def test_an_engine_that_is_stopped_while_it_loads_has_not_failed(stage: Callable[..., Stage]) -> None:
    made = stage("activating")
    made.systemd.stop_ends[made.engine.unit] = "failed"

    await transition.stop(made.hand, made.engine)

    assert (await made.hand.systemd.state(made.engine.unit)).active == "inactive"


async def test_an_engine_that_is_stopped_while_it_loads_is_told_again_until_it_ends(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transition, "_AGAIN_S", 0.001)
    made = stage("activating")
    told_again = asyncio.Event()
    stop, end_again = made.systemd.stop, made.systemd.end_again

    async def lost(unit: str, timeout_s: float) -> str:
        await asyncio.wait_for(told_again.wait(), 5)
        return await stop(unit, timeout_s)

    async def arrives_at_the_third_time(unit: str) -> None:
        await end_again(unit)
        if made.calls.count("end again") == 3:
            told_again.set()

    monkeypatch.setattr(made.systemd, "stop", lost)
    monkeypatch.setattr(made.systemd, "end_again", arrives_at_the_third_time)

    await transition.stop(made.hand, made.engine)

    assert made.calls[:3] == ["end again"] * 3
    assert not made.systemd.table[made.engine.unit].is_alive


async def test_an_engine_that_is_up_is_not_hurried(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transition, "_AGAIN_S", 0.0)
    made = stage("active")

    await transition.stop(made.hand, made.engine)

    assert made.calls == ["stop"]


async def test_an_engine_that_does_not_tell_what_it_works_on_is_busy_until_the_time_is_over(
    stage: Callable[..., Stage],
) -> None:
    made = stage("active")
    made.systemd.running[made.engine.unit].hangs.set()

    assert await transition.drain(made.hand, made.engine, 0.2) == 0

    assert "draining" in [one.phase for one in made.told]


async def test_an_engine_that_ran_out_of_memory_is_told_apart(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage()
    made.systemd.start_ends[made.engine.unit] = ("failed", "exit-code")
    log = ("CUDA out of memory", *(f"line {number}" for number in range(100)))
    monkeypatch.setattr(transition, "log_tail", lambda unit, lines: log[-lines:])

    with pytest.raises(OutOfMemoryError) as caught:
        await transition.start(made.hand, made.engine)

    assert caught.value.log == log[-20:]


async def test_a_connection_that_breaks_leaves_the_engine_loading(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(unit: str, timeout_s: float) -> str:
        made.systemd.set(unit, active="activating")
        raise SystemdGoneError("of the test")

    made = stage()
    monkeypatch.setattr(made.systemd, "start", start)

    with pytest.raises(SystemdGoneError):
        await transition.start(made.hand, made.engine)

    assert made.systemd.table[made.engine.unit].is_starting


async def test_an_engine_that_is_down_in_the_end_has_stopped_whatever_became_of_the_job(
    stage: Callable[..., Stage],
) -> None:
    made = stage("failed")
    made.systemd.breaks.add(("stop", made.engine.unit))

    await transition.stop(made.hand, made.engine)

    assert made.calls == ["stop", "forgive"]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("timeout", "engine scout was not ready within 5 s"),
        ("exit-code", "engine scout failed to start"),
        ("start-limit-hit", "engine scout failed to start"),
    ],
)
async def test_an_engine_that_does_not_start_is_stopped_and_told_of_with_its_log(
    stage: Callable[..., Stage], result: str, why: str
) -> None:
    made = stage()
    made.systemd.start_ends[made.engine.unit] = ("activating", result)

    with pytest.raises(EngineFailedError) as caught:
        await transition.start(made.hand, made.engine)

    assert str(caught.value) == why
    assert caught.value.log == ("last words of hearth-engine-scout.service",)
    assert made.calls == ["start", "stop"]


async def test_the_log_is_read_before_the_stop_adds_to_it(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage()
    made.systemd.start_ends[made.engine.unit] = ("failed", "exit-code")
    monkeypatch.setattr(transition, "log_tail", lambda unit, lines: tuple(made.calls))

    with pytest.raises(EngineFailedError) as caught:
        await transition.start(made.hand, made.engine)

    assert caught.value.log == ("start",)


async def test_an_engine_that_is_up_already_is_verified_all_the_same(stage: Callable[..., Stage]) -> None:
    made = stage("active")
    made.systemd.running[made.engine.unit].serves("somebody-else")

    with pytest.raises(EngineFailedError, match="serves somebody-else instead of scout"):
        await transition.start(made.hand, made.engine)


async def test_an_engine_on_its_way_down_is_waited_for(stage: Callable[..., Stage]) -> None:
    made = stage("active")
    made.systemd.stops_later(made.engine.unit)

    await transition.settle(made.hand, made.engine)

    assert made.systemd.table[made.engine.unit].active == "inactive"
    assert [one.phase for one in made.told] == ["waiting"]


async def test_an_engine_that_is_not_on_its_way_down_is_not_waited_for(stage: Callable[..., Stage]) -> None:
    made = stage("activating")

    await transition.settle(made.hand, made.engine)

    assert made.told == []


async def test_an_engine_on_its_way_down_is_waited_for_no_longer_than_it_may_take(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transition, "_MARGIN_S", 0.0)
    made = stage("deactivating", stop_timeout_s=0)

    await transition.settle(made.hand, made.engine)

    assert made.systemd.table[made.engine.unit].active == "deactivating"


@pytest.mark.parametrize("active", ["inactive", "activating", "failed"])
async def test_only_an_engine_that_is_up_is_asked_what_it_works_on(stage: Callable[..., Stage], active: str) -> None:
    made = stage(active)
    server = ScriptedServer(made.engine.port)
    server.script["/metrics"] = [(200, b"llamacpp:requests_processing 1\n")]

    try:
        assert await transition.drain(made.hand, made.engine, 60) == 0
    finally:
        server.close()
    assert server.seen == []


async def test_requests_that_come_while_others_end_are_not_counted_against_them(stage: Callable[..., Stage]) -> None:
    made = stage("active")
    made.systemd.running[made.engine.unit].script["/metrics"] = [
        (200, b"llamacpp:requests_processing 1\n"),
        (200, b"llamacpp:requests_processing 3\n"),
    ]

    assert await transition.drain(made.hand, made.engine, 0.05) == 0


@pytest.mark.parametrize("broken", [BrokenPipeError(), ValueError("I/O operation on closed file.")])
async def test_that_nobody_listens_does_not_keep_a_transition_from_its_end(
    stage: Callable[..., Stage], broken: Exception
) -> None:
    def tell(_: Progress) -> None:
        raise broken

    made = stage()
    hand = dataclasses.replace(made.hand, tell=tell)

    await transition.start(hand, made.engine)

    assert made.systemd.table[made.engine.unit].is_up
