# SPDX-License-Identifier: Apache-2.0
"""hearth fetch, and what the other verbs say of a model that the box downloads itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import commands
import pytest
from commands import Run

from hearth import download
from hearth.contract import Fetch
from hearth.download import Progress, Request, Result
from hearth.errors import HearthError

if TYPE_CHECKING:
    from switchbox import Box


@pytest.fixture
def run(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The box of ``switching``, which downloads ``new`` itself."""
    fetch = Fetch(
        folder=str(box.models / "fetched"),
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
    box.change_engine("new", fetch=fetch, model_path=str(box.models / "fetched" / "new.gguf"))
    return commands.runner(box, monkeypatch, capsys)


def brings(monkeypatch: pytest.MonkeyPatch, outcome: Result | HearthError) -> list[Request]:
    asked: list[Request] = []

    def present(request: Request, tell: download.Tell) -> Result:
        asked.append(request)
        tell(Progress(phase="asking"))
        if isinstance(outcome, HearthError):
            raise outcome
        return outcome

    monkeypatch.setattr(download, "present", present)
    return asked


def test_the_result_goes_to_stdout_and_progress_to_stderr(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    brings(
        monkeypatch,
        Result(changed=True, commit="b968826d9c46dd60", bytes_fetched=4 * 10**9, bytes_total=5 * 10**9, seconds=8.04),
    )

    code, out, err = run("fetch", "new")

    assert code == 0
    assert out == "hearth: brought 4.00 GB of new in 8.0 s, commit b968826d9c46, 5.00 GB in all\n"
    assert err == "bringing the files of new: asking for the list of files\n"


def test_what_is_there_is_said_to_be(run: Run, box: Box) -> None:
    folder = box.models / "fetched"
    folder.mkdir()
    (folder / "new.gguf").write_bytes(b"GGUF")

    assert run("fetch", "new")[:2] == (0, "hearth: the files of new are there\n")


def test_a_failure_is_one_sentence_and_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    brings(monkeypatch, HearthError("the hub is away: ask again later"))

    code, out, err = run("fetch", "new")

    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "hearth: the hub is away: ask again later"


def test_a_model_that_site_yml_brings_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = brings(monkeypatch, Result(changed=True))

    code, _, err = run("fetch", "old")

    assert code == 1
    assert "the files of old are not for the box to fetch" in err
    assert asked == []


def test_status_tells_how_far_a_download_is(run: Run, box: Box) -> None:
    path = box.host.run / "fetch" / "new.json"
    path.parent.mkdir(parents=True)
    told: dict[str, Any] = {"phase": "fetching", "bytes_done": 10**9, "bytes_total": 4 * 10**9}
    path.write_text(json.dumps(told))

    assert "new: its files come, fetching 1.00 of 4.00 GB, 25 %" in run("status")[1].splitlines()


def test_a_model_that_is_still_to_come_is_nothing_to_mend(run: Run, box: Box) -> None:
    assert not Path(box.engine("new").model_path).exists()

    checks = [check for check in json.loads(run("doctor", "--json")[1]) if check["name"] == "models"]

    assert [(check["verdict"], check["says"]) for check in checks] == [
        ("ok", "all 4 on disk but new, fetched at the first start")
    ]
