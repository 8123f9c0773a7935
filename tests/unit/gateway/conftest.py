# SPDX-License-Identifier: Apache-2.0
"""The gateway's tests run on the gateway's own event loop, and some of them in a whole gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop
from house import open_house  # noqa: F401


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that `hearth serve` runs on."""
    return {"uvloop": uvloop.new_event_loop}
