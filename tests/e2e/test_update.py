# SPDX-License-Identifier: Apache-2.0
"""update.yml takes a box forward in steps, and back where it is not well. Its packages come from the box itself."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from boxes import Box

pytestmark = pytest.mark.thorough

UPDATE = "playbooks/update.yml"
SERVICE = """[Unit]
Description=The lab's service
[Service]
ExecStart={command}
[Install]
WantedBy=multi-user.target
"""
# What a package's script does when it is configured.
RESTART = "systemctl daemon-reload; systemctl restart {unit} || true"


class Archive:
    """A source of apt on a box, with packages of the tests' own."""

    def __init__(self, box: Box) -> None:
        self._box = box
        box.out(
            "mkdir -p /srv/lab; "
            "echo 'deb [trusted=yes allow-insecure=yes] file:/srv/lab ./' >/etc/apt/sources.list.d/lab.list; "
            # Debian's own packages of today are not what is looked at. Its owner's pins count, as they do with apt.
            "printf 'Package: *\\nPin: release o=Debian\\nPin-Priority: 50\\n' >/etc/apt/preferences.d/lab"
        )

    def has(
        self,
        name: str,
        version: str,
        files: dict[str, str] | None = None,
        then: str = "true",
        needs: str = "dpkg",
        architecture: str = "all",
    ) -> None:
        """Have a package in it: its files, what it does when it is configured, and the package that it needs."""
        tree = f"/srv/tree-{name}"
        files = {f"/usr/share/lab/{name}": version, **(files or {})}
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        control += f"Maintainer: lab\nDescription: lab\nDepends: {needs}\n"
        control += "" if architecture == "all" else "Multi-Arch: same\n"
        steps = [f"rm -rf {tree}; mkdir -p {tree}/DEBIAN"]
        for path, content in {"/DEBIAN/control": control, "/DEBIAN/postinst": f"#!/bin/sh\n{then}\n", **files}.items():
            steps.append(f"mkdir -p $(dirname {tree}{path}); printf %s {shlex.quote(content)} >{tree}{path}")
        steps.append(
            f"chmod 755 {tree}/DEBIAN/postinst; dpkg-deb --root-owner-group --build {tree} /srv/lab >/dev/null"
        )
        self._box.out("set -e; " + "; ".join(steps))
        self._index()

    def _index(self) -> None:
        self._box.out(
            "cd /srv/lab; for deb in *.deb; do dpkg-deb --field $deb; echo Filename: ./$deb; "
            "echo Size: $(stat -c %s $deb); echo SHA256: $(sha256sum $deb | cut -d' ' -f1); echo; done >Packages"
        )

    def forget(self, name: str, version: str, architecture: str = "all") -> None:
        """Have it there no more, as with archives that keep the newest only."""
        self._box.out(f"rm /srv/lab/{name}_{version}_{architecture}.deb")
        self._index()

    def install(self, *names: str) -> None:
        self._box.out(f"apt-get update -q >/dev/null && apt-get install -qy {' '.join(names)} >/dev/null 2>&1")


def version(box: Box, name: str) -> str:
    return box.out(f"dpkg-query --show --showformat='${{Version}}' {name}")


def book(box: Box, step: str) -> dict[str, Any]:
    """What is written down of a step."""
    read: dict[str, Any] = json.loads(box.out(f"cat /var/lib/hearth/updates/{step}/book.json"))
    return read


def state_of(box: Box, step: str) -> str:
    return str(book(box, step)["state"])


def service(command: str) -> dict[str, str]:
    return {"/usr/lib/systemd/system/lab-service.service": SERVICE.format(command=command)}


@pytest.fixture(scope="module")
def archive(box: Box) -> Iterator[Archive]:
    """A box with the packages of before."""
    made = Archive(box)
    made.has("lab-editor", "1")
    made.has("lab-service", "1", service("/bin/sleep infinity"), RESTART.format(unit="lab-service"))
    made.has("linux-image-lab", "1")
    made.has("docker-lab", "1")
    made.install("lab-editor", "lab-service", "linux-image-lab", "docker-lab")
    box.out("apt-mark auto lab-editor")
    yield made
    box.sh("apt-get purge -qy 'lab-*' linux-image-lab docker-lab new-lab; apt-get update")
    box.sh("rm -rf /srv/lab /srv/tree-* /etc/apt/*.d/lab /etc/apt/*.d/lab.list /var/lib/hearth/updates")


def test_check_mode_shows_what_would_change_and_changes_nothing(box: Box, archive: Archive) -> None:
    archive.has("lab-editor", "2")
    archive.has("linux-image-lab", "2")
    before = box.out("dpkg-query --show; ls -A /var/lib/hearth")

    run = box.ok(UPDATE, "--check", "--diff")

    assert "lab-editor 1 → 2" in run.flat
    assert "held back: linux-image-lab" in run.flat
    assert box.out("dpkg-query --show; ls -A /var/lib/hearth") == before


def test_packages_go_forward_and_the_kernel_stays(box: Box, archive: Archive) -> None:
    # As systemd's own package does it.
    then = "for _ in 1 2 3; do systemctl daemon-reexec; sleep 0.5; done; " + RESTART.format(unit="lab-service")
    archive.has("lab-service", "2", service("/bin/sleep 1d"), then)

    run = box.ok(UPDATE)

    assert (version(box, "lab-editor"), version(box, "lab-service")) == ("2", "2")
    assert version(box, "linux-image-lab") == "1"
    assert "Everything that should run answers" in run.flat
    assert "lab-editor" in box.out("apt-mark showauto lab-editor")


def test_a_second_run_changes_nothing(box: Box, archive: Archive) -> None:
    run = box.ok(UPDATE)

    assert run.count("changed") == 0, run.changed_tasks


def test_docker_goes_forward_with_engines_out_of_the_way_and_they_run_again(box: Box, archive: Archive) -> None:
    archive.has("docker-lab", "2", then=RESTART.format(unit="docker"))
    since = box.out("systemctl show -P ActiveEnterTimestampMonotonic docker.service")

    box.ok(UPDATE)

    assert version(box, "docker-lab") == "2"
    assert box.out("systemctl show -P ActiveEnterTimestampMonotonic docker.service") != since
    assert box.active() == ["tiny-a"]


def slow(unit: str) -> str:
    """A package's script that takes its time, and restarts what it is for."""
    return "sleep 15; " + RESTART.format(unit=unit)


def test_an_update_whose_play_is_gone_ends_by_itself_and_engines_run_again(box: Box, archive: Archive) -> None:
    archive.has("docker-lab", "3", then=slow("docker"))

    box.play_until_killed("installing packages", 1.0, UPDATE)

    assert version(box, "docker-lab") == "2"
    box.out("while systemctl list-units --plain --no-legend 'hearth-update-*' | grep -q .; do sleep 0.5; done")
    assert version(box, "docker-lab") == "3"
    assert box.active() == ["tiny-a"]
    assert state_of(box, "docker") == "installed"
    assert "nobody has looked whether all is well" in box.sh("hearth doctor").stdout


def test_the_next_run_waits_for_an_update_that_goes_on_and_looks_at_the_box(box: Box, archive: Archive) -> None:
    archive.has("lab-service", "3", service("/bin/sleep 1d"), slow("lab-service"))
    box.play_until_killed("installing packages", 1.0, UPDATE)

    run = box.ok(UPDATE)

    assert f"[{box.name}] installing packages" in run.output
    assert version(box, "lab-service") == "3"
    assert (state_of(box, "system"), state_of(box, "docker")) == ("confirmed", "confirmed")


def test_a_service_that_does_not_run_any_more_takes_its_step_back(box: Box, archive: Archive) -> None:
    # The archive has the newest only: what was there before is packed again.
    archive.forget("lab-service", "3")
    archive.forget("lab-editor", "2")
    archive.has("lab-editor", "3")
    archive.has("new-lab", "1")
    archive.has("lab-service", "4", service("/bin/false"), RESTART.format(unit="lab-service"), needs="new-lab")

    run = box.play(UPDATE)

    assert run.code != 0
    assert "lab-service.service failed since then. The packages of before are back: lab-editor, lab-service" in run.flat
    assert (version(box, "lab-editor"), version(box, "lab-service")) == ("2", "3")
    assert box.sh("dpkg-query --show new-lab").returncode != 0
    assert box.out("systemctl is-active lab-service") == "active"
    assert "lab-editor" in box.out("apt-mark showauto lab-editor")
    assert box.out("cat /usr/share/lab/lab-editor") == "2"


def test_a_package_that_cannot_be_configured_takes_its_step_back(box: Box, archive: Archive) -> None:
    archive.has("lab-service", "5", service("/bin/sleep infinity"), "echo nothing works here >&2; exit 3")

    run = box.play(UPDATE)

    assert run.code != 0
    assert "The packages of before are back" in run.flat
    assert version(box, "lab-service") == "3"
    assert box.out("dpkg --audit") == ""


def test_a_package_of_two_architectures_goes_back_in_both(box: Box, archive: Archive) -> None:
    own = box.out("dpkg --print-architecture")
    box.out("dpkg --add-architecture armhf")
    for built_for in (own, "armhf"):
        archive.has("lab-twin", "1", architecture=built_for)
    archive.install("lab-twin", "lab-twin:armhf")
    # One package of before is fetched, the other one packed again.
    archive.forget("lab-twin", "1", own)
    for built_for in (own, "armhf"):
        archive.has("lab-twin", "2", architecture=built_for)

    # lab-service 5, which cannot be configured, is still to be had.
    run = box.play(UPDATE)

    assert run.code != 0
    assert "The packages of before are back" in run.flat
    assert (version(box, f"lab-twin:{own}"), version(box, "lab-twin:armhf")) == ("1", "1")
    box.out("apt-get purge -qy lab-twin lab-twin:armhf && dpkg --remove-architecture armhf")
    for built_for in (own, "armhf"):
        archive.forget("lab-twin", "2", built_for)


def test_a_docker_that_does_not_run_is_taken_back_and_engines_answer(box: Box, archive: Archive) -> None:
    archive.has("lab-service", "6", service("/bin/sleep infinity"), RESTART.format(unit="lab-service"))
    broken = {"/usr/lib/systemd/system/docker.service.d/lab.conf": "[Service]\nExecStart=\nExecStart=/bin/false\n"}
    archive.has("docker-lab", "4", broken, "systemctl daemon-reload; systemctl restart docker || true")

    run = box.play(UPDATE)

    assert run.code != 0
    assert "The update of what runs containers failed" in run.flat
    assert "everything that should run answers" in run.flat
    # What was well before stays.
    assert version(box, "lab-service") == "6"
    assert version(box, "docker-lab") == "3"
    assert box.active() == ["tiny-a"]
    archive.forget("docker-lab", "4")


def test_packages_that_cannot_be_fetched_change_nothing(box: Box, archive: Archive) -> None:
    archive.has("lab-editor", "6")
    archive.has("lab-service", "7", service("/bin/sleep infinity"))
    box.out("printf x >>/srv/lab/lab-service_7_all.deb")

    run = box.play(UPDATE)

    assert run.code != 0
    assert "the packages could not be fetched" in run.flat
    assert "nothing was changed" in run.flat
    assert version(box, "lab-editor") == "3"


def test_an_update_that_was_cut_off_by_a_power_cut_is_gone_on_with(box: Box, archive: Archive) -> None:
    then = "touch /srv/lab/at-work; " + slow("lab-service")
    archive.has("lab-service", "7", service("/bin/sleep infinity"), then)

    def cut() -> None:
        box.out("until test -e /srv/lab/at-work; do sleep 0.2; done")
        assert state_of(box, "system") == "begun"
        box.cut_power()

    assert box.play_and("TASK [hearth.spark.updates : Install", cut, UPDATE).code != 0

    box.ok(UPDATE)

    assert version(box, "lab-service") == "7"
    assert box.out("dpkg --audit") == ""
    before = {one["name"]: one["before"] for one in book(box, "system")["changes"]}
    assert (state_of(box, "system"), before["lab-service"]) == ("confirmed", "6")


def test_who_wants_to_goes_back_later(box: Box, archive: Archive) -> None:
    run = box.ok(UPDATE, "-e", "rollback=true")

    assert "lab-service 7 → 6" in run.flat
    assert version(box, "lab-service") == "6"
    assert box.ok(UPDATE, "-e", "rollback=true").count("changed") == 0


def test_a_box_that_is_not_well_is_not_updated(box: Box, archive: Archive) -> None:
    box.out("systemctl mask --now --runtime hearth-engine-tiny-a.service")
    try:
        run = box.play(UPDATE)
    finally:
        box.out("systemctl unmask --runtime hearth-engine-tiny-a.service; hearth start tiny-a")

    assert run.code != 0
    assert "The box is not well" in run.flat
    assert "Nothing was changed" in run.flat
