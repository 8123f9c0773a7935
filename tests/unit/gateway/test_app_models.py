# SPDX-License-Identifier: Apache-2.0
"""Which engine a request gets to, and that it gets there, and back, as it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from house import SECRET, OpenHouse, Stream, error
from played import DONE
from wires import LAST_CHUNK, STREAM_HEAD, Question, chunk, request

KEY = b"Authorization: Bearer " + SECRET.encode()
FORM = (
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b'\x00\xff\r\n--xy model\r\n\r\n--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nscout\r\n--xyz--\r\n'
)


async def test_the_list_has_all_models_with_their_state(open_house: OpenHouse) -> None:
    async with open_house(up=["embed"]) as house:
        answer = await house.admin("GET", "/v1/models", secret=SECRET)
        listed = json.loads(answer.body)
        assert listed["object"] == "list"
        assert {one["id"]: one["state"] for one in listed["data"]} == {
            "scout": "stopped",
            "sage": "stopped",
            "mini": "stopped",
            "embed": "ready",
        }
        assert all(one["object"] == "model" for one in listed["data"])
        assert house.box.calls == []


async def test_one_model_is_told_by_any_of_its_names(open_house: OpenHouse) -> None:
    async with open_house() as house:
        for name in ("scout", "llama-4-scout"):
            told = json.loads((await house.admin("GET", f"/v1/models/{name}", secret=SECRET)).body)
            assert (told["id"], told["aliases"]) == ("scout", ["llama-4-scout"])
        assert (await house.admin("GET", "/v1/models/nobody", secret=SECRET)).status == 404


async def test_a_list_is_not_to_be_changed(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.admin("DELETE", "/v1/models/scout", secret=SECRET)
        assert (answer.status, answer.get(b"allow")) == (405, b"GET, HEAD")


async def test_an_alias_leads_to_its_engine(open_house: OpenHouse) -> None:
    async with open_house(up=["scout", "embed"]) as house:
        assert json.loads((await house.ask("llama-4-scout")).body)["model"] == "scout"


async def test_an_unknown_model_is_answered_with_the_closest_names(open_house: OpenHouse) -> None:
    async with open_house() as house:
        answer = await house.ask("scuot")
        told = error(answer)
        assert answer.status == 404
        assert (told["code"], told["param"]) == ("model_not_found", "model")
        assert "Did you mean scout" in told["message"]
        assert house.box.calls == []


async def test_a_request_without_a_model_gets_the_default(open_house: OpenHouse) -> None:
    async with open_house(up=["mini"], default_model="mini") as house:
        assert json.loads((await house.ask(None)).body)["model"] == "mini"


async def test_without_a_default_a_model_has_to_be_named(open_house: OpenHouse) -> None:
    async with open_house(up=["mini"]) as house:
        answer = await house.ask(None)
        assert (answer.status, error(answer)["code"]) == (400, "model_missing")


async def test_a_path_may_name_the_model(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        answer = await house.ask(None, path="/v1/llama-4-scout/chat/completions?x=1")
        assert answer.status == 200
        assert house.engine("scout").questions[0].line == b"POST /v1/chat/completions?x=1 HTTP/1.1"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/images/generations",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/audio/speech",
        "/tokenize",
        "/v1/of/tomorrow?x=%20",
    ],
)
async def test_every_path_of_the_api_passes_as_it_is(open_house: OpenHouse, path: str) -> None:
    async with open_house(up=["scout"]) as house:
        assert (await house.ask("scout", path=path)).status == 200
        assert house.engine("scout").questions[0].line == f"POST {path} HTTP/1.1".encode()


async def test_a_form_arrives_byte_for_byte(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        client = await house.connect()
        kind = b"Content-Type: multipart/form-data; boundary=xyz"
        client.send(request("POST", "/v1/audio/transcriptions", FORM, kind, KEY))
        assert (await client.answer()).status == 200
        asked = house.engine("scout").questions[0]
        assert asked.body == FORM
        assert asked.fields[b"content-type"] == kind.split(b": ")[1]


async def test_a_form_for_a_cold_model_wakes_it(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client = await house.connect()
        client.send(
            request("POST", "/v1/audio/transcriptions", FORM, b"Content-Type: multipart/form-data; boundary=xyz", KEY)
        )
        assert (await client.answer()).status == 200
        assert house.engine("scout").questions[0].body == FORM


async def test_a_body_arrives_byte_for_byte_wherever_it_names_the_model(open_house: OpenHouse) -> None:
    body = b'{ "messages":[{"content":"\\u00e9 \xc3\xa9 \\"model\\": \\"sage\\""}],\n "n":1e3,"model" : "scout"}'
    async with open_house(up=["scout"]) as house:
        client = await house.connect()
        client.send(request("POST", "/v1/chat/completions", body, b"Content-Type: application/json", KEY))
        assert (await client.answer()).status == 200
        assert house.engine("scout").questions[0].body == body


@pytest.mark.parametrize("size", [8_000_000, 60_000_000], ids=["8 MB", "60 MB"])
async def test_a_large_body_arrives_whole(open_house: OpenHouse, size: int) -> None:
    async with open_house(up=["scout"]) as house:
        client = await house.connect()
        head, tail = b'{"messages": [{"content": "', b'"}], "model": "scout"}'
        body = head + b"x" * (size - len(head) - len(tail)) + tail
        client.send(request("POST", "/v1/chat/completions", body, KEY, b"Content-Type: application/json"))
        assert json.loads((await client.answer()).body)["length"] == size
        assert house.engine("scout").questions[0].body == body


async def test_a_body_beyond_the_limit_is_refused_unread(open_house: OpenHouse) -> None:
    from hearth.gateway.wire import Limits

    async with open_house(up=["scout"], limits=Limits(max_body_bytes=1000, linger_s=0.4)) as house:
        answer = await house.ask("scout", padding="x" * 2000)
        assert (answer.status, error(answer)["code"]) == (413, "body_too_large")
        assert house.engine("scout").questions == []


@pytest.mark.parametrize("body", [b"{", b"[1, 2]", b'"scout"', b"", b'{"model": "scout"} x', b'{"model": "\xff"}'])
async def test_what_is_no_json_object_is_a_400(open_house: OpenHouse, body: bytes) -> None:
    async with open_house(up=["scout"]) as house:
        client = await house.connect()
        client.send(request("POST", "/v1/chat/completions", body, b"Content-Type: application/json", KEY))
        answer = await client.answer()
        assert answer.status == 400
        assert error(answer)["type"] == "invalid_request_error"
        assert house.engine("scout").questions == []


@pytest.mark.parametrize("model", [7, ["scout"], {"name": "scout"}])
async def test_a_model_that_is_no_text_is_a_400(open_house: OpenHouse, model: Any) -> None:
    async with open_house() as house:
        answer = await house.ask(model)
        assert (answer.status, error(answer)["param"]) == (400, "model")


async def test_an_engines_own_error_passes_as_it_is(open_house: OpenHouse) -> None:
    async def refuse(question: Question, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 422 Whatever\r\nx-engine: yes\r\ncontent-length: 7\r\n\r\nnot so!")

    async with open_house(up=["scout"]) as house:
        house.engine("scout").reply = refuse
        answer = await house.ask()
        assert (answer.status, answer.body, answer.get(b"x-engine")) == (422, b"not so!", b"yes")


async def test_text_that_is_split_amid_a_letter_arrives_whole(open_house: OpenHouse) -> None:
    text = 'data: {"content": "Grüße, 世界 \U0001f525"}\n\n'.encode()

    async def byte_by_byte(question: Question, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for at in range(len(text)):
            writer.write(chunk(text[at : at + 1]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(chunk(DONE + b"\n\n") + LAST_CHUNK)

    async with open_house() as house:
        engine = house.engine("scout")
        engine.reply = byte_by_byte
        warm_or_cold = [await house.stream() for _ in range(2)]
        for stream in warm_or_cold:
            await stream.head()
            events = [event for event in await stream.rest() if not event.startswith(b":")]
            assert events == [text[:-2], DONE]


async def test_every_answer_has_an_id_of_its_own(open_house: OpenHouse) -> None:
    async with open_house(up=["scout"]) as house:
        ids = {(await house.ask()).get(b"x-request-id") for _ in range(5)}
        assert len(ids) == 5
        assert {question.fields[b"x-request-id"] for question in house.engine("scout").questions} == ids


async def test_one_connection_serves_request_after_request_and_model_after_model(open_house: OpenHouse) -> None:
    async with open_house(up=["scout", "mini"]) as house:
        client = await house.connect()
        for model in ("scout", "mini", "nobody", "scout"):
            client.send(request("POST", "/v1/chat/completions", json.dumps({"model": model}).encode(), KEY))
            answer = await client.answer()
            assert answer.status == (404 if model == "nobody" else 200)


async def test_a_client_that_reads_slowly_does_not_fill_the_memory(open_house: OpenHouse) -> None:
    poured = 0

    async def pour(question: Question, writer: asyncio.StreamWriter) -> None:
        nonlocal poured
        writer.write(STREAM_HEAD)
        for _ in range(60):
            writer.write(chunk(b"data: %b\n\n" % (b"x" * 1_000_000)))
            await writer.drain()
            poured += 1
        writer.write(chunk(DONE + b"\n\n") + LAST_CHUNK)

    async with open_house(up=["scout"]) as house:
        house.engine("scout").reply = pour
        client = await house.connect(receive_buffer=10_000)
        client.send(request("POST", "/v1/chat/completions", b'{"model": "scout", "stream": true}', KEY))
        stream = Stream(client)
        await stream.head()
        await asyncio.sleep(0.3)
        # The sockets' buffers take some megabytes, the gateway's own is a part of one.
        assert poured < 30
        assert (await stream.rest())[-1] == DONE
        assert poured == 60
