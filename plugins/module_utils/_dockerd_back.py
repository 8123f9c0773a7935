# SPDX-License-Identifier: Apache-2.0
"""Takes back what Hearth wrote into Docker's settings. Standard library only.

PRIVATE to the collection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.client import HTTPException

from ansible_collections.hearth.spark.plugins.module_utils import _daemon, _daemon_back, _dockerd, _facts


@dataclass(frozen=True, kw_only=True)
class Back:
    """``text`` is what the file is to say, None for no file; ``was`` what it says; ``verb`` is systemctl's."""

    text: str | None = None
    was: str = ""
    verb: str = ""
    actions: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        return (self.text or "") != self.was


def plan(dockerd: _dockerd.Dockerd) -> Back:
    """What is to be done. Raises DockerError."""
    was, note = dockerd.text(), dockerd.note()
    try:
        want, back, kept = _daemon_back.without(note, was)
    except (ValueError, TypeError):
        raise _dockerd.DockerError(
            f"{_dockerd.SETTINGS} is no table of settings in JSON: mend it, or move it away, and run this again"
        ) from None
    told = [f"{name} in {_dockerd.SETTINGS} stays, since it was changed after Hearth wrote it" for name in kept]
    actions = [f"take {name} back" for name in back]
    text: str | None = was
    if back:
        text = None if not want and note.get("made") else _text(dockerd, want)
    copies = dockerd.copies() if note else []
    actions += [f"remove {copy}" for copy in copies]
    verb = ""
    if back and dockerd.answers():
        keys = {name.partition(".")[0] for name in back}
        if _daemon.reloads(keys):
            verb = "reload"
        elif running(dockerd):
            told.append("Containers run, so Docker takes that over only when it starts the next time")
        else:
            verb = "restart"
    if verb:
        actions.append(f"{verb} Docker")
    shown = {"before": was, "after": text or "", "before_header": str(dockerd.path), "after_header": str(dockerd.path)}
    return Back(text=text, was=was, verb=verb, actions=tuple(actions), told=tuple(told), diff=[shown] if back else [])


def _text(dockerd: _dockerd.Dockerd, want: dict[str, object]) -> str:
    """The owner's own words, where a copy of the file says the same."""
    for copy in dockerd.copies():
        try:
            words = copy.read_text(encoding="utf-8")
            if _daemon_back.parsed(words) == want:
                return words
        except (OSError, ValueError, TypeError):
            continue
    return json.dumps(want, indent=4, ensure_ascii=False) + "\n"


def running(dockerd: _dockerd.Dockerd) -> bool:
    """Whether any container runs, or nobody can tell."""
    try:
        return int(_facts.docker_get(dockerd.socket, "/info").get("ContainersRunning", 1)) > 0
    except (OSError, ValueError, HTTPException):
        return True


def carry_out(dockerd: _dockerd.Dockerd, back: Back) -> None:
    """Do it. Raises DockerError, with the file as it was where Docker does not run with the new one."""
    if back.changes:
        if back.text:
            dockerd.validate(back.text)
        dockerd.put(back.text)
    refused = dockerd.act(back.verb) if back.verb else ""
    if refused:
        dockerd.put(back.was)
        again = dockerd.act("restart")
        ends = (
            f"nor does it with those of before ({again})" if again else "what it was told before is back, and it runs"
        )
        raise _dockerd.DockerError(f"Docker did not {back.verb} without Hearth's settings ({refused}); {ends}")
    for copy in dockerd.copies() if dockerd.note() else []:
        copy.unlink(missing_ok=True)
    dockerd.tidy()
    dockerd.note_path().unlink(missing_ok=True)
