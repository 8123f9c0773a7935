# SPDX-License-Identifier: Apache-2.0
"""What the role container_toolkit does where something is in its way, and what a restart of Docker costs engines.

One box has a driver, as far as that can be played, and the lab's repository of the toolkit on its loopback. It gets
Docker and an engine first, without the GPU; tests of what fails come before those for which the toolkit is installed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from boxes import ROOT, Box, brought_up
from sampler import Stage

pytestmark = pytest.mark.thorough

ROLE = ("site.yml", "--tags", "container_toolkit")
TOOLKIT = ROOT / ".cache/lab/toolkit"
REPOSITORY = "http://127.0.0.1:9500/stable/deb/$(ARCH) /"
OURS = "ls /etc/apt/keyrings /etc/apt/sources.list.d /etc/apt/preferences.d | grep nvidia || true"
STANDING = "systemctl show -P InvocationID docker hearth-engine-tiny-a; sha256sum /etc/docker/*.json"
# "All at most 15 modules" (design: sets, not loops), with the GPU.
MODULE_BUDGET = 15
DAEMON = "/etc/docker/daemon.json"


def inventory(box: Box, **variables: Any) -> None:
    models = box.models()
    del models["tiny-b"]
    box.write_inventory(
        **{
            "container_toolkit_repository": REPOSITORY,
            "container_toolkit_key_url": "http://127.0.0.1:9500/gpgkey",
            "container_toolkit_key_fingerprint": (TOOLKIT / "fingerprint").read_text().strip(),
            "engines_gpu": "auto",
            "engines_models": models,
            # A box may not raise limits.
            "engines_ulimits": [],
            **variables,
        }
    )


@pytest.fixture(scope="module")
def bare(lab: None, box_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """With a driver, Docker and an engine, and told to do without the GPU."""
    subprocess.run([str(ROOT / "lab/toolkit/build.sh")], check=True, capture_output=True)
    with brought_up(f"{box_name}-toolkit", tmp_path_factory.mktemp("toolkit")) as one:
        for source, target in ((ROOT / "lab/toolkit/nvidia-smi", "/usr/bin/"), (TOOLKIT / "repo", "/srv/")):
            subprocess.run(["docker", "cp", "-q", str(source), f"{one.name}:{target}"], check=True)
        serve = "python3 -m http.server --bind 127.0.0.1 --directory /srv/repo 9500"
        one.out(f"systemd-run --quiet --unit=lab-toolkit {serve}")
        inventory(one, container_toolkit_gpu="none")
        one.ok("site.yml")
        yield one


@pytest.fixture(scope="module")
def gpu(bare: Box) -> Box:
    """The same with the toolkit, and an engine that has the GPU."""
    inventory(bare)
    bare.ok("site.yml")
    return bare


@pytest.fixture(autouse=True)
def _as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "bare" in request.fixturenames:
        inventory(request.getfixturevalue("bare"))


def test_a_box_that_is_told_to_do_without_the_gpu_does(bare: Box) -> None:
    assert "--device" not in bare.out("systemctl cat hearth-engine-tiny-a")
    assert bare.out(OURS) == ""
    assert json.loads(bare.out(f"cat {DAEMON}")) == {"log-opts": {"max-size": "50m", "max-file": "3"}}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param(
            {"container_toolkit_key_fingerprint": "C95B321B61E88C1809C4F759DDCAE044F796ECB0"},
            "and C95B321B61E88C1809C4F759DDCAE044F796ECB0 is wanted: ask whose key that is before you trust it",
            id="another key than was asked for",
        ),
        pytest.param(
            {"container_toolkit_key": "other.asc", "container_toolkit_key_fingerprint": ""},
            "apt cannot use http://127.0.0.1:9500/stable/deb/$(ARCH) / (",
            id="signed by another key",
        ),
        pytest.param(
            {"container_toolkit_repository": "http://127.0.0.1:9501/deb /"},
            "apt cannot use http://127.0.0.1:9501/deb / (",
            id="nobody there",
        ),
        pytest.param(
            {"container_toolkit_key_url": "http://127.0.0.1:9501/gpgkey"},
            "could not be fetched from http://127.0.0.1:9501/gpgkey",
            id="no key there",
        ),
        pytest.param(
            {"container_toolkit_version": "9.9.9"},
            "has no nvidia-container-toolkit 9.9.9-1: it has 1.21.0-1, 1.20.1-1",
            id="no such version",
        ),
    ],
)
def test_a_toolkit_that_cannot_be_had_is_told_and_changes_nothing(
    bare: Box, variables: dict[str, str], words: str
) -> None:
    key = variables.get("container_toolkit_key")
    inventory(bare, **variables | ({"container_toolkit_key": (TOOLKIT / key).read_text()} if key else {}))
    before = bare.out(STANDING)

    run = bare.play(*ROLE)

    assert run.code != 0
    assert words in run.flat, run.output[-3000:]
    assert "Nothing was changed. Docker runs as before." in run.flat
    assert bare.out(STANDING) == before
    assert bare.out(OURS) == ""


def test_check_mode_foretells_the_toolkit(bare: Box) -> None:
    inventory(bare)
    before = bare.out(STANDING)

    run = bare.ok(*ROLE, "--check", "--diff")

    assert "+deb [signed-by=/etc/apt/keyrings/nvidia-container-toolkit.asc] http://127.0.0.1:9500/" in run.output
    assert "Would install nvidia-container-toolkit=1.20.1-1, nvidia-container-toolkit-base=1.20.1-1, " in run.flat
    assert '+ "cdi": true' in run.flat
    assert (bare.out(STANDING), bare.out(OURS)) == (before, "")


def test_a_second_run_changes_nothing_within_the_budget_of_modules(gpu: Box) -> None:
    run = gpu.ok("site.yml", "-vvv")

    assert run.changed_tasks == []
    assert len(run.modules) <= MODULE_BUDGET, run.modules
    assert "engines get the GPU as nvidia.com/gpu=all" in run.flat


def test_check_mode_on_a_finished_box_finds_nothing_to_do(gpu: Box) -> None:
    run = gpu.ok("site.yml", "--check", "--diff")

    assert run.count("changed") == 0, run.changed_tasks


def test_a_broken_file_of_settings_is_refused_and_docker_goes_on(gpu: Box) -> None:
    gpu.out(f"cp -p {DAEMON} {DAEMON}.kept && printf '{{\\n  \"debug\" true\\n}}\\n' >{DAEMON}")
    before = gpu.out(STANDING)
    try:
        run = gpu.play(*ROLE)
        after = gpu.out(STANDING)
    finally:
        gpu.out(f"mv {DAEMON}.kept {DAEMON}")

    assert run.code != 0
    assert f"{DAEMON} is no JSON: line 2, column 11: " in run.flat
    assert "mend that line, or move the file away, and run this again. Docker was left as it is." in run.flat
    assert after == before


def test_a_repository_that_is_gone_is_not_missed(gpu: Box) -> None:
    gpu.out("systemctl stop lab-toolkit")
    try:
        run = gpu.ok(*ROLE)
    finally:
        gpu.out("systemd-run --quiet --unit=lab-toolkit python3 -m http.server --directory /srv/repo 9500")

    assert run.count("changed") == 0


def test_an_image_that_the_driver_is_too_old_for_is_refused_before_anything_is_changed(gpu: Box) -> None:
    models = gpu.models()
    models["tiny-a"]["image"] = "newer"
    newer = {"engine": "llama.cpp", "ref": "registry.example/llama:2", "architectures": ["amd64", "arm64"]}
    inventory(gpu, engines_models=models, engines_images={"newer": {**newer, "min_driver": "595"}})
    before = gpu.out(STANDING)

    run = gpu.play("site.yml")

    assert run.code != 0
    assert (
        "engines_models.tiny-a.image: newer wants NVIDIA's driver 595 or newer, and this host has 580.178.04"
        in run.flat
    )
    assert (run.count("changed"), gpu.out(STANDING)) == (0, before)


def test_an_engine_gets_the_gpu_by_the_toolkits_hook_where_that_is_asked_for(gpu: Box) -> None:
    inventory(gpu, engines_gpu="gpus=all")
    gpu.out("rm -f /run/hearth-lab-hook")

    gpu.ok("site.yml", "--tags", "engines")

    assert "--gpus all" in gpu.out("systemctl cat hearth-engine-tiny-a")
    assert gpu.active() == ["tiny-a"]
    assert gpu.out("cat /run/hearth-lab-hook") == "prestart"


def test_dgx_os_is_only_looked_at(gpu: Box) -> None:
    gpu.out('printf \'DGX_PLATFORM="GX10"\\nDGX_OTA_VERSION="7.6.0"\\n\' >/etc/dgx-release')
    gpu.out(f"cp -p {DAEMON} {DAEMON}.kept && echo '{{}}' >{DAEMON}")
    before = gpu.out(STANDING)
    try:
        inventory(gpu, container_toolkit_gpu="nvidia", container_toolkit_version="1.21.0")
        run = gpu.ok(*ROLE)
        after = gpu.out(STANDING)
    finally:
        gpu.out(f"rm /etc/dgx-release; mv {DAEMON}.kept {DAEMON}")

    assert run.count("changed") == 0
    assert "Docker is the distribution's docker.io, not the docker-ce of DGX OS" in run.flat
    assert (
        "spark is not in the group docker, whose members may do all that root may: sudo usermod -aG docker" in run.flat
    )
    assert "NVIDIA GB10, driver 580.178.04; NVIDIA container toolkit 1.20.1; CDI devices nvidia.com/gpu=0" in run.flat
    assert after == before


def test_the_owner_becomes_a_member_of_dockers_group_where_that_is_said(gpu: Box) -> None:
    inventory(gpu, container_toolkit_docker_group=True)

    gpu.ok(*ROLE)

    assert "docker" in gpu.out("id -nG spark").split()
    assert gpu.ok(*ROLE).count("changed") == 0


class TestEngines:
    """Engines of a Spark's size, on a box without a GPU, while Docker's settings change."""

    @pytest.fixture(autouse=True)
    def _settings_as_found(self, stage: Stage) -> Iterator[None]:
        stage.box.out(f"cp -p {DAEMON} /srv/daemon.json")
        yield
        stage.box.out(f"rm -f {DAEMON}* && cp -p /srv/daemon.json {DAEMON} && systemctl restart docker")
        stage.settled()

    @staticmethod
    def change(stage: Stage, settings: str) -> tuple[int, str]:
        python = "ansible_python_interpreter=/opt/hearth/venv/bin/python"
        arguments = f"settings={settings} drain=100"
        run = stage.box.ad_hoc("hearth.spark.docker_daemon", arguments, "-e", python)
        return run.code, run.flat

    def test_a_restart_waits_for_answers_under_way_and_engines_are_as_they_were(self, stage: Stage) -> None:
        stage.mood("big", "drip 20")
        stage.box.out("systemctl restart hearth-engine-big")
        boots, before = stage.boots(), stage.invocations()
        stream = stage.stream("big")
        stage.until_in_flight("big")

        code, said = self.change(stage, '{"features":{"cdi":true}}')

        assert code == 0, said
        assert "drained: 1 " in said
        assert "restored: - big - helper " in said
        assert stage.stream_ended_well(stream)
        assert "/etc/cdi" in stage.box.out("docker info --format '{{.CDISpecDirs}}'")
        assert (stage.active(), stage.boots()) == (["big", "helper"], boots)
        assert stage.invocations()["big"] != before["big"], "Docker was not restarted"

    def test_settings_with_which_docker_does_not_start_are_taken_back(self, stage: Stage) -> None:
        before = stage.box.out(f"cat {DAEMON}")

        # Good by themselves, and at odds with what the unit says on Docker's command line.
        code, said = self.change(stage, '{"hosts":["tcp://127.0.0.1:2375"]}')

        assert code != 0
        assert "Docker did not restart with its new settings (unable to configure the Docker daemon with file" in said
        assert "the old ones are back, and it runs" in said
        assert stage.box.out(f"cat {DAEMON}") == before
        assert stage.active() == ["big", "helper"]
        assert stage.answers("big")

    def test_settings_that_docker_itself_refuses_are_never_written(self, stage: Stage) -> None:
        before = stage.invocations()

        code, said = self.change(stage, '{"no-such-setting":true}')

        assert code != 0
        assert "as it was to be (unable to configure the Docker daemon" in said
        assert "nothing was changed" in said
        assert stage.invocations() == before
