# SPDX-License-Identifier: Apache-2.0
"""What administrators see and change, while everybody else goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from house import ADMIN, SECRET, House, OpenHouse, Stream, broken, error, error_in, until
from played import DONE
from wires import PATIENCE_S, Client, request

KEY = b"Authorization: Bearer " + ADMIN.encode()


async def model(house: House, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await house.admin("GET", f"/api/models/{name}")).body)
    return found


class Hold:
    """The connection by which another process holds engines, and what it hears there."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._lines: list[bytes] = []

    @classmethod
    async def begin(cls, house: House, *engines: str, drain_s: float = 10.0) -> Hold:
        client = await house.connect_local()
        body = json.dumps({"engines": engines, "drain_s": drain_s}).encode()
        client.send(request("POST", "/api/holds", body))
        assert (await client.answer(of_head=True)).status == 200
        return cls(client)

    async def line(self) -> dict[str, Any]:
        """The next line."""
        async with asyncio.timeout(PATIENCE_S):
            size = int(await self.client.reader.readuntil(b"\r\n"), 16)
            told: dict[str, Any] = json.loads(await self.client.reader.readexactly(size))
            await self.client.reader.readexactly(2)
        return told

    async def drained(self) -> dict[str, Any]:
        """The line that says that all have ended."""
        while "drained" not in (told := await self.line()):
            pass
        return told


async def news(stream: Stream) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """What happens, event by event."""
    while True:
        async with asyncio.timeout(PATIENCE_S):
            lines = (await stream.next()).decode().splitlines()
        if len(lines) == 2:
            yield lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))


async def listening(house: House) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    client = await house.connect()
    client.send(request("GET", "/api/events", None, KEY))
    stream = Stream(client)
    assert (await stream.head()).get(b"content-type") == b"text/event-stream"
    return news(stream)


async def test_every_model_is_shown_as_it_stands(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream("scout", until="end")
        await stream.head()
        listed = json.loads((await house.admin("GET", "/api/models")).body)["models"]
        assert [one["name"] for one in listed] == ["scout", "sage", "mini", "embed"]
        scout = await model(house, "llama-4-scout")
        assert (scout["phase"], scout["in_flight"], scout["open"]) == ("ready", 1, True)
        assert (await model(house, "sage"))["phase"] == "stopped"


async def test_a_model_is_loaded_and_then_the_answer_comes(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.admin("POST", "/api/models/scout/load")
        assert (answer.status, json.loads(answer.body)) == (200, {"loaded": "scout"})
        assert house.up == {"scout"}
        assert (await house.admin("POST", "/api/models/scout/load")).status == 200
        assert house.starts == {"scout": 1}


async def test_a_load_need_not_be_waited_for(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.engine("scout").may_load.clear()
        answer = await house.admin("POST", "/api/models/scout/load", {"wait": False})
        assert (answer.status, json.loads(answer.body)) == (202, {"loading": "scout"})
        house.engine("scout").may_load.set()
        await until(lambda: house.up == {"scout"})


async def test_an_administrator_who_leaves_does_not_take_the_load_back(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.engine("scout").may_load.clear()
        client = await house.connect()
        client.send(request("POST", "/api/models/scout/load", b"", KEY))
        await until(lambda: house.engine("scout").phase == "starting")
        await client.close()
        await asyncio.sleep(0.05)
        house.engine("scout").may_load.set()
        await until(lambda: house.up == {"scout"})
        assert house.engine("scout").cancels == 0


async def test_a_load_that_fails_is_told(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.engine("scout").failures = [("failed", "engine scout ended", "last words")]
        answer = await house.admin("POST", "/api/models/scout/load")
        assert (answer.status, error(answer)["code"], error(answer)["log"]) == (503, "load_failed", ["last words"])


async def test_what_is_not_on_demand_is_loaded_by_an_administrator(open_house: OpenHouse) -> None:
    async with open_house(engines={"scout": {"start": "manual"}}) as house:
        assert (await house.admin("POST", "/api/models/scout/load")).status == 200
        assert (await house.ask("scout")).status == 200


async def test_an_unload_waits_for_what_is_in_flight_and_delays_nobody_else(open_house: OpenHouse) -> None:
    async with open_house(up=["scout", "mini"]) as house:
        stream = await house.stream("scout", until="end")
        await stream.head()
        answer = await house.admin("POST", "/api/models/scout/unload")
        assert (answer.status, json.loads(answer.body)) == (202, {"unloading": "scout"})
        assert [(await house.ask("mini")).status for _ in range(10)] == [200] * 10
        assert "scout" in house.up
        house.engine("scout").gate("end").set()
        assert (await stream.rest())[-1] == DONE
        await until(lambda: house.up == {"mini"})


async def test_another_model_is_loaded_while_one_is_drained_for_its_unload(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream("scout", until="end")
        await stream.head()
        await house.admin("POST", "/api/models/scout/unload")
        assert (await house.ask("mini")).status == 200
        house.engine("scout").gate("end").set()
        assert (await stream.rest())[-1] == DONE


async def test_an_unload_has_an_end(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream("scout", until="never")
        await stream.head()
        await house.admin("POST", "/api/models/scout/unload", {"drain_s": 0.05})
        assert error_in(await broken(stream))["code"] == "drained"
        await until(lambda: house.up == set())


async def test_an_unload_of_what_is_down_does_nothing(open_house: OpenHouse) -> None:
    async with open_house() as house:
        assert (await house.admin("POST", "/api/models/scout/unload")).status == 202
        assert (await house.ask("scout")).status == 200
        assert house.box.calls == ["start scout"]


async def test_a_switch_leaves_one_model_of_the_main_lane(open_house: OpenHouse) -> None:
    async with open_house(up=["sage", "mini", "embed"]) as house:
        answer = await house.admin("POST", "/api/switch", {"model": "scout"})
        assert (answer.status, json.loads(answer.body)) == (200, {"loaded": "scout"})
        await until(lambda: house.up == {"scout", "embed"})


async def test_a_switch_cuts_nobody_off(open_house: OpenHouse) -> None:
    async with open_house(up=["sage"]) as house:
        stream = await house.stream("sage", until="end")
        await stream.head()
        assert (await house.admin("POST", "/api/switch", {"model": "scout", "wait": False})).status == 202
        house.engine("sage").gate("end").set()
        assert (await stream.rest())[-1] == DONE
        await until(lambda: house.up == {"scout"})


async def test_a_request_is_cancelled(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream("scout", until="never")
        await stream.head()
        (one,) = json.loads((await house.admin("GET", "/api/requests")).body)["requests"]
        assert (one["model"], one["key"], one["path"], one["waiting"]) == (
            "scout",
            "laptop",
            "/v1/chat/completions",
            False,
        )
        assert (await house.admin("DELETE", f"/api/requests/{one['id']}")).status == 200
        assert error_in(await broken(stream))["code"] == "cancelled"
        await house.engine("scout").lost.wait()
        assert json.loads((await house.admin("GET", "/api/requests")).body)["requests"] == []


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_a_request_that_waits_is_cancelled_with_its_load(open_house: OpenHouse, streamed: bool) -> None:
    async with open_house() as house:
        house.engine("scout").may_load.clear()
        stream = Stream(await house.send("scout", stream=streamed))
        if streamed:
            await stream.head()
        await until(lambda: house.engine("scout").phase == "starting")
        (one,) = json.loads((await house.admin("GET", "/api/requests")).body)["requests"]
        assert one["waiting"] is True
        assert (await house.admin("DELETE", f"/api/requests/{one['id']}")).status == 200
        told = error_in((await stream.rest())[-2]) if streamed else error(await stream.client.answer())
        assert told["code"] == "cancelled"
        await until(lambda: house.engine("scout").cancels == 1)


async def test_a_request_that_is_not_there_is_a_404(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.admin("DELETE", "/api/requests/req_0")
        assert (answer.status, error(answer)["code"]) == (404, "request_not_found")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/api/nothing", None, 404, "not_found"),
        ("POST", "/api/models", {}, 405, "method_not_allowed"),
        ("GET", "/api/models/nobody", None, 404, "model_not_found"),
        ("POST", "/api/models/nobody/load", {}, 404, "model_not_found"),
        ("POST", "/api/models/scout/dance", {}, 404, "not_found"),
        ("GET", "/api/models/scout/load", None, 405, "method_not_allowed"),
        ("POST", "/api/models/scout/unload", {"drain": 5}, 400, "invalid_request"),
        ("POST", "/api/switch", {}, 400, "invalid_request"),
        ("POST", "/api/switch", {"model": "nobody"}, 404, "model_not_found"),
        ("POST", "/api/holds", {"engines": ["nobody"], "drain_s": 1}, 404, "model_not_found"),
        ("POST", "/api/holds", {"engines": "scout"}, 400, "invalid_request"),
        ("GET", "/", None, 404, "not_found"),
    ],
)
async def test_a_question_that_is_wrong_is_told_so(
    open_house: OpenHouse, method: str, path: str, body: Any, status: int, code: str
) -> None:
    async with open_house(up=["scout"]) as house:
        answer = await house.admin(method, path, body)
        assert (answer.status, error(answer)["code"]) == (status, code)
        assert house.box.calls == []


# Holds of other processes


async def test_a_hold_is_told_once_nothing_is_in_flight_any_more(open_house: OpenHouse) -> None:
    async with open_house(up=["scout", "mini"]) as house:
        stream = await house.stream("scout", until="end")
        await stream.head()
        hold = await Hold.begin(house, "scout")
        assert await hold.line() == {"in_flight": 1}
        kept_out = await house.send("scout")
        await until(lambda: house.gateway.conductor.view()[0].waiting == 1)
        assert (await house.ask("mini")).status == 200
        house.engine("scout").gate("end").set()
        assert (await stream.rest())[-1] == DONE
        assert await hold.drained() == {"drained": True, "left": 0}
        assert len(house.engine("scout").questions) == 1
        await hold.client.close()
        assert (await kept_out.answer()).status == 200


async def test_a_hold_has_a_deadline(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream("scout", until="never")
        await stream.head()
        hold = await Hold.begin(house, "scout", drain_s=0.05)
        assert (await hold.drained())["left"] == 1
        assert error_in(await broken(stream))["code"] == "drained"


async def test_while_anything_is_held_nothing_is_started_or_stopped(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        hold = await Hold.begin(house, "scout")
        await hold.drained()
        waiting = await house.send("mini")
        await until(lambda: house.gateway.conductor.view()[2].waiting == 1)
        assert house.box.calls == []
        # The other process does its work, and the gateway sees it.
        house.box.becomes("scout", "stopped")
        house.box.becomes("sage", "ready")
        await hold.client.close()
        assert (await waiting.answer()).status == 200
        assert house.box.calls == ["start mini"]


async def test_a_process_that_dies_lets_go(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        hold = await Hold.begin(house, "scout")
        await hold.drained()
        waiting = await house.send("scout")
        await until(lambda: house.gateway.conductor.view()[0].waiting == 1)
        hold.client.writer.transport.abort()
        assert (await waiting.answer()).status == 200


async def test_a_hold_is_not_for_everybody(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        answer = await house.admin("POST", "/api/holds", {"engines": ["scout"], "drain_s": 0}, secret=SECRET)
        assert answer.status == 403


# What happens


async def test_events_tell_of_every_change_of_state(open_house: OpenHouse) -> None:
    async with open_house(up=["sage"]) as house:
        told = await listening(house)
        kind, first = await anext(told)
        assert (kind, {one["name"]: one["phase"] for one in first["models"]}["sage"]) == ("models", "ready")
        assert (await house.ask("scout")).status == 200
        heard = [await anext(told) for _ in range(6)]
        assert heard == [
            ("load", {"model": "scout", "instead_of": ["sage"]}),
            ("state", {"model": "sage", "state": "stopping"}),
            ("state", {"model": "sage", "state": "stopped"}),
            ("state", {"model": "scout", "state": "starting"}),
            ("state", {"model": "scout", "state": "ready"}),
            ("loaded", {"model": "scout", "seconds": 0.0}),
        ]


async def test_events_tell_of_what_others_do_and_of_failures(open_house: OpenHouse) -> None:
    async with open_house() as house:
        told = await listening(house)
        await anext(told)
        house.box.becomes("mini", "starting")
        assert await anext(told) == ("state", {"model": "mini", "state": "starting"})
        house.engine("embed").failures = [("failed", "no such file", "")]
        await house.ask("embed")
        heard = [await anext(told) for _ in range(4)]
        assert heard[-1] == ("load_failed", {"model": "embed", "kind": "failed", "reason": "no such file"})


async def test_who_does_not_read_the_events_holds_nobody_up(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client = await house.connect(receive_buffer=4096)
        client.send(request("GET", "/api/events", None, KEY))
        await client.answer(of_head=True)
        for _ in range(600):
            house.box.becomes("mini", "starting")
            house.box.becomes("mini", "stopped")
        assert (await house.ask("scout")).status == 200


async def test_metrics_count_requests_bytes_loads_and_switches_by_model_and_key(open_house: OpenHouse) -> None:
    async with open_house(up=["sage"]) as house:
        for asked in ("scout", "scout", "scuot"):
            await house.ask(asked)
        page = (await house.admin("GET", "/metrics")).body.decode()
        assert 'hearth_requests_total{code="200",key="laptop",model="scout"} 2.0' in page
        assert 'hearth_requests_total{code="404",key="laptop",model=""} 1.0' in page
        assert "hearth_switches_total 1.0" in page
        assert 'hearth_load_seconds_count{model="scout"} 1.0' in page
        assert 'hearth_engine_ready{model="scout"} 1.0' in page
        assert 'hearth_engine_ready{model="sage"} 0.0' in page
        assert 'hearth_wait_seconds_count{model="scout"} 1.0' in page
        assert SECRET not in page


async def test_metrics_say_who_waits_and_who_is_in_flight(open_house: OpenHouse) -> None:
    async with open_house(up=["mini"]) as house:
        house.engine("scout").may_load.clear()
        await house.send("scout")
        stream = await house.stream("mini", until="never")
        await stream.head()
        await until(lambda: house.gateway.conductor.view()[0].waiting == 1)
        page = (await house.admin("GET", "/metrics")).body.decode()
        assert 'hearth_waiting{model="scout"} 1.0' in page
        assert 'hearth_in_flight{model="mini"} 1.0' in page


async def test_the_engines_own_metrics_are_there_with_their_model(open_house: OpenHouse) -> None:
    async with open_house(up=["mini", "embed"]) as house:
        page = (await house.admin("GET", "/metrics")).body.decode()
        assert page.count("# TYPE tokens counter") == 1
        assert 'tokens{model="mini"} 3' in page
        assert 'tokens{model="embed"} 3' in page


async def test_the_status_of_a_client_that_left_is_its_own(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        client = await house.send("scout", until="never")
        await until(lambda: house.engine("scout").at_work == 1)
        await client.close()
        await until(lambda: house.engine("scout").at_work == 0)
        page = (await house.admin("GET", "/metrics")).body.decode()
        assert 'hearth_requests_total{code="499",key="laptop",model="scout"} 1.0' in page


async def test_a_reload_says_what_changed(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.admin("POST", "/api/reload")
        assert (answer.status, json.loads(answer.body)) == (200, {"changed": []})
