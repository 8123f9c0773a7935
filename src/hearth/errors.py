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


class SystemdGoneError(SystemdError):
    """There is no connection to systemd, or it broke: what was asked may have been done all the same."""


class EngineFailedError(HearthError):
    """An engine did not start, did not become ready, or does not serve what it should."""


class RefusedError(EngineFailedError):
    """Admission did not let an engine start: memory is missing."""


class OutOfMemoryError(EngineFailedError):
    """An engine ran out of memory while it loaded."""


class UnwantedError(EngineFailedError):
    """A start was given up because nobody wants it any more."""


class EmptyAnswerError(EngineFailedError):
    """An engine answered a chat with nothing."""


class BusyError(HearthError):
    """Another switch holds the box's lock."""


class SettingsError(HearthError):
    """gateway.json is missing, unreadable, or asks for what the gateway does not do."""


class KeysError(HearthError):
    """keys.json is missing, unreadable or damaged, or the change that was asked for is not possible."""


class UnknownKeyError(KeysError):
    """No key has that name."""
