# SPDX-License-Identifier: Apache-2.0
"""What callers of a model see that does not run yet: one start, signs of life, and in the end an answer or a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import SECRET, OpenHouse, Stream, error, error_in, until
from played import DONE
from wires import request

from hearth.admission.ledger import Ledger

KEY = b"Authorization: Bearer " + SECRET.encode()


async def comments(stream: Stream, count: int) -> list[str]:
    """The next so many comments of a stream."""
    found = []
    while len(found) < count:
        event = (await stream.next()).decode()
        assert event.startswith(": "), event
        found.append(event)
    return found


async def test_a_cold_model_is_started_once_for_fifty_callers_and_all_are_answered(open_house: OpenHouse) -> None:
    async with open_house() as house:
        engine = house.engine("scout")
        engine.may_load.clear()
        plain = [asyncio.ensure_future(house.ask()) for _ in range(25)]
        streams = [await house.stream() for _ in range(25)]
        await until(lambda: house.gateway.conductor.view()[0].waiting == 50)
        engine.may_load.set()
        answers = await asyncio.gather(*plain)
        assert {(answer.status, json.loads(answer.body)["model"]) for answer in answers} == {(200, "scout")}
        for stream in streams:
            assert (await stream.head()).status == 200
            assert (await stream.rest())[-1] == DONE
        assert house.starts == {"scout": 1}
        assert len(engine.questions) == 50


async def test_a_stream_hears_how_far_the_load_is_and_then_the_engine(open_house: OpenHouse) -> None:
    async with open_house(engines={"scout": {"load_s": 90.0}}) as house:
        house.engine("scout").may_load.clear()
        stream = await house.stream(words=2)
        head = await stream.head()
        assert (head.status, head.get(b"content-type")) == (200, b"text/event-stream")
        first, second = await comments(stream, 2)
        assert first.startswith(": scout: loading; 0 s of about 90 s")
        assert second.startswith(": scout: loading")
        house.engine("scout").may_load.set()
        events = [event for event in await stream.rest() if not event.startswith(b":")]
        assert [b"one" in events[0], b"more" in events[1], b"more" in events[2], events[3]] == [True, True, True, DONE]


async def test_who_waits_behind_another_load_hears_that(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.engine("scout").may_load.clear()
        first = await house.stream("scout")
        await first.head()
        second = await house.stream("sage")
        await second.head()
        assert (await comments(second, 1))[0].startswith(": sage: waiting, 1 to load before it")
        house.engine("scout").may_load.set()
        assert (await first.rest())[-1] == DONE
        assert (await second.rest())[-1] == DONE


async def test_a_stream_that_need_not_wait_hears_no_comment(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream()
        await stream.head()
        assert [event for event in await stream.rest() if event.startswith(b":")] == []


async def test_a_client_waits_as_long_as_it_says_and_is_told_when_to_come_again(open_house: OpenHouse) -> None:
    async with open_house(engines={"scout": {"load_s": 45.0}}) as house:
        house.engine("scout").may_load.clear()
        answer = await house.ask("scout", b"Prefer: respond-async, wait=0")
        assert (answer.status, error(answer)["code"]) == (503, "waited_too_long")
        assert 40 <= int(answer.get(b"retry-after") or 0) <= 45
        # It is expected to come again, so the load goes on.
        house.engine("scout").may_load.set()
        await until(lambda: "scout" in house.up)
        assert (await house.ask("scout", b"Prefer: wait=0")).status == 200
        assert house.starts == {"scout": 1}


async def test_the_setting_holds_for_those_who_say_nothing_and_do_not_stream(open_house: OpenHouse) -> None:
    async with open_house(wait_s=0.05) as house:
        house.engine("scout").may_load.clear()
        stream = await house.stream()
        assert (await house.ask()).status == 503
        assert (await stream.head()).status == 200
        house.engine("scout").may_load.set()
        assert (await stream.rest())[-1] == DONE


async def test_who_comes_again_too_late_starts_it_anew(open_house: OpenHouse) -> None:
    async with open_house(engines={"scout": {"load_s": 0.01}}, policy={"promise_s": 0.05}) as house:
        house.engine("scout").may_load.clear()
        assert (await house.ask("scout", b"Prefer: wait=0")).status == 503
        await until(lambda: house.engine("scout").cancels == 1)
        house.engine("scout").may_load.set()
        assert (await house.ask()).status == 200
        assert house.starts == {"scout": 2}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_a_load_that_fails_is_told_with_the_reason_and_the_log(open_house: OpenHouse, streamed: bool) -> None:
    async with open_house() as house:
        house.engine("scout").failures = [("failed", "engine scout ended while it loaded", "first\nlast words")]
        house.engine("scout").may_load.clear()
        told: dict[str, Any]
        if streamed:
            stream = await house.stream()
            assert (await stream.head()).status == 200
            house.engine("scout").may_load.set()
            *_, event, end = await stream.rest()
            told = error_in(event)
            assert end == DONE
        else:
            house.engine("scout").may_load.set()
            answer = await house.ask()
            assert answer.status == 503
            assert int(answer.get(b"retry-after") or 0) >= 1
            told = error(answer)
        assert told["code"] == "load_failed"
        assert "engine scout ended while it loaded" in told["message"]
        assert told["log"] == ["first", "last words"]
        # The next one is tried all the same.
        assert (await house.ask()).status == 200


async def test_a_crash_loop_trips_the_breaker_and_is_tried_again_after_its_time(open_house: OpenHouse) -> None:
    async with open_house(policy={"breaker_failures": 3, "breaker_open_s": 0.3}) as house:
        engine = house.engine("scout")
        engine.failures = [("failed", "engine scout crashed", "no such file")] * 3
        assert [error(await house.ask())["code"] for _ in range(3)] == ["load_failed"] * 3
        for _ in range(5):
            answer = await house.ask()
            told = error(answer)
            assert (answer.status, told["code"]) == (503, "breaker_open")
            assert "engine scout crashed" in told["message"]
            assert int(answer.get(b"retry-after") or 0) >= 1
        assert engine.starts == 3
        # The others do not suffer for it.
        assert (await house.ask("mini")).status == 200
        await asyncio.sleep(0.35)
        assert (await house.ask()).status == 200
        assert engine.starts == 4


async def test_an_engine_that_dies_again_and_again_while_it_serves_trips_the_breaker(open_house: OpenHouse) -> None:
    async with open_house(policy={"breaker_failures": 3, "breaker_open_s": 5.0}) as house:
        for _ in range(3):
            assert (await house.ask()).status == 200
            house.box.crash("scout")
        answer = await house.ask()
        assert (answer.status, error(answer)["code"]) == (503, "breaker_open")
        assert house.starts == {"scout": 3}


async def test_out_of_memory_while_loading_empties_the_box_and_tries_once_more(open_house: OpenHouse) -> None:
    async with open_house(up=["mini", "embed"]) as house:
        house.engine("scout").failures = [("oom", "out of memory", "")]
        assert (await house.ask("scout")).status == 200
        assert house.box.calls == ["start scout", "start scout for mini"]


async def test_what_can_never_fit_is_said_and_costs_nobody_anything(open_house: OpenHouse) -> None:
    async with open_house(up=["mini"], engines={"scout": {"memory_gib": 30.0}}) as house:
        answer = await house.ask("scout")
        assert (answer.status, error(answer)["code"]) == (503, "does_not_fit")
        assert "30.0 GiB" in error(answer)["message"]
        assert house.box.calls == []


async def test_what_only_an_administrator_starts_is_not_woken(open_house: OpenHouse) -> None:
    async with open_house(engines={"scout": {"start": "manual"}}) as house:
        answer = await house.ask("scout")
        assert (answer.status, error(answer)["code"]) == (503, "not_on_demand")
        assert house.box.calls == []


async def test_a_queue_has_an_end(open_house: OpenHouse) -> None:
    async with open_house(policy={"queue_max": 3}) as house:
        house.engine("scout").may_load.clear()
        waiting = [await house.send() for _ in range(3)]
        await until(lambda: house.gateway.conductor.view()[0].waiting == 3)
        answer = await house.ask()
        assert (answer.status, error(answer)["code"]) == (429, "queue_full")
        assert answer.get(b"retry-after") is not None
        house.engine("scout").may_load.set()
        assert [(await client.answer()).status for client in waiting] == [200, 200, 200]


async def test_an_engine_that_somebody_else_starts_is_waited_for_and_not_started_twice(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.box.becomes("scout", "starting")
        client = await house.send()
        await until(lambda: house.gateway.conductor.view()[0].waiting == 1)
        house.box.becomes("scout", "ready")
        assert (await client.answer()).status == 200
        assert house.box.calls == []


async def test_a_change_by_somebody_else_is_waited_for(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.box.busy = 2
        assert (await house.ask()).status == 200
        assert house.box.calls == ["start scout"] * 3


# The client leaves


async def test_a_load_that_nobody_waits_for_any_more_is_given_up(open_house: OpenHouse) -> None:
    async with open_house() as house:
        engine = house.engine("scout")
        engine.may_load.clear()
        clients = [await house.send(), (await house.stream()).client]
        await until(lambda: house.gateway.conductor.view()[0].waiting == 2)
        await clients.pop().close()
        await until(lambda: house.gateway.conductor.view()[0].waiting == 1)
        assert engine.cancels == 0
        await clients.pop().close()
        await until(lambda: engine.cancels == 1)
        await until(lambda: engine.phase == "stopped")
        assert engine.questions == []


async def test_a_load_goes_on_for_nobody_where_it_is_set_so(open_house: OpenHouse) -> None:
    async with open_house(policy={"cancel_unwanted_loads": False}) as house:
        house.engine("scout").may_load.clear()
        client = await house.send()
        await until(lambda: house.engine("scout").phase == "starting")
        await client.close()
        await until(lambda: house.gateway.conductor.view()[0].waiting == 0)
        house.engine("scout").may_load.set()
        await until(lambda: "scout" in house.up)
        assert house.engine("scout").cancels == 0


async def test_who_leaves_the_queue_starts_nothing(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.engine("scout").may_load.clear()
        first = await house.send("scout")
        await until(lambda: house.engine("scout").phase == "starting")
        queued = await house.send("sage")
        await until(lambda: house.gateway.conductor.view()[1].waiting == 1)
        await queued.close()
        await until(lambda: house.gateway.conductor.view()[1].waiting == 0)
        house.engine("scout").may_load.set()
        assert (await first.answer()).status == 200
        assert house.starts == {"scout": 1}


async def test_an_engine_sees_that_its_client_has_left(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream(until="never")
        await stream.head()
        left = asyncio.get_running_loop().time()
        await stream.client.close()
        await house.engine("scout").lost.wait()
        assert asyncio.get_running_loop().time() - left < 0.1
        assert (await house.ask()).status == 200


async def test_a_client_that_leaves_amid_its_question_costs_nothing(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client = await house.connect()
        client.send(request("POST", "/v1/chat/completions", None, b"Content-Length: 1000", KEY), b'{"model": "scout"')
        await asyncio.sleep(0.02)
        await client.close()
        assert (await house.ask("mini")).status == 200
        assert house.starts == {"mini": 1}


# Time that passes


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_a_load_that_lasts_half_an_hour_is_answered(open_house: OpenHouse, streamed: bool) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        policy = {"max_wait_s": 120.0, "min_residency_s": 30.0}
        async with open_house(keepalive_s=5.0, policy=policy, patience_s=None) as house:
            engine = house.engine("scout")
            engine.may_load.clear()
            client = await house.send(stream=streamed)
            stream = Stream(client)
            await _turns(lambda: engine.phase == "starting")
            for turn in range(360):
                loop.skipped_s += 5.1
                if streamed:
                    if turn == 0:
                        await stream.head()
                    assert (await stream.next()).startswith(b": scout: loading")
                else:
                    await asyncio.sleep(0)
            assert engine.cancels == 0
            engine.may_load.set()
            if streamed:
                assert (await stream.rest())[-1] == DONE
            else:
                answer = await client.answer()
                assert (answer.status, json.loads(answer.body)["model"]) == (200, "scout")

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(play())


async def _turns(condition: Callable[[], bool]) -> None:
    """As ``until``, for a loop whose clock is not to be trusted."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come")


def test_an_engine_that_nobody_uses_stops_after_its_time_from_the_last_byte_on(open_house: OpenHouse) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        engines = {"mini": {"pinned": True}}
        async with open_house(
            up=["scout", "mini"], engines=engines, policy={"idle_stop_s": 1800.0}, patience_s=None
        ) as house:
            stream = await house.stream(until="end")
            await stream.head()
            loop.skipped_s += 3600.0
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert house.up == {"scout", "mini"}
            house.engine("scout").gate("end").set()
            assert (await stream.rest())[-1] == DONE
            loop.skipped_s += 1700.0
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert house.up == {"scout", "mini"}
            loop.skipped_s += 200.0
            await _turns(lambda: house.up == {"mini"})

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(play())


async def test_what_a_load_was_measured_to_take_counts_from_then_on(open_house: OpenHouse, tmp_path: Path) -> None:
    (tmp_path / "units" / "hearth-engine-scout.service").write_text("[Service]\n")
    async with open_house() as house:
        scout = house.gateway.engines.find("scout")
        house.box.becomes("scout", "starting")
        # As its unit does at the end of a good load, whoever began that.
        Ledger(tmp_path / "measured.json", tmp_path / "units").record(scout, 7.0, 71.0, "2026-11-21T10:00:00Z")
        house.box.becomes("scout", "ready")

        seen = next(one for one in house.gateway.conductor.view() if one.name == "scout")
        assert seen.load_s == 71.0
        assert not seen.stale
