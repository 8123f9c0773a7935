# SPDX-License-Identifier: Apache-2.0
"""playbooks/uninstall.yml leaves a box as it was before site.yml: files, units, users and packages are compared."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from boxes import Box, brought_up
from downloads import TestHub

pytestmark = pytest.mark.thorough

UNINSTALL = "playbooks/uninstall.yml"
CONFIRMED = (UNINSTALL, "-e", "confirm=yes")
DAEMON = "/etc/docker/daemon.json"
# Of its owner: in his own words and spaces.
SETTINGS = '{ "shutdown-timeout":7,\n "log-opts": {"max-file": "9"} }\n'

# Every file with its kind, mode, owner and where it leads or what it says. Left out: logs, caches, what apt, dpkg and
# systemd keep of what they did, and Docker's own disk.
FILES = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /dev -o -path /tmp -o -path /var/tmp \
  -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/docker \
  -o -path /var/lib/containerd -o -path /var/lib/systemd -o -name __pycache__ -o -path /etc/ld.so.cache \) \
  -prune -o -printf '%y %m %u:%g %p %l\n' | sort
find /etc /opt /srv /home /usr/local -xdev -type f -not -path /etc/ld.so.cache -print0 | sort -z | xargs -0 sha256sum
"""
UNITS = "systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}' | sort"
RUNNING = "systemctl list-units --no-legend --no-pager --plain 'hearth*' 'docker*' | awk '{print $1, $3}'"
USERS = "getent passwd; getent group; getent gshadow"
PACKAGES = r"dpkg-query --show --showformat='${Package} ${db:Status-Status} ${Version}\n'; apt-mark showmanual"
# Debian keeps the users and groups that packages made; the files that they are in, with their backups, differ then. apt
# keeps adduser, which it can use itself. containerd and xml-core leave folders.
OF_PACKAGES = (
    "/etc/cni",
    "/etc/xml ",
    "adduser",
    "Adduser",
    "deluser",
    "docker:",
    "polkitd:",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
)


def looked_at(box: Box) -> dict[str, list[str]]:
    """All that is compared, by kind."""
    kinds = {"files": FILES, "units": UNITS, "running": RUNNING, "users": USERS, "packages": PACKAGES}
    found = {kind: box.out(script).splitlines() for kind, script in kinds.items()}
    return {
        kind: [line for line in lines if not any(word in line for word in OF_PACKAGES)] for kind, lines in found.items()
    }


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """All lines that are new or gone; printed, since there may be many."""
    found = [
        f"{sign} {line}"
        for kind in before
        for sign, ours, theirs in (("-", before[kind], after[kind]), ("+", after[kind], before[kind]))
        for line in sorted(set(ours) - set(theirs))
    ]
    print("\n".join(found))
    return found


@pytest.fixture(scope="module")
def bare(lab: None, box_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box whose owner has settings for a Docker that he has not installed yet, and a file in the tree."""
    with brought_up(f"{box_name}-uninstall", tmp_path_factory.mktemp("uninstall")) as one:
        one.out(f"mkdir -p /etc/docker && cat >{DAEMON} <<'end'\n{SETTINGS}end")
        one.out(
            "install -o spark -g spark -d /home/spark/ai/logs && runuser -u spark -- touch /home/spark/ai/logs/mine"
        )
        # Its first use by apt and by Ansible leaves traces that are none of Hearth's.
        one.out("apt-get update")
        yield one


@pytest.fixture(scope="module")
def before(bare: Box) -> dict[str, list[str]]:
    return looked_at(bare)


@pytest.fixture(scope="module")
def brought() -> str:
    """Where a model lies that Hearth has downloaded, with a file beside it that is its owner's."""
    return "/home/spark/ai/models/e2e/model"


def bring_model(box: Box, where: str) -> None:
    form = "{{(index .IPAM.Config 0).Gateway}}"
    shown = subprocess.run(
        ["docker", "network", "inspect", "--format", form, "hearth-lab"], capture_output=True, text=True, check=True
    )
    hub = TestHub(host=shown.stdout.strip())
    try:
        hub.add("me/model", {"config.json": b"{}", "weights.gguf": b"noise" * 1000})
        arguments = f"repo=me/model path={where} owner=spark endpoint={hub.endpoint}"
        run = box.ad_hoc(
            "hearth.spark.model", arguments, "-e", "ansible_python_interpreter=/opt/hearth/venv/bin/python"
        )
    finally:
        hub.close()
    assert run.code == 0, run.output
    box.out(f"touch {where}/mine")


def test_it_wants_to_be_confirmed_and_says_what_would_be_lost(bare: Box, before: dict[str, list[str]]) -> None:
    run = bare.play(UNINSTALL)

    assert run.code != 0
    assert "with the keys of the gateway and all that was learned of its models" in run.flat
    assert "add -e confirm=yes, or --check to see what would go." in run.flat


def test_a_box_that_never_had_hearth_has_nothing_to_lose(bare: Box, before: dict[str, list[str]]) -> None:
    run = bare.ok(*CONFIRMED, "-e", "packages=remove", "-e", "models=remove")

    assert run.count("changed") == 0
    assert differences(before, looked_at(bare)) == []


def test_a_box_on_which_site_was_killed_is_as_it_was(bare: Box, before: dict[str, list[str]]) -> None:
    bare.play_until_killed("Have the default model run", 0.7, "site.yml")

    bare.ok(*CONFIRMED, "-e", "packages=remove")

    assert differences(before, looked_at(bare)) == []
    assert bare.ok(*CONFIRMED, "-e", "packages=remove").count("changed") == 0


def test_packages_and_models_stay_unless_they_are_to_go_and_docker_has_its_owners_settings(
    bare: Box, before: dict[str, list[str]], brought: str
) -> None:
    bare.ok("site.yml")
    bring_model(bare, brought)
    assert json.loads(bare.out(f"cat {DAEMON}"))["log-opts"] == {"max-size": "50m", "max-file": "9"}

    foretold = bare.ok(UNINSTALL, "--check", "--diff")
    assert "-remove /etc/hearth" in foretold.output
    assert "-purge docker.io" not in foretold.output
    assert bare.active() == ["tiny-a"]

    run = bare.ok(*CONFIRMED)

    assert "Packages that Hearth installed stay: docker.io iptables docker-cli python3-venv polkitd." in run.flat
    assert bare.out(f"cat {DAEMON}") == SETTINGS.strip()
    assert bare.out("docker image ls --quiet; docker container ls --all --quiet") == ""
    # The model stays, with what is known of it.
    left = [
        line
        for line in differences(before, looked_at(bare))
        if ("hearth" in line or "/home/" in line) and "/e2e" not in line
    ]
    assert left == []
    assert bare.ok(*CONFIRMED).count("changed") == 0


def test_models_that_hearth_brought_go_where_that_is_asked_for_and_no_others(bare: Box, brought: str) -> None:
    others = bare.out("find /home/spark/ai -name 'tiny-*.gguf' | sort | xargs sha256sum")
    assert bare.sh(f"test -e {brought}/weights.gguf").returncode == 0

    bare.ok("site.yml", "--tags", "layout,runtime")
    bare.ok(*CONFIRMED, "-e", "models=remove")

    assert bare.sh(f"ls -A {brought}").stdout.split() == ["mine"]
    assert bare.out("find /home/spark/ai -name 'tiny-*.gguf' | sort | xargs sha256sum") == others
    assert bare.sh("ls -d /opt/hearth /var/lib/hearth /etc/hearth").stdout == ""


def test_docker_stays_where_it_has_what_is_somebodys(bare: Box, before: dict[str, list[str]]) -> None:
    # It was there before this second life of Hearth's, so it stays anyway; polkitd has to be Hearth's again.
    bare.out("apt-get purge --yes --auto-remove docker.io docker-cli iptables polkitd python3-venv")
    bare.ok("site.yml", "--tags", "layout,container_toolkit")
    bare.out("docker volume create mine")

    run = bare.ok(*CONFIRMED, "-e", "packages=remove")

    assert "stays, since Docker has 1 volumes that are not Hearth's" in run.flat
    assert bare.out("docker volume ls --quiet") == "mine"
