# SPDX-License-Identifier: Apache-2.0
"""hearth.switching.jobrun: several changes as one, and what the process of a job writes into its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from hearth import contract, errors, state
from hearth.switching import job, jobrun, switch
from hearth.switching.change import Change
from hearth.switching.job import Job
from hearth.switching.progress import Progress

if TYPE_CHECKING:
    from switchbox import Box

TO_NEW = Change(name="new", drain_s=0)


@pytest.fixture(autouse=True)
def _systemd(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobrun, "Systemd", box.systemd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def _job(*changes: Change, lock_timeout_s: float = 0) -> Job:
    return Job(id="1", changes=changes, lock_timeout_s=lock_timeout_s, contract="", at="2026-11-21T05:00:00Z")


class TestCarryOut:
    async def test_one_change_is_told_with_what_serves_afterwards(self, box: Box) -> None:
        result = await jobrun.carry_out(box.contract, [TO_NEW], lock_timeout_s=0, host=box.host)

        assert (result.changed, result.active, result.before) == (True, "new", ("old",))
        assert [one.name for one in result.serving] == ["new", "embed"]
        assert (result.old, result.new) == ("main lane: old\nat boot: old\n", "main lane: new\nat boot: new\n")
        assert result.memory == {"total": 20.0, "available": 9.0, "floor": 4.0}
        assert set(result.seconds) == {"fetch", "drain", "stop", "memory", "load", "first"}

    async def test_a_second_time_nothing_changes(self, box: Box) -> None:
        await jobrun.carry_out(box.contract, [TO_NEW], lock_timeout_s=0, host=box.host)

        again = await jobrun.carry_out(box.contract, [TO_NEW], lock_timeout_s=0, host=box.host)

        assert (again.changed, again.actions, again.healed) == (False, (), ())
        assert again.old == again.new

    async def test_several_are_carried_out_one_after_the_other(self, box: Box) -> None:
        changes = [Change(name="small", drain_s=0, spare=("embed",)), Change(name="embed", beside=True)]
        box.systemd.set(box.unit("embed"), active="inactive", enabled=False)

        result = await jobrun.carry_out(box.contract, changes, lock_timeout_s=0, host=box.host)

        assert box.up == box.at_boot == {"small", "embed"}
        assert result.active == "small"
        assert result.new == "main lane: small\nutility lane: embed\nat boot: embed, small\n"

    async def test_one_that_is_spared_goes_on_running(self, box: Box) -> None:
        box.change_engine("old", memory_gib=5.0)

        await jobrun.carry_out(
            box.contract, [Change(name="small", spare=("old",), drain_s=0)], lock_timeout_s=0, host=box.host
        )

        assert box.up == {"old", "small", "embed"}

    async def test_one_that_fails_does_not_keep_the_next_from_being_carried_out(self, box: Box) -> None:
        box.systemd.set(box.unit("embed"), active="inactive", enabled=False)
        box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

        with pytest.raises(errors.EngineFailedError, match="engine new failed to start; old serves again") as caught:
            await jobrun.carry_out(
                box.contract, [TO_NEW, Change(name="embed", beside=True)], lock_timeout_s=0, host=box.host
            )

        assert box.up == {"old", "embed"}
        assert caught.value.log == ("last words of hearth-engine-new.service",)

    async def test_an_unknown_name_among_several_keeps_all_from_beginning(self, box: Box) -> None:
        with pytest.raises(errors.UnknownModelError, match="did you mean 'embed'"):
            await jobrun.carry_out(
                box.contract, [TO_NEW, Change(name="embd", beside=True)], lock_timeout_s=0, host=box.host
            )

        assert box.calls == []

    async def test_a_box_that_is_busy_is_not_asked_again_for_the_next(self, box: Box) -> None:
        with switch.box_lock(0, box.lock), pytest.raises(errors.BusyError, match="a switch is under way"):
            await jobrun.carry_out(box.contract, [TO_NEW, TO_NEW], lock_timeout_s=0, host=box.host)


class TestForetell:
    @pytest.mark.parametrize(
        "changes",
        [
            [TO_NEW],
            [Change(name=None, drain_s=0)],
            [Change(name="old", keep=True)],
            [Change(name="small", boot=False, drain_s=0)],
            [Change(name="small", drain_s=0), Change(name="embed", beside=True)],
            [Change(name="old", spare=("small",)), Change(name="small", beside=True, drain_s=0)],
        ],
        ids=str,
    )
    async def test_it_says_what_carrying_out_does(self, box: Box, changes: list[Change]) -> None:
        box.change_engine("old", memory_gib=6.0)

        foretold = await jobrun.foretell(box.contract, changes, host=box.host)
        assert box.calls == []
        done = await jobrun.carry_out(box.contract, changes, lock_timeout_s=0, host=box.host)

        assert msgspec.structs.replace(done, seconds=foretold.seconds) == foretold

    async def test_what_could_not_begin_fails_as_it_would(self, box: Box) -> None:
        (box.models / "new.gguf").unlink()

        with pytest.raises(errors.EngineFailedError, match=r"its model .+ is missing"):
            await jobrun.foretell(box.contract, [TO_NEW], host=box.host)


class TestRun:
    @pytest.fixture(autouse=True)
    def _contract(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contract, "load", lambda: box.contract)

    def test_the_file_has_the_result(self, box: Box, folder: Path) -> None:
        assert jobrun.run(_job(TO_NEW), folder, box.host) == 0

        done = job.read("1", folder)
        assert done.state == "done"
        assert done.result is not None
        assert done.result.active == "new"

    def test_the_file_has_the_failure_with_the_log(self, box: Box, folder: Path) -> None:
        box.systemd.start_ends[box.unit("new")] = ("failed", "exit-code")

        assert jobrun.run(_job(TO_NEW), folder, box.host) == 1

        failure = job.read("1", folder).failure
        assert failure is not None
        assert failure.kind == "EngineFailedError"
        assert failure.sentence == "engine new failed to start; old serves again"
        assert failure.log == ("last words of hearth-engine-new.service",)

    def test_each_phase_is_counted_and_written_once_into_the_journal(
        self, box: Box, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        jobrun.run(_job(TO_NEW), folder, box.host)

        said = capsys.readouterr().out.splitlines()
        assert said[0] == "stopping old"
        assert said[-1] == "done"
        assert len(set(said)) == len(said)
        assert job.read("1", folder).step == len(said) - 1

    def test_while_another_holds_the_box_its_words_say_who(
        self, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []
        real = job.JOBS.write

        def write(now: Job, where: Path) -> None:
            seen.append(now.words)
            real(now, where)

        monkeypatch.setattr(job.JOBS, "write", write)
        with switch.box_lock(0, box.lock):
            holder = state.holder(box.lock)
            jobrun.run(_job(TO_NEW), folder, box.host)

        assert seen[0] == f"waiting for another change to end ({holder})"
        failure = job.read("1", folder).failure
        assert failure is not None
        assert failure.kind == "BusyError"

    def test_an_error_of_our_own_reaches_whoever_waits(
        self, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> contract.Contract:
            raise ZeroDivisionError("of the test")

        monkeypatch.setattr(contract, "load", broken)

        assert jobrun.run(_job(TO_NEW), folder, box.host) == 1

        failure = job.read("1", folder).failure
        assert failure is not None
        said = "the change to new ended by an error of Hearth's own (ZeroDivisionError('of the test'))"
        assert failure.sentence == f"{said}: hearth status says what runs"
        assert any("in broken" in line for line in failure.log)

    def test_a_file_that_cannot_be_written_does_not_stop_the_change(self, box: Box, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        assert jobrun.run(_job(TO_NEW), tmp_path / "file" / "jobs", box.host) == 0

        assert box.up == {"new", "embed"}

    def test_the_process_is_told_its_file(self, box: Box, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        job.write(_job(Change(name="nobody")), folder)

        assert jobrun.main([str(folder / "1.json")]) == 1

        assert json.loads((folder / "1.json").read_bytes())["failure"]["kind"] == "UnknownModelError"


def test_progress_of_a_phase_goes_on_without_a_new_step(folder: Path) -> None:
    record = jobrun._Record(job.JOBS, _job(TO_NEW), folder)

    record.tell(Progress(phase="loading", engine="new"))
    record.tell(Progress(phase="loading", engine="new", elapsed_s=12))

    now = job.read("1", folder)
    assert (now.step, now.words) == (1, "loading new, 12 s")
