# SPDX-License-Identifier: Apache-2.0
"""hearth.proxy: what a sentence says of the proxy on a way that broke."""

from __future__ import annotations

import pytest

from hearth import proxy


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


def test_without_a_proxy_nothing_is_said() -> None:
    assert proxy.by("https://huggingface.co/x") == ""


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_a_proxy_is_named_without_its_password(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://me:secret@proxy.lan:3128/")

    assert proxy.by("https://huggingface.co") == " by the proxy proxy.lan:3128"


def test_one_without_a_scheme_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "proxy.lan:3128")

    assert proxy.by("http://mirror.lan:9400/x") == " by the proxy proxy.lan:3128"


def test_a_host_that_is_left_out_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.lan:3128")
    monkeypatch.setenv("no_proxy", "localhost,.lan")

    assert proxy.by("http://mirror.lan:9400/x") == ""
    assert proxy.by("http://example.org/x") == " by the proxy proxy.lan:3128"


def test_one_that_docker_was_told_counts_too() -> None:
    assert proxy.by("https://nvcr.io", {"https": "http://proxy.lan:3128"}) == " by the proxy proxy.lan:3128"
    assert proxy.by("https://nvcr.io", {"https": "http://proxy.lan:3128", "no": "nvcr.io"}) == ""
