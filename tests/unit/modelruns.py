# SPDX-License-Identifier: Apache-2.0
"""The module model, run as Ansible runs it, in this process; its job too. Ansible is imported when it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hearth import contract, jobs
from hearth.download import Request, job, jobrun

Run = Callable[..., dict[str, Any]]


class Downloads:
    """Jobs are carried out at once, or, with ``held``, only begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = False
        self.asked: list[tuple[str, tuple[Request, ...], bool, str]] = []

    def begin(self, do: job.Do, requests: list[Request], *, keep: bool, token: str) -> job.Job:
        self.asked.append((do, tuple(requests), keep, token))
        begun = job.Job(id="1", at="", do=do, requests=tuple(requests), keep=keep)
        job.write(begun, self.folder)
        if not self.held:
            jobrun.run(begun, self.folder)
        return begun


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Downloads:
    """What the module has done by jobs, in a folder of the test's."""
    made = Downloads(tmp_path / "downloads")
    real = job.follow
    monkeypatch.setattr(job, "begin", made.begin)
    monkeypatch.setattr(job, "follow", lambda ident, **more: real(ident, **more, folder=made.folder))
    monkeypatch.setattr(jobs, "_main_pid", lambda unit: 1 if made.held else 0)
    monkeypatch.setattr(contract, "PATH", tmp_path / "engines.json")
    return made


@pytest.fixture
def run_model(downloads: Downloads, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the module with arguments and give back what it says, with its warnings as they are."""
    from ansible.module_utils.basic import AnsibleModule
    from ansible.module_utils.testing import patch_module_args

    from ansible_collections.hearth.spark.plugins.modules import model

    warned: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, warning: warned.append(warning))

    def call(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
        complete = {"reserve_gib": 0, **arguments, "_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args(complete), pytest.raises(SystemExit):
            model.main()
        # The job of the test writes its journal to the same place.
        said: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return {**said, "warnings": [warned.pop(0) for _ in list(warned)]}

    return call
