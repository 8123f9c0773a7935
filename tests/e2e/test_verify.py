# SPDX-License-Identifier: Apache-2.0
"""playbooks/verify.yml on a real box: what is well is told, what is not fails with the engine and its log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from boxes import Box

pytestmark = pytest.mark.thorough

PLAY = "playbooks/verify.yml"


@pytest.fixture(autouse=True)
def _as_found(box: Box) -> Iterator[None]:
    box.out("hearth switch tiny-a")
    yield
    box.out("hearth switch tiny-a")


def test_a_box_that_is_well_says_so_engine_by_engine(box: Box) -> None:
    run = box.ok(PLAY)

    assert "tiny-a http://127.0.0.1:8080 health, model id, chat" in run.flat
    assert "well" in run.flat
    # Nobody started it, nobody misses it.
    assert "tiny-b" not in run.output
    assert run.count("changed") == 0


def test_one_module_asks_all_engines(box: Box) -> None:
    assert box.ok(PLAY, "-vvv").modules == ["engine_health"]


def test_check_mode_asks_as_well(box: Box) -> None:
    run = box.ok(PLAY, "--check", "--diff")

    assert "tiny-a http://127.0.0.1:8080 health, model id, chat" in run.flat


def test_where_nothing_should_run_it_says_so_and_succeeds(box: Box) -> None:
    box.out("hearth switch none")

    assert "Nothing should run: no engine is up, and none starts at boot." in box.ok(PLAY).flat


def test_an_engine_that_does_not_answer_fails_with_its_log_command(box: Box) -> None:
    box.out("docker pause hearth-tiny-a")
    try:
        run = box.play(PLAY, "-e", "verify_timeout=2")
    finally:
        box.out("docker unpause hearth-tiny-a")

    assert run.code != 0
    assert "fails at health" in run.flat
    assert "Of 1 that should run, 1 is not well: engine tiny-a did not become ready on port 8080 within 2 s" in run.flat
    assert "(its log: journalctl -u hearth-engine-tiny-a -n 50)" in run.flat


def test_an_engine_that_starts_at_boot_and_is_down_fails(box: Box) -> None:
    box.out("systemctl stop hearth-engine-tiny-a")

    run = box.play(PLAY)

    assert run.code != 0
    assert "down" in run.flat
    assert (
        "engine tiny-a starts at boot and is inactive now: start it with systemctl start hearth-engine-tiny-a "
        "(its log: journalctl -u hearth-engine-tiny-a -n 50)" in run.flat
    )


def test_the_log_command_shows_the_engines_log(box: Box) -> None:
    assert "llama" in box.out("journalctl -u hearth-engine-tiny-a -n 50 --no-pager")


def test_an_engine_that_serves_another_name_fails_at_the_model_id(box: Box) -> None:
    unit = "/etc/systemd/system/hearth-engine-tiny-a.service"
    box.out(f"cp -p {unit} /run/kept && sed -i 's/--alias tiny-a/--alias phi/' {unit}")
    box.out("systemctl daemon-reload && systemctl restart hearth-engine-tiny-a")
    try:
        run = box.play(PLAY)
    finally:
        box.out(f"cp /run/kept {unit} && systemctl daemon-reload && systemctl restart hearth-engine-tiny-a")

    assert run.code != 0
    assert "fails at model id" in run.flat
    assert "engine tiny-a on port 8080 serves phi instead of tiny-a" in run.flat


def test_models_that_embed_are_asked_to_and_run_beside_the_others(box: Box) -> None:
    models = box.models()
    # A real embedding model says itself how it pools; the lab's does not.
    models["tiny-b"].update(lane="utility", start="boot", capabilities=["embeddings"], argv={"--pooling": "mean"})
    box.write_inventory(engines_models=models)
    try:
        box.ok("site.yml")

        run = box.ok(PLAY)
        assert "tiny-a http://127.0.0.1:8080 health, model id, chat" in run.flat
        assert "tiny-b http://127.0.0.1:8081 health, model id, embedding (64 dimensions)" in run.flat

        box.out("systemctl stop hearth-engine-tiny-b")
        sick = box.play(PLAY)
        assert sick.code != 0
        assert "Of 2 that should run, 1 is not well: engine tiny-b starts at boot and is inactive now" in sick.flat
        assert "tiny-a http://127.0.0.1:8080 health, model id, chat" in sick.flat
    finally:
        box.write_inventory()
        box.ok("site.yml")


def test_a_box_that_has_no_runtime_yet_is_told_which_play_to_run(box: Box) -> None:
    box.out("mv /opt/hearth/venv /opt/hearth/kept")
    try:
        run = box.play(PLAY)
    finally:
        box.out("mv /opt/hearth/kept /opt/hearth/venv")

    assert run.code != 0
    assert "This box has no package hearth" in run.flat
    assert "run site.yml against it first" in run.flat
