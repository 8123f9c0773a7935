# SPDX-License-Identifier: Apache-2.0
"""The errors that reach a person: each is one sentence that says what, where, and what to do."""

from __future__ import annotations


class HearthError(Exception):
    """Something a person can act on.

    ``log`` holds the last lines of the engine's own log where they explain the failure.
    """

    def __init__(self, sentence: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.log = log


class ContractError(HearthError):
    """engines.json is missing, unreadable or of a schema this version does not know."""


class UnknownModelError(HearthError):
    """The name asked for is neither an engine nor an alias of one."""


class SystemdError(HearthError):
    """systemd could not be reached or refused what was asked."""


class EngineFailedError(HearthError):
    """An engine did not start, did not become ready, or does not serve what it should."""


class EmptyAnswerError(EngineFailedError):
    """An engine answered a chat with nothing."""


class BusyError(HearthError):
    """Another switch holds the box's lock."""
