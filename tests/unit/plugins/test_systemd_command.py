# SPDX-License-Identifier: Apache-2.0
"""_docker.systemd_command: whatever the words, systemd reads the same ones back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _docker

# Everything printable, and much of what quoting trips over.
TRICKY = st.sampled_from("$%\\\"'; \t\n#-={}~*!@:|+<>&nx0")
WORDS = st.text(TRICKY | st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=12)
ESCAPES = {"n": "\n", "t": "\t", "s": " ", '"': '"', "'": "'", "\\": "\\", "r": "\r"}


def joined(value: str) -> str:
    """systemd.syntax(7): a line that ends in a backslash goes on in the next one; comments in between are left out."""
    lines = [line for line in value.split("\n") if not line.lstrip().startswith(("#", ";"))]
    return " ".join(line.removesuffix("\\") for line in lines)


def split(text: str) -> list[str]:
    """systemd.service(5), "COMMAND LINES": words with quotes of both kinds and C-style escapes."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            word = (word or "") + ESCAPES[next(characters)]
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in "\"'":
            quote, word = character, word or ""
        elif character.isspace() and character in " \t":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + character
    assert not quote, "an open quote"
    return words if word is None else [*words, word]


def expanded(word: str) -> str:
    """Specifiers first, then variables; one that is not doubled would become something else."""
    assert not re.search(r"(?<!%)(%%)*%(?!%)", word), "a specifier"
    word = word.replace("%%", "%")
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word), "a variable"
    return word.replace("$$", "$")


def read_back(value: str) -> list[str]:
    return [expanded(word) for word in split(joined(value))]


@given(words=st.lists(WORDS, max_size=6))
def test_what_systemd_reads_is_what_was_written(words: list[str]) -> None:
    argv = ["/usr/bin/docker", "run", *words]

    assert read_back(_docker.systemd_command(argv)) == argv


@given(words=st.lists(WORDS, max_size=6))
def test_every_line_but_the_last_goes_on(words: list[str]) -> None:
    *lines, last = _docker.systemd_command(["/usr/bin/docker", *words]).split("\n")

    assert all(line.endswith(" \\") for line in lines)
    assert not last.endswith("\\")


@pytest.mark.parametrize(
    "word",
    [
        "",
        " ",
        "$HOME",
        "${HOME}",
        "$$",
        "100%",
        "%h",
        "%%",
        "a\\b",
        "\\",
        "\\n",
        '"',
        "'",
        ";",
        "#",
        "-",
        "{{ x }}",
        "ü",
    ],
)
def test_words_that_trip_quoting(word: str) -> None:
    assert read_back(_docker.systemd_command(["/bin/true", word, "end"])) == ["/bin/true", word, "end"]


def test_plain_words_stay_readable_with_an_option_a_line() -> None:
    command = ["/usr/bin/docker", "run", "--rm", "--name", "hearth-scout", "image@sha256:0", "--port", "8080"]

    assert _docker.systemd_command(command).split(" \\\n    ") == [
        "/usr/bin/docker run",
        "--rm",
        "--name hearth-scout",
        "image@sha256:0",
        "--port 8080",
    ]
