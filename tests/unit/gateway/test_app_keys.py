# SPDX-License-Identifier: Apache-2.0
"""Nothing happens for somebody without a valid key, whatever is asked for."""

from __future__ import annotations

import asyncio
import json

import pytest
from house import ADMIN, ENGINES_SECRET, SECRET, OpenHouse, error, until, write_keys
from wires import Client, request

from hearth.gateway import keys

CHAT = b'{"model": "scout", "messages": []}'


async def unbidden(client: Client) -> None:
    """The other side has nothing more to say."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.05)


@pytest.mark.parametrize(
    "header",
    [
        (),
        (b"Authorization: Bearer hearth_wrong",),
        (b"Authorization: Bearer",),
        (b"Authorization: Bearer " + SECRET.encode()[:-1],),
        (b"Authorization: Basic " + SECRET.encode(),),
        (b"x-api-key: hearth_wrong",),
        (b"api-key: ",),
        (b"Authorization: Bearer \xff\xfe",),
    ],
    ids=["none", "wrong", "empty", "all but a letter", "another scheme", "Anthropic's", "Azure's, empty", "no text"],
)
async def test_nothing_starts_without_a_valid_key(open_house: OpenHouse, header: tuple[bytes, ...]) -> None:
    async with open_house() as house:
        client = await house.connect()
        client.send(request("POST", "/v1/chat/completions", CHAT, *header))
        answer = await client.answer()
        assert answer.status == 401
        assert error(answer)["code"] == "invalid_api_key"
        assert answer.get(b"www-authenticate") == b"Bearer"
        assert house.box.calls == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/scout"),
        ("GET", "/metrics"),
        ("GET", "/api/models"),
        ("GET", "/api/events"),
        ("POST", "/api/models/scout/load"),
        ("POST", "/api/reload"),
        ("GET", "/nothing"),
    ],
)
async def test_nobody_sees_or_does_anything_without_a_key(open_house: OpenHouse, method: str, path: str) -> None:
    async with open_house() as house:
        assert (await house.admin(method, path, secret=None)).status == 401
        assert house.box.calls == []


async def test_a_body_is_not_asked_for_before_the_key_is_known(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client = await house.connect()
        client.send(request("POST", "/v1/chat/completions", None, b"Content-Length: 900000", b"Expect: 100-continue"))
        assert (await client.answer()).status == 401


async def test_whether_it_lives_is_told_to_everybody(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.admin("GET", "/health", secret=None)
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


@pytest.mark.parametrize("field", [b"Authorization: Bearer ", b"authorization: bearer ", b"x-api-key: ", b"api-key: "])
async def test_a_key_may_come_as_any_client_sends_it(open_house: OpenHouse, field: bytes) -> None:
    async with open_house(up=["scout"]) as house:
        assert (await house.ask("scout", field + SECRET.encode(), secret=None)).status == 200


async def test_an_engine_is_told_its_own_key_and_never_the_clients(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        await house.ask("scout", b"x-api-key: " + SECRET.encode())
        asked = house.engine("scout").questions[0].fields
        assert asked[b"authorization"] == b"Bearer " + ENGINES_SECRET.encode()
        assert SECRET.encode() not in b"".join(asked.values())


async def test_a_revoked_key_is_not_known_any_more(open_house: OpenHouse) -> None:
    async with open_house() as house:
        assert (await house.ask("scout")).status == 200
        with keys.change(house.keys_file) as known:
            keys.revoke(known, "laptop")
        assert (await house.ask("sage")).status == 401
        assert house.starts == {"scout": 1}


async def test_an_answer_that_has_begun_ends_in_peace_when_its_key_is_revoked(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        stream = await house.stream(until="revoked")
        await stream.head()
        with keys.change(house.keys_file) as known:
            keys.revoke(known, "laptop")
        assert (await house.ask()).status == 401
        house.engine("scout").gate("revoked").set()
        assert (await stream.rest())[-1] == b"data: [DONE]"


async def test_a_key_that_is_made_while_it_runs_is_known(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        with keys.change(house.keys_file) as known:
            keys.add(known, keys.Key(name="new", sha256=keys.digest("hearth_new")))
        assert (await house.ask(secret="hearth_new")).status == 200


async def test_keys_that_cannot_be_read_let_nobody_in(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        house.keys_file.write_text("{", encoding="utf-8")
        answer = await house.ask()
        assert (answer.status, error(answer)["code"]) == (503, "keys_unreadable")
        assert house.engine("scout").questions == []
        write_keys(house.keys_file)
        assert (await house.ask()).status == 200


async def test_an_administrators_key_is_not_for_models(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.ask(secret=ADMIN)
        assert (answer.status, error(answer)["code"]) == (403, "key_scope")
        assert house.box.calls == []


@pytest.mark.parametrize("path", ["/api/models", "/api/events", "/api/requests", "/metrics"])
async def test_a_key_for_models_is_not_for_administration(open_house: OpenHouse, path: str) -> None:
    async with open_house() as house:
        answer = await house.admin("GET", path, secret=SECRET)
        assert (answer.status, error(answer)["code"]) == (403, "key_scope")


async def test_open_it_asks_for_no_key_but_lets_nobody_administer(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"], open=True) as house:
        assert (await house.ask(secret=None)).status == 200
        assert (await house.admin("GET", "/api/models", secret=None)).status == 403
        # Clients send a key anyway: many of them cannot do otherwise.
        assert (await house.ask(secret="whatever")).status == 200


async def test_the_boxs_own_socket_asks_for_no_key(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        client = await house.connect_local()
        client.send(request("GET", "/api/models"))
        assert (await client.answer()).status == 200
        client.send(request("POST", "/v1/chat/completions", CHAT))
        assert (await client.answer()).status == 200


async def test_a_key_has_so_many_requests_at_a_time(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        write_keys(house.keys_file, concurrency=1)
        stream = await house.stream(until="end")
        await stream.head()
        answer = await house.ask()
        assert (answer.status, error(answer)["code"]) == (429, "rate_limit_exceeded")
        assert answer.get(b"retry-after") == b"1"
        house.engine("scout").gate("end").set()
        await stream.rest()
        assert (await house.ask()).status == 200


async def test_a_client_that_left_is_not_counted_any_more(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        write_keys(house.keys_file, concurrency=1)
        stream = await house.stream(until="never")
        await stream.head()
        await stream.client.close()
        await until(lambda: house.engine("scout").at_work == 0)
        assert (await house.ask()).status == 200


async def test_a_key_asks_so_often_a_minute(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        write_keys(house.keys_file, per_minute=2)
        assert [(await house.ask()).status for _ in range(3)] == [200, 200, 429]
        # What starts nothing and asks no engine is not counted.
        assert (await house.admin("GET", "/v1/models", secret=SECRET)).status == 200
