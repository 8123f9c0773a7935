# SPDX-License-Identifier: Apache-2.0
"""Having the images that the engines of a box want."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from hearth.errors import HearthError
from hearth.images import book, reference, smoke
from hearth.images.book import Known
from hearth.images.dockerd import Docker
from hearth.images.plan import Step, known_as, missing, named, step
from hearth.images.progress import Progress, Tell, say_nothing
from hearth.images.request import Credential, Terms, Want
from hearth.words import amount, span

if TYPE_CHECKING:
    from hearth.images.pull import Pull

# What would be done; nothing but perhaps a trial where there is nothing to bring.
_FORETOLD = {
    "there": "",
    "record": "is there, and would be known",
    "tag": "is there, and would get its name",
    "build": "would be built",
    "pull": "would be pulled",
}
LOGS = Path("/var/log/hearth")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one image. ``name`` is what units run; ``done`` says what was done, or would be; empty: nothing.

    ``bytes_fetched`` came over the network.
    """

    words: str
    name: str
    done: str = ""
    bytes_fetched: int = 0
    warning: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.words}: {self.done or 'is there'}"


class Work:
    """Has images, one after the other. ``tell`` gets the number of the image, from 0, and how far that one is."""

    def __init__(
        self,
        terms: Terms,
        credentials: Sequence[Credential],
        tell: Callable[[int, Progress], None],
        docker: Docker,
        path: Path | None = None,
    ) -> None:
        self._terms = terms
        self._credentials = {reference.parse(f"{one.host}/x").registry: one for one in credentials}
        self._tell = tell
        self._docker = docker
        self._path = path

    def one(self, index: int, want: Want) -> Outcome:
        """Have one image, tried out. Raises HearthError; what is in the book then is as it was."""

        def tell(progress: Progress) -> None:
            self._tell(index, progress)

        todo = step(want, book.read(self._path), self._docker, self._terms)
        before, warning = todo.name, ""
        if self._terms.refresh and not (want.digest or want.build):
            todo, warning = self._refreshed(todo, tell)
        if todo.is_done:
            return Outcome(words=want.words, name=todo.name, warning=warning)
        todo, done, fetched = self._carried_out(todo, tell)
        known = self._known(todo)
        if todo.smoke:
            known = replace(known, smoke=smoke.try_out(want, known.name, tell))
            if known.smoke is not None:
                smoke.assert_flags(want, known.smoke)
        # Last: what is not in the book was not tried out, and no unit may name it.
        book.write(book.read(self._path).with_image(known), self._path)
        if before and before != known.name:
            done = f"{want.source} moved, {done}"
        return Outcome(words=want.words, name=known.name, done=done, bytes_fetched=fetched, warning=warning)

    def foretell(self, want: Want) -> Outcome:
        """What ``one`` would do. Asks registries for nothing but tags that may have moved."""
        todo = step(want, book.read(self._path), self._docker, self._terms)
        before, warning = todo.name, ""
        if self._terms.refresh and not (want.digest or want.build):
            todo, warning = self._refreshed(todo, say_nothing)
        if todo.way == "missing":
            raise missing([todo])
        done = _FORETOLD[todo.way] or ("would be tried out" if todo.smoke else "")
        if before and before != todo.name:
            done = f"{want.source} moved, {done}"
        return Outcome(words=want.words, name=todo.name, done=done, warning=warning)

    def _refreshed(self, todo: Step, tell: Tell) -> tuple[Step, str]:
        """The step, where its tag may have moved; and what to say of a registry that does not tell."""
        want = todo.want
        try:
            digest = self._pull(replace(todo, digest="")).digest(tell)
        except HearthError as error:
            if todo.way in ("there", "tag"):
                return todo, f"whether {want.source} moved is not known: {error}"
            raise
        if named(want, digest) == todo.name:
            return todo, ""
        return Step(want=want, name=named(want, digest), way="pull", digest=digest, smoke=self._terms.smoke), ""

    def _carried_out(self, todo: Step, tell: Tell) -> tuple[Step, str, int]:
        """The step with its name and digest, what was done in words, and bytes that came."""
        match todo.way:
            case "missing":
                raise missing([todo])
            case "there":
                return todo, "tried out", 0
            case "record":
                return todo, "was there, and is known now", 0
            case "tag":
                self._docker.tag(todo.from_name, todo.name)
                return todo, "was there, and has its name now", 0
            case "build":
                return todo, self._built(todo, tell), 0
        pulled = self._pull(todo).bring(lambda digest: named(todo.want, digest), tell)
        rate = f", {pulled.bytes_fetched / pulled.seconds / 1e6:.0f} MB/s" if pulled.bytes_fetched else ""
        unpacked = f", unpacked in {span(pulled.unpack_s)}"
        words = f"{amount(pulled.bytes_fetched)} came in {span(pulled.seconds)}{rate}{unpacked}"
        todo = replace(todo, name=named(todo.want, pulled.digest), digest=pulled.digest)
        return todo, words, pulled.bytes_fetched

    def _known(self, todo: Step) -> Known:
        if todo.way == "there":
            return book.read(self._path).images[todo.name]
        return known_as(todo, self._docker, {"pull": "pulled", "build": "built"}.get(todo.way, "found"))

    def _pull(self, todo: Step) -> Pull:
        from hearth.images.pull import Pull

        asked = reference.parse(todo.want.source, todo.digest)
        return Pull(asked, self._docker, self._terms, self._credential(asked.registry))

    def _credential(self, registry: str) -> Credential | None:
        """What was given for the registry, else what root is logged in with."""
        if registry in self._credentials:
            return self._credentials[registry]
        from docker import auth, errors

        try:
            found = auth.load_config().resolve_authconfig(registry) or {}
        except errors.DockerException:
            # Its helper of credentials is broken: then as if nobody had logged in.
            return None
        user, password = found.get("username") or found.get("Username"), found.get("password") or found.get("Password")
        return Credential(host=registry, user=user, password=password) if user and password else None

    def _built(self, todo: Step, tell: Tell) -> str:
        from hearth.images.build import Build, build

        want = todo.want
        name = reference.parse(want.name).repository.rpartition("/")[2]
        wanted = Build(name=name, ref=want.name, fingerprint=want.fingerprint, folder=want.folder)
        with _logged_in(list(self._credentials.values())):
            built = build(wanted, log=LOGS / f"build-{name}.log", tell=tell)
        return f"built in {span(built.seconds)} ({built.cached} of {built.steps} steps were in the cache; {built.log})"


@contextmanager
def _logged_in(credentials: Sequence[Credential]) -> Iterator[None]:
    """Have Docker's client, which builds, know the credentials. Their folder goes with the job's own /tmp."""
    if not credentials:
        yield
        return
    known = {
        # Docker's own name for docker.io, in this file.
        "https://index.docker.io/v1/" if reference.parse(f"{one.host}/x").registry == reference.HUB else one.host: {
            "auth": b64encode(f"{one.user}:{one.password}".encode()).decode()
        }
        for one in credentials
    }
    before = os.environ.get("DOCKER_CONFIG")
    folder = tempfile.mkdtemp(prefix="login-")
    try:
        path = Path(folder, "config.json")
        path.touch(mode=0o600)
        path.write_text(json.dumps({"auths": known}), encoding="utf-8")
        os.environ["DOCKER_CONFIG"] = folder
        yield
    finally:
        if before is None:
            os.environ.pop("DOCKER_CONFIG", None)
        else:
            os.environ["DOCKER_CONFIG"] = before
        shutil.rmtree(folder, ignore_errors=True)
