# SPDX-License-Identifier: Apache-2.0
"""hearth.images.back, carry, context and listing: the way back, what goes, what is carried, what is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from registries import FakeDocker

from hearth.cli import tables
from hearth.errors import HearthError
from hearth.images import back, book, carry, context, listing
from hearth.images.book import Book, Known, Smoke, Use
from hearth.images.errors import ImageError
from hearth.images.have import Outcome

OLD, NEW, OTHER = (f"localhost/hearth/engine:{number * 12}" for number in "012")


def known(name: str, **fields: str) -> Known:
    complete = {"source": f"example/engine@sha256:{name[-12:]}", "digest": f"sha256:{name[-12:]}", "how": "pulled"}
    complete |= {"id": f"sha256:{name[-3:]}", "at": "2026-11-28T04:00:00Z", "engine": "vllm"}
    return msgspec.convert({"name": name, **complete, **fields}, Known)


@pytest.fixture
def docker() -> FakeDocker:
    made = FakeDocker()
    for name in (OLD, NEW, OTHER):
        made.add(name, ident=f"sha256:{name[-3:]}", layers=(name,))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "images.json"


SWITCHED = Book(images={name: known(name) for name in (OLD, NEW, OTHER)}).with_uses({"scout": OLD, "qwen": NEW})
SWITCHED = SWITCHED.with_uses({"scout": NEW, "qwen": NEW})


class TestBack:
    def test_an_engine_goes_back_and_is_held_there(self, docker: FakeDocker) -> None:
        done = back.roll_back(SWITCHED, [], docker)

        assert done.book.models == {"scout": Use(image=OLD, previous=NEW, held=OLD), "qwen": Use(image=NEW)}
        assert done.lines == (f"scout goes back from {NEW} to {OLD}, and stays there until images.yml -e do=update",)

    def test_the_next_update_ends_that_and_there_is_a_way_back_again(self, docker: FakeDocker) -> None:
        held = back.roll_back(SWITCHED, ["scout"], docker).book

        assert held.with_uses({"scout": NEW}).models == {"scout": Use(image=NEW, previous=OLD)}

    def test_what_runs_from_a_held_image_stays_held(self, docker: FakeDocker) -> None:
        held = back.roll_back(SWITCHED, ["scout"], docker).book

        assert held.with_uses({"scout": OLD}).models["scout"].held == OLD

    @pytest.mark.parametrize(
        ("models", "sentence"),
        [
            (["gone"], "gone: no engine of this name runs from an image of Hearth's"),
            (["qwen"], f"qwen: nothing is known that it ran from before {NEW}, so there is no way back"),
        ],
    )
    def test_one_that_cannot_go_back_is_told(self, docker: FakeDocker, models: list[str], sentence: str) -> None:
        with pytest.raises(ImageError, match=sentence):
            back.roll_back(SWITCHED, models, docker)

    def test_twice_is_told(self, docker: FakeDocker) -> None:
        held = back.roll_back(SWITCHED, [], docker).book

        with pytest.raises(ImageError, match=r"scout was taken back to .* already"):
            back.roll_back(held, ["scout"], docker)
        with pytest.raises(ImageError, match="there is no way back; scout went back already"):
            back.roll_back(held, [], docker)

    def test_an_image_that_docker_lost_is_told(self, docker: FakeDocker) -> None:
        docker.remove(OLD)

        with pytest.raises(ImageError, match=f"Docker has no {OLD} of scout any more"):
            back.roll_back(SWITCHED, [], docker)


class TestPrune:
    def prune(self, docker: FakeDocker, path: Path, *, check: bool = False, whole: Book = SWITCHED) -> back.Change:
        book.write(whole, path)
        return back.prune(
            whole, docker, check=check, path=path, staging=path.parent / "staging", recipes=path.parent / "recipes"
        )

    def test_what_no_engine_needs_goes_and_the_way_back_stays(self, docker: FakeDocker, path: Path) -> None:
        done = self.prune(docker, path)

        assert sorted(docker.images) == [OLD, NEW]
        assert sorted(book.read(path).images) == [OLD, NEW]
        assert (done.changed, done.freed) == (True, 1000)
        assert done.lines == (f"{OTHER} is gone: 1000 bytes given back",)

    def test_foretold_nothing_goes(self, docker: FakeDocker, path: Path) -> None:
        done = self.prune(docker, path, check=True)

        assert OTHER in docker.images
        assert OTHER in book.read(path).images
        assert done.lines == (f"{OTHER} would go: 1000 bytes given back",)

    def test_images_that_are_not_hearths_are_not_looked_at(self, docker: FakeDocker, path: Path) -> None:
        docker.add("somebody/else:1", ident="sha256:else")

        self.prune(docker, path)

        assert "somebody/else:1" in docker.images

    def test_an_image_that_somebody_else_has_too_stays_his(self, docker: FakeDocker, path: Path) -> None:
        docker.images["somebody/else:1"] = docker.images[OTHER]

        done = self.prune(docker, path)

        assert OTHER not in docker.images
        assert "somebody/else:1" in docker.images
        assert (done.lines, done.freed) == ((f"{OTHER} is gone: Docker keeps it as somebody/else:1",), 0)

    def test_one_that_a_container_is_made_of_stays(self, docker: FakeDocker, path: Path) -> None:
        docker.containers = {docker.images[OTHER].id: ["mine"]}

        done = self.prune(docker, path)

        assert OTHER in docker.images
        assert (done.changed, done.lines) == (False, (f"{OTHER} stays: the container mine is made of it",))

    def test_one_that_docker_lost_is_forgotten(self, docker: FakeDocker, path: Path) -> None:
        docker.remove(OTHER)

        assert self.prune(docker, path).lines == (f"{OTHER} is gone: Docker does not have it any more",)
        assert OTHER not in book.read(path).images

    def test_what_pulls_left_goes(self, docker: FakeDocker, path: Path) -> None:
        blobs = path.parent / "staging/blobs"
        blobs.mkdir(parents=True)
        (blobs / "sha256-1.part").write_bytes(bytes(500))

        assert "what pulls left that did not end is gone: 500 bytes given back" in self.prune(docker, path).lines
        assert list(blobs.iterdir()) == []

    def test_recipes_of_images_that_are_needed_stay(self, docker: FakeDocker, path: Path) -> None:
        files = {"Dockerfile": context.File(content=b"FROM scratch")}
        root = path.parent / "recipes"
        kept = context.put("engine", "1" * 64, files, root)
        gone = context.put("engine", "2" * 64, files, root)

        self.prune(docker, path)

        assert (kept.exists(), gone.exists()) == (True, False)


def test_a_recipe_is_put_there_whole(tmp_path: Path) -> None:
    context.put("mine", "a" * 64, {"old": context.File(content=b"")}, tmp_path)

    folder = context.put(
        "mine",
        "a" * 64,
        {"Dockerfile": context.File(content=b"FROM x"), "bin/run": context.File(content=b"#!", executable=True)},
        tmp_path,
    )

    assert folder == tmp_path / "mine" / ("a" * 12)
    assert sorted(str(one.relative_to(folder)) for one in folder.rglob("*")) == ["Dockerfile", "bin", "bin/run"]
    assert oct((folder / "bin/run").stat().st_mode)[-3:] == "755"
    assert oct((folder / "Dockerfile").stat().st_mode)[-3:] == "644"


class TestCarry:
    def save(self, docker: FakeDocker, folder: Path, *names: str, reserve: int = 0) -> list[Outcome]:
        wanted = [known(name) for name in names or (NEW,)]
        return list(carry.save(wanted, folder, docker, reserve, lambda *_: None))

    def load(self, docker: FakeDocker, folder: Path, path: Path) -> list[Outcome]:
        return list(carry.load(folder, docker, lambda *_: None, path))

    @pytest.fixture
    def elsewhere(self) -> FakeDocker:
        """The Docker of another box: it takes in what the first one saved."""
        made = FakeDocker(containerd=True)

        def load(data: object, _: object) -> None:
            said = json.loads(b"".join(data))  # type: ignore[call-overload]
            made.add(said["name"], ident="sha256:of-another-store", layers=tuple(said["layers"]))

        made.load = load  # type: ignore[method-assign, assignment]
        return made

    def test_an_image_arrives_as_what_it_was(
        self, docker: FakeDocker, elsewhere: FakeDocker, tmp_path: Path, path: Path
    ) -> None:
        saved = self.save(docker, tmp_path / "usb")
        loaded = self.load(elsewhere, tmp_path / "usb", path)

        assert [one.done for one in saved] == [f"saved to {tmp_path}/usb/hearth-engine-111111111111.tar (120 bytes)"]
        assert [one.name for one in loaded] == [NEW]
        entry = book.read(path).images[NEW]
        assert (entry.digest, entry.source) == (known(NEW).digest, known(NEW).source)
        assert (entry.id, entry.how, entry.smoke) == ("sha256:of-another-store", "loaded", None)

    def test_a_tag_means_there_what_it_meant_here(
        self, docker: FakeDocker, elsewhere: FakeDocker, tmp_path: Path, path: Path
    ) -> None:
        list(carry.save([known(NEW, source="example/engine:1")], tmp_path / "usb", docker, 0, lambda *_: None))
        self.load(elsewhere, tmp_path / "usb", path)

        assert book.read(path).pins == {"example/engine:1": NEW}

    def test_again_nothing_is_saved_or_loaded(
        self, docker: FakeDocker, elsewhere: FakeDocker, tmp_path: Path, path: Path
    ) -> None:
        self.save(docker, tmp_path / "usb")
        self.load(elsewhere, tmp_path / "usb", path)

        assert [one.done for one in self.save(docker, tmp_path / "usb")] == [""]
        assert [one.done for one in self.load(elsewhere, tmp_path / "usb", path)] == [""]

    def test_a_folder_keeps_what_was_saved_to_it_before(self, docker: FakeDocker, tmp_path: Path) -> None:
        self.save(docker, tmp_path / "usb", OLD)
        self.save(docker, tmp_path / "usb", NEW)

        assert [one.image.name for one in carry.read(tmp_path / "usb").images] == [OLD, NEW]

    def test_one_that_was_replaced_is_not_saved(self, docker: FakeDocker, tmp_path: Path) -> None:
        docker.add(NEW, ident="sha256:somebody's")

        with pytest.raises(ImageError, match="Docker has another image"):
            self.save(docker, tmp_path / "usb")

    def test_too_little_room_is_told_before_a_byte(
        self, docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))

        with pytest.raises(ImageError, match=r"only 0\.00 GB are free: take another folder"):
            self.save(docker, tmp_path / "usb")
        assert list((tmp_path / "usb").iterdir()) == []

    def test_a_file_that_is_damaged_is_not_given_to_docker(
        self, docker: FakeDocker, elsewhere: FakeDocker, tmp_path: Path, path: Path
    ) -> None:
        self.save(docker, tmp_path / "usb")
        file = tmp_path / "usb/hearth-engine-111111111111.tar"
        file.write_bytes(file.read_bytes().replace(b"name", b"evil"))

        with pytest.raises(ImageError, match=r"is damaged: its hash is sha256:.* copy or save it again"):
            self.load(elsewhere, tmp_path / "usb", path)
        assert elsewhere.images == {}

    def test_what_docker_made_of_it_is_compared_with_what_was_saved(
        self, docker: FakeDocker, elsewhere: FakeDocker, tmp_path: Path, path: Path
    ) -> None:
        self.save(docker, tmp_path / "usb")

        def load(*_: object) -> None:
            elsewhere.add(NEW, layers=("another",))

        elsewhere.load = load  # type: ignore[method-assign]

        with pytest.raises(ImageError, match="Docker made something else"):
            self.load(elsewhere, tmp_path / "usb", path)
        assert book.read(path) == Book()

    def test_another_architecture_is_told(self, docker: FakeDocker, tmp_path: Path, path: Path) -> None:
        self.save(docker, tmp_path / "usb")

        with pytest.raises(ImageError, match=r"is for arm64, and this box is amd64"):
            self.load(FakeDocker(architecture="amd64"), tmp_path / "usb", path)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (None, "has no index.json: it is no folder that images were saved to"),
            (b"{", "is damaged"),
            (b'{"schema": 2}', "has schema 2, which this version of hearth does not know"),
        ],
    )
    def test_a_folder_of_something_else_is_told(
        self, docker: FakeDocker, tmp_path: Path, path: Path, content: bytes | None, sentence: str
    ) -> None:
        if content is not None:
            (tmp_path / "index.json").write_bytes(content)

        with pytest.raises(HearthError, match=sentence):
            self.load(docker, tmp_path, path)

    def test_an_index_cannot_lead_elsewhere(self, docker: FakeDocker, tmp_path: Path, path: Path) -> None:
        self.save(docker, tmp_path)
        index = (tmp_path / "index.json").read_text().replace("hearth-engine-111111111111.tar", "../../etc/shadow")
        (tmp_path / "index.json").write_text(index)
        docker.remove(NEW)

        with pytest.raises(ImageError, match="it is damaged; save the images again"):
            self.load(docker, tmp_path, path)


class TestListing:
    def test_those_in_use_come_first_with_who_uses_them(self, docker: FakeDocker) -> None:
        rows = listing.look(SWITCHED, docker)

        assert [(row.name, row.used_by, row.previous_of) for row in rows] == [
            (NEW, ("scout", "qwen"), ()),
            (OLD, (), ("scout",)),
            (OTHER, (), ()),
        ]

    def test_what_came_of_trying_it_out_is_told(self, docker: FakeDocker) -> None:
        tried = msgspec.structs.replace(known(OLD), smoke=Smoke(at="", version="0.29.0"))
        docker.remove(NEW)
        docker.add(OTHER, ident="sha256:somebody's")
        whole = Book(images={OLD: tried, NEW: known(NEW), OTHER: known(OTHER)})

        found = {row.name: (row.smoke, row.version, row.size) for row in listing.look(whole, docker)}

        assert found == {OLD: ("ok", "0.29.0", 1000), NEW: ("missing", "", 0), OTHER: ("replaced", "", 1000)}

    def test_a_person_gets_a_table(self, docker: FakeDocker) -> None:
        held = back.roll_back(SWITCHED, [], docker).book

        lines = tables.images(listing.look(held, docker))

        assert lines[0].split() == ["IMAGE", "SIZE", "ENGINE", "TRIED", "OUT", "CAME", "USED", "BY"]
        assert lines[1].split("  ")[-1].strip() == "qwen; scout, to go forward"
        assert lines[2].split("  ")[-1].strip() == "scout (held)"
        assert tables.images([]) == ["no image is known here: site.yml brings them"]
