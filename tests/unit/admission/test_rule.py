# SPDX-License-Identifier: Apache-2.0
"""admission.verdict: whatever the figures, no engine is admitted that does not fit, and a refusal says all it knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.admission.holders import Holder
from hearth.admission.ledger import Need
from hearth.admission.verdict import Admission, decide
from hearth.memory import Memory

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine

# Figures in thousandths of a GiB, so that the test's own sums are exact.
MILLI = st.integers(0, 256_000)
HOLDERS = st.lists(
    st.builds(
        Holder,
        name=st.sampled_from(["qwen", "phi", "python3"]),
        gib=st.integers(1, 100).map(float),
        engine=st.booleans(),
        pid=st.integers(2, 9999),
        container=st.sampled_from(["", "comfyui"]),
        unit=st.sampled_from(["", "ollama.service"]),
    ),
    max_size=5,
)


def memory(available: int, *, free: int | None = None, total: int = 300_000) -> Memory:
    """A reading, from thousandths of a GiB."""
    return Memory(
        total_gib=total / 1000,
        available_gib=available / 1000,
        free_gib=(available if free is None else free) / 1000,
        cached_gib=0,
    )


def need(milli: int, *, measured: bool = False) -> Need:
    return Need(gib=milli / 1000, source="measured" if measured else "catalog", load_s=0)


@pytest.fixture(scope="session")
def decided(make_engine: MakeEngine) -> Admission:
    """A refusal as it is met: 65 GiB are needed, 50.25 available, and two hold memory."""
    held = (Holder(name="qwen", gib=32.0, engine=True), Holder(name="python3", gib=12.34, pid=42, container="comfyui"))
    return decide(make_engine("scout", memory_gib=50.0), need(65_000, measured=True), memory(50_250), 10.0, held=held)


@given(wanted=MILLI, available=MILLI, floor=MILLI)
def test_an_engine_is_admitted_where_it_fits_beside_the_floor_and_only_there(
    make_engine: MakeEngine, wanted: int, available: int, floor: int
) -> None:
    admission = decide(make_engine(), need(wanted), memory(available), floor / 1000)

    if wanted + floor != available:  # to the bit: sums of decimals are not exact
        assert admission.admitted == (wanted + floor < available)


def test_what_fits_exactly_is_admitted(make_engine: MakeEngine) -> None:
    assert decide(make_engine(), need(64_000), memory(72_000), 8.0).admitted


@given(wanted=MILLI, available=MILLI, more=MILLI, floor=MILLI)
def test_more_memory_never_turns_an_admission_into_a_refusal(
    make_engine: MakeEngine, wanted: int, available: int, more: int, floor: int
) -> None:
    before = decide(make_engine(), need(wanted), memory(available), floor / 1000)
    after = decide(make_engine(), need(wanted), memory(available + more), floor / 1000)

    assert after.admitted >= before.admitted


@given(wanted=MILLI, available=MILLI, floor=MILLI, held=HOLDERS)
def test_a_refusal_names_need_available_floor_and_what_is_missing(
    make_engine: MakeEngine, wanted: int, available: int, floor: int, held: list[Holder]
) -> None:
    admission = decide(make_engine("scout"), need(wanted), memory(available), floor / 1000, held=held)

    if not admission.admitted:
        figures = re.match(
            r"engine scout needs ([\d.]+) GiB, but of the ([\d.]+) GiB available ([\d.]+) GiB stay with the host, "
            r"so ([\d.]+) GiB are missing; ",
            admission.sentence,
        )
        assert figures is not None
        said = [float(figure) for figure in figures.groups()]
        assert said == pytest.approx([wanted / 1000, available / 1000, floor / 1000, admission.missing_gib], abs=0.0501)


@given(wanted=MILLI, available=MILLI, floor=MILLI)
def test_with_what_a_refusal_misses_the_engine_would_be_admitted(
    make_engine: MakeEngine, wanted: int, available: int, floor: int
) -> None:
    admission = decide(make_engine(), need(wanted), memory(available), floor / 1000)
    back = memory(available + round(admission.missing_gib * 1000) + 1)

    assert admission.admitted == (admission.missing_gib == 0)
    assert decide(make_engine(), need(wanted), back, floor / 1000).admitted


@given(wanted=MILLI, available=MILLI, floor=MILLI, held=HOLDERS)
def test_a_refusal_says_who_holds_how_much_and_what_to_do_unless_stopping_cannot_help(
    make_engine: MakeEngine, wanted: int, available: int, floor: int, held: list[Holder]
) -> None:
    admission = decide(make_engine(), need(wanted), memory(available), floor / 1000, held=held)

    if not admission.admitted and wanted + floor < 300_000:
        assert all(holder.words in admission.sentence and holder.remedy in admission.sentence for holder in held)
    assert "\n" not in admission.sentence


@given(wanted=MILLI, available=MILLI, free=MILLI, floor=MILLI, gpu=st.booleans())
def test_page_cache_is_dropped_only_where_a_gpu_engine_was_admitted_and_too_little_is_free(
    make_engine: MakeEngine, wanted: int, available: int, free: int, floor: int, gpu: bool
) -> None:
    admission = decide(make_engine(), need(wanted), memory(available, free=free), floor / 1000, gpu=gpu)

    assert admission.drops_cache == (admission.admitted and gpu and free < wanted)


def test_a_refusal_in_words(decided: Admission) -> None:
    assert decided.sentence == (
        "engine scout needs 65.0 GiB (measured), but of the 50.2 GiB available 10.0 GiB stay with the host, "
        "so 24.8 GiB are missing; qwen holds 32.0 GiB, python3 (pid 42, container comfyui) holds 12.3 GiB: "
        "hearth stop qwen; docker stop comfyui"
    )


def test_a_refusal_in_figures(decided: Admission) -> None:
    assert (decided.need_gib, decided.source, decided.available_gib, decided.floor_gib, decided.missing_gib) == (
        65.0,
        "measured",
        50.25,
        10.0,
        24.8,
    )


def test_an_admission_in_words(make_engine: MakeEngine) -> None:
    admission = decide(make_engine("scout"), need(65_000), memory(100_000), 10.0)

    assert admission.sentence == (
        "engine scout needs 65.0 GiB, 100.0 GiB are available and 10.0 GiB of them stay with the host: it may start"
    )


def test_an_admission_says_whose_readiness_comes_first(make_engine: MakeEngine) -> None:
    admission = decide(make_engine("scout"), need(65_000), memory(100_000), 10.0, waits_for="qwen")

    assert admission.sentence.endswith(": it may start once qwen, which is starting, is ready")


def test_what_the_host_can_never_hold_is_said_to_be_too_big(make_engine: MakeEngine) -> None:
    held = [Holder(name="qwen", gib=32.0, engine=True)]
    admission = decide(make_engine("scout"), need(115_000), memory(60_000, total=121_000), 10.0, held=held)

    assert admission.sentence.endswith(
        "so 65.0 GiB are missing; the host has 121.0 GiB in all: choose a smaller model or a smaller context"
    )


DOUBT = "; or, if 50.0 GiB as planned are enough after all, remove /var/lib/hearth/measured.json"


@pytest.mark.parametrize(
    ("measured", "available", "doubted"),
    [
        pytest.param(115_000, 55_000, True, id="too big for the host, but not as planned"),
        pytest.param(65_000, 60_000, True, id="as planned it would fit"),
        pytest.param(65_000, 59_000, False, id="as planned it would not fit either"),
    ],
)
def test_a_measurement_may_be_doubted_where_the_engine_would_start_as_it_was_planned(
    make_engine: MakeEngine, measured: int, available: int, doubted: bool
) -> None:
    engine = make_engine("scout", memory_gib=50.0)
    admission = decide(engine, need(measured, measured=True), memory(available, total=121_000), 10.0)

    assert admission.sentence.endswith(DOUBT) == doubted


def test_the_contracts_own_word_is_not_doubted(make_engine: MakeEngine) -> None:
    engine = make_engine("scout", memory_gib=50.0)
    admission = decide(engine, need(65_000), memory(60_000), 10.0)

    assert DOUBT not in admission.sentence


def test_where_nobody_is_seen_with_memory_the_refusal_says_where_to_look(make_engine: MakeEngine) -> None:
    admission = decide(make_engine("scout"), need(65_000), memory(50_000), 10.0)

    assert admission.sentence.endswith("nobody is seen with 1 GiB or more: look at ps -eo pid,rss,comm --sort=-rss")
