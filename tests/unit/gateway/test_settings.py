# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.settings: what the gateway takes for settings, and where it finds secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hearth.errors import SettingsError
from hearth.gateway import settings
from hearth.gateway.scheduler.spec import Policy
from hearth.gateway.settings import Settings

if TYPE_CHECKING:
    pass

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested
ROLE = Path(__file__).parents[3] / "roles/gateway"


def load(folder: Path, **said: Any) -> Settings:
    path = folder / "gateway.json"
    path.write_text(json.dumps(said))
    return settings.load(path)


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    found = load(tmp_path)

    assert found == Settings()
    assert (found.listen, found.open, found.is_tls, found.scheduling) == ((EVERYWHERE, 8009), False, False, Policy())


def test_what_is_said_counts(tmp_path: Path) -> None:
    found = load(tmp_path, listen=["127.0.0.1", 9000], wait_s=60, scheduling={"idle_stop_s": 10, "queue_max": 4})

    assert (found.listen, found.wait_s) == (("127.0.0.1", 9000), 60.0)
    assert (found.scheduling.idle_stop_s, found.scheduling.queue_max) == (10.0, 4)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_without_keys_it_may_listen_to_its_own_box(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, open=True, listen=[host, 8009]).open


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param({"open": True}, "a loopback address only, not on 0.0.0.0", id="open to the network"),
        pytest.param({"open": True, "listen": ["::", 8009]}, "loopback address only", id="open to the network, IPv6"),
        pytest.param({"listen": ["spark", 8009]}, "'spark' does not appear to be an IP", id="a name for an address"),
        pytest.param({"listen": [EVERYWHERE, 0]}, r"\$.listen\[1\]", id="no port"),
        pytest.param({"tls_cert": "tls.crt"}, "tls_cert and tls_key", id="half of TLS"),
        pytest.param({"wait_s": -1}, r"\$.wait_s", id="less than no time"),
        pytest.param({"keepalive_s": 0}, r"\$.keepalive_s", id="signs of life without end"),
        pytest.param({"scheduling": {"drain_s": -1}}, "scheduling.drain_s", id="less than no time to drain"),
        pytest.param({"scheduling": {"patience": 1}}, "patience", id="an unknown field of the policy"),
        pytest.param({"lissen": 1}, "lissen", id="an unknown field"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        load(tmp_path, **said)

    assert str(caught.value).endswith("correct the variables of the role gateway and run site.yml")


def test_a_missing_file_names_the_play(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"is missing: run site\.yml against this box first"):
        settings.load(tmp_path / "gateway.json")


def test_the_name_of_a_credential_is_a_file_of_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert settings.file("tls.key") == tmp_path / "tls.key"
    assert settings.file("/etc/ssl/x.key") == Path("/etc/ssl/x.key")


def test_a_credential_outside_of_the_unit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    with pytest.raises(SettingsError, match=r"systemd gave none: start hearth-gateway\.service"):
        settings.file("tls.key")


def test_the_role_offers_fields_of_the_policy_only() -> None:
    spec = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]

    assert set(spec["gateway_scheduling"]["options"]) <= set(Policy.__struct_fields__)


def test_the_role_writes_fields_of_the_settings_only() -> None:
    written = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__gateway_settings"]

    assert set(written) <= set(Settings.__struct_fields__)
