# SPDX-License-Identifier: Apache-2.0
"""hearth.download by Xet: the real hf_xet, a storage of the tests, and HTTP where that hangs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import Fault, Repo, Run, TestHub, ask, contents, noise, sentence

from hearth.download import present

pytestmark = pytest.mark.thorough

SIZE = 40_000_000
FILES = {"model.safetensors": noise(SIZE), "config.json": b"{}"}


@pytest.fixture
def hub() -> Iterator[TestHub]:
    made = TestHub(xet=True)
    yield made
    made.close()


@pytest.fixture
def repo(hub: TestHub) -> Repo:
    return hub.add("me/model", FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def test_a_large_file_comes_by_xet_alone(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))

    assert contents(folder) == FILES
    assert hub.script.sent(at="cdn") == 0
    # Chunks at the edges of windows come twice, with a header of eight bytes each.
    assert SIZE <= hub.script.sent("/xorb/", "cas") < SIZE * 1.02


def test_without_xet_it_comes_by_http_alone(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder, xet=False))

    assert contents(folder) == FILES
    assert hub.script.asked(at="cas") == []


def test_the_hubs_token_does_not_go_to_the_storage(hub: TestHub, repo: Repo, folder: Path, tmp_path: Path) -> None:
    hub.tokens.add("hf_secret")
    (tmp_path / "token").write_text("hf_secret")

    present(ask(hub, folder, token_file=str(tmp_path / "token")))

    assert hub.script.asked(at="cas")
    assert not [one for one in hub.script.asked(at="cas") if "hf_secret" in str(one.headers)]


@pytest.mark.parametrize("path", ["/xet-read-token/", "/reconstructions/", "/xorb/"])
def test_a_storage_that_hangs_is_left_for_http(hub: TestHub, repo: Repo, folder: Path, path: str) -> None:
    hub.script.add(Fault(path=path, hang=0, times=-1))

    code, result, said = Run(ask(hub, folder)).end()

    assert (code, said) == (0, "")
    assert result is not None
    assert contents(folder) == FILES
    assert hub.script.sent(at="cdn") == SIZE


def test_http_goes_on_where_xet_fell_silent(hub: TestHub, repo: Repo, folder: Path) -> None:
    # Windows are asked for side by side: so many that the first ones are among them, whichever comes first.
    hub.script.add(Fault(path="/xorb/", at="cas", hang=0, after=6, times=-1))

    present(ask(hub, folder))

    assert contents(folder) == FILES
    start = hub.script.asked(at="cdn")[0].start
    assert start > 0
    assert hub.script.sent(at="cdn") == SIZE - start


def test_a_storage_that_refuses_is_left_for_http(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path="/reconstructions/", at="cas", status=404, times=-1))

    present(ask(hub, folder))

    assert contents(folder) == FILES


def test_what_comes_by_xet_is_verified_as_well(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path="/xorb/", at="cas", flip=5_000, times=-1))

    assert "model.safetensors came damaged twice" in sentence(ask(hub, folder))
    assert not folder.exists()
