# SPDX-License-Identifier: Apache-2.0
"""hearth.images.plan and have: what each image needs, and what is in the book when it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from registries import PASSWORD, USER, FakeDocker, ScriptedRegistry, digest, layer

from hearth.download import Patience
from hearth.errors import HearthError
from hearth.images import book, smoke
from hearth.images.book import Book, Smoke
from hearth.images.errors import ImageError
from hearth.images.have import Outcome, Work
from hearth.images.plan import LABEL, missing, plan
from hearth.images.progress import Progress
from hearth.images.request import Credential, Terms, User, Want

QUICK = Patience(connect_s=2.0, read_s=2.0, tries=2, backoff_s=0.01, backoff_max_s=0.02)
FLAGS = tuple(f"--flag-{number}" for number in range(50))
GOOD = Smoke(at="", version="1.2.3", flags=FLAGS)
FINGERPRINT = "f" * 64


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as made:
        yield made


@pytest.fixture
def docker() -> FakeDocker:
    return FakeDocker()


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that were tried out."""
    names: list[str] = []

    def try_out(want: Want, name: str, _: object) -> Smoke:
        names.append(name)
        return GOOD

    monkeypatch.setattr(smoke, "try_out", try_out)
    return names


class Box:
    """A Docker, a registry and a book."""

    def __init__(self, server: ScriptedRegistry, docker: FakeDocker, folder: Path) -> None:
        self.server = server
        self.docker = docker
        self.path = folder / "images.json"
        self.terms = Terms(reserve_bytes=0, staging=str(folder / "staging"), patience=QUICK)
        self.told: list[tuple[int, Progress]] = []
        self.credentials: list[Credential] = []

    def want(self, digest_of_it: str = "", **fields: object) -> Want:
        """As the resolver writes it, which knows what a tag meant."""
        source = f"{self.server.host}/me/engine" + ("" if digest_of_it else ":1")
        name = f"localhost/hearth/engine:{digest_of_it[7:19]}" if digest_of_it else self.book.pins.get(source, "")
        complete: dict[str, object] = {
            "name": name,
            "repository": "localhost/hearth/engine",
            "source": source,
            "digest": digest_of_it,
            "engine": "llama.cpp",
            "users": (User(name="scout", flags=("--flag-1",)),),
        }
        return Want(**{**complete, **fields})  # type: ignore[arg-type]

    @property
    def book(self) -> Book:
        return book.read(self.path)

    def have(self, want: Want, **terms: object) -> Outcome:
        work = Work(
            replace(self.terms, **terms),
            self.credentials,
            lambda number, progress: self.told.append((number, progress)),
            self.docker,
            self.path,
        )
        return work.one(0, want)

    def foretold(self, want: Want, **terms: object) -> Outcome:
        terms_now = replace(self.terms, **terms)
        return Work(terms_now, [], lambda *_: None, self.docker, self.path).foretell(want)

    def way(self, want: Want, **terms: object) -> str:
        return plan([want], self.book, self.docker, replace(self.terms, **terms))[0].way


@pytest.fixture
def box(server: ScriptedRegistry, docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    # Nobody is logged in.
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return Box(server, docker, tmp_path)


@pytest.mark.usefixtures("tried")
class TestDigests:
    def test_it_is_pulled_tried_out_and_known(self, server: ScriptedRegistry, box: Box, tried: list[str]) -> None:
        made = server.add(layer(1))
        want = box.want(made.digest)

        outcome = box.have(want)

        assert outcome.name == want.name
        assert "came in" in outcome.done
        known = box.book.images[want.name]
        assert (known.digest, known.id, known.how, known.smoke) == (made.digest, made.config, "pulled", GOOD)
        assert known.source == f"{server.host}/me/engine@{made.digest}"
        assert tried == [want.name]

    def test_the_second_time_nobody_is_asked(self, server: ScriptedRegistry, box: Box, tried: list[str]) -> None:
        want = box.want(server.add(layer(1)).digest)
        box.have(want)
        server.seen.clear()
        tried.clear()

        assert box.have(want).done == ""
        assert (server.seen, tried) == ([], [])

    def test_one_that_somebody_pulled_gets_its_name_and_is_tried_out(
        self, server: ScriptedRegistry, docker: FakeDocker, box: Box, tried: list[str]
    ) -> None:
        wanted = digest(b"there")
        docker.add(f"{server.host}/me/engine@{wanted}", ident="sha256:1")
        want = box.want(wanted)

        assert box.have(want).done == "was there, and has its name now"

        assert docker.images[want.name].id == "sha256:1"
        assert box.book.images[want.name].how == "found"
        assert (server.seen, tried) == ([], [want.name])

    def test_a_name_that_was_given_to_something_else_is_brought_anew(
        self, server: ScriptedRegistry, docker: FakeDocker, box: Box
    ) -> None:
        made = server.add(layer(1))
        want = box.want(made.digest)
        box.have(want)
        docker.add(want.name, ident="sha256:somebody's")

        assert box.way(want) == "pull"
        box.have(want)

        assert docker.images[want.name].id == made.config

    def test_without_a_book_nothing_is_believed_but_a_digest(self, docker: FakeDocker, box: Box) -> None:
        want = box.want(digest(b"x"))
        docker.add(want.name, ident="sha256:1")
        assert box.way(want) == "pull"

        docker.images[f"localhost/hearth/engine@{want.digest}"] = docker.images[want.name]

        assert box.way(want) == "record"

    def test_an_image_is_not_known_before_it_was_tried_out(
        self, server: ScriptedRegistry, docker: FakeDocker, box: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        want = box.want(server.add(layer(1)).digest)

        def fails(*_: object) -> Smoke:
            raise ImageError("it does not run")

        monkeypatch.setattr(smoke, "try_out", fails)
        with pytest.raises(ImageError, match="does not run"):
            box.have(want)

        assert want.name in docker.images
        assert box.book == Book()

    def test_it_is_tried_out_when_that_is_switched_on_again(
        self, server: ScriptedRegistry, box: Box, tried: list[str]
    ) -> None:
        want = box.want(server.add(layer(1)).digest)
        box.have(want, smoke=False)
        assert tried == []

        assert box.have(want).done == "tried out"

        assert tried == [want.name]

    def test_a_flag_that_it_does_not_know_is_found_without_a_run(
        self, server: ScriptedRegistry, box: Box, tried: list[str]
    ) -> None:
        want = box.want(server.add(layer(1)).digest)
        box.have(want)
        tried.clear()
        other = replace(want, users=(User(name="scout", flags=("--other",)),))

        with pytest.raises(ImageError, match="knows no flag --other, which scout is run with"):
            box.way(other)
        assert tried == []
        assert box.way(other, smoke=False) == "there"

    def test_credentials_are_those_of_its_registry(self, server: ScriptedRegistry, box: Box) -> None:
        server.login, server.public = "bearer", False
        want = box.want(server.add(layer(1)).digest)
        box.credentials = [
            Credential(host="nvcr.io", user="other", password="other"),
            Credential(host=server.host, user=USER, password=PASSWORD),
        ]

        assert box.have(want).done

    def test_where_none_are_given_roots_own_login_counts(
        self, server: ScriptedRegistry, box: Box, tmp_path: Path
    ) -> None:
        from registries import basic

        server.login, server.public = "bearer", False
        want = box.want(server.add(layer(1)).digest)
        auth = basic().removeprefix("Basic ")
        (tmp_path / "config.json").write_text(f'{{"auths": {{"{server.host}": {{"auth": "{auth}"}}}}}}')

        assert box.have(want).done


@pytest.mark.usefixtures("tried")
class TestTags:
    def test_a_tag_gets_the_name_of_what_it_is_now(self, server: ScriptedRegistry, box: Box) -> None:
        made = server.add(layer(1))
        name = f"localhost/hearth/engine:{made.digest[7:19]}"

        assert box.have(box.want()).name == name
        assert box.book.pins == {f"{server.host}/me/engine:1": name}

    def test_it_stays_that_although_the_tag_moves(self, server: ScriptedRegistry, box: Box) -> None:
        server.add(layer(1))
        first = box.have(box.want())
        server.add(layer(2))
        server.seen.clear()

        assert box.have(box.want()).name == first.name
        assert server.seen == []

    def test_an_update_asks_and_follows_it(self, server: ScriptedRegistry, docker: FakeDocker, box: Box) -> None:
        server.add(layer(1))
        first = box.have(box.want())
        made = server.add(layer(2))

        outcome = box.have(box.want(), refresh=True)

        assert outcome.name == f"localhost/hearth/engine:{made.digest[7:19]}"
        assert outcome.done.startswith(f"{server.host}/me/engine:1 moved, ")
        assert first.name in docker.images

    def test_an_update_of_one_that_did_not_move_brings_nothing(self, server: ScriptedRegistry, box: Box) -> None:
        server.add(layer(1))
        box.have(box.want())
        server.seen.clear()

        assert box.have(box.want(), refresh=True).done == ""
        assert server.asked() == ["/v2/me/engine/manifests/1"]

    def test_a_registry_that_does_not_answer_leaves_it_as_it_is(self, server: ScriptedRegistry, box: Box) -> None:
        server.add(layer(1))
        first = box.have(box.want())
        server.__exit__()

        outcome = box.have(box.want(), refresh=True)

        assert (outcome.name, outcome.done) == (first.name, "")
        assert f"whether {server.host}/me/engine:1 moved is not known: " in outcome.warning

    def test_one_that_was_removed_comes_back_as_it_was(
        self, server: ScriptedRegistry, docker: FakeDocker, box: Box
    ) -> None:
        server.add(layer(1))
        first = box.have(box.want())
        server.add(layer(2))
        docker.remove(first.name)

        assert box.have(box.want()).name == first.name

    def test_an_image_of_ones_own_is_named_by_its_id(self, docker: FakeDocker, box: Box) -> None:
        docker.add("my-engine:1", ident=f"sha256:{'ab' * 32}")

        outcome = box.have(box.want(source="my-engine:1"))

        assert outcome.name == "localhost/hearth/engine:abababababab"
        assert docker.images[outcome.name].id == f"sha256:{'ab' * 32}"


@pytest.mark.usefixtures("tried")
class TestBuilds:
    def want(self, box: Box) -> Want:
        return box.want(
            name="localhost/hearth/mine:ffffffffffff", source="", build="mine", fingerprint=FINGERPRINT, folder="/r"
        )

    def test_one_that_is_not_there_is_built_and_never_pulled(self, server: ScriptedRegistry, box: Box) -> None:
        assert box.way(self.want(box)) == "build"
        assert server.seen == []

    def test_one_of_the_same_recipe_is_not_built_again(self, docker: FakeDocker, box: Box) -> None:
        docker.add("localhost/hearth/mine:ffffffffffff", labels={LABEL: FINGERPRINT})

        assert box.way(self.want(box)) == "record"

    def test_one_without_the_recipes_mark_is_built(self, docker: FakeDocker, box: Box) -> None:
        docker.add("localhost/hearth/mine:ffffffffffff", labels={LABEL: "0" * 64})

        assert box.way(self.want(box)) == "build"

    def test_docker_knows_the_credentials_while_it_builds_and_no_longer(
        self, box: Box, docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import json
        import os

        from hearth.images import build

        seen: list[dict[str, object]] = []

        def builds(*_: object, **__: object) -> build.Built:
            seen.append(json.loads(Path(os.environ["DOCKER_CONFIG"], "config.json").read_text()))
            docker.add("localhost/hearth/mine:ffffffffffff", labels={LABEL: FINGERPRINT})
            return build.Built(image_id="", seconds=1.0, log="/var/log/x", steps=3, cached=1)

        monkeypatch.setattr(build, "build", builds)
        before = os.environ["DOCKER_CONFIG"]
        box.credentials = [
            Credential(host="nvcr.io", user="a", password="b"),
            Credential(host="docker.io", user="c", password="d"),
        ]

        outcome = box.have(self.want(box))

        assert seen == [{"auths": {"nvcr.io": {"auth": "YTpi"}, "https://index.docker.io/v1/": {"auth": "Yzpk"}}}]
        assert os.environ["DOCKER_CONFIG"] == before
        assert outcome.done == "built in 1 s (1 of 3 steps were in the cache; /var/log/x)"
        assert box.book.images[outcome.name].how == "built"


class TestMissing:
    def test_where_nothing_may_be_brought_it_is_said_how(self, box: Box) -> None:
        want = box.want(digest(b"x"))
        steps = plan([want], Book(), box.docker, replace(box.terms, pull=False))

        assert [one.way for one in steps] == ["missing"]
        assert str(missing(steps)) == (
            f"the box has no image {want.source}@{want.digest}, and images_pull is false: load it "
            "(images.yml -e do=load), or set images_pull to true"
        )

    def test_an_earlier_image_that_is_gone_is_told(self, box: Box) -> None:
        steps = plan([box.want(name="localhost/hearth/old:1", source="")], Book(), box.docker, box.terms)

        assert "Docker has no localhost/hearth/old:1 any more, which engines were taken back to" in str(missing(steps))


class TestForetelling:
    def test_nothing_is_fetched(self, server: ScriptedRegistry, docker: FakeDocker, box: Box) -> None:
        outcome = box.foretold(box.want(server.add(layer(1)).digest))

        assert outcome.done == "would be pulled"
        assert (server.seen, docker.images, box.book) == ([], {}, Book())

    @pytest.mark.usefixtures("tried")
    def test_a_tag_that_moved_is_told(self, server: ScriptedRegistry, box: Box) -> None:
        server.add(layer(1))
        box.have(box.want())
        made = server.add(layer(2))

        outcome = box.foretold(box.want(), refresh=True)

        assert outcome.name == f"localhost/hearth/engine:{made.digest[7:19]}"
        assert outcome.done == f"{server.host}/me/engine:1 moved, would be pulled"

    def test_what_may_not_be_brought_is_an_error_here_too(self, box: Box) -> None:
        with pytest.raises(HearthError, match="images_pull is false"):
            box.foretold(box.want(digest(b"x")), pull=False)
