# SPDX-License-Identifier: Apache-2.0
"""admission.ledger: the contract's word on what an engine needs, until this box measured it, and never too little."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.admission.ledger import Ledger, Need
from hearth.contract import Engine

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine

AT = "2026-11-21T05:00:00Z"


class Book:
    """A ledger's file and the unit of one engine, which the contract gives 40 GiB and 90 s."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.path = folder / "var" / "measured.json"
        self.units = folder / "units"
        self.units.mkdir(exist_ok=True)
        self.engine = engine
        self.unit = self.units / engine.unit
        self.unit.write_text("[Service]\nExecStart=/bin/true\n")

    @property
    def opened(self) -> Ledger:
        return Ledger(self.path, self.units)

    @property
    def need(self) -> Need:
        return self.opened.need(self.engine)


@pytest.fixture
def book(tmp_path: Path, make_engine: MakeEngine) -> Book:
    return Book(tmp_path, make_engine("scout", memory_gib=40.0, load_s=90.0))


CATALOG = Need(gib=40.0, source="catalog", load_s=90.0)


def test_without_a_measurement_the_contract_says_what_an_engine_needs(book: Book) -> None:
    assert book.need == CATALOG


@pytest.mark.parametrize("gib", [31.2, 55.0])
def test_a_measurement_takes_the_contracts_place_whether_less_or_more(book: Book, gib: float) -> None:
    book.opened.record(book.engine, gib, 71.26, AT)

    assert book.need == Need(gib=gib, source="measured", load_s=71.3)


def test_a_ledger_that_is_open_knows_what_it_recorded(book: Book) -> None:
    ledger = book.opened
    ledger.record(book.engine, 31.2, 71.0, AT)

    assert ledger.need(book.engine).source == "measured"


@pytest.mark.parametrize(("taken", "kept"), [(31.11, 31.2), (31.2, 31.2), (31.201, 31.3)])
def test_a_measurement_is_rounded_up_to_a_tenth(book: Book, taken: float, kept: float) -> None:
    book.opened.record(book.engine, taken, 1.0, AT)

    assert book.need.gib == kept


@given(taken=st.floats(-200, 200))
def test_a_measurement_never_makes_the_need_less_than_it_was_nor_than_half_of_the_contracts(
    tmp_path_factory: pytest.TempPathFactory, make_engine: MakeEngine, taken: float
) -> None:
    book = Book(tmp_path_factory.getbasetemp(), make_engine("scout", memory_gib=40.0))
    book.opened.record(book.engine, taken, 1.0, AT)

    assert book.need.gib >= max(taken, 20.0)
    assert book.need.gib < max(taken, 20.0) + 0.1 + 1e-9


def test_a_changed_unit_makes_its_measurement_void(book: Book) -> None:
    book.opened.record(book.engine, 31.2, 71.0, AT)
    book.unit.write_text("[Service]\nExecStart=/bin/true --ctx-size 65536\n")

    assert book.need == CATALOG


def test_without_its_unit_a_measurement_says_nothing(book: Book) -> None:
    book.opened.record(book.engine, 31.2, 71.0, AT)
    book.unit.unlink()

    assert book.need == CATALOG


def test_without_a_unit_nothing_is_recorded(book: Book) -> None:
    book.unit.unlink()
    book.opened.record(book.engine, 31.2, 71.0, AT)

    assert not book.path.exists()


def test_measurements_of_several_engines_stand_side_by_side(book: Book, make_engine: MakeEngine) -> None:
    other = make_engine("phi")
    (book.units / other.unit).write_text("[Service]\n")
    first, second = book.opened, book.opened
    first.record(book.engine, 31.2, 71.0, AT)
    second.record(other, 5.0, 3.0, AT)

    assert (book.need.gib, book.opened.need(other).gib) == (31.2, 5.0)


def test_a_newer_measurement_takes_the_older_ones_place(book: Book) -> None:
    book.opened.record(book.engine, 31.2, 71.0, AT)
    book.opened.record(book.engine, 29.0, 60.0, AT)

    assert book.need.gib == 29.0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty, as after a power cut"),
        pytest.param(b"{", id="half"),
        pytest.param(b"[]", id="of another form"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b'{"scout": {"fingerprint": "", "gib": -1, "load_s": 0, "at": ""}}', id="less than nothing"),
        pytest.param(b'{"scout": {"gib": 1}}', id="fields missing"),
    ],
)
def test_a_damaged_file_is_as_if_nothing_was_measured(book: Book, text: bytes) -> None:
    book.path.parent.mkdir()
    book.path.write_bytes(text)

    assert book.need == CATALOG


def test_a_damaged_file_is_mended_by_the_next_measurement(book: Book) -> None:
    book.path.parent.mkdir()
    book.path.write_bytes(b"{")
    book.opened.record(book.engine, 31.2, 71.0, AT)

    assert book.need.source == "measured"


def test_the_file_can_be_read_by_all_and_says_when_and_how_long(book: Book) -> None:
    book.opened.record(book.engine, 31.2, 71.0, AT)
    written = json.loads(book.path.read_text())["scout"]

    assert stat.S_IMODE(book.path.stat().st_mode) == 0o644
    assert (written["gib"], written["load_s"], written["at"], len(written["fingerprint"])) == (31.2, 71.0, AT, 64)


def test_nothing_is_left_beside_the_file(book: Book) -> None:
    book.opened.record(book.engine, 31.2, 71.0, AT)

    assert [path.name for path in book.path.parent.iterdir()] == ["measured.json"]


def test_what_an_engine_holds_is_what_its_last_load_took_though_its_unit_was_changed(book: Book) -> None:
    book.opened.record(book.engine, 31.2, 71.0, AT)
    book.unit.write_text("[Service]\nExecStart=/bin/false\n")

    assert book.need == CATALOG
    assert book.opened.held_gib(book.engine) == 31.2


def test_what_seemed_to_take_nothing_holds_half_of_what_the_contract_says(book: Book) -> None:
    book.opened.record(book.engine, 0.0, 71.0, AT)

    assert book.opened.held_gib(book.engine) == 20.0


def test_an_engine_that_was_never_measured_holds_what_the_contract_says(book: Book) -> None:
    assert book.opened.held_gib(book.engine) == 40.0
