# SPDX-License-Identifier: Apache-2.0
"""A model made present: looked at, planned, fetched, verified, put in place."""

from __future__ import annotations

import time
from pathlib import Path

from hearth.download import manifest, ollama, place, plan
from hearth.download.check import wrong_files
from hearth.download.errors import DownloadError, UncheckedError, of_disk
from hearth.download.fetch import patiently
from hearth.download.look import look
from hearth.download.manifest import Asked, Manifest, unchanged
from hearth.download.meter import Meter, Progress, Tell, say_nothing
from hearth.download.place import Staging
from hearth.download.request import Request, Result
from hearth.download.sources import Sources, local_files
from hearth.errors import HearthError


def present(request: Request, tell: Tell = say_nothing) -> Result:
    """Have the model in its folder, whole and verified. Nothing to do costs at most one request, and reads no content.

    Raises HearthError; the folder is then as it was, and what came is kept for the next call.
    """
    if request.ollama:
        return ollama.present(request, tell)
    return _present(request, tell, frozenset())


def verify(request: Request, tell: Tell = say_nothing) -> Result:
    """Hash every file again, and bring what is wrong or missing anew, from the commit that is there.

    Asks the hub only where something is wrong. A folder without a manifest is made present. Raises HearthError.
    """
    if request.ollama:
        return ollama.verify(request, tell)
    folder = _folder(request)
    known = manifest.read(folder)
    if known is None or known.asked != Asked.of(request):
        return present(request, tell)
    begun = time.monotonic()
    wrong = wrong_files(folder, known, request, tell)
    if wrong and request.offline:
        raise DownloadError(
            f"{len(wrong)} of {len(known.files)} files in {folder} are damaged or gone ({', '.join(wrong[:3])}): "
            "ask again without offline to have them brought anew"
        )
    if wrong:
        return _present(request, tell, frozenset(wrong), known.commit)
    return unchanged(known, begun)


def settled(request: Request, *, ask: bool = False) -> Result | None:
    """What ``present`` would answer, where that is clear at once: nothing is waited for, and nothing fetched.

    With ``ask``, the hub may be asked what the revision is now. Raises HearthError; UncheckedError where all is there
    but the hub does not say whether it is current.
    """
    if request.ollama:
        return ollama.settled(request)
    begun = time.monotonic()
    folder = _folder(request)
    if Staging(folder).path.exists():
        return None
    known = manifest.read(folder)
    asks = request.repo and not request.offline and (known is None or known.commit != request.revision)
    if known is None or (asks and not ask):
        return None
    return unchanged(known, begun) if _is_current(request, known, folder, Sources(request), say_nothing) else None


def foretell(request: Request, tell: Tell = say_nothing) -> Result:
    """What ``present`` would do: writes nothing, and takes a file of the right size for right.

    Raises HearthError, also where there is no room for it.
    """
    if request.ollama:
        return ollama.foretell(request)
    from hearth.download.bring import assert_room, plan_files, still_missing

    begun = time.monotonic()
    folder = _folder(request)
    sources = Sources(request)
    known = manifest.read(folder)
    if known is not None and _is_current(request, known, folder, sources, tell):
        return unchanged(known, begun)
    if request.offline:
        return _offline(request, folder, known, begun)
    tell(Progress(phase="asking"))
    _, wanted = plan_files(request, sources, tell)
    seen = look(folder, wanted, known, sure=False)
    staging = Staging(folder)
    missing = [file for file in wanted if file.path not in seen.carried and file.path not in seen.unsure]
    assert_room(missing, staging, request)
    return Result(
        changed=True,
        commit=sources.commit,
        files=len(wanted),
        bytes_total=sum(max(0, file.size) for file in wanted),
        bytes_fetched=sum(still_missing(file, staging) for file in missing),
        seconds=round(time.monotonic() - begun, 3),
        fetched=tuple(file.path for file in missing),
    )


def _present(request: Request, tell: Tell, distrusted: frozenset[str], commit: str = "") -> Result:
    begun = time.monotonic()
    folder = _folder(request)
    sources = Sources(request)
    staging = Staging(folder)
    known = manifest.read(folder)
    # Staging that is there is somebody's who is at work, or was killed: perhaps with files of others in it.
    alone = not staging.path.exists()
    if alone and known is not None and not distrusted and _is_current(request, known, folder, sources, tell):
        return unchanged(known, begun)
    if alone and request.offline:
        return _offline(request, folder, known, begun)
    try:
        place.make_parents(folder, request)
        with staging.hold(request.patience.lock_s, tell) as waited:
            known = manifest.read(folder)
            again = (waited or not alone) and not distrusted
            if again and known is not None and _is_current(request, known, folder, sources, tell):
                staging.empty()
                return unchanged(known, begun)
            if request.offline:
                return _offline(request, folder, known, begun)
            # Nothing of this is needed where there is nothing to do.
            from hearth.download.bring import Bringing

            return Bringing(request, tell, sources, staging, known, distrusted, commit).bring(begun)
    except OSError as error:
        raise of_disk(error, folder) from None


def _folder(request: Request) -> Path:
    """The model's folder itself: where it is a link, what it leads to. Raises HearthError."""
    folder = Path(request.folder)
    if not folder.is_absolute() or folder == Path(folder.anchor):
        raise HearthError(f"{request.folder!r} is no folder for a model: give an absolute path of its own")
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise HearthError(f"{folder} is a file, where the model's folder should be: move it away")
    return folder


def _is_current(request: Request, known: Manifest, folder: Path, sources: Sources, tell: Tell) -> bool:
    """Whether the folder has what is asked for, as it is now at its source."""
    if known.asked != Asked.of(request) or not manifest.is_intact(folder, known):
        return False
    if request.source:
        if request.offline:
            return True
        files = plan.choose(local_files(request.source), request.include, request.exclude)
        files += plan.extras(request.extra_files)
        return {file.path: file.origin for file in files} == {path: kept.origin for path, kept in known.files.items()}
    if not request.repo or request.offline or known.commit == request.revision:
        return True
    tell(Progress(phase="asking"))
    try:
        return bool(known.commit == patiently(sources.hub.commit, Meter("asking"), tell, request.patience))
    except DownloadError as error:
        raise UncheckedError(
            f"{error}; what is in {folder} is whole (commit {known.commit[:12]}): with offline it is used as it is",
            str(error),
        ) from None


def _offline(request: Request, folder: Path, known: Manifest | None, begun: float) -> Result:
    """Offline, and not what is asked for; a folder that somebody else filled is taken as it is."""
    if known is None and folder.is_dir():
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        if sizes:
            seconds = round(time.monotonic() - begun, 3)
            return Result(changed=False, files=len(sizes), bytes_total=sum(sizes), seconds=seconds, verified=False)
    if known is None:
        what = "is not there"
    elif known.asked != Asked.of(request):
        has = f"{known.asked.repo} {known.asked.revision} (commit {known.commit[:12]})"
        what = f"has {has}, which is not what is asked for"
    else:
        what = "has files that were changed or removed since"
    raise DownloadError(f"{folder} {what}, and nothing may be fetched: ask again without offline")
