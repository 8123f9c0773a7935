# SPDX-License-Identifier: Apache-2.0
"""Docker's settings, /etc/docker/daemon.json: what belongs into it beside what is there. Pure functions, no I/O.

PRIVATE to the collection.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Log drivers that know max-size and max-file (Docker's documentation of each); another would refuse every container.
_ROTATING = ("json-file", "local")
# What a running Docker takes over by SIGHUP (reference of dockerd, "Configuration reload behavior"). Not `features`,
# though it is listed there: whether it looks for CDI devices is settled when it starts (moby, cmd/dockerd).
_RELOADED = frozenset(
    {
        "debug",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "default-runtime",
        "runtimes",
        "authorization-plugins",
        "insecure-registries",
        "registry-mirrors",
        "shutdown-timeout",
    }
)


class SettingsError(ValueError):
    """One sentence that goes on from the file's name."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The file's text as it should be. ``keys``: the settings that differ; ``before`` and ``after`` have only these."""

    text: str
    keys: tuple[str, ...]
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return bool(self.keys)

    @property
    def reload(self) -> bool:
        """Whether Docker takes it over without a restart."""
        return reloads(self.keys)


def reloads(keys: Iterable[str]) -> bool:
    """Whether a Docker that runs takes these settings over without a restart."""
    return set(keys) <= _RELOADED


def merge(text: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Merged:
    """Lay ``settings`` over what the file says, and ``defaults`` below it; tables are laid over each other by key.

    Nothing else in the file changes, and where nothing does the text is what it was. Raises SettingsError for a file
    that is broken, and for one in which something else stands where a table is wanted.
    """
    have = _parsed(text)
    want = copy.deepcopy(have)
    _lay(want, settings, (), over=True)
    log_driver = want.get("log-driver", _ROTATING[0])
    _lay(want, _fitting(defaults, log_driver), (), over=False)
    keys = tuple(key for key in want if key not in have or want[key] != have[key])
    indent = re.search(r"^\{\n([ \t]+)", text.lstrip())
    return Merged(
        text=_shown(want, indent[1] if indent else "    ") if keys else text,
        keys=keys,
        before=_shown({key: have[key] for key in keys if key in have}) if set(keys) & set(have) else "",
        after=_shown({key: want[key] for key in keys}) if keys else "",
    )


def _shown(table: Mapping[str, Any], indent: str = "    ") -> str:
    return json.dumps(table, indent=indent, ensure_ascii=False) + "\n"


def _parsed(text: str) -> dict[str, Any]:
    if not text.strip():
        # Docker takes an empty file for one without settings.
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"is no JSON: line {error.lineno}, column {error.colno}: {error.msg}; mend that line, or move the file away"
        ) from None
    except RecursionError:
        raise SettingsError("is nested too deeply to be settings of Docker; move it away") from None
    if not isinstance(found, dict):
        raise SettingsError(f"must be a table of settings, {{…}}, is {_kind(found)}; mend it, or move it away")
    return found


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def _lay(into: dict[str, Any], table: Mapping[str, Any], path: tuple[str, ...], *, over: bool) -> None:
    for key, value in table.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            below = into.setdefault(key, {})
            if not isinstance(below, dict):
                raise SettingsError(
                    f"has {_kind(below)} as {'.'.join(here)}, where a table is wanted; mend it, or take it out"
                )
            _lay(below, value, here, over=over)
        elif over or key not in into:
            into[key] = copy.deepcopy(value)


def _fitting(defaults: Mapping[str, Any], log_driver: Any) -> Mapping[str, Any]:
    """Options of a log driver are for one that knows them."""
    return defaults if log_driver in _ROTATING else {key: defaults[key] for key in defaults if key != "log-opts"}
