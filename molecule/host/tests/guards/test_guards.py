# SPDX-License-Identifier: Apache-2.0
"""A box with its guards: they are at work, and end who eats its memory while SSH goes on answering."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator

import pytest
from testinfra.host import Host

LOGIN = (
    "ssh -i /srv/key -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
    "-o LogLevel=ERROR 127.0.0.1"
)
# Takes memory, and touches it, in steps; at the most 2 GiB, and not for ever.
EATER = (
    "import time; held = []\nfor _ in range(64): held.append(bytearray(b'x' * 2**25)); time.sleep(0.03)\ntime.sleep(30)"
)


def available_gib(host: Host) -> float:
    text = host.file("/proc/meminfo").content_string
    found = re.search(r"^MemAvailable: +(\d+) kB", text, flags=re.MULTILINE)
    assert found
    return int(found[1]) / 2**20


@pytest.fixture
def logins(host: Host) -> Iterator[list[float]]:
    """Return how long each of the logins took, in seconds, that are tried throughout the test; a failed one is 99."""
    over, took = threading.Event(), []

    def go() -> None:
        while not over.is_set():
            began = time.monotonic()
            code = host.run(f"{LOGIN} true").rc
            took.append(time.monotonic() - began if code == 0 else 99.0)

    thread = threading.Thread(target=go)
    thread.start()
    yield took
    over.set()
    thread.join()


def drop_in(host: Host, unit: str, text: str) -> None:
    folder = f"/run/systemd/system/{unit}.d"
    host.check_output(f"mkdir -p {folder} && cat >{folder}/90-test.conf <<'END'\n[Service]\n{text}\nEND")
    host.check_output(f"systemctl daemon-reload && systemctl restart {unit}")


def play(host: Host, meminfo: str) -> None:
    """Have HEARTH_MEMINFO say so, from one moment to the next."""
    host.check_output(f"cat >/srv/next <<'END'\n{meminfo}\nEND\nmv /srv/next /srv/meminfo")


@pytest.fixture
def as_it_was(host: Host) -> Iterator[None]:
    yield
    for unit in ("earlyoom.service", "hearth-guard.service"):
        host.run(f"rm -rf /run/systemd/system/{unit}.d")
    host.run("systemctl daemon-reload; systemctl restart earlyoom hearth-guard; systemctl stop eater")


@pytest.mark.parametrize("unit", ["earlyoom.service", "hearth-guard.service"])
def test_they_run_and_start_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_earlyoom_has_the_roles_bounds_and_the_packages_file_is_untouched(host: Host) -> None:
    total = int(host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")) / 2**20
    floor = min(10.0, round(total, 1) / 6)
    words = host.check_output("tr '\\0' '\\n' </proc/$(pidof earlyoom)/cmdline").splitlines()

    assert words[1:5] == ["-M", f"{int(floor / 5 * 2**20)},{int(floor / 10 * 2**20)}", "-s", "100,100"]
    assert words[words.index("--prefer") + 1].startswith("^(llama-server|")
    assert host.run("dpkg --verify earlyoom").stdout == ""


def test_it_knows_an_engine_by_the_name_of_its_process(host: Host) -> None:
    names = host.check_output("cat /proc/[0-9]*/comm").splitlines()

    assert "llama-server" in names
    assert {"hearth", "dockerd", "containerd"} <= set(names)


def test_the_kernel_of_a_containers_host_is_left_alone(host: Host) -> None:
    assert not host.file("/etc/sysctl.d/60-hearth.conf").exists


def test_memory_is_kept_for_ssh_and_for_the_slice_it_is_in(host: Host) -> None:
    shown = host.check_output("systemctl show --property=MemoryMin,NeedDaemonReload ssh.service system.slice")

    assert shown.split() == ["MemoryMin=201326592", "NeedDaemonReload=no"] * 2


def test_who_logs_in_is_not_exempt_from_being_ended(host: Host) -> None:
    assert host.check_output(f"{LOGIN} cat /proc/self/oom_score_adj") == "0"


def test_the_guard_has_few_rights_and_takes_little(host: Host) -> None:
    rating = host.check_output("systemd-analyze security --no-pager hearth-guard.service").splitlines()[-1]
    status = host.check_output("cat /proc/$(systemctl show --property=MainPID --value hearth-guard)/status")
    resident = re.search(r"^VmRSS:\s+(\d+) kB", status, flags=re.MULTILINE)

    assert float(rating.split(":")[1].split()[0]) < 2.5, rating
    assert resident
    assert int(resident[1]) < 60_000


def test_doctor_knows_that_it_watches(host: Host) -> None:
    checks = {check["name"]: check for check in json.loads(host.run("hearth doctor --json").stdout)}

    assert checks["guard"]["verdict"] == "ok", checks["guard"]


@pytest.mark.usefixtures("as_it_was")
def test_a_program_that_eats_memory_is_ended_and_ssh_answers_throughout(host: Host, logins: list[float]) -> None:
    # Of what is free now it may have 0.7 GiB, and would take 2.
    kib = int((available_gib(host) - 0.7) * 2**20)
    flags = f"-M {kib},{kib - 2**19} -s 100,100 -r 3600 --prefer ^eater$$"
    drop_in(
        host, "earlyoom.service", f"ExecStart=\nExecStart=/usr/bin/earlyoom {flags} --avoid ^(llama-server|sshd.*)$$"
    )
    host.check_output("cp /usr/bin/python3 /srv/eater")
    host.check_output(f"cat >/srv/eat.py <<'END'\n{EATER}\nEND")

    began = time.monotonic()
    host.run("systemd-run --quiet --wait --unit=eater /srv/eater /srv/eat.py")

    assert time.monotonic() - began < 20, "seconds; by itself it goes on for 30"
    said = host.check_output("journalctl --no-pager --output=cat --unit=earlyoom --lines=40")
    assert re.search(r'sending SIG(TERM|KILL) to process \d+ .*"eater"', said), said
    assert host.service("hearth-engine-tiny-a").is_running
    assert logins
    assert max(logins) < 5, logins


@pytest.mark.usefixtures("as_it_was")
def test_the_newest_engine_is_ended_below_the_floor_and_stays_down(host: Host, logins: list[float]) -> None:
    host.check_output("hearth start tiny-b")
    meminfo = host.file("/proc/meminfo").content_string
    play(host, meminfo)
    drop_in(host, "hearth-guard.service", "Environment=HEARTH_MEMINFO=/srv/meminfo")
    # It looks who runs before it has to know.
    time.sleep(2)

    began = time.monotonic()
    play(host, re.sub(r"MemAvailable: .*", "MemAvailable:     900000 kB", meminfo))
    while host.check_output("docker ps --quiet --filter name=hearth-tiny-b"):
        assert time.monotonic() - began < 30
    play(host, meminfo)
    # Longer than RestartSec= of the engine's unit.
    time.sleep(7)

    assert host.service("hearth-engine-tiny-a").is_running, "the older one goes on"
    assert not host.service("hearth-engine-tiny-b").is_running, "it does not come back by itself"
    assert [one["engine"] for one in json.loads(host.file("/var/lib/hearth/guard.json").content_string)] == ["tiny-b"]
    assert "the guard ended tiny-b at" in host.check_output("hearth status")
    assert "the guard ended tiny-b at" in host.run("hearth doctor").stdout
    assert "ended tiny-b" in host.check_output("journalctl --no-pager --output=cat --unit=hearth-guard")
    assert max(logins) < 5, logins


def test_an_engine_that_was_ended_starts_when_somebody_asks_for_it(host: Host) -> None:
    assert host.run("hearth start tiny-b").rc == 0
