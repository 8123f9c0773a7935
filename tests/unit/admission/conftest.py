# SPDX-License-Identifier: Apache-2.0
"""A host for the tests of admission.admit: figures that they set, and time that passes only where somebody sleeps."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from hearth import memory
from hearth.admission.admit import Host, admit, settle
from hearth.admission.verdict import Admission
from hearth.contract import Contract, Engine
from hearth.engines.units import UnitState
from hearth.memory import Memory

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState


class Timeline(memory.Clock):
    """Time that passes only where somebody sleeps, and in which things happen."""

    def __init__(self) -> None:
        self.begun = self.time = 5000.0
        self._events: list[tuple[float, Callable[[], object]]] = []

    @property
    def passed(self) -> float:
        return self.time - self.begun

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        self._events.append((self.begun + seconds, event))

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        due = [event for at, event in self._events if at <= self.time]
        self._events = [(at, event) for at, event in self._events if at > self.time]
        for event in due:
            event()

    def utc(self) -> str:
        return "2026-11-21T05:00:00Z"


class Box:
    """A host of 120 GiB, of which 10 are the floor; ``scout`` needs 60 GiB, ``qwen`` 40, ``phi`` 8. All are down.

    ``RUN`` is the run of a unit that asks, ``OTHER_RUN`` that of another one.
    """

    RUN = "5c0a7" * 6 + "00"
    OTHER_RUN = "9e4" * 10 + "00"

    def __init__(self, folder: Path, contract: Contract, states: dict[str, UnitState]) -> None:
        self.folder = folder
        self.contract = contract
        self.states = states
        self.clock = Timeline()
        self.available = self.free = 110.0
        self.asked = 0
        self.said: list[str] = []
        self.host = Host(
            run=folder / "run",
            measured=folder / "var" / "measured.json",
            units=folder / "units",
            proc=folder / "proc",
            docker_socket=folder / "docker.sock",
            read_memory=lambda: Memory(total_gib=120, available_gib=self.available, free_gib=self.free, cached_gib=0),
            read_states=self._read_states,
            clock=self.clock,
        )
        self.starting = folder / "run" / "starting.json"

    def _read_states(self, units: list[str]) -> dict[str, UnitState]:
        self.asked += 1
        return {unit: self.states[unit] for unit in units}

    def engine(self, name: str) -> Engine:
        return self.contract.find(name)

    def set(self, name: str, active: str, **fields: Any) -> None:
        unit = self.engine(name).unit
        self.states[unit] = msgspec.structs.replace(self.states[unit], active=active, **fields)

    def set_available(self, gib: float) -> None:
        self.available = gib

    def admit(self, name: str = "scout", invocation: str = RUN, patience_s: float = 60.0) -> Admission:
        return admit(
            self.contract,
            self.engine(name),
            invocation=invocation,
            patience_s=patience_s,
            say=self.said.append,
            host=self.host,
        )

    def starts(self, name: str, invocation: str = OTHER_RUN) -> None:
        """Another engine was admitted and is now loading."""
        self.admit(name, invocation)
        self.set(name, "activating", sub="start-post", invocation=invocation)

    def settles(self, name: str, invocation: str = OTHER_RUN) -> float | None:
        taken = settle(self.engine(name), 12.0, invocation=invocation, host=self.host)
        self.set(name, "active", sub="running")
        return taken


@pytest.fixture
def box(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_engine: MakeEngine,
    make_state: MakeState,
    make_contract: Callable[..., Contract],
) -> Box:
    for folder in ("bin", "units", "models", "proc"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    engines = []
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        for name, gib, port in (("scout", 60.0, first), ("qwen", 40.0, second), ("phi", 8.0, third)):
            port.bind(("127.0.0.1", 0))
            model = tmp_path / "models" / f"{name}.gguf"
            model.write_bytes(b"GGUF")
            engine = make_engine(
                name, memory_gib=gib, model_path=str(model), port=port.getsockname()[1], start_timeout_s=300
            )
            (tmp_path / "units" / engine.unit).write_text("[Service]\n")
            engines.append(engine)
    contract = msgspec.structs.replace(make_contract(*engines), floor_gib=10.0)
    return Box(tmp_path, contract, {engine.unit: make_state(engine) for engine in engines})


@pytest.fixture
def gpu(box: Box) -> None:
    program = box.folder / "bin" / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
