# SPDX-License-Identifier: Apache-2.0
"""Has the engines out of the way while something is done that takes them all down, such as a restart of Docker.

PRIVATE to the collection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ansible_collections.hearth.spark.plugins.module_utils import _hearth

Around = Callable[[Callable[[], str]], tuple[str, Sequence[str]]]


def plain(work: Callable[[], str]) -> tuple[str, Sequence[str]]:
    """Where there are no engines."""
    return work(), ()


class Engines:
    """Requests under way end before the work, those that come meanwhile wait, and who ran before runs again after it.

    Called with the work it returns what that said, and why engines do not run again. Raises ``error``, with one
    sentence, where the work was not begun, and what the work raises.
    """

    def __init__(
        self, module: _hearth.Module, error: type[Exception], *, drain_s: float, lock_timeout_s: float
    ) -> None:
        self._module = module
        self._error = error
        self._drain_s, self._lock_timeout_s = drain_s, lock_timeout_s
        self.drained = 0
        self.restored: list[str] = []

    def __call__(self, work: Callable[[], str]) -> tuple[str, Sequence[str]]:
        try:
            from hearth import contract
        except ImportError:
            return plain(work)
        if not contract.PATH.exists():
            return plain(work)
        _hearth.require(self._module)
        from hearth.errors import ContractError, HearthError
        from hearth.switching.around import around

        try:
            known = contract.load()
        except ContractError:
            # Of another version, and to be written anew; systemd starts again what ran.
            return plain(work)
        try:
            done = asyncio.run(around(known, work, drain_s=self._drain_s, lock_timeout_s=self._lock_timeout_s))
        except HearthError as error:
            raise self._error(str(error)) from None
        self.drained, self.restored = done.drained, list(done.restored)
        return done.said, done.failures
