# SPDX-License-Identifier: Apache-2.0
"""hearth.contract: engines.json is read whole or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from hearth import contract, errors

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine

MakeContract = Callable[..., contract.Contract]


@pytest.fixture
def document(make_engine: MakeEngine) -> dict[str, Any]:
    """engines.json as the controller writes it."""
    engine: dict[str, Any] = msgspec.to_builtins(make_engine("scout", aliases=("vision",)))
    return {"schema": 1, "key_file": "/etc/hearth/secrets/engine.env", "floor_gib": 4.0, "engines": [engine]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engines.json"


def refusal(path: Path) -> str:
    with pytest.raises(errors.ContractError) as caught:
        contract.load(path)
    return str(caught.value)


def test_a_good_contract_is_read_whole(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document))

    known = contract.load(path)

    assert json.loads(msgspec.json.encode(known)) == json.loads(path.read_text())
    assert known.engines[0].base_url == "http://127.0.0.1:8080"


def test_a_missing_file_names_the_play_to_run(path: Path) -> None:
    assert refusal(path) == f"{path} is missing: run site.yml against this box first"


def test_a_file_that_cannot_be_read_says_why_and_as_whom_to_try(path: Path) -> None:
    path.mkdir()

    assert refusal(path) == f"{path} cannot be read (Is a directory): run this as root"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"schema": 1', id="cut off"),
        pytest.param(b"schema: 1", id="YAML"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no schema"),
        pytest.param(b'{"schema": "1"}', id="schema as text"),
        pytest.param(b'{"schema": 1}', id="nothing but a schema"),
        pytest.param(b'{"schema": 1, "key_file": "\xff", "floor_gib": 4, "engines": []}', id="not UTF-8"),
    ],
)
def test_a_file_that_is_no_contract_says_so(path: Path, text: bytes) -> None:
    path.write_bytes(text)

    sentence = refusal(path)

    assert sentence.startswith(f"{path} is not valid (")
    assert sentence.endswith("): run site.yml again")


def test_an_unknown_field_is_refused_with_its_name_and_place(path: Path, document: dict[str, Any]) -> None:
    document["engines"][0]["colour"] = "red"
    path.write_text(json.dumps(document))

    sentence = refusal(path)

    assert "colour" in sentence
    assert "$.engines[0]" in sentence


@pytest.mark.parametrize("field", ["name", "unit", "port", "served_name", "tag", "start_timeout_s", "load_s"])
def test_a_missing_field_is_refused_with_its_name(path: Path, document: dict[str, Any], field: str) -> None:
    del document["engines"][0][field]
    path.write_text(json.dumps(document))

    assert f"`{field}`" in refusal(path)


def test_a_lane_that_nobody_knows_is_refused(path: Path, document: dict[str, Any]) -> None:
    document["engines"][0]["lane"] = "fast"
    path.write_text(json.dumps(document))

    assert "'fast'" in refusal(path)


def test_another_schema_version_is_named_before_anything_else_is_looked_at(path: Path) -> None:
    path.write_text('{"schema": 2, "everything": "else is new"}')

    assert refusal(path) == f"{path} has schema 2, this version of hearth reads schema 1: run site.yml again"


@pytest.mark.parametrize("name", ["scout", "vision", "eyes"])
def test_an_engine_is_found_by_its_name_and_by_each_alias(
    make_engine: MakeEngine, make_contract: MakeContract, name: str
) -> None:
    scout = make_engine("scout", aliases=("vision", "eyes"))

    assert make_contract(make_engine("phi"), scout).find(name) is scout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("scuot", "unknown model 'scuot': did you mean 'scout'? known: phi, scout, vision"),
        ("visoin", "unknown model 'visoin': did you mean 'vision'? known: phi, scout, vision"),
        ("qwen3-32b", "unknown model 'qwen3-32b'; known: phi, scout, vision"),
        ("", "unknown model ''; known: phi, scout, vision"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest_and_all_known_ones(
    make_engine: MakeEngine, make_contract: MakeContract, name: str, sentence: str
) -> None:
    known = make_contract(make_engine("scout", aliases=("vision",)), make_engine("phi"))

    with pytest.raises(errors.UnknownModelError) as caught:
        known.find(name)

    assert str(caught.value) == sentence


def test_a_box_without_engines_says_that_it_knows_none(make_contract: MakeContract) -> None:
    with pytest.raises(errors.UnknownModelError, match=r"^unknown model 'scout'; known: none$"):
        make_contract().find("scout")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        pytest.param("LLAMA_API_KEY=s3cret\n", "s3cret", id="alone"),
        pytest.param("# made by Hearth\nOTHER=1\nLLAMA_API_KEY=s3cret", "s3cret", id="among others"),
        pytest.param("LLAMA_API_KEY=a=b==\n", "a=b==", id="with equal signs"),
        pytest.param("LLAMA_API_KEY= s3cret \r\n", "s3cret", id="with blanks around"),
        pytest.param("#LLAMA_API_KEY=s3cret\n", "", id="commented out"),
        pytest.param("MY_LLAMA_API_KEY=s3cret\n", "", id="of another name"),
        pytest.param("", "", id="empty"),
    ],
)
def test_the_key_is_the_value_of_its_line(tmp_path: Path, make_contract: MakeContract, text: str, key: str) -> None:
    file = tmp_path / "engine.env"
    file.write_text(text)

    assert contract.read_key(make_contract(key_file=file)) == key


def test_without_a_key_file_there_is_no_key(tmp_path: Path, make_contract: MakeContract) -> None:
    assert contract.read_key(make_contract(key_file=tmp_path / "engine.env")) == ""


def test_a_key_file_that_cannot_be_read_is_an_error_and_not_an_empty_key(
    tmp_path: Path, make_contract: MakeContract
) -> None:
    with pytest.raises(errors.ContractError) as caught:
        contract.read_key(make_contract(key_file=tmp_path))

    assert str(caught.value) == f"{tmp_path} cannot be read (Is a directory): run this as root"


def test_a_service_that_is_not_roots_has_the_key_as_a_credential(
    tmp_path: Path, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engine.env").write_text("LLAMA_API_KEY=s3cret\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert contract.read_key(make_contract(key_file="/etc/hearth/secrets/engine.env")) == "s3cret"


def test_a_service_with_other_credentials_reads_the_key_where_it_is(
    tmp_path: Path, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "engine.env"
    file.write_text("LLAMA_API_KEY=s3cret\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "others"))

    assert contract.read_key(make_contract(key_file=file)) == "s3cret"
