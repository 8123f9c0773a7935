# SPDX-License-Identifier: Apache-2.0
"""What the module ``model`` takes of one model, and what it says of several. PRIVATE to the collection."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from hearth.download import Request
    from hearth.download.job import Job, Outcome

_EXTRA_FILE: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "path": {"type": "str", "required": True},
    "sha256": {"type": "str", "default": ""},
}
# What belongs to one model alone.
MODEL: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "repo": {"type": "str", "default": ""},
    "revision": {"type": "str", "default": "main"},
    "include": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "extra_files": {"type": "list", "elements": "dict", "default": [], "options": _EXTRA_FILE},
    "source": {"type": "str", "default": ""},
    "ollama": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
    "names": {"type": "list", "elements": "str", "default": []},
    "owner": {"type": "str"},
    "group": {"type": "str"},
}


def run(module: AnsibleModule) -> None:
    """Do what is asked, and exit. Raises HearthError."""
    params = module.params
    models = [params] if params["path"] else params["models"]
    if params["state"] in ("absent", "pruned"):
        remove = pruned if params["state"] == "pruned" else removed
        # One that is in use keeps the others from going as well.
        asked = [request(module, one) for one in models]
        would = [remove(one, check=True) for one in asked]
        gone = would if module.check_mode else [remove(one, check=False) for one in asked]
        exit_json(module, gone)
    from hearth.download import job

    if params["attach"]:
        ident, *step = params["attach"].split("/")
        known = int(step[0]) if step and step[0].isdigit() else -1
        _exit_as(module, job.follow(ident, step=known, timeout_s=params["wait"]))
    requests = [request(module, one) for one in models]
    keep = params["unreachable"] == "keep"
    if module.check_mode:
        exit_json(module, foretold(requests, params["token"], keep))
    there = settled(requests) if params["state"] == "present" else None
    if there is not None:
        exit_json(module, there)
    begun = job.begin(params["state"], requests, keep=keep, token=params["token"] or "")
    _exit_as(module, job.follow(begun.id, timeout_s=params["wait"]))


def _exit_as(module: AnsibleModule, job: Job) -> NoReturn:
    """Say what became of a job, or how to go on waiting for it."""
    if job.is_running:
        module.exit_json(changed=False, attach=f"{job.id}/{job.step}", doing=job.words)
    if job.failure is not None and not any(one.failure for one in job.outcomes):
        module.fail_json(msg=job.failure.sentence, log=list(job.failure.log))
    exit_json(module, job.outcomes)


def request(module: AnsibleModule, one: dict[str, Any]) -> Request:
    """One model as the download is asked for it."""
    from hearth.download import ExtraFile, Request

    params = module.params
    uid = gid = -1
    owner, group = one["owner"] or params["owner"], one["group"] or params["group"]
    try:
        if owner:
            entry = pwd.getpwnam(owner)
            uid, gid = entry.pw_uid, entry.pw_gid
        if group:
            gid = grp.getgrnam(group).gr_gid
    except KeyError as error:
        module.fail_json(msg=f"the box has no such user or group ({error.args[0]}): correct owner and group")
    return Request(
        folder=one["path"],
        repo=one["repo"],
        revision=one["revision"],
        include=tuple(one["include"]),
        exclude=tuple(one["exclude"]),
        extra_files=tuple(ExtraFile(**extra) for extra in one["extra_files"]),
        source=one["source"],
        ollama=one["ollama"],
        image=one["image"] or (_image(one) if one["ollama"] else ""),
        names=tuple(one["names"]),
        refresh=params["refresh"],
        endpoint=params["endpoint"],
        token_file=params["token_file"] or "",
        offline=params["offline"],
        uid=uid,
        gid=gid,
        reserve_bytes=round(params["reserve_gib"] * 2**30),
        workers=params["workers"],
        xet=params["xet"],
    )


def _image(one: dict[str, Any]) -> str:
    """What the box runs Ollama from, where the task does not say it."""
    from hearth import contract
    from hearth.engines import uses

    engines = contract.load(contract.PATH).engines if contract.PATH.exists() else ()
    return uses.image_of(engines, one["path"], one["ollama"])


def settled(requests: Sequence[Request]) -> list[Outcome] | None:
    """All of them, where nothing has to be asked or done: that needs no job."""
    from hearth.download import settled
    from hearth.download.job import Outcome

    outcomes = []
    for request in requests:
        result = settled(request)
        if result is None:
            return None
        outcomes.append(Outcome(folder=request.folder, ollama=request.ollama, result=result))
    return outcomes


def foretold(requests: Sequence[Request], token: str | None, keep: bool) -> list[Outcome]:
    from msgspec.structs import replace

    from hearth.download import jobrun

    if token:
        # A file that only this process has.
        descriptor = os.memfd_create("token")
        os.write(descriptor, token.encode())
        requests = [replace(one, token_file=f"/proc/self/fd/{descriptor}") for one in requests]
    return jobrun.foretold(requests, keep=keep)


def removed(asked: Request, *, check: bool) -> Outcome:
    """A model that is gone, or would be. Raises HearthError, also where an engine uses it."""
    from hearth.download import absent
    from hearth.download.job import Outcome, state_of
    from hearth.engines import uses
    from hearth.errors import HearthError

    before, path, what = state_of(asked), asked.folder, asked.ollama or asked.folder
    result = absent(asked, foretell=True)
    if not result.changed:
        return Outcome(folder=path, ollama=asked.ollama, result=result)
    running, others = uses.of(path, asked.ollama)
    if running:
        raise HearthError(
            f"{what} is in use by {' and '.join(running)}: stop that first (hearth stop {running[0]}), then remove it"
        )
    if not check:
        result = absent(asked)
    lost = " and ".join(others)
    warning = (
        f"{lost} cannot start any more without {what}: take it off the box's engines, or run site.yml" if lost else ""
    )
    return Outcome(folder=path, ollama=asked.ollama, result=result, warning=warning, before=before, after="nothing")


def pruned(asked: Request, *, check: bool) -> Outcome:
    from hearth.download import prune
    from hearth.download.job import Outcome, cut_off

    path = asked.folder
    result = prune(path, foretell=check)
    before = cut_off(result) if result.changed else ""
    return Outcome(folder=path, result=result, before=before, after="nothing")


def exit_json(module: AnsibleModule, outcomes: Sequence[Outcome]) -> NoReturn:
    """Say what became of each model, or would in check mode."""
    import msgspec

    from hearth.download.job import sentence

    state = module.params["state"]
    warnings = [one.warning for one in outcomes if one.warning]
    if state in ("present", "verified"):
        warnings += _old_files_in_use(outcomes)
    results = [one.result for one in outcomes]
    changed = [one for one in outcomes if one.result.changed]
    failures = [one.failure for one in outcomes if one.failure]
    said = {
        "changed": bool(changed),
        "models": [
            {"path": one.folder, "ollama": one.ollama, **msgspec.to_builtins(one.result), "msg": one.failure}
            for one in outcomes
        ],
        "bytes_total": sum(one.bytes_total for one in results),
        "bytes_fetched": sum(one.bytes_fetched for one in results),
        "freed": sum(one.freed for one in results),
        "seconds": round(sum(one.seconds for one in results), 3),
        "lines": [sentence(one, state, foretold=module.check_mode) for one in outcomes],
        "diff": {
            "before": "".join(f"{one.where}: {one.before}\n" for one in changed),
            "after": "".join(f"{one.where}: {one.after}\n" for one in changed),
        },
    }
    if module.params["path"] and outcomes:
        said["commit"] = results[0].commit
    for warning in dict.fromkeys(warnings):
        module.warn(warning)
    if failures:
        module.fail_json(msg="; ".join(dict.fromkeys(failures)), **said)
    module.exit_json(**said)
    raise AssertionError


def _old_files_in_use(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for each engine that runs with files that are replaced now, or would be."""
    from hearth.engines import uses

    replaced = [one for one in outcomes if one.result.changed and one.result.fetched and one.before != "nothing"]
    return [
        f"{name} runs with the old files of {one.ollama or one.folder} until it is started again"
        for one in replaced
        for name in uses.of(one.folder, one.ollama)[0]
    ]
