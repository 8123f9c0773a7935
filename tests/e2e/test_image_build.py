# SPDX-License-Identifier: Apache-2.0
"""Images are built on a box by its real Docker, from a base image that the lab's registry gives by digest.

Of the recipes of the catalog, what needs no CUDA is built, with the stand-ins of lab/recipe.py: the base image, the git
servers, two files and most of the lock file are the lab's. The Dockerfiles, their scripts and everything else are the
real ones. Nothing is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import brought_up
from workshop import Workshop

from ansible_collections.hearth.spark.plugins.module_utils import _recipes

pytestmark = pytest.mark.thorough

SLOW = """RUN echo first && head -c 16 /dev/urandom | od -x >/first
RUN for i in $(seq 300); do echo working $i; sleep 1; done
"""
# The shell of the step that works, and the client of Docker: in words that this very search does not have.
AT_WORK = "pgrep -f '[w]orking .i'"
ANYTHING = "pgrep -f '[w]orking .i|buildx [b]uild'"


@pytest.fixture(scope="module")
def workshop(lab: None, box_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A box without models that can build."""
    folder = tmp_path_factory.mktemp("build")
    with brought_up(f"{box_name}-build", folder) as box:
        box.write_inventory(engines_models={})
        box.ok("site.yml")
        box.out(
            "apt-get update -qq -o Acquire::Check-Valid-Until=false; DEBIAN_FRONTEND=noninteractive "
            "apt-get install -qq --no-install-recommends docker-buildx git >/dev/null",
            timeout_s=300,
        )
        yield Workshop(box, folder)


class TestATinyRecipe:
    def test_it_is_built_and_told_of(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("tiny", "RUN echo made >/made && sleep 4\n")
        done = workshop.build(recipe)
        assert (done.sentence, done.built["steps"]) == ("", 2)
        image = workshop.image(recipe.ref)
        assert image is not None
        assert image["Config"]["Labels"]["dev.hearth.recipe"] == recipe.fingerprint
        assert workshop.box.out(f"docker run --rm --entrypoint cat {recipe.ref} /made") == "made"
        assert any(re.search(r"building, step \d of 2.*image 2/2: RUN echo made", line) for line in done.told)
        assert "[2/2] RUN echo made" in workshop.log("tiny")

    def test_unchanged_it_is_not_built_again(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("same", "RUN date +%s%N >/made\n")
        first, again = workshop.build(recipe), workshop.build(recipe)
        assert again.built == {**again.built, "image_id": first.built["image_id"], "steps": 0, "seconds": 0}

    def test_changed_it_is_another_image_and_the_old_one_stays(self, workshop: Workshop) -> None:
        before = workshop.recipe("changed", "RUN echo 1 >/made\n")
        workshop.build(before)
        after = workshop.recipe("changed", "RUN echo 2 >/made\n")
        workshop.build(after)
        made = [workshop.box.out(f"docker run --rm --entrypoint cat {one.ref} /made") for one in (before, after)]
        assert made == ["1", "2"]

    def test_how_many_jobs_there_are_compiles_nothing_anew(self, workshop: Workshop) -> None:
        dockerfile = "RUN --mount=type=secret,id=jobs cp /run/secrets/jobs /jobs && date +%s%N >/made\n"
        first = workshop.recipe("jobs", dockerfile, settings="disk_gb = 0.1\nmax_jobs = 1\n")
        assert workshop.build(first).built["cached"] == 1
        other = workshop.recipe("jobs", dockerfile, settings="disk_gb = 0.1\nmax_jobs = 2\n")
        assert other.ref != first.ref
        assert workshop.build(other).built["cached"] == 2
        assert workshop.box.out(f"docker run --rm --entrypoint cat {other.ref} /jobs") == "1"


class TestWhatFails:
    """Nothing is left under the image's name, and the sentence says what to do."""

    def test_a_file_whose_checksum_is_another(self, workshop: Workshop) -> None:
        workshop.box.out("mkdir -p /srv/served/files /srv/served/git && echo x >/srv/served/files/x.txt")
        workshop.serve()
        add = f"ADD --checksum=sha256:{'ab' * 32} http://{workshop.tools()[1]}:8123/x.txt /x\n"
        recipe = workshop.recipe("checksum", add)
        failed = workshop.build(recipe)
        assert "building checksum failed at image 2/2: ADD http" in failed.sentence
        assert "what was downloaded is not what the recipe names, by its checksum" in failed.sentence
        assert workshop.image(recipe.ref) is None

    def test_a_base_image_that_its_registry_does_not_have(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("missing", f"FROM registry.hearth.test:5000/nothing@sha256:{'ab' * 32}\n")
        failed = workshop.build(recipe)
        assert f"the base image registry.hearth.test:5000/nothing@sha256:{'ab' * 32} is not in its" in failed.sentence

    def test_a_registry_that_nobody_finds(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("lost", f"FROM nvcr.invalid/a@sha256:{'ab' * 32}\n")
        assert "the box does not reach nvcr.invalid: " in workshop.build(recipe).sentence

    def test_a_process_that_is_killed(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("killed", "RUN echo before && sh -c 'kill -9 $$'\n")
        failed = workshop.build(recipe)
        assert "a process of it was killed, as the kernel does when memory runs out: stop an engine" in failed.sentence
        assert failed.log[0] == "before"

    def test_a_disk_that_becomes_full(self, workshop: Workshop) -> None:
        box = workshop.box
        recipe = workshop.recipe("full", "RUN head -c 2000000000 /dev/zero >/big\n", settings="disk_gb = 0\n")
        box.out("systemctl stop docker.socket docker && mount -t tmpfs -o size=700m full /var/lib/docker")
        try:
            box.out("systemctl start docker")
            failed = workshop.build(recipe)
            assert "building full failed at image 2/2: RUN head" in failed.sentence
            assert "the disk is full: make room ('docker buildx prune'" in failed.sentence
            box.out("docker version")
        finally:
            box.out("systemctl stop docker.socket docker; umount /var/lib/docker && systemctl start docker")
        assert workshop.image(recipe.ref) is None

    def test_a_disk_that_has_too_little_room_beforehand(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("vast", "RUN echo never >/made\n", settings="disk_gb = 1000000\n")
        failed = workshop.build(recipe)
        assert re.search(
            r"building vast wants 1e\+06 GB below /var/lib/docker, and [\d.]+ GB are free", failed.sentence
        )
        assert workshop.box.sh("test -e /var/log/hearth/build-vast.log").returncode

    def test_a_box_without_buildx(self, workshop: Workshop) -> None:
        plugin = workshop.box.out("find / -xdev -path '*/cli-plugins/docker-buildx' | head -n 1")
        recipe = workshop.recipe("unbuildable", "RUN true\n")
        workshop.box.out(f"mv {plugin} /srv/docker-buildx")
        try:
            failed = workshop.build(recipe)
        finally:
            workshop.box.out(f"mv /srv/docker-buildx {plugin}")
        assert "which this box does not have: apt-get install docker-buildx on Debian" in failed.sentence


class TestInterrupted:
    """Whatever ends a build, nothing of it goes on, no half image is left, and what was done is not done again."""

    @pytest.mark.parametrize("by", ["KILL", "TERM"])
    def test_its_process_is_ended(self, workshop: Workshop, by: str) -> None:
        slow = SLOW.replace("echo first", f"echo {by}")
        recipe = workshop.recipe(f"ended-{by.lower()}", slow)
        with workshop.building(recipe):
            workshop.until(AT_WORK)
            workshop.box.out(f"kill -{by} {workshop.pid()}")
            workshop.until(f"! {ANYTHING}")
        assert workshop.image(recipe.ref) is None
        quick = workshop.recipe(f"ended-{by.lower()}", slow.replace("seq 300", "seq 1"))
        assert workshop.build(quick).built["cached"] == 2

    def test_memory_becomes_scarce(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("scarce", SLOW.replace("echo first", "echo scarce"))
        box = workshop.box
        box.out("cp /proc/meminfo /srv/meminfo")
        with workshop.building(recipe, HEARTH_MEMINFO="/srv/meminfo") as process:
            workshop.until(AT_WORK)
            box.out("sed 's/^MemAvailable:.*/MemAvailable: 100000 kB/' /proc/meminfo >/srv/less")
            box.out("mv /srv/less /srv/meminfo")
            said, _ = process.communicate(timeout=60)
        assert "building scarce was ended, because only 0.1 GiB of memory were available" in said
        assert workshop.box.sh(ANYTHING).returncode
        assert workshop.image(recipe.ref) is None

    def test_power_is_cut(self, workshop: Workshop) -> None:
        recipe = workshop.recipe("cut", SLOW.replace("echo first", "echo cut"))
        with workshop.building(recipe):
            workshop.until(AT_WORK)
            workshop.box.cut_power()
        workshop.until("docker version")
        assert workshop.image(recipe.ref) is None
        assert workshop.build(workshop.recipe("cut", "RUN true\n")).sentence == ""


class TestTheRecipesOfTheCatalog:
    """What of them needs no CUDA, with the stand-ins of lab/recipe.py."""

    @pytest.mark.parametrize("name", ["vllm-sm121", "vllm-mxfp4"])
    def test_sources_patches_encodings_and_packages_come_together(self, workshop: Workshop, name: str) -> None:
        recipe = _recipes.read(workshop.stand_in(name))
        done = workshop.build(recipe)
        assert done.sentence == ""
        # Anybody may read what is in it.
        run = f"docker run --rm --user 4711 --entrypoint sh {recipe.ref} -c"
        assert workshop.box.out(f"{run} 'cat /opt/tiktoken/*'") == "cl100k of the lab\no200k of the lab"
        assert workshop.box.out(f"{run} 'python3 -c \"import packaging; print(packaging.__file__)\"'").startswith(
            "/opt/venv/"
        )
        wanted = {
            line.split()[0]: line.split()[2] for line in recipe.files["sources.txt"].content.decode().splitlines()
        }
        moved = {"flashinfer-cutlass": "flashinfer/3rdparty/cutlass"}
        for source, commit in wanted.items():
            place = f"/src/{moved.get(source, source)}"
            head = workshop.box.out(f"docker run --rm --entrypoint git {recipe.ref} -C {place} rev-parse HEAD")
            assert head == commit
        assert workshop.box.out(f"{run} 'cat /src/flash-attention/csrc/cutlass/README'") == "a submodule"

    def test_a_patch_that_does_not_fit_ends_it(self, workshop: Workshop) -> None:
        folder = workshop.stand_in("vllm-sm121", stage="checked")
        (folder / "patches/cutlass").mkdir()
        (folder / "patches/cutlass/1.patch").write_text(PATCH.replace("-cutlass", "-something else"))
        failed = workshop.build(_recipes.read(folder))
        assert "failed at checked 3/3: RUN /recipe/patch.sh" in failed.sentence
        assert "the patch cutlass/1.patch of the recipe does not fit its source" in failed.sentence

    def test_a_patch_that_fits_is_in_the_sources(self, workshop: Workshop) -> None:
        folder = workshop.stand_in("vllm-sm121", stage="checked")
        (folder / "patches/cutlass").mkdir()
        (folder / "patches/cutlass/1.patch").write_text(PATCH)
        recipe = _recipes.read(folder)
        assert workshop.build(recipe).sentence == ""
        run = f"docker run --rm --entrypoint cat {recipe.ref}"
        assert workshop.box.out(f"{run} /src/cutlass/README") == "changed"

    def test_sources_that_do_not_go_together_end_it(self, workshop: Workshop) -> None:
        folder = workshop.stand_in("vllm-sm121", stage="checked")
        with (folder / "expected.txt").open("a") as file:
            file.write('vllm/CMakeLists.txt set(CUTLASS_REVISION "v9.9.9")\n')
        failed = workshop.build(_recipes.read(folder))
        assert (
            'the sources do not go together (vllm/CMakeLists.txt does not say: set(CUTLASS_REVISION "v9'
            in failed.sentence
        )

    def test_a_package_that_is_another_than_was_locked_ends_it(self, workshop: Workshop) -> None:
        folder = workshop.stand_in("vllm-sm121", stage="python")
        lock = folder / "requirements.txt"
        lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", lock.read_text()))
        failed = workshop.build(_recipes.read(folder))
        assert "what was downloaded is not what the recipe names, by its checksum" in failed.sentence

    def test_llama_4_is_repaired_in_the_sglang_that_is_published(self, workshop: Workshop, tmp_path: Path) -> None:
        # The wheel of PyPI in place of the image that it is in; nothing of it is run.
        base = workshop.recipe(
            "sglang-base",
            f"FROM {workshop.tools()[0]}\n"
            "RUN pip download --quiet --no-deps --python-version 3.12 --platform manylinux_2_34_aarch64 "
            "--only-binary :all: --dest /tmp sglang==0.5.21 \\\n"
            " && unzip -q /tmp/sglang-*.whl 'sglang/__init__.py' 'sglang/srt/models/mllama4.py' "
            '-d "$(python3 -c \'import sysconfig; print(sysconfig.get_path("purelib"))\')"\n',
        )
        assert workshop.build(base).sentence == ""
        folder = tmp_path / "sglang-llama4"
        folder.mkdir()
        for path, file in _recipes.read(_recipes.FOLDER / "sglang-llama4").files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(file.content)
            (folder / path).chmod(0o755 if file.executable else 0o644)
        (folder / "recipe.toml").write_text(f'disk_gb = 0.1\n[args]\nBASE_IMAGE = "{base.ref}"\n')
        recipe = _recipes.read(folder)
        assert workshop.build(recipe).sentence == ""
        grep = f"docker run --rm --entrypoint grep {recipe.ref} -c"
        assert (
            workshop.box.out(f"{grep} 'loaded_weight\\[expert_id\\].T' /src/sglang/sglang/srt/models/mllama4.py") == "1"
        )


PATCH = """--- a/README
+++ b/README
@@ -1 +1 @@
-cutlass
+changed
"""
