# SPDX-License-Identifier: Apache-2.0
"""A hardened box, right after the play, and again after changes that were refused and a boot."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from testinfra.host import Host

Ssh = Callable[..., "subprocess.CompletedProcess[str]"]
GET = "GET /v1/models HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n"


def test_the_administrator_comes_in_by_key(ssh: Ssh) -> None:
    assert ssh("spark", command="sudo -n id -un").stdout == "root\n"


def test_sshd_offers_no_password(ssh: Ssh) -> None:
    refused = ssh("spark", "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")

    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_root_does_not_come_in_even_by_a_key_of_his(ssh: Ssh) -> None:
    assert "Permission denied (publickey)" in ssh("root", command="true").stderr


def test_the_guest_reaches_the_gateway(ssh: Ssh) -> None:
    assert ssh("tunnel", "-W", "127.0.0.1:8009", key="guest", say=GET).stdout.startswith("HTTP/1.1 401 ")


def test_the_guest_reaches_no_other_port(ssh: Ssh) -> None:
    refused = ssh("tunnel", "-W", "127.0.0.1:22", key="guest")

    assert refused.stdout == ""
    assert "administratively prohibited" in refused.stderr


def test_the_guest_has_no_shell_no_command_and_no_files(ssh: Ssh) -> None:
    for words, command in ((["-tt"], ""), ([], "id"), (["-s"], "sftp")):
        refused = ssh("tunnel", *words, key="guest", command=command)

        assert refused.returncode != 0
        assert "uid=" not in refused.stdout


def test_the_guest_opens_no_port_of_the_box(ssh: Ssh) -> None:
    refused = ssh("tunnel", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "9999:127.0.0.1:22", key="guest")

    assert refused.returncode == 255
    assert "remote port forwarding failed" in refused.stderr


def test_the_guests_key_opens_no_other_account(ssh: Ssh) -> None:
    assert "Permission denied" in ssh("spark", key="guest", command="true").stderr


def test_from_another_machine_only_ssh_and_the_gateway_answer(scan: Callable[[], list[int]]) -> None:
    assert scan() == [22, 8009]


def test_a_published_port_answers_on_the_box_itself(host: Host) -> None:
    assert host.run("curl -sS --retry 30 --retry-all-errors --retry-delay 1 127.0.0.1:8081/health").rc == 0


def test_containers_reach_the_network(host: Host) -> None:
    registry = host.check_output("getent ahostsv4 registry.hearth.test | head -n 1 | cut -d ' ' -f 1")

    assert host.run(f"docker exec published bash -c 'exec 3<>/dev/tcp/{registry}/5000'").rc == 0


def test_nothing_waits_for_a_confirmation(host: Host) -> None:
    assert not host.file("/var/lib/hearth/hardening/pending").exists
    assert host.run("systemctl is-active hearth-hardening-undo.timer").stdout == "inactive\n"
    assert host.run("systemctl is-failed hearth-hardening-undo.service hearth-firewall.service").rc != 0


def test_only_security_updates_install_themselves_and_never_a_kernel(host: Host) -> None:
    settings = host.check_output("apt-config dump Unattended-Upgrade")

    origins = [line for line in settings.splitlines() if line.startswith("Unattended-Upgrade::Origins-Pattern:: ")]
    assert len(origins) == 2
    assert all("label=Debian-Security" in line for line in origins)
    assert 'Package-Blacklist:: "linux-"' in settings
    assert 'Automatic-Reboot "false"' in settings


def test_who_fails_again_and_again_is_shut_out(host: Host) -> None:
    assert "sshd" in host.check_output("fail2ban-client status")
