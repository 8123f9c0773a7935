# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.switch: a model that the box downloads itself comes before anything is stopped for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes import Killed

from hearth import state
from hearth.contract import Fetch
from hearth.engines import fetching, units
from hearth.errors import EngineFailedError
from hearth.switching import transition
from hearth.switching.change import Change

if TYPE_CHECKING:
    from switchbox import Box

UNIT = "hearth-fetch@new.service"


@pytest.fixture
def lacking(box: Box, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """The box of ``switching`` without the files of ``new``, which come when their unit is started."""
    file = Path(box.engine("new").model_path)
    folder = file.parent / "fetched"
    fetch = Fetch(
        folder=str(folder),
        repo="me/new",
        revision="main",
        include=(),
        exclude=(),
        extra_files=(),
        endpoint="http://127.0.0.1:1",
        token_file="",
        offline=False,
        uid=-1,
        gid=-1,
        reserve_bytes=0,
    )
    file.unlink()
    box.change_engine("new", fetch=fetch, model_path=str(folder / file.name))
    box.systemd.table[UNIT] = units.UnitState(
        unit=UNIT,
        load="loaded",
        active="inactive",
        sub="",
        enabled=False,
        result="success",
        main_pid=0,
        started_us=0,
        fragment="",
        outdated=False,
    )
    start = box.systemd.start

    async def bring(unit: str, timeout_s: float) -> str:
        if unit == UNIT and UNIT not in box.systemd.start_ends:
            folder.mkdir()
            (folder / file.name).write_bytes(b"GGUF")
        return await start(unit, timeout_s)

    monkeypatch.setattr(box.systemd, "start", bring)
    yield box
    # It is no engine, and holds no memory.
    del box.systemd.table[UNIT]


def bringing(box: Box) -> list[str]:
    """Like ``box.calls``, with the unit of the files as "files"."""
    return [call.replace(UNIT, "the files of new") for call in box.calls]


async def test_files_come_before_the_old_engine_stops(lacking: Box) -> None:
    outcome = await lacking.run("new")

    assert bringing(lacking) == ["start hearth-fetch@new", "stop old", "start new", "enable new", "disable old"]
    assert outcome.fetched


async def test_files_that_are_there_are_not_asked_for(lacking: Box) -> None:
    await lacking.run("new")
    await lacking.run("old")
    lacking.systemd.calls.clear()

    outcome = await lacking.run("new")

    assert bringing(lacking)[0] == "stop old"
    assert not outcome.fetched


async def test_the_lock_is_free_while_files_come(lacking: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    holders: list[str] = []
    fetch = transition.fetch

    async def look(*words: object) -> float:
        holders.append(state.holder(lacking.lock))
        return await fetch(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(transition, "fetch", look)

    await lacking.run("new")

    assert holders == [""]


async def test_how_far_the_download_is_is_told(lacking: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "told", lambda *_: "fetching 1.00 of 4.00 GB, 25 %")

    await lacking.run("new")

    assert lacking.told[0].words == "bringing the files of new: fetching 1.00 of 4.00 GB, 25 %"


async def test_files_that_cannot_be_brought_cost_the_running_engine_nothing(
    lacking: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking.systemd.start_ends[UNIT] = ("failed", "exit-code")
    sentence = "http://127.0.0.1:1 cannot be reached, 5 times: ask again later"
    monkeypatch.setattr(transition, "log_tail", lambda unit: (f"hearth: {sentence}", f"{unit}: Failed"))

    with pytest.raises(EngineFailedError) as failed:
        await lacking.run("new")

    assert str(failed.value) == f"the files of new could not be brought: {sentence}"
    assert [call for call in lacking.calls if call.startswith("stop")] == []
    assert lacking.at_boot == {"old", "embed"}
    assert not lacking.journal.exists()


async def test_a_model_that_would_not_fit_is_not_downloaded(lacking: Box) -> None:
    lacking.change_engine("new", memory_gib=50.0)

    with pytest.raises(EngineFailedError, match="GiB are missing"):
        await lacking.run("new")

    assert lacking.calls == []


async def test_a_dry_run_foretells_the_download(lacking: Box) -> None:
    outcome = await lacking.run("new", dry=True)

    assert outcome.fetched
    assert lacking.calls == []


async def test_after_a_change_that_was_cut_off_what_ran_serves_while_files_come(lacking: Box) -> None:
    lacking.systemd.cut = (("stop", lacking.unit("old")), "after")
    with pytest.raises(Killed):
        await lacking.run("small")
    assert "old" not in lacking.up
    lacking.systemd.calls.clear()

    outcome = await lacking.carry_out(Change(name="new", drain_s=0.0))

    calls = bringing(lacking)
    assert calls.index("start old") < calls.index("start hearth-fetch@new")
    assert "old serves again" in outcome.healed
    assert lacking.up >= {"new"}


async def test_a_tag_that_is_not_in_ollamas_store_costs_what_runs_nothing(box: Box) -> None:
    store = box.models / "ollama"
    store.mkdir()
    box.change_engine("new", engine="ollama", tag="qwen3:0.6b", model_path=str(store))

    with pytest.raises(EngineFailedError, match=r"qwen3:0\.6b is not in Ollama's store"):
        await box.run("new")

    assert not [call for call in box.calls if call.startswith("stop")]
    assert "old" in box.up
