# SPDX-License-Identifier: Apache-2.0
"""Images on a real box, from a real registry: what a play shows, what it survives, what it says, what it leaves."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import Box, Run
from wharf import CUT, FOLDER, LOGIN, OPEN, PASSWORD, SIZE, USER, Wharf

pytestmark = pytest.mark.thorough

UNITS = "systemctl list-units --no-legend --plain 'hearth-images-*' | awk '{print $1}'"
FETCHING = "engine@sha256:"


@pytest.fixture(scope="module")
def wharf(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wharf]:
    made = Wharf(box, tmp_path_factory.mktemp("wharf"))
    made.set_up()
    yield made
    made.tear_down()


@pytest.fixture(scope="module")
def digest(wharf: Wharf) -> str:
    """An image of the registry, of which the box has all layers but one."""
    return wharf.push()


@pytest.fixture(autouse=True)
def engine_as_it_was(box: Box, wharf: Wharf) -> Iterator[None]:
    """Whatever happens to images, the engine that runs goes on, and so does Docker."""
    ask = "systemctl show --value --property=InvocationID hearth-engine-tiny-a docker"
    before = box.out(ask)
    yield
    wharf.clean()
    assert box.out(ask) == before
    assert box.active() == ["tiny-a"]


def sentence(run: Run) -> str:
    assert run.code != 0, run.output[-3000:]
    return run.flat


class TestBringing:
    def test_an_image_is_brought_once_and_then_no_registry_is_needed(self, box: Box, wharf: Wharf, digest: str) -> None:
        path = wharf.book(wharf.image(digest))

        foretold = box.ok(path, "--check", "--diff")
        assert not wharf.has(digest)
        first = box.ok(path)
        box.out("systemctl stop lab-images-open")
        try:
            second = box.ok(path)
        finally:
            box.out(f"systemd-run --quiet --unit=lab-images-open {FOLDER}/registry serve {FOLDER}/open.yml")

        assert [run.count("changed") for run in (foretold, first, second)] == [1, 1, 0]
        assert f"{OPEN}/engine@{digest}: would be pulled" in foretold.flat
        assert wharf.has(digest)
        # The layers below are those of an image that the box has.
        assert f"engine@{digest}: 12.0 MB came in" in first.flat
        assert wharf.left() == 0

    def test_it_is_shown_how_far_it_is(self, box: Box, wharf: Wharf, digest: str) -> None:
        wharf.mode("hold 5000000")

        run = box.play_and("fetching", lambda: wharf.mode("pass"), wharf.book(wharf.image(digest, at=CUT)))

        assert run.code == 0, run.output
        form = rf"^\[{box.name}\] {CUT}/engine@{digest}: fetching 0\.0\d of 0\.01 GB, \d+ %"
        assert re.search(form, run.output, flags=re.MULTILINE), run.output

    def test_a_tag_is_brought_by_what_it_means_and_stays_that(self, box: Box, wharf: Wharf) -> None:
        first = wharf.push("moving", size=1000)
        path = wharf.book(wharf.image(tag="moving"))
        box.ok(path)
        second = wharf.push("moving", size=1000)

        stays = box.ok(path)
        moves = box.ok(wharf.book(wharf.image(tag="moving"), refresh=True))

        assert stays.count("changed") == 0
        assert moves.count("changed") == 1
        assert f"{OPEN}/engine:moving moved, " in moves.flat
        assert wharf.has(first) and wharf.has(second)  # noqa: PT018 - both are there


class TestLogins:
    @staticmethod
    def login(password: str) -> list[dict[str, str]]:
        return [{"host": LOGIN, "user": USER, "password": password}]

    def test_the_password_goes_to_the_registry_and_is_nowhere_else(self, box: Box, wharf: Wharf, digest: str) -> None:
        run = box.ok(wharf.book(wharf.image(digest, at=LOGIN), registries=self.login(PASSWORD)), "-vvv")

        assert wharf.has(digest)
        assert PASSWORD not in run.output
        assert box.sh(f"grep -rlF {PASSWORD} /run/hearth /var/lib/hearth /var/log /etc /root").stdout == ""
        assert PASSWORD not in box.out("journalctl --no-pager")
        assert box.sh("test -e ~root/.docker/config.json").returncode != 0

    @pytest.mark.parametrize(
        ("password", "said"),
        [
            ("wr0ng", f"{LOGIN} does not take the user me with the password given: correct them in images_registries"),
            ("", f"{LOGIN} gives {LOGIN}/engine to nobody who has not logged in, or has no such image"),
        ],
        ids=["wrong password", "no login"],
    )
    def test_a_refusal_is_told(self, box: Box, wharf: Wharf, digest: str, password: str, said: str) -> None:
        registries = self.login(password) if password else []

        run = box.play(wharf.book(wharf.image(digest, at=LOGIN), registries=registries))

        assert said in sentence(run)
        assert "wr0ng" not in run.output


class TestRefusals:
    def test_a_digest_that_is_not_there(self, box: Box, wharf: Wharf) -> None:
        gone = f"sha256:{'0' * 64}"

        run = box.play(wharf.book(wharf.image(gone)))

        assert f"{OPEN} has {OPEN}/engine, but not with the digest {gone} (any more): take another one" in sentence(run)

    def test_an_image_that_is_not_there(self, box: Box, wharf: Wharf) -> None:
        run = box.play(wharf.book({**wharf.image(), "source": f"{OPEN}/nothing:1"}))

        assert f"{OPEN} has" in sentence(run)
        assert "(any more)" in run.flat

    def test_another_architecture_before_a_layer_moves(self, box: Box, wharf: Wharf) -> None:
        other = wharf.push("other", base="scratch", platform="linux/riscv64")

        run = box.play(wharf.book(wharf.image(other)))

        assert "exists for riscv64, and this box is" in sentence(run)
        assert wharf.left() == 0

    def test_a_layer_that_is_not_what_its_digest_says(self, box: Box, wharf: Wharf) -> None:
        damaged = wharf.push("damaged", size=100_000)
        layer = box.out(
            f"curl -sf -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' "
            f"http://{OPEN}/v2/engine/manifests/{damaged} | grep -o 'sha256:[0-9a-f]*' | tail -n 1"
        )
        blob = f"{FOLDER}/store/docker/registry/v2/blobs/sha256/{layer[7:9]}/{layer[7:]}/data"
        box.out(f"dd if=/dev/zero of={blob} bs=1000 count=1 conv=notrunc status=none")

        run = box.play(wharf.book(wharf.image(damaged)))

        assert "came damaged twice" in sentence(run)
        assert not wharf.has(damaged)

    def test_too_small_a_disk_before_a_layer_moves(self, box: Box, wharf: Wharf, digest: str) -> None:
        box.out("mkdir -p /var/lib/hearth/images && mount -t tmpfs -o size=4m tmpfs /var/lib/hearth/images")
        try:
            run = box.play(wharf.book(wharf.image(digest)))
        finally:
            box.out("umount /var/lib/hearth/images")

        assert "needs 0.01 GB below /var/lib/hearth/images" in sentence(run)
        assert "make room (images.yml -e do=prune); nothing was fetched" in run.flat


class TestCutOff:
    def test_a_registry_that_dies_half_way_costs_nothing_that_came(self, box: Box, wharf: Wharf, digest: str) -> None:
        path = wharf.book(wharf.image(digest, at=CUT))
        wharf.mode("die 7000000")
        run = box.play(path)

        assert "could not be fetched in 5 tries" in sentence(run)
        assert "ask again later, what came is kept" in run.flat
        kept = wharf.left()
        assert 4_000_000 < kept < 7_000_000

        wharf.mode("pass")
        run = box.ok(path)

        assert wharf.has(digest)
        assert f"{(SIZE - kept) / 1e6:.1f} MB came in" in run.flat

    def test_a_play_that_is_killed_leaves_the_work_going_and_the_next_one_waits_for_it(
        self, box: Box, wharf: Wharf, digest: str
    ) -> None:
        path, before = wharf.book(wharf.image(digest, at=CUT)), wharf.jobs()
        wharf.mode("hold 5000000")
        box.play_until_killed("fetching", 0.5, path, by=signal.SIGKILL)

        run = box.play_and("fetching", lambda: wharf.mode("pass"), path)

        assert run.count("changed") == 1
        assert len(wharf.jobs() - before) == 1
        assert wharf.has(digest)

    def test_work_that_is_killed_is_told_and_goes_on_where_it_was(self, box: Box, wharf: Wharf, digest: str) -> None:
        path = wharf.book(wharf.image(digest, at=CUT))
        wharf.mode("hold 7000000")
        run = box.play_and("fetching", lambda: box.out(f"systemctl kill --signal=KILL $({UNITS})"), path)

        assert "was cut off while" in sentence(run)
        assert "ask for it again, and it goes on where it was" in run.flat
        assert wharf.left() > 4_000_000

        wharf.mode("pass")
        run = box.ok(path)

        came = re.search(r"(\d+\.\d) MB came in", run.flat)
        assert came is not None
        assert float(came[1]) < 8

    def test_two_plays_at_once_share_one_pull(self, box: Box, wharf: Wharf, digest: str) -> None:
        path, before = wharf.book(wharf.image(digest, at=CUT)), wharf.jobs()
        wharf.mode("hold 5000000")
        both = threading.Barrier(2, action=lambda: wharf.mode("pass"), timeout=120)
        runs: list[Run] = []
        other = threading.Thread(target=lambda: runs.append(box.play_and("fetching", both.wait, path)))
        other.start()
        runs.append(box.play_and("fetching", both.wait, path))
        other.join()

        assert [run.code for run in runs] == [0, 0]
        assert len(wharf.jobs() - before) == 1

    def test_other_images_wait_for_their_turn(self, box: Box, wharf: Wharf, digest: str) -> None:
        small = wharf.push("small", size=1000)
        wharf.mode("hold 5000000")
        box.play_until_killed("fetching", 0.5, wharf.book(wharf.image(digest, at=CUT)))

        run = box.play_and(
            "waiting for other work on images", lambda: wharf.mode("pass"), wharf.book(wharf.image(small))
        )

        assert run.code == 0, run.output
        assert wharf.has(small) and wharf.has(digest)  # noqa: PT018 - both are there


class TestTrials:
    """By site.yml: an image that may not serve changes no unit."""

    @pytest.fixture(autouse=True)
    def as_found(self, box: Box, wharf: Wharf) -> Iterator[None]:
        yield
        box.write_inventory()

    def site(self, box: Box, digest: str, **fields: object) -> Run:
        models = box.models()
        models["tiny-b"] |= {"image": f"{OPEN}/engine@{digest}", **fields}
        box.write_inventory(engines_models=models)
        return box.play("site.yml", "--tags", "images,engines")

    def test_one_that_does_not_run_is_told_and_the_units_stay(self, box: Box, wharf: Wharf) -> None:
        unit = box.out("systemctl cat hearth-engine-tiny-b")
        broken = wharf.push("broken", size=1000, lines="RUN rm /usr/bin/llama-server")

        run = self.site(box, broken)

        assert f"{OPEN}/engine@{broken} does not run on this box" in sentence(run)
        assert "so it may not serve" in run.flat
        assert box.out("systemctl cat hearth-engine-tiny-b") == unit

    def test_a_flag_that_it_does_not_know_is_told_with_its_model(self, box: Box, wharf: Wharf, digest: str) -> None:
        unit = box.out("systemctl cat hearth-engine-tiny-b")

        run = self.site(box, digest, argv={"--warp-speed": 9})

        assert "knows no flag --warp-speed, which tiny-b is run with: leave it out" in sentence(run)
        assert box.out("systemctl cat hearth-engine-tiny-b") == unit


class TestUpdates:
    """By images.yml, with an engine that runs."""

    @pytest.fixture(autouse=True)
    def as_found(self, box: Box, wharf: Wharf) -> Iterator[None]:
        yield
        box.write_inventory()
        # Not site.yml: the engine may be held where it is.
        box.ok("playbooks/images.yml", "-e", "do=update")

    @pytest.fixture
    def engine_as_it_was(self) -> None:
        """Here it is to change."""

    def runs_from(self, box: Box, name: str) -> str:
        """What the container of an engine is made of."""
        return box.out(f"docker inspect --format '{{{{.Config.Image}}}}' hearth-{name}")

    def test_an_update_that_does_not_serve_goes_back_and_what_nobody_needs_goes(self, box: Box, wharf: Wharf) -> None:
        first = wharf.push("served", size=1000)
        models = box.models()
        models["tiny-a"]["image"] = f"{OPEN}/engine:served"
        box.write_inventory(engines_models=models)
        box.ok("site.yml", "--tags", "images,engines")
        assert self.runs_from(box, "tiny-a") == wharf.local(first)

        second = wharf.push("served", size=1000)
        foretold = box.ok("playbooks/images.yml", "-e", "do=update", "--check")
        assert f"tiny-a: {wharf.local(first)} -> {wharf.local(second)}" in foretold.flat
        assert not wharf.has(second)
        box.ok("playbooks/images.yml", "-e", "do=update")
        assert self.runs_from(box, "tiny-a") == wharf.local(second)

        # It tells its flags as it should, and ends as soon as it is to serve.
        wharf.push("served", size=1000, lines=_MOODY)
        failed = box.play("playbooks/images.yml", "-e", "do=update")
        assert "The update failed: " in sentence(failed)
        assert "tiny-a went back to the image before, and stays there" in failed.flat
        assert self.runs_from(box, "tiny-a") == wharf.local(second)
        assert box.active() == ["tiny-a"]

        pruned = box.ok("playbooks/images.yml", "-e", "do=prune")
        assert f"{wharf.local(first)} is gone" in pruned.flat
        assert (wharf.has(first), wharf.has(second)) == (False, True)
        assert "tiny-a (held)" in pruned.flat


_MOODY = (
    "RUN mv /usr/bin/llama-server /usr/bin/llama-real && printf '%s\\n' '#!/bin/sh' "
    "'case \"$*\" in --help|--version) exec /usr/bin/llama-real \"$@\" ;; esac' 'echo it ends on purpose; exit 1' "
    ">/usr/bin/llama-server && chmod 0755 /usr/bin/llama-server"
)


class TestCarrying:
    @pytest.fixture
    def other(self, box: Box, tmp_path: Path) -> Iterator[Box]:
        """A box that is as this one, but for Docker's disk, which is empty."""
        name, image = f"{box.name}-other", f"{box.name}-other-image"
        made = Box(name, tmp_path)
        try:
            subprocess.run(["docker", "commit", "--pause=false", box.name, image], check=True, capture_output=True)
            made.write_inventory(lab_box_image=image)
            shared = Path(__file__).resolve().parents[2] / "molecule/shared"
            made.ok(str(shared / "create.yml"))
            yield made
        finally:
            subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)
            subprocess.run(["docker", "rmi", image], check=False, capture_output=True)

    def test_images_go_to_a_folder_and_from_there_to_a_box_without_a_registry(
        self, box: Box, wharf: Wharf, digest: str
    ) -> None:
        book = box.out("cat /var/lib/hearth/images.json")
        box.ok("playbooks/images.yml", "-e", "do=save", "-e", f"folder={FOLDER}/usb")
        again = box.ok("playbooks/images.yml", "-e", "do=save", "-e", f"folder={FOLDER}/usb")
        assert again.count("changed") == 0

        # As on another box: nothing is known.
        kept = "localhost/kept:1"
        box.out(
            f"docker tag {box.local_image} {kept} && docker rmi {box.local_image} && rm /var/lib/hearth/images.json"
        )
        try:
            refused = box.play("site.yml", "--tags", "images", "-e", "images_pull=false")
            loaded = box.ok("playbooks/images.yml", "-e", "do=load", "-e", f"folder={FOLDER}/usb")
            box.ok("site.yml", "--tags", "images,engines", "-e", "images_pull=false")
        finally:
            box.sh(f"docker tag {kept} {box.local_image}; docker rmi {kept}; rm -r {FOLDER}/usb")

        assert "load it (images.yml -e do=load)" in sentence(refused)
        assert "loaded from" in loaded.flat
        assert box.image.partition("@")[2] in box.out("cat /var/lib/hearth/images.json")
        assert '"how": "loaded"' in box.out("cat /var/lib/hearth/images.json")
        box.out(f"cat >/var/lib/hearth/images.json <<'END'\n{book}\nEND")

    def test_images_are_copied_from_one_box_to_another(self, box: Box, other: Box, wharf: Wharf) -> None:
        assert other.out("docker images --quiet") == ""
        run = box.ok(
            "-i",
            str(other.inventory),
            "playbooks/images.yml",
            *("-e", "do=copy", "-e", f"from={box.name}", "-e", f"to={other.name}"),
        )

        assert f"{box.local_image}: loaded from" in run.flat
        assert other.out(f"docker run --rm {box.local_image} --version 2>&1 | head -n 1").startswith("version")
        for one in (box, other):
            assert one.sh("test -e /var/lib/hearth/copy").returncode != 0
