# SPDX-License-Identifier: Apache-2.0
"""site.yml on a finished box: it changes nothing, cheaply, tells the truth, and keeps what people chose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import Box

# "Budget: a no-change site.yml runs at most 15 modules" (design: sets, not loops).
MODULE_BUDGET = 15


@pytest.fixture(autouse=True)
def _as_found(box: Box) -> Iterator[None]:
    yield
    box.write_inventory()
    box.out("hearth switch tiny-a")


@pytest.fixture
def models_as_found(box: Box) -> Iterator[None]:
    """For a test after which the box has other models."""
    yield
    box.write_inventory()
    box.ok("site.yml", "--tags", "engines,gateway")


def test_a_second_run_changes_nothing_within_the_budget_of_modules(box: Box) -> None:
    run = box.ok("site.yml", "-vvv")

    assert run.changed_tasks == []
    assert len(run.modules) <= MODULE_BUDGET, run.modules


def test_check_mode_on_a_finished_box_finds_nothing_to_do(box: Box) -> None:
    run = box.ok("site.yml", "--check", "--diff")

    assert run.count("changed") == 0, run.changed_tasks


@pytest.mark.usefixtures("models_as_found")
@pytest.mark.thorough
def test_check_mode_foretells_a_changed_model_and_changes_nothing(box: Box) -> None:
    models = box.models()
    models["tiny-a"]["context"] = 256
    box.write_inventory(engines_models=models)
    before = box.out(
        "sha256sum /etc/systemd/system/hearth-engine-*.service; systemctl show -P MainPID hearth-engine-tiny-a"
    )

    check = box.ok("site.yml", "--check", "--diff")
    assert "+    --ctx-size 256" in check.output
    assert (
        box.out("sha256sum /etc/systemd/system/hearth-engine-*.service; systemctl show -P MainPID hearth-engine-tiny-a")
        == before
    )

    real = box.ok("site.yml")
    assert set(check.changed_tasks) <= set(real.changed_tasks)
    assert "--ctx-size 256" in box.out("tr '\\0' ' ' </proc/$(systemctl show -P MainPID hearth-engine-tiny-a)/cmdline")
    assert box.ok("site.yml").count("changed") == 0


def test_a_model_that_somebody_switched_to_stays(box: Box) -> None:
    box.ok("switch.yml", "-e", "model=tiny-b")

    run = box.ok("site.yml")

    assert run.count("changed") == 0, run.changed_tasks
    assert box.active() == ["tiny-b"]


@pytest.mark.usefixtures("models_as_found")
@pytest.mark.thorough
def test_a_model_that_leaves_the_inventory_leaves_the_box(box: Box) -> None:
    models = box.models()
    del models["tiny-a"]
    models["tiny-b"]["start"] = "boot"
    box.write_inventory(engines_models=models)

    box.ok("site.yml")

    assert box.active() == ["tiny-b"]
    assert box.out("ls /etc/systemd/system | grep hearth-engine") == "hearth-engine-tiny-b.service"
    assert box.out("docker ps --format '{{.Names}}'") == "hearth-tiny-b"
    assert box.ok("site.yml").count("changed") == 0


@pytest.mark.thorough
def test_what_people_put_into_the_tree_is_left_alone(box: Box) -> None:
    box.out(
        "cd /home/spark/ai && mkdir -p /srv/big && chown spark /srv/big"
        " && rmdir models/phi4 && ln -s /srv/big models/phi4"
        " && chmod 0700 projects && echo mine >logs/mine && chmod 0640 logs/mine && chown root logs/mine"
    )
    seen = "cd /home/spark/ai && stat -c '%n %a %U:%G %F' models/phi4 projects logs/mine && cat logs/mine"
    before = box.out(seen)

    run = box.ok("site.yml")

    assert run.count("changed") == 0, run.changed_tasks
    assert box.out(seen) == before
    box.out(
        "cd /home/spark/ai && rm models/phi4 logs/mine && chmod 0755 projects"
        " && install -d -o spark -g spark models/phi4 && rmdir /srv/big"
    )


def test_the_role_layout_alone_makes_a_tree_outside_the_home(box: Box, tmp_path: Path) -> None:
    play = {"hosts": "sparks", "become": True, "gather_facts": False, "roles": ["hearth.spark.layout"]}
    (tmp_path / "layout.yml").write_text(json.dumps([play]), encoding="utf-8")
    box.write_inventory(layout_root="/srv/hearth/ai/", layout_directories=["models/qwen3"], layout_mode="0775")
    words = (str(tmp_path / "layout.yml"), "--diff")

    assert "/srv/hearth/ai/models/qwen3 (mode 0775" in box.ok(*words).output
    assert box.ok(*words).count("changed") == 0
    assert box.out("cd /srv/hearth && stat -c '%n %a %U' . ai ai/models ai/models/qwen3").splitlines() == [
        ". 755 root",
        "ai 775 spark",
        "ai/models 775 spark",
        "ai/models/qwen3 775 spark",
    ]
    box.out("rm -r /srv/hearth")


@pytest.mark.thorough
def test_a_folder_that_a_container_took_for_root_is_given_back(box: Box) -> None:
    box.out("chown root:root /home/spark/ai/cache/huggingface")

    box.ok("site.yml")

    assert box.out("stat -c %U /home/spark/ai/cache/huggingface") == "spark"


@pytest.mark.usefixtures("models_as_found")
@pytest.mark.thorough
def test_a_model_of_the_utility_lane_runs_beside_the_main_one_and_embeds(box: Box) -> None:
    models = box.models()
    # A real embedding model says itself how it pools; the lab's does not.
    models["tiny-b"].update(lane="utility", start="boot", capabilities=["embeddings"], argv={"--pooling": "mean"})
    box.write_inventory(engines_models=models)

    box.ok("site.yml")

    assert box.active() == ["tiny-a", "tiny-b"]
    assert box.ok("site.yml").count("changed") == 0
    box.ok("switch.yml", "-e", "model=none")
    assert box.active() == ["tiny-b"]
    arguments = "name=tiny-b embedding=hello"
    ad_hoc = "-e ansible_python_interpreter=/opt/hearth/venv/bin/python"
    said = box.ad_hoc("hearth.spark.engine_health", arguments, *ad_hoc.split())
    assert said.code == 0, said.output
    assert "dimensions: 64" in said.output


@pytest.mark.usefixtures("models_as_found")
@pytest.mark.thorough
def test_a_box_without_models_is_provisioned_and_runs_none(box: Box) -> None:
    box.write_inventory(engines_models={})

    run = box.ok("site.yml")

    assert "No model runs; switch.yml -e model=<name> starts one of none: engines_models is empty" in run.flat
    assert box.active() == []
    assert box.out("ls /etc/systemd/system | grep -c hearth-engine || true") == "0"
    assert box.ok("site.yml").count("changed") == 0
