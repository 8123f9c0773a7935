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
  - The work is a unit of systemd, C(hearth-update.service), which a lost connection does not end. A step that was cut
    off, also by a power cut, is gone on with by the next run.
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
      packages that restart Docker. Wants the interpreter of C(/opt/hearth/venv).
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
"""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _aside, _updates, _upgrade

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
        },
        supports_check_mode=True,
    )
    given = module.params
    states = {"updated": _update, "confirmed": _confirm, "reverted": _revert}
    try:
        with _alone(module.check_mode), tempfile.TemporaryDirectory() as scratch:
            step = _upgrade.Step(
                given["step"],
                given["hold"],
                given["only"],
                given["lock_timeout"],
                scratch=Path(scratch) if module.check_mode else None,
            )
            states[given["state"]](module, step)
    except _upgrade.UpgradeError as error:
        module.fail_json(msg=f"{error}.")


def _update(module: AnsibleModule, step: _upgrade.Step) -> None:
    """Install what there is."""
    if not module.check_mode:
        step.recover()
    told = step.refresh() if module.params["refresh"] else []
    plan = step.plan()
    book = step.book()
    trouble = ""
    cut_off = book is not None and book.state == _updates.BEGUN
    if (plan.changes or cut_off) and not module.check_mode:
        # Before they are out of the way.
        engines = step.engines()
        trouble = _around(module)(lambda: step.install(plan, engines))
    elif book is not None and book.state == _updates.INSTALLED and not module.check_mode:
        trouble = step.troubled(book)
    book = step.book()
    changes = book.changes if book is not None and book.is_open and not module.check_mode else plan.changes
    _exit(module, step, bool(plan.changes or cut_off), changes, trouble=trouble, held=plan.held, told=told)


def _confirm(module: AnsibleModule, step: _upgrade.Step) -> None:
    """Write down that the box is well."""
    book = step.book()
    change = book is not None and book.state == _updates.INSTALLED
    if book is not None and change and not module.check_mode:
        step.write(replace(book, state=_updates.CONFIRMED))
    _exit(module, step, change, ())


def _revert(module: AnsibleModule, step: _upgrade.Step) -> None:
    """Have the versions of before."""
    book = step.book()
    stays = [_updates.REVERTED, *([_updates.CONFIRMED] if module.params["unconfirmed"] else [])]
    if book is None or book.state in stays:
        _exit(module, step, False, ())
        return
    back = [_updates.Change(name=one.name, before=one.after, after=one.before) for one in book.changes]
    trouble = ""
    if not module.check_mode:

        def work() -> str:
            step.revert(book)
            return ""

        said = [_around(module)(work), step.start_engines(book), step.troubled(book)]
        trouble = "; ".join(filter(None, said))
    _exit(module, step, True, back, trouble=trouble)


def _around(module: AnsibleModule) -> Any:
    """Does some work with engines out of the way where that is asked for; returns its sentence with theirs."""
    given = module.params
    around: _aside.Around = _aside.plain
    if given["engines"]:
        around = _aside.Engines(
            module, _upgrade.UpgradeError, drain_s=given["drain"], lock_timeout_s=given["lock_timeout"]
        )

    def both(work: Any) -> str:
        said, failures = around(work)
        return "; ".join([*([said] if said else []), *failures])

    return both


@contextmanager
def _alone(check: bool) -> Iterator[None]:
    """One update of a box at a time; the kernel lets go of the lock whatever happens to who has it."""
    if check:
        yield
        return
    try:
        _upgrade.FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (_upgrade.FOLDER / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise _upgrade.UpgradeError("another update of this box is under way: wait for its end") from None


def _exit(
    module: AnsibleModule,
    step: _upgrade.Step,
    changed: bool,
    changes: Any,
    *,
    trouble: str = "",
    held: Any = (),
    told: Any = (),
) -> None:
    book = step.book()
    lines = [one.words if one.after else f"{one.name} {one.before}, gone" for one in changes]
    before = "".join(f"{one.name} {one.before}\n" for one in changes if one.before)
    after = "".join(f"{one.name} {one.after}\n" for one in changes if one.after)
    module.exit_json(
        changed=changed,
        changes=[asdict(one) for one in changes],
        held=[asdict(one) for one in held],
        open=book is not None and book.is_open,
        trouble=trouble,
        told=list(told),
        lines=lines,
        reboot=_reboot(),
        log=str(step.log),
        diff={"before": before, "after": after} if changed else {},
    )


def _reboot() -> list[str]:
    if not _REBOOT.exists():
        return []
    names = _REBOOT_FOR.read_text(encoding="utf-8").split() if _REBOOT_FOR.exists() else []
    return sorted(set(names)) or ["the system"]


if __name__ == "__main__":
    main()
