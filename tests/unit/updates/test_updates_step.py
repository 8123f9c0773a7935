# SPDX-License-Identifier: Apache-2.0
"""hearth.updates.step, with apt, dpkg and systemd played; tests/e2e/test_update.py has real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from apt_played import Played
from msgspec.structs import replace

from hearth.updates import step as module
from hearth.updates.changes import Book, UpdateError
from hearth.updates.step import Step

WORK = ("apt-get --download-only", "apt-get download", "dpkg-repack", "apt-get upgrade", "apt-get install")


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setattr(module, "_SETTLED_S", 0.0)
    monkeypatch.setattr(module.programs, "found", lambda name: f"/usr/bin/{name}")
    return Played(tmp_path / "system")


@pytest.fixture
def step(played: Played) -> Step:
    return Step("system", ["linux-*"], [], 60.0, folder=played.folder.parent, run=played)


def book(step: Step) -> Book:
    found = step.book()
    assert found is not None
    return found


def install(step: Step, engines: Sequence[str] = ()) -> str:
    """All of it, as a job does it."""
    plan = step.plan()
    return step.install(plan, step.prepare(plan), engines)


def test_what_is_held_is_told_and_not_planned(step: Step) -> None:
    plan = step.plan()

    assert [one.words for one in plan.changes] == ["curl 1 → 2"]
    assert [one.name for one in plan.held] == ["linux-image"]


def test_nothing_is_installed_before_all_is_fetched_and_there_is_a_way_back(step: Step, played: Played) -> None:
    played.at_work = lambda: played.said.append(f"with {book(step).state}")

    assert install(step) == ""
    assert played.did(*WORK, "with begun") == [
        "apt-get --download-only",
        "apt-get download",
        "apt-get upgrade",
        "with begun",
    ]
    assert book(step).state == "installed"


def test_how_far_apt_is_is_told(played: Played) -> None:
    told: list[str] = []
    step = Step(
        "system",
        ["linux-*"],
        folder=played.folder.parent,
        run=played,
        tell=lambda phase, words: told.append(f"{phase} | {words}"),
    )
    played.at_work = lambda: step.log.write_text("Unpacking curl (2) over (1) ...\n") and None

    install(step)

    assert "installing packages | installing packages: 1 of 1 unpacked, curl" in told


def test_an_apt_that_replaces_systemd_is_waited_for(
    step: Step, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.programs, "_AGAIN_S", 0.0)
    played.away = ["Failed to get properties: Transport endpoint is not connected"] * 3

    assert install(step) == ""
    assert played.away == []


def test_an_apt_whose_job_was_killed_is_waited_for(step: Step, played: Played) -> None:
    played.states = ["inactive", "active", "active"]

    install(step)

    assert played.did("systemctl show", "apt-get --download-only")[:4] == [
        *["systemctl show"] * 3,
        "apt-get --download-only",
    ]


def test_apt_gets_the_proxy_of_the_play_and_no_command_line_its_password(
    step: Step, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.lan:3128")

    install(step)

    assert all("--setenv=https_proxy" in words for words in played.begun)
    assert "secret" not in " ".join(word for words in played.begun for word in words)


def test_what_the_sources_do_not_have_any_more_is_packed_again(step: Step, played: Played) -> None:
    played.in_sources = set()

    install(step)

    assert "dpkg-repack curl" in played.said


@pytest.mark.parametrize("in_sources", [set(), {("curl", "1")}, {("curl", "1"), ("curl:armhf", "1")}])
def test_a_package_of_two_architectures_has_two_ways_back(
    step: Step, played: Played, in_sources: set[tuple[str, str]]
) -> None:
    played.installed["curl:armhf"], played.newer["curl:armhf"], played.in_sources = "1", "2", in_sources
    install(step)

    step.revert(book(step))

    assert (played.installed["curl"], played.installed["curl:armhf"]) == ("1", "1")


def test_a_package_of_two_architectures_is_packed_again_by_its_whole_name(step: Step, played: Played) -> None:
    played.installed["curl:armhf"], played.in_sources = "1", set()

    install(step)

    assert "dpkg-repack curl:arm64" in played.said


def test_without_a_way_back_nothing_is_installed(step: Step, played: Played) -> None:
    played.in_sources = set()
    played.fails = {"dpkg-repack": "dpkg: no room"}

    with pytest.raises(UpdateError, match=r"no way back for curl .*nothing was changed"):
        install(step)
    assert played.installed["curl"] == "1"
    assert step.book() is None


def test_what_cannot_be_fetched_is_told_in_apts_words(step: Step, played: Played) -> None:
    played.fails = {"--download-only": "E: Failed to fetch http://x  404\nE: and more"}

    with pytest.raises(UpdateError, match=r"not be fetched \(Failed to fetch http://x  404; and more\)"):
        install(step)
    assert played.did("apt-get upgrade") == []


def test_an_installation_that_fails_stays_open(step: Step, played: Played) -> None:
    played.fails = {"apt-get upgrade": "E: Sub-process /usr/bin/dpkg returned an error code (1)"}

    assert "Sub-process /usr/bin/dpkg returned an error code (1); curl is 1 and not 2" in install(step)
    assert book(step).state == "begun"


def test_a_unit_that_failed_since_then_is_named_and_one_from_before_is_not(step: Step, played: Played) -> None:
    played.failed = ["old.service"]
    played.at_work = lambda: played.failed.append("new.service")

    assert install(step) == "new.service failed since then"


def test_a_step_that_was_cut_off_goes_on_and_remembers_the_versions_of_before(step: Step, played: Played) -> None:
    played.fails = {"apt-get upgrade": "E: killed"}
    install(step)
    played.fails = {}
    played.newer["curl"] = "3"
    played.said.clear()

    step.recover()
    assert install(step) == ""
    assert played.did("dpkg --force", "apt-get download") == ["dpkg --force"]
    assert [one.words for one in book(step).changes] == ["curl 1 → 3"]


def test_going_back_installs_the_files_and_removes_what_came_along(step: Step, played: Played) -> None:
    played.newer["libnew"] = "1"
    install(step)

    step.revert(book(step))

    assert played.installed == {"curl": "1", "vim": "1", "linux-image": "1"}
    assert book(step).state == "reverted"
    assert "apt-mark auto curl" in played.said


def test_going_back_starts_what_failed_since_then(step: Step, played: Played) -> None:
    played.failed = ["old.service"]
    played.at_work = lambda: played.failed.append("docker.service")
    install(step)

    step.revert(book(step))

    assert played.failed == ["old.service"]
    assert played.did("systemctl reset-failed docker", "systemctl start docker") == [
        "systemctl reset-failed docker",
        "systemctl start docker",
    ]


def test_engines_that_ran_before_a_step_run_again_when_it_is_taken_back(step: Step, played: Played) -> None:
    played.failed = ["hearth-engine-up.service"]

    install(step, ["down", "up"])

    assert step.start_engines(book(step)) == ""
    assert played.did("hearth start") == ["hearth start"]
    assert "hearth start down" in played.said


def test_without_the_files_of_before_the_box_stays_as_it_is(step: Step, played: Played) -> None:
    install(step)
    for path in step.folder.glob("*.deb"):
        path.unlink()

    with pytest.raises(UpdateError, match="has no package of before for curl"):
        step.revert(book(step))
    assert played.installed["curl"] == "2"


def test_an_update_that_cannot_be_prepared_leaves_the_way_back_of_the_one_before(step: Step, played: Played) -> None:
    install(step)
    step.write(replace(book(step), state="confirmed"))
    played.newer["curl"], played.in_sources = "3", set()
    played.fails = {"dpkg-repack": "dpkg: no room"}
    with pytest.raises(UpdateError, match="no way back"):
        install(step)

    step.revert(book(step))

    assert played.installed["curl"] == "1"


def test_a_new_update_forgets_the_files_of_the_one_before(step: Step, played: Played) -> None:
    install(step)
    step.write(replace(book(step), state="confirmed"))
    played.newer, played.in_sources = {"vim": "2"}, {("vim", "1")}

    install(step)

    assert [path.name for path in step.folder.glob("*.deb")] == ["vim_1_arm64.deb"]
