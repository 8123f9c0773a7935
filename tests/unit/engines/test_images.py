# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.images: an engine whose image is missing or was replaced is refused before anything is stopped."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes import docker

from hearth.engines import images
from hearth.errors import EngineFailedError
from hearth.images import book
from hearth.images.book import Book, Known

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker.sock"


def test_an_image_that_docker_has_is_no_obstacle(make_engine: MakeEngine, path: Path) -> None:
    with docker(path, status=200) as asked:
        images.require(make_engine(image="registry.example:5000/llama.cpp@sha256:0"), path)

    assert asked == ["/images/registry.example:5000/llama.cpp@sha256:0/json"]


def test_an_image_that_docker_does_not_have_is_named_with_what_brings_it(make_engine: MakeEngine, path: Path) -> None:
    with docker(path, status=404), pytest.raises(EngineFailedError) as caught:
        images.require(make_engine(image="llama.cpp:1"), path)

    assert str(caught.value) == (
        "engine scout: its image llama.cpp:1 is not on this box; run site.yml, which brings it"
    )


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an image that was verified as sha256:1."""
    name = "localhost/hearth/llama.cpp:0123456789ab"
    entry = Known(name=name, source="x", digest="", id="sha256:1", how="pulled", at="", engine="llama.cpp")
    monkeypatch.setattr(book, "PATH", tmp_path / "images.json")
    book.write(Book().with_image(entry))
    return name


def test_an_image_that_is_what_was_verified_is_no_obstacle(make_engine: MakeEngine, path: Path, known: str) -> None:
    with docker(path, 200, b'{"Id": "sha256:1"}'):
        images.require(make_engine(image=known), path)


def test_another_image_under_its_name_is_refused(make_engine: MakeEngine, path: Path, known: str) -> None:
    with docker(path, 200, b'{"Id": "sha256:2"}'), pytest.raises(EngineFailedError) as caught:
        images.require(make_engine(image=known), path)

    assert str(caught.value) == (
        f"engine scout: {known} is not the image any more that was verified and tried out; run site.yml, which brings "
        "that again"
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>"])
def test_an_answer_that_is_none_does_not_decide_over_a_change(
    make_engine: MakeEngine, path: Path, known: str, body: bytes
) -> None:
    with docker(path, 200, body) as asked:
        images.require(make_engine(image=known), path)

    assert len(asked) == 1


def test_a_name_that_is_no_path_is_asked_for_as_it_is(make_engine: MakeEngine, path: Path) -> None:
    with docker(path, status=200) as asked:
        images.require(make_engine(image="a b?c#d"), path)

    assert asked == ["/images/a%20b%3Fc%23d/json"]


def test_a_docker_in_trouble_does_not_decide_over_a_change(make_engine: MakeEngine, path: Path) -> None:
    with docker(path, status=500) as asked:
        images.require(make_engine(), path)

    assert len(asked) == 1


def test_a_docker_that_is_down_does_not_decide_over_a_change(make_engine: MakeEngine, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    images.require(make_engine(), path)
