# SPDX-License-Identifier: Apache-2.0
"""Models that do not fit side by side: nobody is cut off, nobody starves, and nothing thrashes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from house import House, OpenHouse, Stream, broken, configure, error, error_in, until
from played import DONE
from wires import STREAM_HEAD, Question, chunk


async def to_the_end(stream: Stream) -> list[bytes]:
    """A stream that has to be whole."""
    await stream.head()
    events = await stream.rest()
    assert events[-1] == DONE
    return events


async def test_a_warm_request_never_waits_for_somebody_elses_cold_start(open_house: OpenHouse) -> None:
    async with open_house(up=["mini", "embed"]) as house:
        house.engine("scout").may_load.clear()
        cold = await house.send("scout")
        await until(lambda: house.engine("scout").phase == "starting")
        for model in ("mini", "embed"):
            assert (await house.ask(model)).status == 200
        assert house.engine("scout").phase == "starting"
        house.engine("scout").may_load.set()
        assert (await cold.answer()).status == 200


async def test_no_stream_is_cut_when_another_model_takes_the_place(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        streams = [await house.stream("scout", until="end") for _ in range(3)]
        for stream in streams:
            await stream.head()
        other = await house.send("sage")
        await until(lambda: not house.gateway.conductor.view()[0].open)
        assert house.starts == {}
        house.engine("scout").gate("end").set()
        for stream in streams:
            assert (await stream.rest())[-1] == DONE
        assert json.loads((await other.answer()).body)["model"] == "sage"
        assert house.box.calls == ["start sage for scout"]


async def test_a_model_that_is_never_idle_does_not_starve_another(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"], policy={"max_wait_s": 0.4, "min_residency_s": 0.1}) as house:
        whole: list[bool] = []
        served = asyncio.Event()

        async def keep_busy(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            while not served.is_set():
                await to_the_end(await house.stream("scout", words=5, pace_s=0.02))
                whole.append(True)

        # So that one begins before another one ends, at any time.
        busy = [asyncio.ensure_future(keep_busy(at / 30)) for at in range(3)]
        await until(lambda: house.engine("scout").at_work == 3)
        answer = await house.ask("sage")
        assert json.loads(answer.body)["model"] == "sage"
        before = len(whole)
        served.set()
        await asyncio.gather(*busy)
        assert len(whole) > before > 0
        assert house.starts["sage"] == 1


async def test_two_clients_in_turns_cause_at_most_a_third_as_many_switches(open_house: OpenHouse) -> None:
    asked: dict[str, int] = {"scout": 0, "sage": 0}
    policy = {"max_wait_s": 0.3, "min_residency_s": 0.2, "calm_s": 0.1}
    async with open_house(policy=policy) as house:

        async def talk(model: str) -> None:
            while min(asked.values()) < 40:
                answer = await house.ask(model)
                assert json.loads(answer.body)["model"] == model
                asked[model] += 1
                await asyncio.sleep(0.005)

        await asyncio.gather(talk("scout"), talk("sage"))
        switches = sum(" for " in call for call in house.box.calls)
        assert 1 <= switches <= sum(asked.values()) / 3


async def test_a_request_that_outlasts_the_drain_gets_an_error_and_no_silent_end(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"], policy={"drain_s": 0.1, "max_wait_s": 0.1}) as house:
        stream = await house.stream("scout", until="never")
        await stream.head()
        plain = await house.send("scout", until="never")
        await until(lambda: house.engine("scout").at_work == 2)
        other = await house.send("sage")
        assert error_in(await broken(stream))["code"] == "drained"
        # Of this one nothing has been sent yet, so it can be told as an answer.
        answer = await plain.answer()
        assert (answer.status, error(answer)["code"], answer.get(b"retry-after")) == (503, "drained", b"1")
        assert (await other.answer()).status == 200


async def test_a_door_opens_again_when_the_one_it_was_shut_for_has_left(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream("scout", until="end")
        await stream.head()
        other = await house.send("sage")
        await until(lambda: not house.gateway.conductor.view()[0].open)
        kept_out = await house.send("scout")
        await until(lambda: house.gateway.conductor.view()[0].waiting == 1)
        await other.close()
        assert (await kept_out.answer()).status == 200
        house.engine("scout").gate("end").set()
        assert (await stream.rest())[-1] == DONE
        assert house.box.calls == []


async def test_models_that_fit_run_side_by_side(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answers = await asyncio.gather(*(house.ask(model) for model in ("scout", "mini", "embed") * 5))
        assert {answer.status for answer in answers} == {200}
        assert house.up == {"scout", "mini", "embed"}
        assert house.starts == {"scout": 1, "mini": 1, "embed": 1}


async def test_a_pinned_model_stays(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"], engines={"scout": {"pinned": True}}) as house:
        answer = await house.ask("sage")
        assert (answer.status, error(answer)["code"]) == (503, "does_not_fit")
        assert house.up == {"scout"}


async def test_many_clients_of_three_models_lose_nothing(open_house: OpenHouse) -> None:
    engines: dict[str, Any] = {"mini": {"memory_gib": 10.0}}
    policy = {"max_wait_s": 0.1, "min_residency_s": 0.02, "calm_s": 0.0}
    async with open_house(engines=engines, policy=policy) as house:
        house.engine("mini").need_gib = 10.0

        async def talk(number: int) -> None:
            for turn in range(12):
                model = ("scout", "sage", "mini")[(number + turn) % 3]
                events = [one for one in await to_the_end(await house.stream(model, words=3)) if one[:1] != b":"]
                assert len(events) == 5

        await asyncio.gather(*(talk(number) for number in range(16)))
        assert sum(house.starts.values()) > 3


# Engines that die


async def test_a_stream_whose_engine_is_killed_ends_with_an_error_and_the_next_is_answered(
    open_house: OpenHouse,
) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream("scout", until="never")
        await stream.head()
        assert b"one" in await stream.next()
        house.box.crash("scout")
        assert error_in(await broken(stream))["code"] == "engine_died"
        assert (await house.ask("scout")).status == 200
        assert house.starts == {"scout": 1}


async def test_an_answer_with_a_length_whose_engine_is_killed_breaks_off(open_house: OpenHouse) -> None:
    async def half(question: Question, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"half"')
        await house.engine("scout").gate("never").wait()

    async with open_house(up=["scout"]) as house:
        house.engine("scout").reply = half
        client = await house.send()
        await client.reader.readuntil(b'{"half"')
        house.box.crash("scout")
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_stream_that_waited_for_its_load_ends_with_an_error_too(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.engine("scout").may_load.clear()
        stream = await house.stream("scout", until="never")
        await stream.head()
        house.engine("scout").may_load.set()
        while b"one" not in await stream.next():
            pass
        house.box.crash("scout")
        assert error_in(await broken(stream))["code"] == "engine_died"


async def test_an_engine_that_is_killed_while_it_loads_is_told_and_started_for_the_next(open_house: OpenHouse) -> None:
    async with open_house() as house:
        engine = house.engine("scout")
        engine.may_load.clear()
        engine.failures = [("failed", "the container of scout was killed", "")]
        client = await house.send()
        await until(lambda: engine.phase == "starting")
        engine.may_load.set()
        assert error(await client.answer())["code"] == "load_failed"
        assert (await house.ask()).status == 200


async def test_what_systemd_starts_again_by_itself_is_joined(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        house.engine("scout").drop()
        house.box.becomes("scout", "starting")
        client = await house.send("scout")
        await until(lambda: house.gateway.conductor.view()[0].waiting == 1)
        house.box.becomes("scout", "ready")
        assert (await client.answer()).status == 200
        assert house.box.calls == []


async def test_an_engine_that_breaks_off_before_its_answer_is_a_502(open_house: OpenHouse) -> None:
    async def hang_up(question: Question, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with open_house(up=["scout"]) as house:
        house.engine("scout").reply = hang_up
        answer = await house.ask()
        assert (answer.status, error(answer)["code"]) == (502, "engine_gone")


async def test_an_event_that_an_engine_broke_off_does_not_swallow_the_error(open_house: OpenHouse) -> None:
    async def half(question: Question, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b'data: {"half'))
        await writer.drain()
        await asyncio.sleep(0.02)
        house.box.crash("scout")

    async with open_house(up=["scout"]) as house:
        house.engine("scout").reply = half
        stream = await house.stream()
        await stream.head()
        assert error_in(await broken(stream))["code"] == "engine_died"


# The configuration is read again


def reconfigure(house: House, tmp_path: Path, **changes: Any) -> None:
    configure(tmp_path, house.box.engines, changes)


async def test_read_again_and_unchanged_nothing_happens(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream(until="end")
        await stream.head()
        reconfigure(house, tmp_path)
        assert await house.gateway.reload() == []
        house.engine("scout").gate("end").set()
        assert (await stream.rest())[-1] == DONE
        assert house.box.calls == []


async def test_one_model_changed_touches_only_that_one(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(up=["scout", "mini"]) as house:
        streams = [await house.stream(model, until="end") for model in ("scout", "mini")]
        for stream in streams:
            await stream.head()
        reconfigure(house, tmp_path, mini={"aliases": ("tiny",)})
        assert await house.gateway.reload() == ["mini"]
        assert json.loads((await house.ask("tiny")).body)["model"] == "mini"
        for name, stream in zip(("scout", "mini"), streams, strict=True):
            house.engine(name).gate("end").set()
            assert (await stream.rest())[-1] == DONE
        assert house.box.calls == []


async def test_a_model_that_is_added_can_be_asked(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(engines={"mini": None}) as house:
        assert (await house.ask("mini")).status == 404
        reconfigure(house, tmp_path)
        assert await house.gateway.reload() == ["mini"]
        assert (await house.ask("mini")).status == 200


async def test_a_model_that_is_removed_ends_for_those_who_wait_and_not_for_those_who_have_it(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    async with open_house(up=["mini"]) as house:
        stream = await house.stream("mini", until="end")
        await stream.head()
        house.engine("scout").may_load.clear()
        waiting = await house.send("scout")
        await until(lambda: house.engine("scout").phase == "starting")
        reconfigure(house, tmp_path, mini=None, scout=None)
        assert await house.gateway.reload() == ["mini", "scout"]
        answer = await waiting.answer()
        assert (answer.status, error(answer)["code"]) == (404, "removed")
        assert (await house.ask("mini")).status == 404
        house.engine("mini").gate("end").set()
        assert (await stream.rest())[-1] == DONE


async def test_a_model_that_is_removed_while_it_loads_is_in_nobodys_way(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house() as house:
        house.engine("scout").may_load.clear()
        waiting = await house.send("scout")
        await until(lambda: house.engine("scout").phase == "starting")
        reconfigure(house, tmp_path, scout=None)
        await house.gateway.reload()
        assert (await waiting.answer()).status == 404
        assert (await house.ask("sage")).status == 200


async def test_a_configuration_that_is_damaged_changes_nothing(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(up=["scout"]) as house:
        (tmp_path / "engines.json").write_text("{", encoding="utf-8")
        answer = await house.admin("POST", "/api/reload")
        assert answer.status >= 400
        assert (await house.ask("scout")).status == 200
