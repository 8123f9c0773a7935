# SPDX-License-Identifier: Apache-2.0
"""hearth.engines.units: what systemd's properties say of a unit, and which states mean that memory is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from dbus_fast import Message, Variant

from hearth.engines import units

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

UNIT = "hearth-engine-scout.service"


class Bus:
    """A bus with one unit, as systemd 257 describes one that starts."""

    async def call(self, message: Message) -> Message:
        message.serial = 1
        if message.member == "LoadUnit":
            return Message.new_method_return(message, "o", ["/org/freedesktop/systemd1/unit/scout"])
        properties = {
            "org.freedesktop.systemd1.Unit": {
                "LoadState": Variant("s", "loaded"),
                "ActiveState": Variant("s", "activating"),
                "SubState": Variant("s", "start-pre"),
                "UnitFileState": Variant("s", "enabled"),
                "FragmentPath": Variant("s", f"/etc/systemd/system/{UNIT}"),
                "NeedDaemonReload": Variant("b", False),
                "InvocationID": Variant("ay", bytes.fromhex("83b54035d9a649e683b44e1f3e435e16")),
                "InactiveEnterTimestampMonotonic": Variant("t", 11864157900),
            },
            "org.freedesktop.systemd1.Service": {
                "Result": Variant("s", "success"),
                "MainPID": Variant("u", 0),
                "ExecMainStartTimestamp": Variant("t", 0),
                "ExecMainStatus": Variant("i", 0),
            },
        }
        return Message.new_method_return(message, "a{sv}", [properties[message.body[0]]])


async def test_a_state_has_the_run_and_the_time_of_the_last_stop() -> None:
    systemd = units.Systemd()
    systemd._bus = Bus()  # type: ignore[assignment]

    state = await systemd.state(UNIT)

    assert (state.invocation, state.stopped_us) == ("83b54035d9a649e683b44e1f3e435e16", 11864157900)
    assert state.is_starting


@pytest.mark.parametrize(
    ("active", "sub", "is_starting", "holds_memory"),
    [
        ("activating", "start-pre", True, True),
        ("activating", "start", True, True),
        ("activating", "start-post", True, True),
        ("activating", "auto-restart", False, False),
        ("activating", "auto-restart-queued", False, False),
        ("active", "running", False, True),
        ("deactivating", "stop-sigterm", False, True),
        ("inactive", "dead", False, False),
        ("failed", "failed", False, False),
    ],
)
def test_an_engine_that_waits_for_its_automatic_restart_neither_starts_nor_holds_memory(
    make_engine: MakeEngine, make_state: MakeState, active: str, sub: str, is_starting: bool, holds_memory: bool
) -> None:
    state: Any = make_state(make_engine(), active, sub=sub)

    assert (state.is_starting, state.holds_memory) == (is_starting, holds_memory)
