# SPDX-License-Identifier: Apache-2.0
"""A model of Ollama's registry made present in the store, verified there, and removed: by Ollama itself.

Whether something is to be done is seen on the disk, without Ollama; what is to be done, it is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from hearth import memory
from hearth.download import place
from hearth.download.check import wrong_files
from hearth.download.errors import DownloadError, UncheckedError, of_disk
from hearth.download.manifest import Manifest, size_of, unchanged
from hearth.download.meter import Progress, Tell, say_nothing
from hearth.download.request import Request, Result
from hearth.download.store import Store
from hearth.tags import full_name

if TYPE_CHECKING:
    from hearth.download.serving import Serving


def present(request: Request, tell: Tell) -> Result:
    """As hearth.download.present; with ``refresh``, Ollama is asked although the model is there."""
    begun = time.monotonic()
    store = _store(request)
    found = settled(request)
    if found is not None:
        return found
    if request.offline:
        raise _missing(request, store)
    try:
        return _bring(request, store, tell, begun)
    except DownloadError as error:
        if not store.has(request.ollama):
            raise
        raise UncheckedError(f"{error}; what is in {store.path} is whole", str(error)) from None


def settled(request: Request) -> Result | None:
    """What ``present`` would answer, where that is clear without Ollama. Raises DownloadError."""
    begun = time.monotonic()
    known = _known(request, _store(request))
    return None if known is None or (request.refresh and not request.offline) else unchanged(known, begun)


def foretell(request: Request) -> Result:
    """What ``present`` would do; how much would come, Ollama does not say beforehand: 0. Raises DownloadError."""
    begun = time.monotonic()
    store = _store(request)
    known = _known(request, store)
    if known is not None:
        return unchanged(known, begun)
    if request.offline:
        raise _missing(request, store)
    return Result(changed=True)


def verify(request: Request, tell: Tell) -> Result:
    """As hearth.download.verify: a damaged layer is removed, and pulled again."""
    begun = time.monotonic()
    store = _store(request)
    known = store.record(request.ollama)
    if known is None or not known.files:
        return present(request, tell)
    wrong = wrong_files(store.path, known, request, tell)
    if not wrong and store.knows(request.ollama):
        return unchanged(known, begun)
    if request.offline:
        what = f"{len(wrong)} of {len(known.files)} layers" if wrong else "the name"
        raise DownloadError(
            f"{what} of {request.ollama} in {store.path} {'are' if wrong else 'is'} damaged or gone: ask again without "
            "offline to have it brought anew"
        )
    return _bring(request, store, tell, begun, wrong)


def absent(request: Request, *, foretell: bool = False) -> Result:
    """Have Ollama forget a tag, and the names that engines gave it: it removes what no other name needs.

    The caller sees to it that no engine uses it. Raises BusyError while something is brought into the store, and
    DownloadError.
    """
    begun = time.monotonic()
    store = _store(request)
    known = store.record(request.ollama)
    if known is None and not store.knows(request.ollama):
        return Result(changed=False)
    files = len(known.files) if known else 0
    if foretell:
        return Result(changed=True, files=files, freed=store.own_size(known) if known else 0)
    from hearth.download.serving import Serving

    try:
        with store.locked(0.0, say_nothing):
            before = size_of(store.blobs)
            with Serving(store.path, _owned(request, store)) as server:
                others = _forget(server, request)
            store.drop_record(request.ollama)
            freed = before - size_of(store.blobs)
    except OSError as error:
        raise of_disk(error, store.path) from None
    seconds = round(time.monotonic() - begun, 3)
    return Result(changed=True, files=files, freed=max(0, freed), kept=others, seconds=seconds)


def _forget(server: Serving, request: Request) -> tuple[str, ...]:
    """Delete the tag and the names that are the same; returns the names that somebody else gave it."""
    from hearth.ollama_api import readable

    there = server.digests()
    tag = full_name(request.ollama)
    same = {name for name, digest in there.items() if digest == there.get(tag)}
    ours = {tag, *(full_name(name) for name in request.names)}
    for name in sorted(same & ours):
        for line in server.talk("/api/delete", {"model": name}, method="DELETE"):
            if line is not None and "error" in line:
                raise DownloadError(f"Ollama does not remove {name} ({readable(str(line['error']))}): ask again")
    return tuple(sorted(same - ours))


def _bring(request: Request, store: Store, tell: Tell, begun: float, wrong: Sequence[str] = ()) -> Result:
    """Have Ollama pull it, and record what came. ``wrong`` are files of the store that have to come again."""
    from hearth.download.pull import pull
    from hearth.download.serving import Serving

    tag = request.ollama
    try:
        store.make(request)
        with store.locked(request.patience.lock_s, tell) as waited:
            known = _known(request, store)
            if waited and known is not None and not wrong:
                return unchanged(known, begun)
            before = store.record(tag)
            for path in wrong:
                # Ollama takes what is there for right.
                (store.path / path).unlink(missing_ok=True)
            tell(Progress(phase="starting", note=request.image))
            with Serving(store.path, _owned(request, store)) as server:
                pulled = pull(server, request, tell)
                digest = server.digests().get(full_name(tag), "")
            if not digest:
                raise DownloadError(f"{tag} was pulled and Ollama does not list it: see what {request.image} is")
            tell(Progress(phase="placing"))
            place.sync(store.path)
            made = store.write_record(request, digest.removeprefix("sha256:"), pulled.layers)
            memory.drop_page_cache(store.blobs / one.replace(":", "-") for one in pulled.fetched)
    except OSError as error:
        raise of_disk(error, store.path) from None
    changed = bool(pulled.fetched) or before is None or before.commit != made.commit or before.files != made.files
    return Result(
        changed=changed,
        commit=made.commit,
        files=len(pulled.layers),
        bytes_total=sum(pulled.layers.values()),
        bytes_fetched=pulled.moved,
        seconds=round(time.monotonic() - begun, 3),
        rate=pulled.moved / pulled.seconds if pulled.seconds else 0.0,
        fetched=pulled.fetched,
    )


def _known(request: Request, store: Store) -> Manifest | None:
    """The record of a model that is there whole."""
    return store.record(request.ollama) if store.has(request.ollama) else None


def _missing(request: Request, store: Store) -> DownloadError:
    return DownloadError(
        f"{request.ollama} is not in Ollama's store {store.path}, and nothing may be fetched: ask again without offline"
    )


def _owned(request: Request, store: Store) -> Request:
    """The request with an owner: the store's, where it names none. Raises OSError."""
    status = store.path.stat()
    return replace(
        request,
        uid=request.uid if request.uid >= 0 else status.st_uid,
        gid=request.gid if request.gid >= 0 else status.st_gid,
    )


def _store(request: Request) -> Store:
    """Raises DownloadError."""
    folder = Path(request.folder)
    if not folder.is_absolute() or folder == Path(folder.anchor):
        raise DownloadError(f"{request.folder!r} is no folder for Ollama's store: give an absolute path of its own")
    more = [word for word in ("repo", "source", "extra_files") if getattr(request, word)]
    if more:
        raise DownloadError(f"{request.ollama} comes from Ollama's registry alone: leave out {' and '.join(more)}")
    return Store(folder.resolve())
