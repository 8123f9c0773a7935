# SPDX-License-Identifier: Apache-2.0
"""The proxy on the way out, as sentences name it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

# What names it, in both spellings that are in use.
VARIABLES = tuple(name for low in ("http", "https", "all", "no") for name in (f"{low}_proxy", f"{low}_proxy".upper()))


def by(url: str, more: Mapping[str, str] | None = None) -> str:
    """For a sentence: " by the proxy host:port" where the way to ``url`` leads over one; never its user and password.

    ``more`` counts beside the environment: proxies by scheme, and hosts without one under "no".
    """
    parts = urlsplit(url)
    proxies = {**getproxies_environment(), **(more or {})}
    proxy = proxies.get(parts.scheme) or proxies.get("all", "")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2], proxies):
        return ""
    named = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return f" by the proxy {named.netloc.rpartition('@')[2]}"
