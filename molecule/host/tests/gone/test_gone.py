# SPDX-License-Identifier: Apache-2.0
"""After the guards were taken back."""

from __future__ import annotations

from testinfra.host import Host


def test_nothing_of_them_is_left(host: Host) -> None:
    found = host.check_output(
        "find /etc/systemd /etc/sysctl.d /var/lib/hearth /run/hearth-guard -regextype posix-extended -regex '.*("
        "60-hearth|hearth-guard|hearth-clocks|host-installed|guard[.]json|host[.]json|ssh[.]service[.]d).*' "
        "2>/dev/null; true"
    )

    assert found == ""


def test_earlyoom_went_as_it_had_come(host: Host) -> None:
    assert not host.package("earlyoom").is_installed
    assert not host.file("/etc/default/earlyoom").exists


def test_systemd_knows_no_guard_any_more(host: Host) -> None:
    units = host.check_output(
        "systemctl list-units --all --plain --no-legend 'hearth-guard*' 'hearth-clocks*' 'earlyoom*'"
    )

    assert "loaded" not in units


def test_the_engines_go_on(host: Host) -> None:
    assert host.service("hearth-engine-tiny-a").is_running
