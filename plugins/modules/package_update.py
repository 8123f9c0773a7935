#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Take packages of the box forward in a step that can be taken back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_update
short_description: Take packages forward in a step that can be taken back
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Installs the newer versions that apt's sources have of packages, but of none that O(hold) names, and removes none.
  - Everything is fetched before anything changes, and the packages of before are kept as files below
    C(/var/lib/hearth/updates) until the next update. What apt's sources do not have any more is packed again from what
    is installed (C(dpkg-repack)).
  - The work is a unit of systemd, C(hearth-update-*.service), which a lost connection does not end; the next run of the
    step waits for it. A step that was cut off, as by a power cut, is gone on with by the next run.
  - Files of settings that somebody changed stay as they are. Nothing is restarted but what packages restart themselves.
  - What was installed counts as open until it is V(confirmed) or V(reverted); who runs this looks at the box between.
options:
  step:
    description: A name for the step. Each has its own way back.
    type: str
    required: true
  state:
    description:
      - V(updated) installs, V(confirmed) says that the box is well with that.
      - V(reverted) goes back to the versions of before the last update of this step.
    type: str
    choices: [updated, confirmed, reverted]
    default: updated
  unconfirmed:
    description: With O(state=reverted), take back only what nobody has confirmed; an older update stays.
    type: bool
    default: false
  hold:
    description: Packages that stay as they are, by patterns of their names (C(linux-*)).
    type: list
    elements: str
    default: []
  only:
    description: Take these forward alone, and what they need anew, by patterns of their names. All, where it is empty.
    type: list
    elements: str
    default: []
  refresh:
    description: Fetch the lists of packages first. Check mode does that as well.
    type: bool
    default: false
  engines:
    description: >-
      Have engines out of the way meanwhile, where there are any; they run again after it, and requests wait. For
      packages that restart Docker.
    type: bool
    default: false
  drain:
    description: Seconds that requests under way may take to end, with O(engines).
    type: float
    default: 300
  lock_timeout:
    description: Seconds to wait for another package manager's run to end, or for a change of engines.
    type: float
    default: 600
  wait:
    description:
      - Seconds to wait for the work to end; without it, until it has ended.
      - For the module's action plugin, which shows progress between two waits.
    type: float
  attach:
    description:
      - The work to wait for, as the RV(attach) of an earlier run.
      - For the module's action plugin, which shows progress between two waits.
    type: str
extends_documentation_fragment:
  - hearth.spark.attributes.debian
attributes:
  check_mode:
    description: Says what would be installed; with O(refresh) the lists of packages are fetched for that.
    support: full
  diff_mode:
    description: A line for every package that changes.
    support: full
"""

EXAMPLES = r"""
- name: Take the box's packages forward, without the kernel and the driver
  hearth.spark.package_update:
    step: system
    hold: [linux-*, nvidia-*]
    refresh: true
  register: updated

- name: Take them back
  hearth.spark.package_update:
    step: system
    state: reverted
    unconfirmed: true
  when: updated.trouble | length > 0
"""

RETURN = r"""
changes:
  description: Packages with their versions before and after; C(before) is empty for one that comes along anew.
  returned: success
  type: list
  elements: dict
  sample: [{name: curl, before: 8.14.1-2, after: 8.14.1-2+deb13u2}]
held:
  description: Packages of O(hold) of which apt's sources have a newer version.
  returned: with O(state=updated)
  type: list
  elements: dict
open:
  description: Whether something is installed that nobody has confirmed yet.
  returned: success
  type: bool
trouble:
  description: What went wrong when it was installed, such as a unit that failed; empty where nothing did.
  returned: success
  type: str
told:
  description: What apt complains of its sources.
  returned: success
  type: list
  elements: str
lines:
  description: The changes as a person reads them, and what is held back.
  returned: success
  type: list
  elements: str
reboot:
  description: Whether the box asks for a reboot, and the packages it is for.
  returned: success
  type: list
  elements: str
log:
  description: What apt said, a file on the box.
  returned: success
  type: str
attach:
  description: The work that goes on, for the option of this name.
  returned: when it has not ended within O(wait)
  type: str
doing:
  description: What goes on just now, in words.
  returned: when it has not ended within O(wait)
  type: str
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _hearth

if TYPE_CHECKING:
    from hearth.updates.changes import Result
    from hearth.updates.job import Job, Request

# reboot-notifier(8) and update-notifier write it; the second one has the packages, each on a line.
_REBOOT = Path("/run/reboot-required")
_REBOOT_FOR = Path("/run/reboot-required.pkgs")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["updated", "confirmed", "reverted"], "default": "updated"},
            "unconfirmed": {"type": "bool", "default": False},
            "hold": {"type": "list", "elements": "str", "default": []},
            "only": {"type": "list", "elements": "str", "default": []},
            "refresh": {"type": "bool", "default": False},
            "engines": {"type": "bool", "default": False},
            "drain": {"type": "float", "default": 300},
            "lock_timeout": {"type": "float", "default": 600},
            "wait": {"type": "float"},
            "attach": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _hearth.require(module)
    from hearth.errors import HearthError

    try:
        _run(module)
    except HearthError as error:
        module.fail_json(msg=f"{error}.")


def _run(module: AnsibleModule) -> NoReturn:
    """Do what is asked, and exit. Raises HearthError."""
    from hearth.updates import job

    given = module.params
    asked = _request(module)
    if given["attach"]:
        ident, *step = given["attach"].split("/")
        known = int(step[0]) if step and step[0].isdigit() else -1
        _wait(module, asked, job.follow(ident, step=known, timeout_s=given["wait"]))
    for other in job.current():
        # Of an earlier play that lost its connection. What it leaves is what is looked at.
        if other.request.step == asked.step and (module.check_mode or given["state"] == "confirmed"):
            _wait(module, asked, job.follow(other.id, timeout_s=given["wait"]))
    if given["state"] == "confirmed" or module.check_mode:
        _answer_at_once(module, asked)
    _wait(module, asked, job.follow(job.begin(asked).id, timeout_s=given["wait"]))


def _request(module: AnsibleModule) -> Request:
    from hearth.updates.job import Request

    given = module.params
    return Request(
        do="reverted" if given["state"] == "reverted" else "updated",
        step=given["step"],
        hold=tuple(given["hold"]),
        only=tuple(given["only"]),
        refresh=given["refresh"],
        engines=given["engines"],
        unconfirmed=given["unconfirmed"],
        drain_s=given["drain"],
        lock_timeout_s=given["lock_timeout"],
    )


def _wait(module: AnsibleModule, asked: Request, at: Job) -> NoReturn:
    """Exit with what became of a job, or with how to go on waiting for it. Raises HearthError."""
    from hearth.updates.changes import Result

    if at.is_running:
        module.exit_json(changed=False, attach=f"{at.id}/{at.step}", doing=at.words)
    if module.check_mode or module.params["state"] == "confirmed":
        # It was another play's, whose failure is no business of this one.
        _answer_at_once(module, asked)
    if at.failure is not None:
        module.fail_json(msg=f"{at.failure.sentence}.")
    # A job that is done has one.
    _exit(module, asked, at.result or Result(changed=False))


def _answer_at_once(module: AnsibleModule, asked: Request) -> NoReturn:
    """Say what would change, or write down that the box is well, and exit. Raises HearthError."""
    from msgspec.structs import replace

    from hearth.updates.changes import Result

    with tempfile.TemporaryDirectory() as scratch:
        step = asked.made(scratch=Path(scratch))
        book = step.book()
        if module.params["state"] == "confirmed":
            change = book is not None and book.state == "installed"
            if book is not None and change and not module.check_mode:
                step.write(replace(book, state="confirmed"))
            _exit(module, asked, Result(changed=change))
        if asked.do == "reverted":
            change = book is not None and not book.stays(unconfirmed=asked.unconfirmed)
            back = tuple(one.back for one in book.changes) if book is not None and change else ()
            _exit(module, asked, Result(changed=change, changes=back))
        told = step.refresh() if asked.refresh else []
        plan = step.plan()
        cut_off = book is not None and book.state == "begun"
        _exit(
            module,
            asked,
            Result(changed=bool(plan.changes) or cut_off, changes=plan.changes, held=plan.held, told=tuple(told)),
        )


def _exit(module: AnsibleModule, asked: Request, done: Result) -> NoReturn:
    from msgspec import to_builtins

    step = asked.made()
    book = step.book()
    before = "".join(f"{one.name} {one.before}\n" for one in done.changes if one.before)
    after = "".join(f"{one.name} {one.after}\n" for one in done.changes if one.after)
    module.exit_json(
        changed=done.changed,
        changes=to_builtins(done.changes),
        held=to_builtins(done.held),
        open=book is not None and book.is_open,
        trouble=done.trouble,
        told=list(done.told),
        lines=[one.words for one in done.changes],
        reboot=_reboot(),
        log=str(step.log),
        diff={"before": before, "after": after} if done.changed else {},
    )
    raise AssertionError


def _reboot() -> list[str]:
    if not _REBOOT.exists():
        return []
    names = _REBOOT_FOR.read_text(encoding="utf-8").split() if _REBOOT_FOR.exists() else []
    return sorted(set(names)) or ["the system"]


if __name__ == "__main__":
    main()
