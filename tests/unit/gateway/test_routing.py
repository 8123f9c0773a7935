# SPDX-License-Identifier: Apache-2.0
"""The model is found wherever a request names it, and nothing else of the request is read."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wires import LAST_CHUNK, chunk, connected, listening, request

from hearth.gateway.replies import Refusal
from hearth.gateway.routing import Asked, asked, in_form, in_json, model_asked_about, model_in_path
from hearth.gateway.wire import Exchange

JSON = b"Content-Type: application/json"
CHUNKED = request("POST", "/", None, b"Transfer-Encoding: chunked", JSON)
FORM = b"Content-Type: multipart/form-data; boundary=----xyz"


async def tell(exchange: Exchange) -> None:
    """Answers with what was asked, and the body as it is handed on."""
    found = await asked(exchange)
    exchange.respond(200, (), json.dumps([found.model, found.stream, len(exchange.buffered)]).encode())


def part(name: bytes, value: bytes, extra: bytes = b"") -> bytes:
    return b'------xyz\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, extra, value)


FILE = part(b"file", b"\0\1\r\n--xyz\r\n------xy\r\n" * 20, b'; filename="name=model.wav"\r\nContent-Type: audio/wav')
END = b"------xyz--\r\n"

# JSON


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"model":"scout"}', Asked("scout")),
        (b'{"input":[{"model":"no","content":"\\"model\\":\\"no\\""}],"stream":true,"model":"a"}', Asked("a", True)),
        (b'\n {"mod\\u0065l" : "\\u0073cout" }\r\n', Asked("scout")),
        (b'{"model":"one","model":"two"}', Asked("two")),
        ('{"model":"größe"}'.encode(), Asked("größe")),
        (b'{"input":"x"}', Asked()),
        (b'{"model":null,"stream":false}', Asked()),
        (b'{"model":"","stream":"true"}', Asked()),
    ],
)  # fmt: skip
def test_the_model_in_json_wherever_it_stands(body: bytes, found: Asked) -> None:
    assert in_json(body) == found


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"model"', b"{'model':'x'}", b'{"model":"x"} {}', b"\xff", b"null"]
)
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        in_json(body)
    assert (refusal.value.status, refusal.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b'{"model":5}', b'{"model":["a"]}', b'{"model":{}}'])
def test_a_model_that_is_no_text_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        in_json(body)
    assert (refusal.value.code, refusal.value.param) == ("invalid_model", "model")


PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(fields=st.dictionaries(st.text(), PLAIN_JSON, max_size=5), model=st.text(min_size=1), at=st.integers(0, 5))
def test_any_fields_beside_the_model_do_not_matter(fields: dict[str, object], model: str, at: int) -> None:
    pairs = [(name, value) for name, value in fields.items() if name not in {"model", "stream"}]
    pairs.insert(at, ("model", model))
    assert in_json(json.dumps(dict(pairs)).encode()) == Asked(model)


@given(st.binary(max_size=60))
def test_noise_is_refused_or_has_no_model(noise: bytes) -> None:
    found = Asked()
    with suppress(Refusal):
        found = in_json(noise, must=False)
    assert found.model is None or found.model == json.loads(noise)["model"]


# Forms


def test_the_model_in_a_form_before_and_after_a_file() -> None:
    fields = part(b"stream", b"true"), part(b"model", b"whisper"), FILE
    assert in_form(b"------xyz", b"".join(fields) + END, complete=True) == Asked("whisper", True)
    assert in_form(b"------xyz", FILE + fields[1] + END, complete=True) == Asked("whisper")
    assert in_form(b"------xyz", FILE + END, complete=True) == Asked()


def test_a_form_is_read_no_further_than_its_model() -> None:
    form = part(b"language", b"de") + part(b"model", b"whisper") + FILE + END
    needed = form.index(FILE)
    found = [in_form(b"------xyz", form[:size], complete=False) for size in range(len(form))]
    assert set(found[: needed - 2]) == {None}
    assert set(found[needed + len(b"------xyz") :]) == {Asked("whisper")}


def test_a_name_in_quotes_or_without_and_other_fields_of_a_part() -> None:
    form = (
        b"--b\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; filename=x; Name=model\r\n\r\nm\r\n--b--"
    )
    assert in_form(b"--b", form, complete=True) == Asked("m")


@pytest.mark.parametrize(
    "form",
    [b"", b"no form", part(b"model", b"whisper")[:-2], part(b"model", b"x" * 5000) + END, b"------xyz" + b"y" * 20_000],
)
def test_a_broken_form_is_refused(form: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        in_form(b"------xyz", form, complete=True)
    assert refusal.value.status == 400


@given(
    st.lists(
        st.sampled_from([b"------xyz", b"--", b"\r\n", b"\r\n\r\n", b'; name="model"', b"Content-Disposition:", b"x"])
    )
)
def test_any_form_is_understood_or_refused(pieces: list[bytes]) -> None:
    found: Asked | None = Asked()
    with suppress(Refusal):
        found = in_form(b"------xyz", b"".join(pieces), complete=True)
    assert found is not None


# Paths


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/scout/chat/completions", ("scout", b"/v1/chat/completions")),
        ("/v1/org%2Fname/embeddings", ("org/name", b"/v1/embeddings")),
        ("/v1/chat/completions", None),
        ("/v1/responses/resp_1/input_items", None),
        ("/v1/models/scout", None),
        ("/v1/audio/transcriptions", None),
        ("/v1/scout", None),
        ("/v1/scout/unheard", None),
        ("/v2/scout/chat/completions", None),
        ("/v1//chat/completions", None),
        ("/", None),
    ],
)
def test_the_model_in_a_path(path: str, found: tuple[str, bytes] | None) -> None:
    assert model_in_path(path) == found


def test_the_model_that_is_asked_about() -> None:
    assert model_asked_about("/v1/models/org%2Fname") == "org/name"
    assert model_asked_about("/v1/models/org/name") == "org/name"
    assert model_asked_about("/v1/models/") is None
    assert model_asked_about("/v1/models") is None


# On the wire


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (request("POST", "/", b'{"stream":true,"model":"a"}', JSON), ["a", True, 27]),
        (request("POST", "/", b'{"model":"a"}', b"Content-Type: application/x-www-form-urlencoded"), ["a", False, 13]),
        (request("POST", "/", b'{"model":"a"}'), ["a", False, 13]),
        (request("POST", "/", b"model=a", b"Content-Type: application/x-www-form-urlencoded"), [None, False, 7]),
        (request("GET", "/props?model=a%20b"), ["a b", False, 0]),
        (request("GET", "/props"), [None, False, 0]),
        (CHUNKED + chunk(b'{"model"') + chunk(b':"a"}') + LAST_CHUNK, ["a", False, 13]),
    ],
)  # fmt: skip
async def test_a_request_says_what_it_asks_for(sent: bytes, found: list[object]) -> None:
    async with listening(tell) as listener, connected(listener) as client:
        client.send(sent)
        assert json.loads((await client.answer()).body) == found


async def test_a_forms_file_need_not_have_come() -> None:
    async with listening(tell) as listener, connected(listener) as client:
        client.send(request("POST", "/", None, FORM, b"Content-Length: 1000000"), part(b"model", b"whisper") + FILE)
        assert json.loads((await client.answer()).body)[0] == "whisper"


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (request("POST", "/", b"{", JSON), 400, "invalid_json"),
        (request("POST", "/", b"{"), 400, "invalid_json"),
        (request("POST", "/", b"x", b"Content-Type: multipart/form-data"), 400, "invalid_form"),
        (request("POST", "/", b"x", JSON, b"Content-Encoding: gzip"), 415, "encoded_body"),
    ],
)
async def test_what_cannot_be_read_is_refused(sent: bytes, status: int, code: str) -> None:
    async with listening(tell) as listener, connected(listener) as client:
        client.send(sent)
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
