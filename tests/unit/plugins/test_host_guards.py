# SPDX-License-Identifier: Apache-2.0
"""_guards: a host's guards are brought to what they should be, by what systemd says of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _guards
from ansible_collections.hearth.spark.plugins.module_utils._guards import Unit, Wanted

STARTED = "Sat 2026-11-28 08:31:23.123456 UTC"
STARTED_S = 1795854683.123456
RUNS = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "ExecMainStartTimestamp": STARTED,
}
UNIT = "hearth-guard.service"


class Host(_guards.Host):
    """A host below a folder, whose systemd says what the test wants and keeps what it was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.units: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.default = "graphical.target"
        self.watchdog = "0"

    def systemctl(self, *words: str) -> str:
        verb, *rest = words
        if verb == "show" and "--value" in rest:
            return f"{self.watchdog}\n"
        if verb == "show":
            names = [word for word in rest if not word.startswith("--")]
            blocks = [{"Id": name, **self.units.get(name, {"LoadState": "not-found"})} for name in names]
            return "\n\n".join("\n".join(f"{key}={value}" for key, value in block.items()) for block in blocks) + "\n"
        if verb == "get-default":
            return f"{self.default}\n"
        self.asked.append(" ".join(word for word in words if not word.startswith("--")))
        if verb == "set-default":
            self.default = rest[-1]
        return ""

    def kernel(self, name: str, value: str | None = None) -> str:
        """What the kernel has; ``value`` is set before."""
        path = self.root / "proc/sys" / name.replace(".", "/")
        if value is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        return path.read_text().strip()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def file(host: Host, changed_s: float) -> str:
    (host.root / "guard").touch()
    os.utime(host.root / "guard", (changed_s, changed_s))
    return "/guard"


def test_a_unit_that_runs_from_what_is_on_disk_is_left_alone(host: Host) -> None:
    host.units[UNIT] = RUNS

    assert _guards.bring(Wanted(units=(Unit(UNIT, (file(host, STARTED_S - 1),)),)), host) == []
    assert host.asked == []


def test_a_unit_is_restarted_where_its_file_is_newer_than_its_start(host: Host) -> None:
    host.units[UNIT] = RUNS
    wanted = Wanted(units=(Unit(UNIT, (file(host, STARTED_S + 0.1),)),))

    assert _guards.bring(wanted, host) == [f"restart {UNIT}, for /guard is newer than its start"]
    assert host.asked == [f"restart {UNIT}"]


def test_a_new_unit_is_read_enabled_and_started(host: Host) -> None:
    done = _guards.bring(Wanted(units=(Unit(UNIT),)), host)

    assert done == [f"have {UNIT} start at boot", f"start {UNIT}"]
    assert host.asked == ["daemon-reload", f"enable {UNIT}", f"restart {UNIT}"]


def test_check_mode_tells_the_same_and_does_nothing(host: Host) -> None:
    host.kernel("vm.swappiness", "60")
    wanted = Wanted(units=(Unit(UNIT),), sysctl={"vm.swappiness": "10"}, headless=True, manager=True)

    foretold = _guards.bring(wanted, host, check=True)
    assert (host.asked, host.kernel("vm.swappiness"), (host.root / _guards.KEPT).exists()) == ([], "60", False)
    assert _guards.bring(wanted, host) == foretold


def test_what_is_not_wanted_is_stopped_before_systemd_forgets_how(host: Host) -> None:
    host.units["hearth-clocks.service"] = {**RUNS, "NeedDaemonReload": "yes"}

    done = _guards.bring(Wanted(gone=("hearth-clocks.service",)), host)

    assert done[0] == "stop hearth-clocks.service"
    assert host.asked == ["stop hearth-clocks.service", "daemon-reload"]


def test_a_drop_in_of_another_unit_is_read_without_a_restart_of_it(host: Host) -> None:
    host.units["ssh.service"] = {**RUNS, "NeedDaemonReload": "yes"}

    _guards.bring(Wanted(read=("ssh.service",)), host)

    assert host.asked == ["daemon-reload"]


def test_a_setting_of_the_kernel_is_set_once_and_goes_back(host: Host) -> None:
    host.kernel("vm.swappiness", "60")
    wanted = Wanted(sysctl={"vm.swappiness": "10"})

    assert _guards.bring(wanted, host) == ["set vm.swappiness to 10 (it is 60)"]
    assert _guards.bring(wanted, host) == []
    assert _guards.bring(Wanted(), host) == ["set vm.swappiness back to 60"]
    assert host.kernel("vm.swappiness") == "60"
    assert not (host.root / _guards.KEPT).exists()


def test_what_was_there_first_goes_back_also_after_a_second_change(host: Host) -> None:
    host.kernel("vm.swappiness", "60")
    for value in ("10", "20"):
        _guards.bring(Wanted(sysctl={"vm.swappiness": value}), host)

    _guards.bring(Wanted(), host)

    assert host.kernel("vm.swappiness") == "60"


def test_what_somebody_else_has_set_meanwhile_stays(host: Host) -> None:
    host.kernel("vm.swappiness", "60")
    _guards.bring(Wanted(sysctl={"vm.swappiness": "10"}), host)
    host.kernel("vm.swappiness", "1")

    assert _guards.bring(Wanted(), host) == []
    assert host.kernel("vm.swappiness") == "1"


def test_a_setting_that_the_kernel_does_not_have_is_named(host: Host) -> None:
    with pytest.raises(_guards.GuardsError, match=r"host_sysctl.vm.nonsense: this kernel has no such setting"):
        _guards.bring(Wanted(sysctl={"vm.nonsense": "1"}), host)


def test_headless_goes_back_to_what_was_there(host: Host) -> None:
    _guards.bring(Wanted(headless=True), host)
    assert (host.default, _guards.bring(Wanted(headless=True), host)) == ("multi-user.target", [])

    _guards.bring(Wanted(), host)
    assert (host.default, (host.root / _guards.KEPT).exists()) == ("graphical.target", False)


def test_a_box_that_was_headless_before_stays_so(host: Host) -> None:
    host.default = "multi-user.target"
    _guards.bring(Wanted(headless=True), host)

    assert _guards.bring(Wanted(), host) == []
    assert host.default == "multi-user.target"


@pytest.mark.parametrize(("said", "asked"), [("1min 30s", []), ("0", ["daemon-reexec"]), ("30s", ["daemon-reexec"])])
def test_systemd_reads_its_own_settings_again_until_it_has_the_watchdog(
    host: Host, said: str, asked: list[str]
) -> None:
    host.watchdog = said

    _guards.bring(Wanted(watchdog_s=90), host)

    assert host.asked == asked


@pytest.mark.parametrize("text", ["{", "[]", '{"sysctl": 5}'])
def test_a_damaged_record_is_as_if_nothing_was_kept(host: Host, text: str) -> None:
    (host.root / _guards.KEPT).parent.mkdir(parents=True)
    (host.root / _guards.KEPT).write_text(text)

    assert _guards.bring(Wanted(), host) == []


def test_the_record_has_what_was_there_before(host: Host) -> None:
    host.kernel("vm.swappiness", "60")
    _guards.bring(Wanted(sysctl={"vm.swappiness": "10"}), host)

    kept: Any = json.loads((host.root / _guards.KEPT).read_text())
    assert kept == {"sysctl": {"vm.swappiness": {"before": "60", "ours": "10"}}, "target": ""}
