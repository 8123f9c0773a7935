# SPDX-License-Identifier: Apache-2.0
"""A controller that dies between a change and its confirmation."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
BOX = "hearth-molecule-hardening"
TRIES = "sshd -T | grep maxauthtries"
# As molecule.yml has it; the timer is exact to a second.
UNDO_AFTER_S = 60.0


def below(pid: int) -> list[int]:
    """The processes that this one started, and those that they started."""
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [one for child in map(int, said.split()) for one in (child, *below(child))]


def change_and_die() -> None:
    """Play a change, and kill the play before its new login, which is made slow."""
    scenario = ROOT / "molecule/hardening"
    slow = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o 'KnownHostsCommand=/bin/sleep 3'"
    command = [
        "ansible-playbook",
        "-i",
        str(ROOT / "molecule/shared/inventory.yml"),
        "-i",
        str(scenario / "inventory.yml"),
    ]
    command += ["-e", f'lab_ssh="{slow}"', "-e", '{"hardening_ssh_settings": {"MaxAuthTries": 5}}']
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, str(scenario / "converge.yml")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as play:
        said = []
        for line in play.stdout or ():
            said.append(line)
            if "has to confirm it" in line:
                # Ansible's workers lead sessions of their own.
                for pid in (play.pid, *below(play.pid)):
                    os.kill(pid, signal.SIGKILL)
                return
    pytest.fail("".join(said)[-3000:])


def test_the_box_undoes_the_change_by_itself_when_its_time_is_over(host: Host) -> None:
    change_and_die()
    began = time.monotonic()
    assert host.check_output(TRIES) == "maxauthtries 5"

    while host.check_output(TRIES) != "maxauthtries 2":
        assert time.monotonic() - began < UNDO_AFTER_S + 15
        time.sleep(1)

    assert not host.file("/var/lib/hearth/hardening/pending").exists


def test_a_boot_undoes_the_change_before_sshd_starts(host: Host) -> None:
    change_and_die()
    assert host.check_output(TRIES) == "maxauthtries 5"

    subprocess.run(["docker", "kill", BOX], check=True, capture_output=True)
    subprocess.run(["docker", "start", BOX], check=True, capture_output=True)
    deadline = time.monotonic() + 60
    while host.run("systemctl is-active ssh.service").stdout != "active\n":
        assert time.monotonic() < deadline
        time.sleep(0.5)

    assert host.check_output(TRIES) == "maxauthtries 2"
    assert host.run("nft list table inet hearth").rc == 0
