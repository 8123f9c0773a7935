# SPDX-License-Identifier: Apache-2.0
"""A request that has to wait for nothing but its answer: everything that holds for the others holds for it too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from house import SECRET, House, OpenHouse, Stream, broken, error, error_in, until, write_keys
from played import DONE
from wires import Client, Question, plain, request

from hearth.gateway import keys


def question(model: str = "scout", **fields: Any) -> bytes:
    """A chat request of the key called laptop."""
    body = json.dumps({"model": model, "messages": [], **fields}).encode()
    key = b"Authorization: Bearer " + SECRET.encode()
    return request("POST", "/v1/chat/completions", body, b"Content-Type: application/json", key)


@asynccontextmanager
async def warm(open_house: OpenHouse, **more: Any) -> AsyncIterator[tuple[House, Client]]:
    """A house whose engine runs, with a connection to it that waits, and a client that was answered already."""
    async with open_house(up=["scout"], **more) as house:
        client = await house.connect()
        client.send(question())
        assert (await client.answer()).status == 200
        yield house, client


def at_work(house: House) -> tuple[int, int]:
    """How many requests the scheduler and the administrator see under way."""
    return house.gateway.conductor.view()[0].in_flight, len(house.gateway.app.under_way)


def counted(house: House) -> dict[str, int]:
    """How many requests of the model scout have ended, by status."""
    page = house.gateway.app.metrics.page({}).decode()
    lines = [line for line in page.splitlines() if line.startswith('hearth_requests_total{code="')]
    found = [(line.split('code="')[1].split('"')[0], line) for line in lines if 'model="scout"' in line]
    return {code: int(float(line.rsplit(" ", 1)[1])) for code, line in found}


async def test_it_needs_no_task_and_no_new_connection(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question(until="end"))
        await until(lambda: at_work(house) == (1, 1))
        assert next(iter(house.gateway.app.under_way.values())).exchange.task is None
        house.engine("scout").gate("end").set()
        assert json.loads((await client.answer()).body)["model"] == "scout"
        assert house.engine("scout").connections == 1
        assert at_work(house) == (0, 0)


async def test_it_is_counted_once_with_its_bytes(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        for _ in range(4):
            client.send(question())
            await client.answer()
        assert counted(house) == {"200": 5}


async def test_requests_sent_ahead_are_answered_in_their_order(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(b"".join(question(padding="x" * number) for number in range(100)))
        lengths = [json.loads((await client.answer()).body)["length"] for _ in range(100)]
        assert lengths == list(range(lengths[0], lengths[0] + 100))
        assert at_work(house) == (0, 0)


async def test_however_many_requests_are_sent_ahead_none_is_answered_within_another(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client = await house.connect()
        client.send(request("GET", "/health") * 1500)
        assert [(await client.answer()).status for _ in range(1500)] == [200] * 1500


async def test_a_revoked_key_is_refused_on_the_connection_that_it_was_good_on(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        with keys.change(house.keys_file) as known:
            keys.revoke(known, "laptop")
        client.send(question())
        answer = await client.answer()
        assert (answer.status, error(answer)["code"]) == (401, "invalid_api_key")
        assert len(house.engine("scout").questions) == 1


async def test_another_key_on_the_same_connection_is_another_key(open_house: OpenHouse) -> None:
    async with warm(open_house) as (_, client):
        client.send(question().replace(SECRET.encode(), SECRET.encode()[:-1] + b"x"))
        assert (await client.answer()).status == 401
        client.send(question())
        assert (await client.answer()).status == 200


async def test_another_model_on_the_same_connection_is_another_model(open_house: OpenHouse) -> None:
    async with warm(open_house) as (_, client):
        client.send(question("mini"), question("scuot"), question())
        assert json.loads((await client.answer()).body)["model"] == "mini"
        assert error(await client.answer())["code"] == "model_not_found"
        assert json.loads((await client.answer()).body)["model"] == "scout"


async def test_json_that_is_none_is_refused_and_the_connection_goes_on(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question().replace(b'"model"', b"'model'"), question())
        assert error(await client.answer())["code"] == "invalid_json"
        assert (await client.answer()).status == 200
        assert at_work(house) == (0, 0)


async def test_a_client_that_leaves_amid_its_stream_is_seen_by_the_engine(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question(stream=True, until="never"))
        stream = Stream(client)
        await stream.head()
        assert b"one" in await stream.next()
        await client.close()
        await asyncio.wait_for(house.engine("scout").lost.wait(), 20)
        await until(lambda: at_work(house) == (0, 0))
        assert counted(house) == {"200": 1, "499": 1}


async def test_a_client_that_leaves_before_its_answer_is_seen_by_the_engine(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question(until="never"))
        await until(lambda: house.engine("scout").at_work == 1)
        client.break_off()
        await asyncio.wait_for(house.engine("scout").lost.wait(), 20)
        await until(lambda: at_work(house) == (0, 0))
        assert counted(house) == {"200": 1, "499": 1}


async def test_its_stream_ends_with_an_error_when_the_engine_dies(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question(stream=True, until="never"))
        stream = Stream(client)
        await stream.head()
        assert b"one" in await stream.next()
        house.box.crash("scout")
        assert error_in(await broken(stream))["code"] == "engine_died"
        assert at_work(house) == (0, 0)


async def test_it_is_asked_again_when_its_connection_had_been_closed_meanwhile(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        engine = house.engine("scout")

        async def once(question: Question, writer: asyncio.StreamWriter) -> None:
            if len(engine.questions) == 2:
                writer.transport.abort()
                return
            await engine.talk(question, writer)

        engine.reply = once
        client.send(question())
        assert (await client.answer()).status == 200
        assert [asked.body for asked in engine.questions[1:]] == [engine.questions[0].body] * 2
        assert (engine.connections, at_work(house)) == (2, (0, 0))
        assert counted(house) == {"200": 2}


async def test_who_leaves_while_it_is_asked_again_holds_nothing(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        engine = house.engine("scout")

        async def never(question: Question, writer: asyncio.StreamWriter) -> None:
            if len(engine.questions) == 2:
                client.break_off()
                writer.transport.abort()
                return
            await engine.gate("never").wait()

        engine.reply = never
        client.send(question())
        await until(lambda: len(engine.questions) > 1 and at_work(house) == (0, 0))
        assert house.gateway.app.limiter.under_way("laptop") == 0
        assert counted(house)["499"] == 1


async def test_an_engine_that_ends_in_its_answer_s_head_is_a_502(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):

        async def half(question: Question, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-")
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.transport.abort()

        house.engine("scout").reply = half
        client.send(question())
        answer = await client.answer()
        assert (answer.status, error(answer)["code"]) == (502, "engine_gone")
        assert at_work(house) == (0, 0)
        assert counted(house) == {"200": 1, "502": 1}


async def test_an_administrator_cancels_it(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question(until="never"))
        await until(lambda: house.engine("scout").at_work == 1)
        name = next(iter(house.gateway.app.under_way))
        assert (await house.admin("DELETE", f"/api/requests/{name}")).status == 200
        assert error(await client.answer())["code"] == "cancelled"
        await asyncio.wait_for(house.engine("scout").lost.wait(), 20)
        assert at_work(house) == (0, 0)
        client.send(question())
        assert (await client.answer()).status == 200


async def test_it_is_cut_when_its_model_has_to_go(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question(stream=True, until="never"))
        stream = Stream(client)
        await stream.head()
        assert b"one" in await stream.next()
        assert (await house.admin("POST", "/api/models/scout/unload", {"drain_s": 0.05})).status == 202
        assert error_in(await broken(stream))["code"] == "drained"
        await until(lambda: not house.up)
        assert at_work(house) == (0, 0)


async def test_its_end_lets_a_model_go_that_waited_for_it(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        client.send(question(stream=True, until="end"))
        stream = Stream(client)
        await stream.head()
        assert (await house.admin("POST", "/api/models/scout/unload", {"drain_s": 30})).status == 202
        house.engine("scout").gate("end").set()
        assert (await stream.rest())[-1] == DONE
        await until(lambda: not house.up)


async def test_the_limits_of_its_key_hold(open_house: OpenHouse) -> None:
    async with warm(open_house) as (house, client):
        write_keys(house.keys_file, concurrency=1)
        client.send(question(until="end"))
        await until(lambda: house.engine("scout").at_work == 1)
        assert (await house.ask()).status == 429
        house.engine("scout").gate("end").set()
        assert (await client.answer()).status == 200
        assert (await house.ask()).status == 200


async def test_a_client_that_reads_slowly_keeps_the_engine_waiting(open_house: OpenHouse) -> None:
    size = 60_000_000
    async with open_house(up=["scout"]) as house:
        client = await house.connect(receive_buffer=10_000)
        client.send(question())
        await client.answer()
        engine = house.engine("scout")
        written = asyncio.Event()

        async def pour(question: Question, writer: asyncio.StreamWriter) -> None:
            writer.write(plain(b"x" * size))
            await writer.drain()
            written.set()

        engine.reply = pour
        client.send(question())
        await client.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        assert not written.is_set()
        assert len(await client.reader.readexactly(size)) == size
        await asyncio.wait_for(written.wait(), 20)
        await until(lambda: at_work(house) == (0, 0))


@pytest.mark.parametrize("path", ["/v1/scout/chat/completions?a=b", "/v1/llama-4-scout/chat/completions?a=b"])
async def test_a_model_in_the_path_is_taken_out_of_it_every_time(open_house: OpenHouse, path: str) -> None:
    async with warm(open_house) as (house, client):
        for _ in range(3):
            client.send(question("mini").replace(b"/v1/chat/completions", path.encode()))
            assert json.loads((await client.answer()).body)["model"] == "scout"
        lines = {asked.line for asked in house.engine("scout").questions[1:]}
        assert lines == {b"POST /v1/chat/completions?a=b HTTP/1.1"}
