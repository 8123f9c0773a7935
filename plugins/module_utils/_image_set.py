# SPDX-License-Identifier: Apache-2.0
"""What the module ``images`` takes of one image, and what it says of several. PRIVATE to the collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from hearth.images.book import Book
    from hearth.images.have import Outcome
    from hearth.images.request import Credential, Terms, Want

_USER: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "flags": {"type": "list", "elements": "str", "default": []},
}
IMAGE: dict[str, Any] = {
    "name": {"type": "str", "default": ""},
    "repository": {"type": "str", "default": ""},
    "source": {"type": "str", "default": ""},
    "digest": {"type": "str", "default": ""},
    "engine": {"type": "str", "required": True},
    "keep_entrypoint": {"type": "bool", "default": False},
    "build": {"type": "str", "default": ""},
    "recipe": {"type": "str", "default": ""},
    "fingerprint": {"type": "str", "default": ""},
    "users": {"type": "list", "elements": "dict", "default": [], "options": _USER},
    "version": {"type": "list", "elements": "str", "default": []},
    "help": {"type": "list", "elements": "list", "default": []},
}
REGISTRY: dict[str, Any] = {
    "host": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}
FILES: dict[str, Any] = {
    "recipe": {"type": "str", "required": True},
    "fingerprint": {"type": "str", "required": True},
    "files": {"type": "dict", "required": True},
}


def wants(params: dict[str, Any]) -> list[Want]:
    """The images that are asked for."""
    from hearth.images.context import folder_of
    from hearth.images.request import User, Want

    return [
        Want(
            **{name: one[name] for name in ("name", "repository", "source", "digest", "engine", "keep_entrypoint")},
            build=one["build"],
            fingerprint=one["fingerprint"],
            folder=str(folder_of(one["recipe"], one["fingerprint"])) if one["build"] else "",
            users=tuple(User(name=user["name"], flags=tuple(user["flags"])) for user in one["users"]),
            version=tuple(one["version"]),
            help=tuple(tuple(map(str, command)) for command in one["help"]),
        )
        for one in params["images"]
    ]


def terms(params: dict[str, Any]) -> Terms:
    from hearth.images.request import Terms

    return Terms(
        pull=params["pull"],
        smoke=params["smoke"],
        refresh=params["refresh"],
        reserve_bytes=round(params["reserve_gib"] * 2**30),
    )


def credentials(params: dict[str, Any]) -> list[Credential]:
    from hearth.images.request import Credential

    return [Credential(**one) for one in params["registries"]]


def put_contexts(contexts: Sequence[dict[str, Any]]) -> None:
    """Put recipes where they are built from. Raises HearthError."""
    import base64

    from hearth.images import context

    for one in contexts:
        files = {
            path: context.File(content=base64.b64decode(file["content"]), executable=file["executable"])
            for path, file in one["files"].items()
        }
        context.put(one["recipe"], one["fingerprint"], files)


def _known(known: Book) -> dict[str, Any]:
    """What decides what engines run from. Not what each image knows of flags: that is long."""
    import msgspec

    bare = {name: msgspec.structs.replace(one, smoke=None) for name, one in known.images.items()}
    said: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(known, images=bare))
    return said


def uses(asked: Sequence[Want], outcomes: Sequence[Outcome]) -> dict[str, str]:
    """By engine, the name of the image that it runs from."""
    return {
        user.name: outcome.name or want.source
        for want, outcome in zip(asked, outcomes, strict=True)
        for user in want.users
    }


def settle(module: AnsibleModule, asked: Sequence[Want], outcomes: Sequence[Outcome]) -> NoReturn:
    """All images are there: remember who runs from them, and exit. Raises HearthError."""
    from hearth.images import book

    before = book.read()
    after = before.with_uses(uses(asked, outcomes))
    if after != before:
        with book.held():
            before = book.read()
            after = before.with_uses(uses(asked, outcomes))
            book.write(after)
    exit_json(module, outcomes, before, after)


def change(module: AnsibleModule) -> NoReturn:
    """Take engines back, or remove images that nobody needs, and exit. Raises HearthError."""
    from hearth.images import back, book
    from hearth.images.dockerd import Docker

    check = module.check_mode
    with book.held():
        known = book.read()
        if module.params["state"] == "pruned":
            done = back.prune(known, Docker(), check=check)
        else:
            done = back.roll_back(known, module.params["models"], Docker())
            if not check:
                book.write(done.book)
    module.exit_json(
        changed=done.changed,
        lines=list(done.lines),
        changes=list(done.lines) if done.changed else [],
        freed=done.freed,
        images=[],
        switches=[],
        bytes_fetched=0,
        known=_known(done.book),
        diff={"before": "", "after": "".join(f"{line}\n" for line in done.lines) if done.changed else ""},
    )
    raise AssertionError


def exit_json(
    module: AnsibleModule,
    outcomes: Sequence[Outcome],
    before: Book,
    after: Book,
    *,
    failure: str = "",
    log: Sequence[str] = (),
) -> NoReturn:
    """Say what became of each image, or would in check mode, and which engines get another one by that."""
    moved = [
        {"model": model, "before": before.models[model].image if model in before.models else "", "after": use.image}
        for model, use in after.models.items()
        if model not in before.models or before.models[model].image != use.image
    ]
    changed = [one for one in outcomes if one.done]
    for warning in dict.fromkeys(one.warning for one in outcomes if one.warning):
        module.warn(warning)
    said = {
        "changed": bool(changed),
        "images": [
            {"name": one.name, "image": one.words, "done": one.done, "bytes_fetched": one.bytes_fetched}
            for one in outcomes
        ],
        "lines": [one.sentence for one in outcomes],
        "changes": [
            *(one.sentence for one in changed),
            *(f"{one['model']}: {one['before'] or 'nothing'} -> {one['after']}" for one in moved),
        ],
        "switches": moved,
        "bytes_fetched": sum(one.bytes_fetched for one in outcomes),
        "freed": 0,
        "known": _known(after),
        "diff": {
            "before": "".join(f"{one['model']}: {one['before']}\n" for one in moved if one["before"]),
            "after": "".join(f"{one['model']}: {one['after']}\n" for one in moved)
            + "".join(f"{one.sentence}\n" for one in changed),
        },
    }
    if failure:
        module.fail_json(msg=failure, log=list(log), **said)
    module.exit_json(**said)
    raise AssertionError
