# SPDX-License-Identifier: Apache-2.0
"""What can be asked of the engines of a box.

Apart from the transaction: who only asks, or waits for one that another process carries out, need not load it all.
"""

from __future__ import annotations

import msgspec

# How long requests under way may take to end before an engine is stopped all the same.
DRAIN_S = 30.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    ``name``: an engine, or none for nothing in ``lane``. ``beside``: what else runs may go on running. ``spare``: these
    may go on running in any case. ``stop``: it is to stop. ``boot``: the start at boot moves along. ``keep``: an engine
    that was chosen for the lane earlier stays, and ``name`` is for a lane where nothing was. ``force``: begin although
    it is not expected to fit; admission at the start decides all the same. ``drain_s``: how long requests under way may
    take. ``timeout_s``: how long the engine may take to be ready, all included, where its own limit is not to count; 0:
    that counts.

    ``demand``: for requests that wait, by the gateway. ``evict`` names who goes, and nobody else does; none is drained.
    Nothing lasts: no start at boot is moved, no journal is kept, and nobody is brought back, since whoever is missing
    comes with its next request. The first answer is left to the request that waits.
    """

    name: str | None
    lane: str = "main"
    beside: bool = False
    spare: tuple[str, ...] = ()
    stop: bool = False
    boot: bool = True
    keep: bool = False
    force: bool = False
    drain_s: float = DRAIN_S
    timeout_s: float = 0.0
    demand: bool = False
    evict: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """For a person, to go with "the change to"."""
        return f"{self.name or 'none'}{' (to stop it)' if self.stop else ''}"
