# SPDX-License-Identifier: Apache-2.0
"""How much a key may ask for: requests at a time, and requests a minute. Pure: the time is given."""

from __future__ import annotations

import msgspec

from hearth.gateway.keys import Key

_MINUTE_S = 60.0
# When one of somebody's requests ends is known to nobody: what a client may as well wait before it asks again.
_CONCURRENCY_RETRY_S = 1.0


class Excess(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is one too many, and after how many seconds it would not be."""

    reason: str
    retry_after_s: float


class _Use(msgspec.Struct):
    """``left`` requests may come at once at ``at`` (seconds); ``under_way`` have come and not ended."""

    left: float
    at: float
    under_way: int = 0


class Limiter:
    """Counts by the names of keys; their limits are those of the key that is shown with each request.

    A minute's requests may come all at once and refill evenly, so any one minute sees at most twice ``per_minute``.
    """

    def __init__(self) -> None:
        self._used: dict[str, _Use] = {}

    def take(self, key: Key, now: float) -> Excess | None:
        """Count a request that begins at ``now`` (seconds, monotonic), unless it is one too many: then say so.

        Each that was counted is to be given back.
        """
        use = self._used.get(key.name)
        if use is None:
            use = self._used[key.name] = _Use(left=float(key.per_minute), at=now)
        if key.concurrency and use.under_way >= key.concurrency:
            reason = f"the key {key.name!r} may have {key.concurrency} requests under way at a time, and has them"
            return Excess(reason=reason, retry_after_s=_CONCURRENCY_RETRY_S)
        if key.per_minute:
            rate = key.per_minute / _MINUTE_S
            use.left = min(float(key.per_minute), use.left + (now - use.at) * rate)
            use.at = now
            if use.left < 1.0:
                reason = f"the key {key.name!r} may ask {key.per_minute} times a minute, and has"
                return Excess(reason=reason, retry_after_s=(1.0 - use.left) / rate)
            use.left -= 1.0
        use.under_way += 1
        return None

    def give_back(self, name: str) -> None:
        """A request of the key called ``name`` has ended."""
        self._used[name].under_way -= 1

    def under_way(self, name: str) -> int:
        """How many requests of the key called ``name`` have not ended."""
        use = self._used.get(name)
        return use.under_way if use else 0
