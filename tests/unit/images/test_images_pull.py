# SPDX-License-Identifier: Apache-2.0
"""hearth.images.pull: from a registry to Docker, verified, and what is left when it does not get there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from registries import INDEX, FakeDocker, Made, ScriptedRegistry, digest, layer

from hearth.download import Patience
from hearth.errors import HearthError
from hearth.images import reference
from hearth.images.progress import Progress
from hearth.images.pull import Pull, Pulled
from hearth.images.request import Terms

NAME = "localhost/hearth/engine:0123456789ab"
QUICK = Patience(connect_s=2.0, read_s=2.0, tries=2, backoff_s=0.01, backoff_max_s=0.02)


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as made:
        yield made


@pytest.fixture
def docker() -> FakeDocker:
    return FakeDocker()


class Puller:
    """Pulls ``me/engine`` of the registry, and remembers what was told."""

    def __init__(self, server: ScriptedRegistry, docker: FakeDocker, staging: Path) -> None:
        self.server = server
        self.docker = docker
        self.blobs = staging / "blobs"
        self.terms = Terms(reserve_bytes=0, staging=str(staging), patience=QUICK)
        self.told: list[Progress] = []

    def __call__(self, wanted: str = "") -> Pulled:
        asked = reference.parse(f"{self.server.host}/me/engine:1", wanted)
        return Pull(asked, self.docker, self.terms, None).bring(lambda _: NAME, self.told.append)

    def refused(self, wanted: str = "") -> str:
        with pytest.raises(HearthError) as caught:
            self(wanted)
        return str(caught.value)

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.blobs.glob("*"))


@pytest.fixture
def pull(server: ScriptedRegistry, docker: FakeDocker, tmp_path: Path) -> Puller:
    return Puller(server, docker, tmp_path / "staging")


def named(digests: tuple[str, ...]) -> list[str]:
    return sorted(one.replace(":", "-") for one in digests)


class TestBringing:
    def test_docker_has_it_under_its_name_and_nothing_is_left(
        self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller
    ) -> None:
        made = server.add(layer(1), layer(2))

        done = pull(made.digest)

        image = docker.image(NAME)
        assert image is not None
        assert (image.id, image.layers) == (made.config, made.diff_ids)
        assert done.digest == made.digest
        assert done.bytes_fetched == done.bytes_total == sum(len(server.blobs[one]) for one in made.layers)
        assert pull.left == []

    def test_of_a_tag_the_digest_is_told(self, server: ScriptedRegistry, pull: Puller) -> None:
        made = server.add(layer(1))

        assert pull().digest == made.digest

    def test_an_image_without_an_index_is_one_too(
        self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller
    ) -> None:
        made = server.add(layer(1), index=False)

        assert pull(made.digest).digest == made.digest == made.manifest
        assert docker.image(NAME) is not None

    def test_a_docker_with_containerds_store_knows_it_by_the_manifest(
        self, server: ScriptedRegistry, tmp_path: Path
    ) -> None:
        made, docker = server.add(layer(1)), FakeDocker(containerd=True)

        Puller(server, docker, tmp_path)(made.digest)

        image = docker.image(NAME)
        assert image is not None
        assert image.id == made.manifest

    def test_the_same_layer_twice_comes_once(self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller) -> None:
        made = server.add(layer(1), layer(2), layer(1))

        pull(made.digest)

        assert len(server.asked(made.layers[0])) == 1
        assert docker.images[NAME].layers == made.diff_ids

    def test_layers_of_another_image_are_not_fetched_again(
        self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller
    ) -> None:
        made = server.add(layer(1), layer(2))
        docker.add("other", layers=(made.diff_ids[0], "sha256:else"))

        done = pull(made.digest)

        assert server.asked(made.layers[0]) == []
        assert done.bytes_fetched == len(server.blobs[made.layers[1]])

    def test_containerds_store_wants_them_all(self, server: ScriptedRegistry, tmp_path: Path) -> None:
        made, docker = server.add(layer(1), layer(2)), FakeDocker(containerd=True)
        docker.add("other", layers=made.diff_ids[:1])

        Puller(server, docker, tmp_path)(made.digest)

        assert len(server.asked(made.layers[0])) == 1

    def test_a_layer_higher_up_is_no_beginning(
        self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller
    ) -> None:
        made = server.add(layer(1), layer(2))
        docker.add("other", layers=("sha256:else", made.diff_ids[1]))

        pull(made.digest)

        assert len(server.asked(made.layers[1])) == 1

    def test_it_is_told_how_far_it_is(self, server: ScriptedRegistry, pull: Puller) -> None:
        made = server.add(layer(1))

        pull(made.digest)

        assert list(dict.fromkeys(one.phase for one in pull.told)) == ["asking", "pulling", "loading", "extracting"]
        whole = len(server.blobs[made.layers[0]])
        assert [(one.bytes_done, one.bytes_total) for one in pull.told if one.phase == "pulling"][-1] == (whole, whole)


class TestRefusals:
    def test_another_architecture_is_refused_before_a_layer_moves(self, server: ScriptedRegistry, pull: Puller) -> None:
        made = server.add(layer(1), architecture="amd64")

        said = pull.refused(made.digest)

        assert "exists for amd64, and this box is arm64: nothing was fetched; take another image" in said
        assert server.asked(made.layers[0]) == []

    def test_so_is_one_without_an_index(self, server: ScriptedRegistry, pull: Puller) -> None:
        made = server.add(layer(1), architecture="amd64", index=False)

        assert "exists for amd64, and this box is arm64" in pull.refused(made.digest)
        assert server.asked(made.layers[0]) == []

    def test_a_kind_of_manifest_of_old_is_told(self, server: ScriptedRegistry, pull: Puller) -> None:
        server.tags["1"] = "old"
        server.manifests["old"] = ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion": 1}')

        assert "is of a kind that is no image of today" in pull.refused()

    def test_a_manifest_that_is_damaged_is_told(self, server: ScriptedRegistry, pull: Puller) -> None:
        server.tags["1"] = "damaged"
        server.manifests["damaged"] = (INDEX, b'{"manifests": 7}')

        assert "its manifest is damaged" in pull.refused()

    def test_too_little_room_is_told_before_a_layer_moves(
        self, server: ScriptedRegistry, pull: Puller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = server.add(layer(1))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

        said = pull.refused(made.digest)

        assert "but only 0.00 GB are free: make room (images.yml -e do=prune); nothing was fetched" in said
        assert server.asked(made.layers[0]) == []


class TestCutOff:
    def break_off(self, server: ScriptedRegistry, made: Made, number: int, after: int) -> None:
        """The registry dies at this layer after so many bytes, and stays dead."""

        def dies(path: str) -> int | None:
            if made.layers[number] not in path:
                return None
            server.faults.extend([lambda _: (503, {}, b"")] * 20)
            return after

        server.faults.append(dies)

    def test_what_came_is_kept_and_the_next_pull_goes_on_there(
        self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller
    ) -> None:
        made = server.add(layer(1), layer(2, 200_000))
        pull.terms = Terms(reserve_bytes=0, staging=pull.terms.staging, patience=QUICK, workers=1)
        self.break_off(server, made, 1, 120_000)

        said = pull.refused(made.digest)
        assert "ask again later, what came is kept" in said
        assert pull.left == sorted([made.layers[0].replace(":", "-"), f"{made.layers[1].replace(':', '-')}.part"])
        assert docker.images == {}

        server.faults.clear()
        done = pull(made.digest)

        assert done.bytes_fetched == done.bytes_total - len(server.blobs[made.layers[0]]) - 120_000
        assert docker.images[NAME].layers == made.diff_ids
        assert pull.left == []

    def test_a_docker_that_does_not_take_it_costs_no_layer(
        self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller
    ) -> None:
        made = server.add(layer(1), layer(2))
        docker.refuses = "write /var/lib/docker/tmp/x: no space left on device"

        said = pull.refused(made.digest)
        assert "became full while Docker unpacked" in said
        assert "what came is kept" in said
        assert pull.left == named(made.layers)

        assert pull(made.digest).bytes_fetched == 0
        assert docker.image(NAME) is not None

    def test_a_disk_that_becomes_full_on_the_way_is_told(
        self, server: ScriptedRegistry, pull: Puller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = server.add(layer(1))

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "writev", full)

        assert "is full with" in pull.refused(made.digest)

    def test_what_docker_has_in_the_end_is_compared_with_what_was_verified(
        self, server: ScriptedRegistry, docker: FakeDocker, pull: Puller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = server.add(layer(1))
        monkeypatch.setattr(docker, "image", lambda _: docker.add("x", ident=digest(b"another")))

        assert "has something else under" in pull.refused(made.digest)


class TestTags:
    def test_a_tag_is_asked_for_its_digest_and_for_nothing_else(
        self, server: ScriptedRegistry, docker: FakeDocker, tmp_path: Path
    ) -> None:
        made = server.add(layer(1))
        asked = reference.parse(f"{server.host}/me/engine:1")
        terms = Terms(staging=str(tmp_path), patience=QUICK)

        assert Pull(asked, docker, terms, None).digest(lambda _: None) == made.digest
        assert server.asked() == ["/v2/me/engine/manifests/1"]
