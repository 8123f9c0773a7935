# SPDX-License-Identifier: Apache-2.0
"""Who may read the secrets of a host."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _secrets

SECRET = "hearth_engine_key_of_this_box"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host whose secrets are as they should be."""
    for folder in (
        "etc/hearth/secrets",
        "etc/ssh",
        "etc/systemd/system",
        "proc/7",
        "root/.docker",
        "home/.cache/huggingface",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("etc/hearth/secrets/engine.env", "etc/ssh/ssh_host_ed25519_key", "home/.cache/huggingface/token"):
        put(tmp_path / name, f"HEARTH_KEY={SECRET}\n", 0o600)
    put(tmp_path / "etc/hearth/keys.json", "{}", 0o640)
    put(tmp_path / "etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519", 0o644)
    put(tmp_path / "proc/7/cmdline", "llama-server\0--port\x008080\0", 0o444)
    return tmp_path


def put(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


def said(root: Path) -> str:
    """What is wrong, one sentence; empty where nothing is."""
    verdicts = _secrets.look(root, root / "home", owner=os.geteuid())
    assert len(verdicts) == 1
    assert SECRET not in str(verdicts)
    return "" if verdicts[0]["level"] == "ok" else verdicts[0]["says"]


def test_secrets_as_they_should_be_are_well(root: Path) -> None:
    assert said(root) == ""


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("etc/hearth/secrets/engine.env", 0o640),
        ("etc/hearth/keys.json", 0o644),
        ("etc/ssh/ssh_host_ed25519_key", 0o604),
        ("home/.cache/huggingface/token", 0o644),
    ],
)
def test_a_secret_that_others_may_read_is_named_with_its_mode(root: Path, name: str, mode: int) -> None:
    (root / name).chmod(mode)

    assert said(root).startswith(f"{root / name} has mode {mode:04o}")


def test_a_secret_that_is_somebody_elses_is_named(root: Path) -> None:
    verdicts = _secrets.look(root, None, owner=os.geteuid() + 1)

    assert f"{root}/etc/hearth/keys.json belongs to the user {os.geteuid()}" in [one["says"] for one in verdicts]


def test_a_login_of_docker_in_plain_text_is_named_by_its_registry(root: Path) -> None:
    logins = {"nvcr.io": {"auth": "c2VjcmV0"}, "ghcr.io": {}}
    put(root / "root/.docker/config.json", json.dumps({"auths": logins}), 0o600)

    assert "has the password of nvcr.io in plain text" in said(root)


def test_a_secret_on_a_command_line_is_named_by_its_process(root: Path) -> None:
    (root / "proc/7/cmdline").chmod(0o644)
    put(root / "proc/7/cmdline", f"sglang\0--api-key\0{SECRET}\0", 0o444)

    assert said(root) == "the command line of sglang (pid 7) says a secret of Hearth"


def test_a_secret_in_a_unit_is_named_by_its_file(root: Path) -> None:
    put(root / "etc/systemd/system/hearth-engine-x.service", f"Environment=KEY={SECRET}\n", 0o644)

    assert "hearth-engine-x.service says a secret" in said(root)
