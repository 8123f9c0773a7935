# SPDX-License-Identifier: Apache-2.0
"""hearth.images.book: who runs from what, and from what before."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.images import book
from hearth.images.book import Book, Known, Use


def an_image(name: str) -> Known:
    return Known(name=name, source=f"x/{name}@sha256:1", digest="", id="", how="pulled", at="", engine="vllm")


def test_a_new_image_of_an_engine_makes_the_old_one_its_way_back() -> None:
    known = Book().with_uses({"scout": "a"}).with_uses({"scout": "b"})

    assert known.models == {"scout": Use(image="b", previous="a")}


def test_the_same_image_changes_nothing() -> None:
    known = Book().with_uses({"scout": "a"}).with_uses({"scout": "b"})

    assert known.with_uses({"scout": "b"}) == known


def test_an_engine_that_is_gone_needs_nothing() -> None:
    known = Book().with_uses({"scout": "a", "qwen": "b"}).with_uses({"qwen": "b"})

    assert known.needed() == {"b": ["qwen"]}


def test_an_image_that_is_gone_is_no_way_back_and_no_meaning_of_a_tag() -> None:
    known = Book(images={"a": an_image("a")}, models={"scout": Use(image="b", previous="a")}, pins={"x:1": "a"})

    assert known.without("a") == Book(models={"scout": Use(image="b")})


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 9}', b"\xff"])
def test_a_book_that_cannot_be_read_is_an_empty_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "images.json").write_bytes(content)

    assert book.read(tmp_path / "images.json") == Book()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    known = Book(images={"a": an_image("a")}).with_uses({"scout": "a"})

    book.write(known, tmp_path / "images.json")

    assert book.read(tmp_path / "images.json") == known
