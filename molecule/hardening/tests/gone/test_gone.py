# SPDX-License-Identifier: Apache-2.0
"""A box whose hardening was taken back."""

from __future__ import annotations

from collections.abc import Callable

from testinfra.host import Host


def test_the_network_reaches_again_what_docker_publishes(scan: Callable[[], list[int]]) -> None:
    assert scan() == [22, 8009, 8081]


def test_sshd_has_what_the_owners_files_say(host: Host) -> None:
    assert "passwordauthentication yes" in host.check_output("sshd -T")


def test_nothing_of_it_is_left(host: Host) -> None:
    names = ("*hardening*", "*hearth-firewall*", "*firewall.nft*", "52hearth*")
    left = "find /etc /var/lib/hearth " + " -o ".join(f"-name '{name}'" for name in names)

    assert host.check_output(left) == ""
    assert host.check_output("find /etc/ssh /etc/fail2ban -name '*hearth*'") == ""
    assert not host.user("tunnel").exists
    assert (
        host.run("systemctl list-units --all --plain --no-legend 'hearth-hardening*' 'hearth-firewall*'").stdout == ""
    )
