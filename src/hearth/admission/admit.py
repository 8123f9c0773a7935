# SPDX-License-Identifier: Apache-2.0
"""Admission: may this engine be started now? Every unit asks before it starts its engine.

The rule is in ``verdict``; here is what it takes to apply it on a living host: one engine starts after the other,
memory that is coming back is waited for, and page cache that stands in a GPU's way is given back.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hearth import memory, state
from hearth.admission import holders, ledger
from hearth.admission.holders import Holder
from hearth.admission.ledger import Ledger, Need
from hearth.admission.starts import Start, Starts
from hearth.admission.verdict import Admission, decide, wanted_gib
from hearth.contract import Contract, Engine
from hearth.engines import images, service
from hearth.errors import EngineFailedError, HearthError, RefusedError
from hearth.memory import Memory

if TYPE_CHECKING:
    from hearth.engines.units import UnitState

# How long memory may take to come back after a stop.
PATIENCE_S = 60.0
# Beyond an engine's own time to start: admission, docker, and systemd's bookkeeping.
_START_MARGIN_S = 60.0
# Memory that has not risen by this much within the calm is not coming back; on an idle host it wanders by less.
_RISE_GIB = 0.1
_CALM_S = 2.0
# A GPU driver may give large allocations back some seconds after the process ended.
_CALM_AFTER_STOP_S = 10.0
_STOPPED_LATELY_S = 60.0
# systemd is asked again this often while something is waited for; each time, it is asked for patience until well after.
_ASK_EVERY_S = 1.0
_KEEP_S = 30.0


def _ask_systemd(units: list[str]) -> Mapping[str, UnitState]:
    # Imported where needed: most starts have nothing to ask systemd, and D-Bus costs 40 ms.
    from hearth.engines.units import read_states

    return read_states(units)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What admission reads and writes of a host. Tests have their own."""

    run: Path = state.RUN
    measured: Path = ledger.PATH
    units: Path = ledger.UNITS
    proc: Path = holders.PROC
    docker_socket: Path = holders.DOCKER_SOCKET
    read_memory: Callable[[], Memory] = memory.read
    read_states: Callable[[list[str]], Mapping[str, UnitState]] = _ask_systemd
    clock: memory.Clock = memory.CLOCK

    @property
    def starts(self) -> Starts:
        return Starts(self.run, self.read_states)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.measured, self.units)


HOST = Host()


def preconditions(engine: Engine, *, port: bool = True, model: bool = True) -> None:
    """What must hold beside memory before an engine is started; raises EngineFailedError with what does not.

    Without ``port``, the engine may be up itself and have its port; without ``model``, its files may be still to come.
    """
    if model and _is_missing(Path(engine.model_path)):
        if engine.engine == "ollama":
            raise EngineFailedError(
                f"engine {engine.name}: Ollama's store {engine.model_path} is missing; run site.yml again"
            )
        raise EngineFailedError(
            f"engine {engine.name}: its model {engine.model_path} is missing; put it there, or correct the model's file"
        )
    if model and engine.engine == "ollama" and _lacks_tag(engine):
        raise EngineFailedError(
            f"engine {engine.name}: {engine.tag} is not in Ollama's store {engine.model_path}; run site.yml, or "
            f"playbooks/models.yml -e do=add -e model={engine.name}"
        )
    if not port:
        return
    with socket.socket() as probe_socket:
        # As docker's proxy does: without it, connections of the last run in TIME_WAIT would look like a stranger.
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", engine.port))
        except OSError:
            raise EngineFailedError(
                f"engine {engine.name}: its port {engine.port} is taken by another program "
                f"(ss -ltnp 'sport = :{engine.port}' names it); stop that, or give the model another port"
            ) from None


def _lacks_tag(engine: Engine) -> bool:
    # Other engines need nothing of it.
    from hearth.download.store import Store

    try:
        return not Store(Path(engine.model_path)).may_have(engine.tag)
    except OSError:
        return False


def _is_missing(path: Path) -> bool:
    """What may not be looked at is not: the unit, which is root's, asks again."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def explain(
    contract: Contract, engine: Engine, *, host: Host = HOST, states: Mapping[str, UnitState] | None = None
) -> Admission:
    """What admission would say now, with all figures and holders; waits for nothing and changes nothing.

    ``states`` are systemd's, by unit, where the caller has them; a caller with a running loop has to.
    Raises SystemdError, and HearthError where there is no meminfo.
    """
    if states is None:
        states = host.read_states([one.unit for one in contract.engines])
    book = host.ledger
    held = _holders(contract, engine, states, book, host)
    start = host.starts.last()
    waits_for = ""
    if start is not None and start.unit != engine.unit and start.unit in states and start.is_run_of(states[start.unit]):
        waits_for = start.engine
    found = decide(
        engine,
        book.need(engine),
        host.read_memory(),
        contract.floor_gib,
        gpu=holders.has_gpu(),
        held=held,
        waits_for=waits_for,
    )
    if states[engine.unit].holds_memory:
        return msgspec.structs.replace(
            found,
            admitted=True,
            sentence=f"engine {engine.name} is up or starting already, for {found.need_gib:.1f} GiB",
            missing_gib=0.0,
            drops_cache=False,
        )
    try:
        preconditions(engine)
    except EngineFailedError as error:
        return msgspec.structs.replace(found, admitted=False, sentence=str(error), drops_cache=False)
    return found


def _holders(
    contract: Contract, engine: Engine, states: Mapping[str, UnitState], book: Ledger, host: Host
) -> tuple[Holder, ...]:
    """Everybody else with memory, biggest first: engines as the ledger has them, programs as they are seen."""
    alive = [one for one in contract.engines if states[one.unit].holds_memory]
    found = [Holder(name=one.name, gib=book.need(one).gib, engine=True) for one in alive if one.unit != engine.unit]
    # What is left of an engine whose unit is down is as much a stranger as any other container.
    ours = {place for one in alive for place in (one.container, one.unit)}
    found += holders.programs(ours, proc=host.proc, docker_socket=host.docker_socket)
    return tuple(sorted(found, key=lambda holder: -holder.gib))


def admit(
    contract: Contract,
    engine: Engine,
    *,
    invocation: str = "",
    patience_s: float = PATIENCE_S,
    say: Callable[[str], None] = lambda _: None,
    host: Host = HOST,
) -> Admission:
    """Let a unit start its engine, or raise EngineFailedError with why not. To be called by its ExecStartPre only.

    ``invocation`` is the unit's own (service.invocation()); from here until ``settle`` or the end of that run no other
    engine is admitted. Without one, as when a person asks, nothing is reserved. Waits while another engine starts, as
    long as that one's own time allows, and then up to ``patience_s`` seconds while memory comes back; ``say`` gets a
    line on what is waited for. Raises SystemdError, and HearthError where /run or meminfo are not as they should be.
    """
    preconditions(engine)
    images.require(engine, host.docker_socket)
    need = host.ledger.need(engine)
    starts = host.starts
    deadline: float | None = None
    while True:
        with starts.lock():
            other = starts.other(engine.unit)
            now = host.read_memory()
            found = decide(engine, need, now, contract.floor_gib, gpu=holders.has_gpu())
            if other is None and found.admitted:
                if invocation:
                    starts.begin(_start(engine, need, now, invocation, host))
                break
        if other is not None:
            _wait_for_start(contract, engine, other, host, say)
            deadline = None
            continue
        if deadline is None:
            deadline = host.clock.now() + patience_s
            say(f"engine {engine.name}: {found.missing_gib:.1f} GiB are missing; waiting while memory comes back")
        _wait_for_memory(contract, engine, need, deadline, host)
    if found.drops_cache:
        gained = drop_caches(contract, engine, need, host)
        say(f"engine {engine.name}: too little memory was free for a GPU; {gained:.1f} GiB of page cache given back")
    return found


def _start(engine: Engine, need: Need, now: Memory, invocation: str, host: Host) -> Start:
    return Start(
        engine=engine.name,
        unit=engine.unit,
        invocation=invocation,
        need_gib=need.gib,
        available_before_gib=now.available_gib,
        at=host.clock.utc(),
    )


def _wait_for_start(contract: Contract, engine: Engine, other: Start, host: Host, say: Callable[[str], None]) -> None:
    """Until another engine is ready, or its start has ended otherwise. Raises EngineFailedError where it never does."""
    limit_s = start_limit_s(next((one for one in contract.engines if one.unit == other.unit), engine))
    status = f"engine {engine.name} waits for {other.engine}, which is starting since {other.at}"
    say(status)
    begun = asked = host.clock.now()
    service.keep_waiting(status, _KEEP_S)
    while host.starts.last() == other:
        now = host.clock.now()
        if now - begun >= limit_s:
            raise EngineFailedError(
                f"engine {engine.name} waited {limit_s:.0f} s for {other.engine}, which is still starting; "
                f"see systemctl status {other.unit}, or stop it: hearth stop {other.engine}"
            )
        if now - asked >= _ASK_EVERY_S:
            asked = now
            service.keep_waiting(status, _KEEP_S)
            if not host.starts.is_under_way(other):
                return
        host.clock.sleep(memory.INTERVAL_S)


def wait_for_memory(
    contract: Contract,
    engine: Engine,
    *,
    patience_s: float = PATIENCE_S,
    wanted: Callable[[], bool] = lambda: True,
    host: Host = HOST,
) -> None:
    """Wait while memory comes back after a stop, until the engine would be admitted, or is not ``wanted`` any more.

    Raises RefusedError, with who holds memory, where it does not. Not for callers with a running loop.
    """
    need = host.ledger.need(engine)
    if host.read_memory().available_gib < wanted_gib(need, contract.floor_gib):
        _wait_for_memory(contract, engine, need, host.clock.now() + patience_s, host, _CALM_AFTER_STOP_S, wanted)


def _wait_for_memory(
    contract: Contract,
    engine: Engine,
    need: Need,
    deadline: float,
    host: Host,
    calm_s: float = _CALM_S,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Until there may be enough. Raises RefusedError, with all there is to say, where waiting leads nowhere."""
    coming = _Comeback(contract, engine, host, calm_s)
    gib = wanted_gib(need, contract.floor_gib)
    left_s = max(0.0, deadline - host.clock.now())

    def still(now: Memory) -> bool:
        return wanted() and coming.still(now)

    now = memory.wait_for(gib, left_s, still=still, read=host.read_memory, clock=host.clock)
    if now.available_gib >= gib and left_s:
        return
    states = host.read_states([one.unit for one in contract.engines])
    held = _holders(contract, engine, states, host.ledger, host)
    raise RefusedError(decide(engine, need, now, contract.floor_gib, held=held).sentence)


class _Comeback:
    """Whether memory may still come back: an engine is stopping, or what is available rose a moment ago.

    So a box where nothing was stopped refuses after two seconds. After a stop, which the caller knows of or systemd
    remembers, the calm may last ten before it is believed. systemd remembers units that start at boot, or start again.
    """

    def __init__(self, contract: Contract, engine: Engine, host: Host, calm_s: float) -> None:
        self._host = host
        self._engine = engine
        self._units = [one.unit for one in contract.engines]
        self._best_gib = -math.inf
        self._risen_at = self._asked_at = -math.inf
        self._stopping = False
        self._calm_s = calm_s

    def still(self, now: Memory) -> bool:
        time_s = self._host.clock.now()
        if now.available_gib >= self._best_gib + _RISE_GIB:
            self._best_gib = now.available_gib
            self._risen_at = time_s
        if time_s - self._asked_at >= _ASK_EVERY_S:
            self._asked_at = time_s
            service.keep_waiting(f"engine {self._engine.name} waits for memory to come back", _KEEP_S)
            states = self._host.read_states(self._units).values()
            self._stopping = any(one.active == "deactivating" for one in states)
            lately = any(one.stopped_us and time_s - one.stopped_us / 1e6 < _STOPPED_LATELY_S for one in states)
            if lately:
                self._calm_s = _CALM_AFTER_STOP_S
        return self._stopping or time_s - self._risen_at < self._calm_s


def drop_caches(contract: Contract, engine: Engine, need: Need, host: Host = HOST) -> float:
    """Give back page cache of model files until the engine's need is free; returns the GiB that came free.

    Of the other models first: what is cached of its own is what the engine is about to read.
    """
    others = [Path(one.model_path) for one in contract.engines if one.model_path != engine.model_path]
    gained = memory.drop_page_cache(others, read=host.read_memory)
    if host.read_memory().free_gib < need.gib:
        gained += memory.drop_page_cache([Path(engine.model_path)], read=host.read_memory)
    return gained


def settle(engine: Engine, load_s: float, *, invocation: str = "", host: Host = HOST) -> float | None:
    """After a good load of ``load_s`` seconds: keep what it took, and let the next engine start.

    To be called by the unit's ExecStartPost when the engine is ready, with the unit's own invocation. Returns the GiB
    that the load took, or nothing where there is no start to settle. Raises nothing: an engine that works is not to
    end for a figure.
    """
    try:
        start = host.starts.last()
        if start is None or not invocation or (start.unit, start.invocation) != (engine.unit, invocation):
            return None
        taken = _measure(engine, start, host)
        with host.starts.lock():
            try:
                if taken is not None:
                    host.ledger.record(engine, taken, load_s, host.clock.utc())
            finally:
                host.starts.end()
    except (HearthError, OSError):
        return None
    return taken


def _measure(engine: Engine, start: Start, host: Host) -> float | None:
    """What the load took of the memory that was available, in GiB; nothing where that cannot be read.

    Memory that another program gave back meanwhile makes it too small. What the engine's own processes hold is seen,
    so it is at least that; but no more of that counts than the contract says, lest a page is counted for CPU and GPU.
    """
    try:
        taken = start.available_before_gib - host.read_memory().available_gib
    except HearthError:
        return None
    if taken < engine.memory_gib:
        seen = holders.held_by(engine.container, engine.unit, proc=host.proc, docker_socket=host.docker_socket)
        taken = max(taken, min(seen, engine.memory_gib))
    return taken


def start_limit_s(engine: Engine) -> float:
    """The seconds after which a start of this engine is waited for no longer."""
    return engine.start_timeout_s + _START_MARGIN_S


def longest_wait_s(contract: Contract, engine: Engine) -> float:
    """The seconds that admission of an engine may take: one other start, and memory that comes back.

    For callers that wait for a unit's start beside the engine's own time.
    """
    others = [start_limit_s(one) for one in contract.engines if one.name != engine.name]
    return max(others, default=0.0) + PATIENCE_S
