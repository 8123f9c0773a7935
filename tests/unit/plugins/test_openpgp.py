# SPDX-License-Identifier: Apache-2.0
"""_openpgp: whose keys a file has. The files were made by gpg, and the fingerprints are gpg's own words of them.

``one`` has a sub-key, ``two`` has none, ``both`` has the two of them in one block.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hearth.spark.plugins.module_utils import _openpgp

KEYS = Path(__file__).parent / "keys"
ONE, TWO = "F08150339EE9DD7059BDE0E9AFDD1F53BCEF6067", "986E3B8E99C52026DE0420312031BC416F9A687E"


def text(name: str) -> str:
    return (KEYS / f"{name}.asc").read_text()


@pytest.mark.parametrize(("name", "found"), [("one", [ONE]), ("two", [TWO]), ("both", [ONE, TWO])])
def test_every_primary_key_is_found_and_no_sub_key(name: str, found: list[str]) -> None:
    assert _openpgp.fingerprints(text(name)) == found


def test_keys_in_several_blocks_are_found_whatever_stands_around_them() -> None:
    page = f"Ours:\n{text('one')}\nand\r\n{text('two')}"
    page = page.replace("BLOCK-----\n\n", "BLOCK-----\nVersion: 1\nComment: x\n\n")

    assert _openpgp.fingerprints(page.replace("\n", "\r\n")) == [ONE, TWO]


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        pytest.param("<html>404</html>", "has no OpenPGP key in it", id="a page"),
        pytest.param("", "has no OpenPGP key in it", id="nothing"),
        pytest.param(text("two").replace("mDMEa", "mDMEa!"), "that is damaged", id="letters"),
        pytest.param(text("two").replace("mDME", "QDME"), "that is damaged", id="bits"),
        pytest.param(re.sub(r"\n.*\n=QUZN", "", text("two")), "that is cut off", id="end"),
        pytest.param(re.sub(r"\n\nmD.*=QUZN", "\n\n=QUZN", text("two"), flags=re.DOTALL), "without a key", id="empty"),
    ],
)
def test_what_is_no_key_is_told(damaged: str, words: str) -> None:
    with pytest.raises(_openpgp.KeyFileError, match=words):
        _openpgp.fingerprints(damaged)


@given(st.binary(max_size=80))
def test_no_bytes_do_anything_but_be_told(data: bytes) -> None:
    block = base64.encodebytes(data).decode()
    armored = f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{block}-----END PGP PUBLIC KEY BLOCK-----\n"
    try:
        found = _openpgp.fingerprints(armored)
    except _openpgp.KeyFileError:
        return
    assert all(re.fullmatch(r"[0-9A-F]{40}", one) for one in found)
