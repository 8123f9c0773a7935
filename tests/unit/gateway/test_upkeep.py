# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.upkeep: the gateway runs, and from what is on disk."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes import FakeSystemd

from hearth.errors import HearthError, SystemdError
from hearth.gateway import upkeep

if TYPE_CHECKING:
    from tests.unit.conftest import MakeEngine, MakeState

STARTED_S = 2_000_000_000
STOP_S = 7.0
ANSWERS = {
    "changed": (200, b'{"changed": ["scout"]}'),
    "refused": (500, b'{"error": {"message": "engines.json is not valid"}}'),
    "odd": (200, b"[]"),
}


@pytest.fixture
def systemd(make_engine: MakeEngine, make_state: MakeState) -> FakeSystemd:
    units = [make_state(make_engine(unit=name), "active") for name in (upkeep.UNIT, *upkeep.SOCKETS)]
    made = FakeSystemd(*units)
    made.set(upkeep.UNIT, enabled=True, started_us=STARTED_S * 1_000_000)
    return made


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("gateway.json", *upkeep.SOCKETS)]
    for path in made:
        path.write_text("")
        written(path, -10)
    return made


def written(path: Path, seconds_after_start: int) -> None:
    at = STARTED_S + seconds_after_start
    os.utime(path, (at, at), follow_symlinks=False)


async def run(systemd: FakeSystemd, files: list[Path], *, check: bool = False) -> tuple[str, ...]:
    return await upkeep.run(systemd, files, stop_s=STOP_S, check=check, units=files[0].parent)  # type: ignore[arg-type]


async def test_one_that_runs_from_what_is_there_is_left_alone(systemd: FakeSystemd, files: list[Path]) -> None:
    assert await run(systemd, files) == ()
    assert systemd.calls == []


async def test_one_that_is_down_is_started_and_starts_at_boot(systemd: FakeSystemd, files: list[Path]) -> None:
    systemd.set(upkeep.UNIT, active="inactive", enabled=False, started_us=0)

    assert await run(systemd, files) == ("start at boot", "start")
    assert systemd.calls == [("reload", ""), ("enable", upkeep.UNIT), ("start", upkeep.UNIT)]


async def test_newer_settings_restart_it_and_leave_its_sockets_listening(
    systemd: FakeSystemd, files: list[Path]
) -> None:
    written(files[0], 10)

    assert await run(systemd, files) == (f"restart, for {files[0]} is newer than its start",)
    assert systemd.calls == [("reload", ""), ("stop", upkeep.UNIT), ("start", upkeep.UNIT)]


async def test_a_newer_socket_is_stopped_too_so_that_it_listens_where_it_should(
    systemd: FakeSystemd, files: list[Path]
) -> None:
    written(files[1], 10)

    await run(systemd, files)

    assert systemd.calls[1:] == [("stop", upkeep.UNIT), ("stop", upkeep.SOCKETS[0]), ("start", upkeep.UNIT)]


async def test_a_new_environment_restarts_it(systemd: FakeSystemd, files: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "venv"
    link.symlink_to(tmp_path)
    written(link, 10)

    assert await run(systemd, [*files, link]) == (f"restart, for {link} is newer than its start",)


async def test_a_unit_that_systemd_has_not_read_again_is_read(systemd: FakeSystemd, files: list[Path]) -> None:
    systemd.set(upkeep.UNIT, outdated=True)

    await run(systemd, files)

    assert systemd.calls == [("reload", "")]


@pytest.mark.parametrize("newer", [False, True])
async def test_a_dry_run_says_the_same_and_does_nothing(
    systemd: FakeSystemd, files: list[Path], *, newer: bool
) -> None:
    systemd.set(upkeep.UNIT, enabled=False)
    if newer:
        written(files[0], 10)

    foretold = await run(systemd, files, check=True)

    assert systemd.calls == []
    assert foretold == await run(systemd, files)


async def test_one_that_does_not_start_is_told_with_its_log(
    systemd: FakeSystemd, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd.set(upkeep.UNIT, active="failed", started_us=0)
    systemd.start_ends[upkeep.UNIT] = ("failed", "exit-code")
    monkeypatch.setattr(upkeep, "log_tail", lambda unit: (f"the end of {unit}",))

    with pytest.raises(SystemdError, match="did not start") as caught:
        await run(systemd, files)

    assert caught.value.log == (f"the end of {upkeep.UNIT}",)


def test_the_role_writes_the_units_that_are_looked_after() -> None:
    role = Path(__file__).parents[3] / "roles/gateway/templates"

    assert {path.name.removesuffix(".j2") for path in role.glob("hearth-gateway*")} == {upkeep.UNIT, *upkeep.SOCKETS}


class TestReload:
    @pytest.fixture
    def gateway(self, tmp_path: Path) -> Iterator[Path]:
        """Where a gateway listens that answers as the file ``which`` says."""

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/api/reload"
                status, body = ANSWERS[(tmp_path / "which").read_text()]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Says nothing."""

            def address_string(self) -> str:
                return "local"

        class Server(socketserver.UnixStreamServer):
            def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
                return super().get_request()[0], ("local", 0)

        path = tmp_path / "gateway.sock"
        with Server(str(path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield path
            server.shutdown()
            thread.join()

    def test_says_what_changed(self, gateway: Path) -> None:
        (gateway.parent / "which").write_text("changed")

        assert upkeep.reload(gateway) == ("scout",)

    @pytest.mark.parametrize(
        ("which", "words"), [("refused", "did not read the engines again"), ("odd", "does not answer at")]
    )
    def test_that_fails_is_told(self, gateway: Path, which: str, words: str) -> None:
        (gateway.parent / "which").write_text(which)

        with pytest.raises(HearthError, match=words):
            upkeep.reload(gateway)

    def test_without_a_gateway_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(HearthError, match=r"does not answer at .*: see journalctl -u hearth-gateway\.service"):
            upkeep.reload(tmp_path / "gateway.sock")
