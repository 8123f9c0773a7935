# SPDX-License-Identifier: Apache-2.0
"""hearth.cli.doctor: each check, from what was read to its verdict and what to do."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from hearth.cli import doctor, tables
from hearth.cli.doctor import Check
from hearth.cli.standing import Pending
from hearth.contract import Engine
from hearth.engines.units import UnitState
from hearth.memory import Memory
from hearth.updates.changes import Book, State

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

UNIT = """\
ExecStart=/usr/bin/docker run \\
    --rm \\
    --device nvidia.com/gpu=all \\
    registry.example/vllm@sha256:0
"""


def verdicts(checks: list[Check]) -> list[str]:
    return [check.verdict for check in checks]


class TestPackage:
    def test_is_well_where_units_use_it(self) -> None:
        check = doctor.package("0.1.0", 1, "/opt/hearth/venvs/a", "/opt/hearth/venvs/a")

        assert (check.verdict, check.says) == ("ok", "hearth 0.1.0, reads schema 1")

    def test_is_a_warning_where_units_use_another(self) -> None:
        check = doctor.package("0.1.0", 1, "/home/spark/venv", "/opt/hearth/venvs/a")

        assert (check.verdict, check.remedy) == ("warning", "run site.yml")
        assert "/home/spark/venv" in check.says


class TestPreconditions:
    def test_are_the_sentences_of_what_is_missing(self) -> None:
        checks = doctor.preconditions("models", {"a": "", "b": "engine b: its model is missing"}, "all 2 on disk")

        assert checks == [doctor.failed("models", "engine b: its model is missing")]

    def test_are_one_word_where_all_is_well(self) -> None:
        assert doctor.preconditions("models", {"a": ""}, "all 1 on disk") == [doctor.ok("models", "all 1 on disk")]


class TestKeyFile:
    def test_is_well_for_root_alone(self) -> None:
        assert doctor.key_file("/k", stat.S_IFREG | 0o600, 0).verdict == "ok"

    @pytest.mark.parametrize(("mode", "owner"), [(0o640, 0), (0o604, 0), (0o600, 1000)])
    def test_fails_where_others_may_read_it(self, mode: int, owner: int) -> None:
        check = doctor.key_file("/k", stat.S_IFREG | mode, owner)

        assert check.verdict == "failed"
        assert f"mode {mode:04o} and owner {owner}" in check.says
        assert check.remedy.startswith("chown root: /k && chmod 600 /k")

    def test_fails_where_it_is_missing(self) -> None:
        assert doctor.key_file("/k", None, 0).remedy == "run site.yml, which makes one"

    def test_fails_where_it_may_not_be_looked_at(self) -> None:
        check = doctor.key_file("/k", None, 0, "Permission denied")

        assert (check.says, check.remedy) == ("/k cannot be read (Permission denied)", "run this as root")


@pytest.fixture
def scout(make_engine: MakeEngine) -> Engine:
    return make_engine("scout", start="boot")


@pytest.fixture
def now(scout: Engine, make_state: MakeState) -> Callable[..., dict[str, UnitState]]:
    """What systemd says, of scout alone."""
    return lambda *words, **fields: {scout.unit: make_state(scout, *words, **fields)}


class TestUnits:
    def test_are_well_where_all_are_loaded(self, scout: Engine, now: Callable[..., Any]) -> None:
        assert doctor.units([scout], now("active"), []) == [doctor.ok("units", "1 unit loaded, none failed")]

    @pytest.mark.parametrize(
        ("fields", "verdict", "remedy"),
        [
            ({"load": "not-found"}, "failed", "run site.yml"),
            ({"active": "failed", "result": "exit-code"}, "failed", "hearth logs scout says why"),
            ({"outdated": True}, "warning", "systemctl daemon-reload"),
        ],
    )
    def test_are_not_where_one_is_not(
        self, scout: Engine, now: Callable[..., Any], fields: dict[str, Any], verdict: str, remedy: str
    ) -> None:
        (check,) = doctor.units([scout], now(**fields), [])

        assert check.verdict == verdict
        assert check.remedy.startswith(remedy)

    def test_warn_of_an_engine_that_runs_from_an_older_one(self, scout: Engine, now: Callable[..., Any]) -> None:
        (check,) = doctor.units([scout], now("active"), ["scout"])

        assert (check.verdict, check.remedy) == ("warning", "hearth start scout restarts it")


class TestBoot:
    def test_is_well_where_something_starts(self, scout: Engine, now: Callable[..., Any]) -> None:
        assert doctor.boot([scout], now(enabled=True)) == doctor.ok("boot", "scout starts")

    def test_warns_where_nothing_starts_that_should(self, scout: Engine, now: Callable[..., Any]) -> None:
        check = doctor.boot([scout], now())

        assert (check.verdict, check.remedy) == ("warning", "hearth switch scout, or leave it so")

    def test_is_well_where_nothing_is_to_start(self, make_engine: MakeEngine, make_state: MakeState) -> None:
        lazy = make_engine("lazy", start="demand")

        assert doctor.boot([lazy], {lazy.unit: make_state(lazy)}) == doctor.ok("boot", "nothing is to start")

    def test_names_an_engine_of_the_main_lane_where_another_lane_starts_too(
        self, scout: Engine, now: Callable[..., Any], make_engine: MakeEngine, make_state: MakeState
    ) -> None:
        embed = make_engine("embed", lane="utility", start="boot")
        states = {**now(), embed.unit: make_state(embed, enabled=True)}

        assert doctor.boot([embed, scout], states).remedy.startswith("hearth switch scout")


class TestMemory:
    @pytest.mark.parametrize(("available", "verdict"), [(10.0, "ok"), (9.9, "warning")])
    def test_warns_where_the_host_has_less_than_its_floor(self, available: float, verdict: str) -> None:
        reading = Memory(total_gib=119.7, available_gib=available, free_gib=1.0, cached_gib=1.0)

        assert doctor.memory(reading, 10.0).verdict == verdict

    def test_what_starts_at_boot_fits(self) -> None:
        assert doctor.boot_memory(100.0, 10.0, {"a": 60.0, "b": 30.0}).verdict == "ok"

    def test_what_starts_at_boot_does_not_fit(self) -> None:
        check = doctor.boot_memory(100.0, 10.0, {"a": 60.0, "b": 31.0})

        assert check.verdict == "failed"
        assert check.says == "what starts at boot needs 91.0 GiB, 10.0 GiB stay with the host, and it has 100.0 GiB"
        assert check.remedy == "have fewer start: hearth stop a"

    @pytest.mark.parametrize(
        ("total_gib", "swappiness", "says"),
        [
            (15.0, "10", "15.0 GiB, swappiness 10"),
            (0.0, "60", "off, swappiness 60"),
            (0.0, "", "off, swappiness unknown"),
        ],
    )
    def test_swap_is_told_and_never_wrong(self, total_gib: float, swappiness: str, says: str) -> None:
        assert doctor.swap(total_gib, swappiness) == doctor.ok("swap", says)


class TestGpu:
    def test_is_asked_for_by_its_cdi_name(self) -> None:
        assert doctor.cdi_kinds(UNIT) == {"nvidia.com/gpu"}
        assert doctor.cdi_kinds("--device=nvidia.com/gpu=0 --device /dev/fuse") == {"nvidia.com/gpu"}

    def test_is_not_missed_where_no_engine_asks(self) -> None:
        assert doctor.gpu({"scout": set()}, []) == [doctor.ok("gpu", "no engine asks for one")]

    @pytest.mark.parametrize(
        "spec",
        [
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n",
            'kind: "nvidia.com/gpu"\n',
            '{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": []}',
            '{"kind":"nvidia.com/gpu"}',
        ],
    )
    def test_is_well_with_a_spec_of_its_kind(self, spec: str) -> None:
        assert verdicts(doctor.gpu({"scout": {"nvidia.com/gpu"}}, ["kind: other.org/nic\n", spec])) == ["ok"]

    @pytest.mark.parametrize("spec", ["", "kind: nvidia.com/gpu-nic\n", "# kind nvidia.com/gpu\n"])
    def test_fails_without_one_and_names_who_needs_it(self, spec: str) -> None:
        (check,) = doctor.gpu({"scout": {"nvidia.com/gpu"}, "embed": set()}, [spec])

        assert (check.verdict, check.says) == ("failed", "no CDI spec has nvidia.com/gpu, which scout would run with")
        assert check.remedy.startswith("nvidia-ctk cdi generate")


@pytest.mark.parametrize(
    ("release", "cmdline", "verdict"),
    [
        ("7.0.0-1019-nvidia", "quiet splash", "warning"),
        ("10.1.0-nvidia", "quiet", "warning"),
        ("7.0.0-1019-nvidia", "quiet kho=on", "warning"),
        ("7.0.0-1019-nvidia", "quiet -- kho=off", "warning"),
        ("7.0.0-1019-nvidia", "kho=on kho=off", "ok"),
        ("7.0.0-1019-nvidia", "kho=0 quiet", "ok"),
        ("6.17.0-1032-nvidia", "quiet", "ok"),
        ("7.0.0-14-generic", "quiet", "ok"),
        ("", "", "ok"),
    ],
)
def test_a_kernel_that_hands_memory_over_is_a_warning(release: str, cmdline: str, verdict: str) -> None:
    assert doctor.kernel(release, cmdline).verdict == verdict


class TestDisks:
    def test_are_well_with_a_tenth_free(self) -> None:
        (check,) = doctor.disks({"/models": (100_000_000_000, 1_000_000_000_000)})

        assert (check.verdict, check.says) == ("ok", "100 of 1000 GB free at /models")

    def test_warn_below(self) -> None:
        checks = doctor.disks({"/models": (99_000_000_000, 1_000_000_000_000), "/more": (1_000_000_000, 2_000_000_000)})

        assert [(check.verdict, check.says) for check in checks] == [("warning", "99 of 1000 GB free at /models")]


class TestChange:
    def test_none_is_well(self) -> None:
        assert doctor.change(None).verdict == "ok"

    def test_one_under_way_is_well(self) -> None:
        assert doctor.change(Pending(holder="pid 7, since 05:00:00", target="scout")).verdict == "ok"

    def test_one_that_was_cut_off_fails_and_says_what_to_do(self) -> None:
        check = doctor.change(Pending(target="scout", previous=("qwen",), at="2026-11-21T05:00:00Z"))

        assert check.verdict == "failed"
        assert check.says == ("a change to scout that began at 2026-11-21T05:00:00Z was cut off (before it, qwen ran)")
        assert check.remedy.endswith("for example hearth switch scout")


class TestUpdates:
    @staticmethod
    def book(state: State) -> Book:
        return Book(state=state, at="2026-11-28T17:00:00+00:00", changes=())

    def test_none_or_one_that_ended_is_well(self) -> None:
        assert doctor.updates({}, "").verdict == "ok"
        assert doctor.updates({"system": self.book("confirmed"), "docker": self.book("reverted")}, "").verdict == "ok"

    def test_one_under_way_is_well(self) -> None:
        assert doctor.updates({"docker": self.book("begun")}, "pid 7, since 05:00:00").verdict == "ok"

    def test_one_that_was_cut_off_says_what_to_do(self) -> None:
        check = doctor.updates({"system": self.book("confirmed"), "docker": self.book("begun")}, "")

        assert check.verdict == "warning"
        assert check.says == "the step docker of 2026-11-28T17:00:00+00:00 was cut off"
        assert check.remedy == "ansible-playbook playbooks/update.yml goes on with it"


def test_a_person_reads_verdict_check_finding_remedy_and_a_count() -> None:
    checks = [
        doctor.ok("swap", "off"),
        doctor.warning("kernel", "is new", "do this"),
        doctor.failed("images", "is gone"),
    ]

    assert tables.doctor(checks) == [
        "ok       swap    off",
        "warning  kernel  is new",
        "                 -> do this",
        "failed   images  is gone",
        "",
        "1 ok, 1 warning, 1 failed",
    ]
