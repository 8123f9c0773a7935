# SPDX-License-Identifier: Apache-2.0
"""The role gateway on a box: what its user may do, how it is confined, its keys, and its settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from boxes import Box

pytestmark = pytest.mark.thorough

MANAGER = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
ASK = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8009/v1/models"
# A unit that would run a program of the caller's as root.
TRANSIENT = (
    "StartTransientUnit 'ssa(sv)a(sa(sv))' {} replace 1 ExecStart 'a(sasb)' 1 /bin/touch 2 touch /run/made false 0"
)
SECRET = re.compile(r"hearth_[A-Za-z0-9_-]{43}")


def asked_by(box: Box, user: str, call: str) -> subprocess.CompletedProcess[str]:
    """One call to systemd over D-Bus, by that user."""
    return box.sh(f"runuser -u {user} -- busctl --system call {MANAGER} {call}")


@pytest.fixture
def key(box: Box) -> Iterator[str]:
    """The secret of a key called laptop."""
    yield box.out("hearth keys add laptop 2>/dev/null")
    box.sh("hearth keys revoke laptop")


@pytest.fixture
def inventory_as_found(box: Box) -> Iterator[None]:
    yield
    box.write_inventory()


@pytest.fixture
def gateway_as_found(inventory_as_found: None, box: Box) -> Iterator[None]:
    yield
    box.write_inventory()
    box.ok("site.yml", "--tags", "gateway")


class TestUser:
    def test_may_stop_start_restart_and_signal_an_engine(self, box: Box) -> None:
        try:
            box.out("runuser -u hearth -- systemctl stop hearth-engine-tiny-a")
            assert box.active() == []
            box.out("runuser -u hearth -- systemctl start hearth-engine-tiny-a")
            box.out("runuser -u hearth -- systemctl restart hearth-engine-tiny-a")
            assert box.active() == ["tiny-a"]
            box.out("runuser -u hearth -- systemctl reset-failed hearth-engine-tiny-a")
            box.out("runuser -u hearth -- systemctl kill --kill-whom=main --signal=CONT hearth-engine-tiny-a")
        finally:
            box.out("systemctl reset-failed hearth-engine-tiny-a; systemctl start hearth-engine-tiny-a")

    @pytest.mark.parametrize(
        "call",
        [
            "StopUnit ss docker.service replace",
            "StartUnit ss reboot.target replace",
            "RestartUnit ss hearth-gateway.service replace",
            "StopUnit ss hearth-gateway.socket replace",
            "StartUnit ss hearth-engine-nosuch.service replace",
            "StartUnit ss hearth-engine-tiny-a.timer replace",
            "StartUnit ss xhearth-engine-tiny-a.service replace",
            "KillUnit ssi docker.service all 9",
            "ReloadUnit ss hearth-engine-tiny-a.service replace",
            "SetUnitProperties 'sba(sv)' hearth-engine-tiny-a.service true 1 MemoryMax t 1000",
            "EnableUnitFiles asbb 1 hearth-engine-tiny-b.service false false",
            "MaskUnitFiles asbb 1 hearth-engine-tiny-a.service true false",
            "Reload",
            "PowerOff",
            "SetEnvironment as 1 A=B",
        ],
    )
    def test_may_do_nothing_else(self, box: Box, call: str) -> None:
        refused = asked_by(box, "hearth", call)

        assert refused.returncode != 0
        assert re.search(r"[Aa]ccess denied|authentication required", refused.stderr), refused.stderr

    @pytest.mark.parametrize(
        "unit", ["hearth-engine-evil.service", "hearth-engine-tiny-a.service", "hearth-fetch@x.service"]
    )
    def test_may_make_no_unit_of_its_own_under_an_engines_name(self, box: Box, unit: str) -> None:
        assert asked_by(box, "hearth", TRANSIENT.format(unit)).returncode != 0
        assert box.sh("test -e /run/made").returncode != 0

    def test_is_the_only_one_who_may(self, box: Box) -> None:
        assert asked_by(box, "spark", "StartUnit ss hearth-engine-tiny-a.service replace").returncode != 0

    def test_cannot_log_in(self, box: Box) -> None:
        assert box.out("getent passwd hearth | cut -d: -f7") == "/usr/sbin/nologin"
        assert box.out("id -nG hearth") == "hearth"


class TestUnit:
    def test_is_confined(self, box: Box) -> None:
        rating = box.out("systemd-analyze security --no-pager hearth-gateway.service")

        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", rating)
        assert exposure is not None, rating
        assert float(exposure[1]) <= 2.5, rating

    def test_its_restart_refuses_nobody(self, box: Box) -> None:
        asks = f"for i in $(seq 100); do {ASK}; echo; done | sort | uniq -c"
        with subprocess.Popen(
            ["docker", "exec", box.name, "sh", "-c", asks], stdout=subprocess.PIPE, text=True
        ) as clients:
            box.out("systemctl restart hearth-gateway; systemctl restart hearth-gateway")
            answers = clients.communicate(timeout=120)[0].split()

        assert answers == ["100", "401"]

    def test_its_restart_leaves_engines_alone(self, box: Box) -> None:
        before = box.out("systemctl show -P MainPID hearth-engine-tiny-a")

        box.out("systemctl restart hearth-gateway")

        assert box.out("systemctl show -P MainPID hearth-engine-tiny-a") == before

    def test_what_it_reads_is_not_for_everybody(self, box: Box) -> None:
        stats = box.out("stat -c '%a %U:%G' /etc/hearth/keys.json /etc/hearth/gateway.json /run/hearth/gateway.sock")

        assert stats.splitlines() == ["640 root:hearth", "640 root:hearth", "660 root:hearth"]
        assert box.sh("runuser -u hearth -- cat /etc/hearth/secrets/engine.env").returncode != 0


class TestKeys:
    def test_a_key_lets_in_and_a_revoked_one_does_not_within_a_second(self, box: Box, key: str) -> None:
        ask = f"{ASK} -H 'Authorization: Bearer {key}'"
        # A key that was made just now may take half a second to be known.
        assert box.out(f"sleep 1; {ask}") == "200"

        assert box.out(f"hearth keys revoke laptop; sleep 1; {ask}") == "401"

    @pytest.mark.parametrize("header", ["", "-H 'Authorization: Bearer hearth_x'", "-H 'x-api-key: hearth_x'"])
    def test_nobody_is_let_in_without_one(self, box: Box, header: str) -> None:
        assert box.out(f"{ASK} {header}") == "401"

    def test_a_damaged_file_lets_nobody_in(self, box: Box, key: str) -> None:
        box.out("cp -p /etc/hearth/keys.json /run/kept && echo '{' >/etc/hearth/keys.json")
        try:
            assert box.out(f"sleep 1; {ASK} -H 'x-api-key: {key}'") == "503"
        finally:
            box.out("cat /run/kept >/etc/hearth/keys.json; sleep 1")
        assert box.out(f"{ASK} -H 'x-api-key: {key}'") == "200"

    def test_a_play_shows_a_new_secret_once_and_keeps_it_nowhere(self, box: Box) -> None:
        try:
            run = box.ok("playbooks/keys.yml", "-e", "add=phone", "-e", "scopes=models,admin", "-vvvv")

            (secret,) = SECRET.findall(run.output)
            assert f"[{box.name}] the key phone, which is shown only now: {secret}" in run.output
            assert box.out(f"sleep 1; {ASK} -H 'x-api-key: {secret}'") == "200"
            assert box.sh(f"grep -rqF {secret} /etc /run/hearth /var/lib/hearth /var/log /tmp").returncode == 1
            assert box.sh(f"journalctl --no-pager | grep -qF {secret}").returncode == 1
        finally:
            box.ok("playbooks/keys.yml", "-e", "revoke=phone")

    def test_a_play_in_check_mode_only_tells(self, box: Box) -> None:
        run = box.ok("playbooks/keys.yml", "-e", "add=phone", "--check", "--diff")

        assert run.changed_tasks == ["Make the key, or change what it may"]
        assert "+phone" in run.output
        assert SECRET.search(run.output) is None
        assert "phone" not in box.out("hearth keys list")

    def test_a_slip_revokes_nothing(self, box: Box, key: str) -> None:
        run = box.play("playbooks/keys.yml", "-e", "revoke=labtop")

        assert run.code != 0
        assert "there is no key 'labtop': did you mean 'laptop'?" in run.flat

    def test_a_second_run_of_the_role_makes_no_second_key(self, box: Box) -> None:
        before = box.out("cat /etc/hearth/keys.json")

        run = box.ok("site.yml", "--tags", "gateway")

        assert SECRET.search(run.output) is None
        assert box.out("cat /etc/hearth/keys.json") == before


@pytest.mark.usefixtures("inventory_as_found")
class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"gateway_open": True}, "without keys the gateway may listen on 127.0.0.1 or ::1 only, not on 0.0.0.0"),
            ({"gateway_address": "spark"}, "gateway_address must be an IP address such as 0.0.0.0"),
            ({"gateway_port": 70000}, "gateway_port a port from 1 to 65535"),
            ({"gateway_port": 8080}, "port 8080 is the port of one of engines_models"),
            ({"gateway_tls_key": "/etc/ssl/none.key"}, "/etc/ssl/none.key is missing"),
            ({"gateway_default_model": "tiny-c"}, "tiny-c is none of engines_models (tiny-a, tiny-b)"),
            ({"gateway_scheduling": {"drain_s": -1}}, "look at gateway_scheduling.drain_s"),
            ({"gateway_scheduling": {"drian_s": 1}}, "gateway_scheduling.drian_s"),
            ({"gateway_first_key": "a b"}, "gateway_first_key: must be letters, digits"),
            ({"gateway_prot": 1}, "gateway_prot: unknown variable; did you mean gateway_port?"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_ones_are_refused_before_anything_changes(
        self, box: Box, wrong: dict[str, Any], sentence: str
    ) -> None:
        box.write_inventory(**wrong)

        run = box.play("site.yml")

        assert (run.code, run.count("changed")) == (2, 0)
        assert sentence in run.flat

    @pytest.mark.usefixtures("gateway_as_found")
    def test_another_port_is_listened_on_at_once(self, box: Box) -> None:
        box.write_inventory(gateway_port=8010)

        box.ok("site.yml")

        assert box.out(ASK.replace("8009", "8010")) == "401"
        assert box.sh(ASK).stdout == "000"

    def test_what_a_run_wrote_before_it_was_cut_off_counts_after_the_next(self, box: Box) -> None:
        before = box.out("systemctl show -P MainPID hearth-gateway")
        box.out("touch /etc/hearth/gateway.json")

        run = box.ok("site.yml")

        assert run.changed_tasks == ["hearth.spark.gateway : Have the gateway run, from what is written now"]
        assert box.out("systemctl show -P MainPID hearth-gateway") != before

    @pytest.mark.usefixtures("gateway_as_found")
    def test_tls_needs_no_rights_for_the_gateway(self, box: Box) -> None:
        names = "-keyout /etc/ssl/private/test.key -out /etc/ssl/test.crt -subj /CN=localhost"
        box.out(f"umask 077; openssl req -x509 -newkey rsa:2048 -nodes -days 2 {names}")
        box.write_inventory(gateway_tls_certificate="/etc/ssl/test.crt", gateway_tls_key="/etc/ssl/private/test.key")

        box.ok("site.yml")

        assert box.out(ASK.replace("http://127.0.0.1", "--cacert /etc/ssl/test.crt https://localhost")) == "401"
