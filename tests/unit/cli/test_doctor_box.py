# SPDX-License-Identifier: Apache-2.0
"""hearth doctor on a box: what is read for its checks, and how it ends."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import TYPE_CHECKING

import commands
import msgspec
import pytest
from commands import Run

from hearth import contract
from hearth.cli import app, examine
from hearth.cli.doctor import Check
from hearth.errors import SystemdError
from hearth.switching import journal
from hearth.switching.journal import Journal

if TYPE_CHECKING:
    from switchbox import Box

IMAGE = "registry.example/llama.cpp@sha256:0"


class Docker(UnixStreamServer):
    """Docker's socket, with one image."""

    def __init__(self, path: Path) -> None:
        self.images = {IMAGE}
        docker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.removeprefix("/images/").removesuffix("/json")
                known = self.path == "/version" or name in docker.images
                self.send_response(200 if known else 404)
                self.end_headers()
                self.wfile.write(b'{"Version": "29.1.0"}' if self.path == "/version" else b"{}")

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        super().__init__(str(path), Handler)


@contextmanager
def serving(server: UnixStreamServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join()


@pytest.fixture
def docker(box: Box) -> Iterator[Docker]:
    with Docker(box.host.docker_socket) as server, serving(server):
        yield server


@pytest.fixture
def key(box: Box, tmp_path: Path) -> Path:
    path = tmp_path / "engine.env"
    path.write_text("LLAMA_API_KEY=x\n")
    path.chmod(0o600)
    box.contract = msgspec.structs.replace(box.contract, key_file=str(path))
    return path


class Gateway(UnixStreamServer):
    """The gateway's own socket, and its settings and keys."""

    def __init__(self, folder: Path) -> None:
        gateway = self
        self.status = 200
        self.keys = folder / "keys.json"
        self.settings = folder / "gateway.json"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(gateway.status if self.path == "/health" else 404)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        super().__init__(str(folder / "gateway.sock"), Handler)
        self.say(admin_socket=str(folder / "gateway.sock"), keys=str(self.keys))
        self.has_keys("laptop", "default")

    def say(self, **settings: object) -> None:
        self.settings.write_text(json.dumps(settings))

    def has_keys(self, *names: str) -> None:
        keys = [{"name": name, "sha256": "0" * 64, "scopes": ["models"]} for name in names]
        self.keys.write_text(json.dumps({"schema": 1, "keys": keys}))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path) as server, serving(server):
        yield server


@pytest.fixture
def places(box: Box, tmp_path: Path, gateway: Gateway) -> examine.Places:
    return examine.Places(host=box.host, cdi=(tmp_path / "cdi",), venv=tmp_path / "venv", gateway=gateway.settings)


def checks(box: Box, places: examine.Places) -> dict[str, list[Check]]:
    """All checks of the box, by name."""
    path = box.models / "engines.json"
    path.write_bytes(msgspec.json.encode(box.contract))
    found: dict[str, list[Check]] = {}
    for check in examine.box(path, places):
        found.setdefault(check.name, []).append(check)
    return found


def verdict(box: Box, places: examine.Places, name: str) -> str:
    return max(check.verdict for check in checks(box, places)[name])


@pytest.mark.usefixtures("docker")
def test_a_box_that_is_well_is_well_in_all_checks(box: Box, places: examine.Places, key: Path) -> None:
    found = checks(box, places)

    assert {check.verdict for several in found.values() for check in several} == {"ok"}, found
    assert list(found) == [
        "contract",
        "package",
        "systemd",
        "docker",
        "images",
        "key",
        "models",
        "ports",
        "units",
        "boot",
        "gpu",
        "disk",
        "gateway",
        "keys",
        "memory",
        "boot memory",
        "guard",
        "swap",
        "kernel",
        "change",
        "updates",
    ]


@pytest.mark.usefixtures("docker", "key")
def test_an_update_that_nobody_finished_is_a_warning(box: Box, places: examine.Places) -> None:
    book = box.host.measured.with_name("updates") / "docker" / "book.json"
    book.parent.mkdir(parents=True)
    book.write_text('{"state": "installed", "at": "2026-11-28T17:00:00+00:00", "changes": []}')

    (found,) = checks(box, places)["updates"]

    assert (found.verdict, found.remedy) == (
        "warning",
        "ansible-playbook playbooks/update.yml looks, and takes it back where it is not",
    )


@pytest.mark.usefixtures("docker", "key")
def test_what_is_known_of_an_update_and_cannot_be_read_is_named(box: Box, places: examine.Places) -> None:
    book = box.host.measured.with_name("updates") / "system" / "book.json"
    book.parent.mkdir(parents=True)
    book.write_text("{")

    (found,) = checks(box, places)["updates"]

    assert found.verdict == "failed"
    assert str(book) in found.says


def test_without_a_contract_the_rest_is_checked_all_the_same(box: Box, places: examine.Places, docker: Docker) -> None:
    found = examine.box(Path("/nonexistent/engines.json"), places)

    assert [check.name for check in found if check.verdict == "failed"] == ["contract"]
    assert {"systemd", "docker", "swap", "kernel", "change"} <= {check.name for check in found}


def test_without_systemd_the_rest_is_checked_all_the_same(box: Box, places: examine.Places, docker: Docker) -> None:
    def refuse(_: list[str]) -> dict[str, object]:
        raise SystemdError("systemd cannot be reached")

    places = msgspec.structs.replace(places, host=msgspec.structs.replace(box.host, read_states=refuse))

    found = checks(box, places)

    assert found["systemd"][0].says == "systemd cannot be reached"
    assert found["docker"][0].verdict == "ok"


def test_a_docker_that_does_not_answer_fails(box: Box, places: examine.Places) -> None:
    (check,) = checks(box, places)["docker"]

    assert check.verdict == "failed"
    assert check.says == f"does not answer at {box.host.docker_socket} (No such file or directory)"


def test_a_missing_image_is_told_once_for_all_that_share_it(box: Box, places: examine.Places, docker: Docker) -> None:
    docker.images.clear()

    (check,) = checks(box, places)["images"]

    assert (check.verdict, IMAGE in check.says) == ("failed", True)


def test_a_missing_model_fails(box: Box, places: examine.Places) -> None:
    Path(box.engine("small").model_path).unlink()

    found = checks(box, places)

    assert [check.verdict for check in found["models"]] == ["failed"]
    assert "engine small: its model" in found["models"][0].says
    assert found["ports"][0].verdict == "ok"


def test_a_model_of_ollama_that_the_box_has_still_to_bring_is_told(box: Box, places: examine.Places) -> None:
    store = box.models / "ollama"
    store.mkdir()
    fetch = contract.Fetch(
        folder=str(store),
        repo="",
        revision="main",
        include=(),
        exclude=(),
        extra_files=(),
        endpoint="https://hub.example.org",
        token_file="",
        offline=False,
        uid=-1,
        gid=-1,
        reserve_bytes=0,
        ollama="qwen3:0.6b",
    )
    box.change_engine("new", engine="ollama", tag="qwen3:0.6b", model_path=str(store), fetch=fetch)

    (check,) = checks(box, places)["models"]
    assert check.says.endswith("on disk but new, fetched at the first start")


def test_a_port_of_an_engine_that_runs_is_its_own(box: Box, places: examine.Places) -> None:
    assert verdict(box, places, "ports") == "ok"


def test_a_port_that_a_stranger_has_fails(box: Box, places: examine.Places) -> None:
    with socket.create_server(("127.0.0.1", box.engine("small").port)):
        (check,) = checks(box, places)["ports"]

    assert check.verdict == "failed"
    assert "engine small: its port" in check.says


def test_a_box_without_a_gateway_is_well(box: Box, places: examine.Places, gateway: Gateway) -> None:
    gateway.settings.unlink()

    found = checks(box, places)

    assert [check.says for check in found["gateway"]] == ["this box has none"]
    assert "keys" not in found


def test_a_gateway_that_does_not_answer_fails(box: Box, places: examine.Places, gateway: Gateway) -> None:
    gateway.say(admin_socket="/nonexistent/gateway.sock", keys=str(gateway.keys))

    (check,) = checks(box, places)["gateway"]

    assert check.verdict == "failed"
    assert check.says == "does not answer (No such file or directory)"


def test_a_gateway_that_answers_with_an_error_fails(box: Box, places: examine.Places, gateway: Gateway) -> None:
    gateway.status = 500

    (check,) = checks(box, places)["gateway"]

    assert check.says == "does not answer (status 500)"


def test_settings_that_the_gateway_would_refuse_fail(box: Box, places: examine.Places, gateway: Gateway) -> None:
    gateway.say(listen=["192.0.2.1", 8009], open=True)

    (check,) = checks(box, places)["gateway"]

    assert check.verdict == "failed"
    assert "loopback" in check.says


def test_a_gateway_without_a_key_warns(box: Box, places: examine.Places, gateway: Gateway) -> None:
    gateway.has_keys()

    (check,) = checks(box, places)["keys"]

    assert check.verdict == "warning"
    assert check.remedy == "hearth keys add NAME"


def test_keys_that_cannot_be_read_fail(box: Box, places: examine.Places, gateway: Gateway) -> None:
    gateway.keys.write_text("{")

    assert verdict(box, places, "keys") == "failed"


def test_a_gateway_that_asks_for_no_key_needs_none(box: Box, places: examine.Places, gateway: Gateway) -> None:
    gateway.keys.unlink()
    gateway.say(listen=["127.0.0.1", 8009], open=True, admin_socket=str(gateway.server_address))

    (check,) = checks(box, places)["keys"]

    assert check.verdict == "ok"


def test_a_key_that_others_may_read_fails(box: Box, places: examine.Places, key: Path) -> None:
    key.chmod(0o644)

    assert verdict(box, places, "key") == "failed"


def test_a_unit_that_was_written_after_the_start_is_a_warning(box: Box, places: examine.Places, tmp_path: Path) -> None:
    unit = tmp_path / "old.service"
    unit.write_text("[Service]\n")
    box.systemd.set(box.unit("old"), started_us=1, fragment=str(unit))

    assert verdict(box, places, "units") == "warning"


def test_a_gpu_that_a_unit_asks_for_needs_a_spec(box: Box, places: examine.Places, tmp_path: Path) -> None:
    unit = tmp_path / "new.service"
    unit.write_text("ExecStart=docker run \\\n  --device nvidia.com/gpu=all \\\n  image\n")
    box.systemd.set(box.unit("new"), fragment=str(unit))

    assert verdict(box, places, "gpu") == "failed"

    places.cdi[0].mkdir()
    (places.cdi[0] / "nvidia.yaml").write_text("kind: nvidia.com/gpu\n")
    assert verdict(box, places, "gpu") == "ok"


def test_what_starts_at_boot_is_weighed_by_what_was_measured(box: Box, places: examine.Places) -> None:
    (check,) = checks(box, places)["boot memory"]

    assert check.says == "what starts at boot needs 11.0 GiB, 4.0 GiB stay with the host"


def test_swap_is_all_that_is_on(box: Box, places: examine.Places) -> None:
    (box.host.proc / "swaps").write_text(
        "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/swap.img                               file\t\t16777212\t0\t\t-2\n"
        "/dev/zram0                              partition\t4194304\t0\t\t100\n"
    )
    (box.host.proc / "sys/vm").mkdir(parents=True)
    (box.host.proc / "sys/vm/swappiness").write_text("10\n")

    assert checks(box, places)["swap"][0].says == "20.0 GiB, swappiness 10"


def test_the_kernel_is_read_with_its_command_line(box: Box, places: examine.Places) -> None:
    (box.host.proc / "sys/kernel").mkdir(parents=True)
    (box.host.proc / "sys/kernel/osrelease").write_text("7.0.0-1019-nvidia\n")
    (box.host.proc / "cmdline").write_text("BOOT_IMAGE=/vmlinuz quiet\n")
    assert verdict(box, places, "kernel") == "warning"

    (box.host.proc / "cmdline").write_text("BOOT_IMAGE=/vmlinuz quiet kho=off\n")
    assert verdict(box, places, "kernel") == "ok"


def test_a_change_that_was_cut_off_fails(box: Box, places: examine.Places) -> None:
    journal.write(Journal(target="new", previous=("old",), at="2026-11-21T05:00:00Z"), box.journal)

    assert verdict(box, places, "change") == "failed"


@pytest.fixture
def run(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return commands.runner(box, monkeypatch, capsys)


class TestCommand:
    def test_ends_with_0_where_nothing_failed(
        self, run: Run, docker: Docker, key: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code, out, err = run("doctor")

        assert (code, err) == (0, "")
        assert out.splitlines()[-1].endswith(" 0 failed")

    def test_ends_with_1_where_something_failed(self, run: Run) -> None:
        code, out, _ = run("doctor")

        assert code == 1
        assert "\nfailed   docker " in out

    def test_for_programs_is_json(self, run: Run) -> None:
        code, out, _ = run("doctor", "--json")

        found = {check["name"]: check for check in json.loads(out)}
        assert code == 1
        assert found["docker"]["verdict"] == "failed"
        assert set(found["docker"]) == {"name", "verdict", "says", "remedy"}

    def test_a_contract_that_is_missing_is_a_verdict_too(self, capsys: pytest.CaptureFixture[str], run: Run) -> None:
        assert app.main(["--engines", "/nonexistent/engines.json", "doctor"]) == 1

        assert "failed   contract " in capsys.readouterr().out
