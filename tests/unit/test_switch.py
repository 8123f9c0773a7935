# SPDX-License-Identifier: Apache-2.0
"""hearth.switch: one transaction under one lock, its steps in order, and what a failure leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth import errors, switch
from hearth.contract import Contract, Engine

if TYPE_CHECKING:
    from tests.unit.conftest import FakeSystemd, MakeEngine, MakeState

HOLDER = """
import sys
from pathlib import Path
from hearth.switch import box_lock
with box_lock(0, Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


class Pair:
    """Two engines of the main lane: ``old`` runs and starts at boot, ``new`` is down."""

    def __init__(self, old: Engine, new: Engine, contract: Contract, systemd: FakeSystemd) -> None:
        self.old, self.new, self.contract, self.systemd = old, new, contract, systemd

    async def switch(self, name: str | None, *, boot: bool = True, keep: bool = False) -> switch.Outcome:
        return await switch.switch(self.contract, name, boot=boot, keep=keep)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run" / "switch.lock"


@pytest.fixture
def two_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@pytest.fixture
def pair(
    make_engine: MakeEngine,
    make_state: MakeState,
    make_contract: Callable[..., Contract],
    fake_systemd: Callable[..., FakeSystemd],
    two_ports: tuple[int, int],
    tmp_path: Path,
) -> Pair:
    model = tmp_path / "model.gguf"
    model.touch()
    old = make_engine("old", port=two_ports[0], model_path=str(model))
    new = make_engine("new", port=two_ports[1], model_path=str(model), aliases=("newest",))
    systemd = fake_systemd(make_state(old, "active", enabled=True), make_state(new))
    systemd.plays(old)
    systemd.plays(new)
    return Pair(old, new, make_contract(old, new), systemd)


def test_the_second_holder_is_told_who_the_first_is(lock: Path) -> None:
    with switch.box_lock(0, lock), pytest.raises(errors.BusyError) as caught, switch.box_lock(0, lock):
        pass

    assert str(caught.value).startswith(f"a switch is under way (pid {os.getpid()}, since ")
    assert str(caught.value).endswith("): wait for it, or end that process")


def test_the_lock_is_free_again_after_its_holder(lock: Path) -> None:
    for _ in range(2):
        with switch.box_lock(0, lock):
            pass


def test_the_lock_is_free_again_after_a_holder_that_failed(lock: Path) -> None:
    with pytest.raises(ZeroDivisionError), switch.box_lock(0, lock):
        raise ZeroDivisionError

    with switch.box_lock(0, lock):
        pass


def test_the_lock_is_free_again_when_its_holder_is_killed(lock: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(switch.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.BusyError, match=rf"\(pid {holder.pid}, since "), switch.box_lock(0, lock):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    with switch.box_lock(0, lock):
        assert lock.read_text().startswith(f"pid {os.getpid()}, since ")


def test_a_program_started_while_the_lock_is_held_does_not_hold_it_on(lock: Path) -> None:
    with switch.box_lock(0, lock):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    with child, switch.box_lock(0, lock):
        pass


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")

    with pytest.raises(errors.HearthError), switch.box_lock(0, tmp_path / "run" / "switch.lock"):
        pass


async def test_the_old_stops_before_the_new_starts_and_the_boot_default_moves_last(pair: Pair) -> None:
    outcome = await pair.switch("new")

    assert pair.systemd.calls == [
        ("stop", pair.old.unit),
        ("start", pair.new.unit),
        ("disable", pair.old.unit),
        ("enable", pair.new.unit),
    ]
    assert outcome.active == "new"
    assert pair.systemd.up == [pair.new.unit]
    assert pair.systemd.at_boot == [pair.new.unit]


async def test_units_that_systemd_has_not_read_again_are_read_before_anything_is_decided(pair: Pair) -> None:
    state = pair.systemd.table[pair.new.unit]
    pair.systemd.table[pair.new.unit] = msgspec.structs.replace(state, outdated=True)

    await pair.switch("new")

    assert pair.systemd.calls[0] == ("reload", "")
    assert pair.systemd.calls.count(("reload", "")) == 1


async def test_a_dry_run_has_systemd_read_nothing(pair: Pair) -> None:
    state = pair.systemd.table[pair.new.unit]
    pair.systemd.table[pair.new.unit] = msgspec.structs.replace(state, outdated=True)

    await switch.switch(pair.contract, "new", dry=True)

    assert pair.systemd.calls == []


async def test_an_alias_does_as_well(pair: Pair) -> None:
    assert (await pair.switch("newest")).active == "new"


async def test_none_stops_the_lane_and_takes_it_from_boot(pair: Pair) -> None:
    outcome = await pair.switch(None)

    assert pair.systemd.calls == [("stop", pair.old.unit), ("disable", pair.old.unit)]
    assert outcome.active is None


async def test_without_boot_the_boot_default_stays(pair: Pair) -> None:
    await pair.switch("new", boot=False)

    assert pair.systemd.calls == [("stop", pair.old.unit), ("start", pair.new.unit)]
    assert pair.systemd.at_boot == [pair.old.unit]


async def test_what_is_right_already_is_left_alone(pair: Pair) -> None:
    outcome = await pair.switch("old")

    assert pair.systemd.calls == []
    assert not outcome.plan.changes
    assert outcome.active == "old"


async def test_with_keep_the_choice_somebody_made_stays(pair: Pair) -> None:
    outcome = await pair.switch("new", keep=True)

    assert pair.systemd.calls == []
    assert outcome.active == "old"


async def test_with_keep_the_default_is_taken_where_nobody_chose(pair: Pair, make_state: MakeState) -> None:
    for engine in (pair.old, pair.new):
        await pair.systemd.stop(engine.unit, 1)
    await pair.systemd.disable([pair.old.unit])

    assert (await pair.switch("new", keep=True)).active == "new"


async def test_an_engine_that_serves_another_name_is_stopped_and_started_again(pair: Pair) -> None:
    pair.systemd.plays(pair.old, serves="somebody-else")

    with pytest.raises(errors.EngineFailedError, match="instead of old"):
        await pair.switch("old")

    # The last stop: what serves another name must not go on holding memory.
    assert pair.systemd.calls == [("stop", pair.old.unit), ("start", pair.old.unit), ("stop", pair.old.unit)]


async def test_a_target_that_loads_already_is_waited_for_and_counts_as_nobodys_change(
    pair: Pair, make_state: MakeState
) -> None:
    pair.systemd.table[pair.old.unit] = make_state(pair.old, "activating", enabled=True)

    outcome = await pair.switch("old")

    assert pair.systemd.calls == [("start", pair.old.unit)]
    assert not outcome.plan.changes


async def test_an_unknown_name_is_refused_before_anything_is_asked(pair: Pair) -> None:
    with pytest.raises(errors.UnknownModelError, match="did you mean 'old'"):
        await pair.switch("odl")

    assert pair.systemd.calls == []


async def test_a_dry_run_plans_the_same_and_touches_nothing(pair: Pair) -> None:
    dry = await switch.switch(pair.contract, "new", dry=True)

    assert pair.systemd.calls == []
    assert dry.active == "new"
    assert dry.plan == (await pair.switch("new")).plan


async def test_a_dry_run_does_not_need_the_lock(pair: Pair, lock: Path, tmp_path: Path) -> None:
    with switch.box_lock(0):
        await switch.switch(pair.contract, "new", dry=True)

        with pytest.raises(errors.BusyError):
            await pair.switch("new")

    assert pair.systemd.calls == []


async def test_a_model_that_could_not_start_does_not_cost_the_one_that_runs(pair: Pair) -> None:
    Path(pair.new.model_path).unlink()  # noqa: ASYNC240 - nothing else runs

    with pytest.raises(errors.EngineFailedError, match="is missing"):
        await pair.switch("new")

    assert pair.systemd.up == [pair.old.unit]


async def test_a_target_that_is_just_stopping_is_no_stranger_on_its_own_port(pair: Pair, make_state: MakeState) -> None:
    pair.systemd.table[pair.new.unit] = make_state(pair.new, "deactivating")
    pair.systemd.plays(pair.new)

    assert (await pair.switch("new")).active == "new"


async def test_a_failed_start_leaves_the_boot_default_and_says_who_was_stopped(pair: Pair) -> None:
    pair.systemd.start_ends[pair.new.unit] = ("failed", "exit-code")

    with pytest.raises(errors.EngineFailedError) as caught:
        await pair.switch("new")

    assert str(caught.value) == ("engine new failed to start; old was stopped for it, so switch to old to have it back")
    assert caught.value.log == ("last words of hearth-engine-new.service",)
    assert pair.systemd.at_boot == [pair.old.unit]


async def test_a_start_that_systemd_refuses_leaves_the_boot_default_and_says_who_was_stopped(pair: Pair) -> None:
    pair.systemd.breaks.add(("start", pair.new.unit))

    with pytest.raises(errors.HearthError, match=r"systemd refused start: .*; old was stopped for it"):
        await pair.switch("new")

    assert pair.systemd.at_boot == [pair.old.unit]


async def test_an_engine_that_does_not_stop_keeps_the_new_one_from_starting(pair: Pair) -> None:
    pair.systemd.stop_ends[pair.old.unit] = "deactivating"

    with pytest.raises(errors.EngineFailedError, match="engine old did not stop"):
        await pair.switch("new")

    assert pair.systemd.calls == [("stop", pair.old.unit)]
    assert pair.systemd.at_boot == [pair.old.unit]


async def test_a_new_engine_that_serves_another_name_does_not_get_the_boot_default(pair: Pair) -> None:
    pair.systemd.plays(pair.new, serves="somebody-else")

    with pytest.raises(errors.EngineFailedError, match=r"serves somebody-else instead of new.*; old was stopped"):
        await pair.switch("new")

    assert pair.systemd.at_boot == [pair.old.unit]
    assert pair.systemd.up == []
