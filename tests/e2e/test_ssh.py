# SPDX-License-Identifier: Apache-2.0
"""A box over SSH, by the command of the README, as a user with sudo: the way a real Spark is provisioned."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import ROOT, Box, Run


@pytest.fixture(scope="module")
def inventory(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory that reaches the box as the user spark over SSH, and names no owner of the tree."""
    folder = tmp_path_factory.mktemp("ssh")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    box.out(
        "apt-get -qq update && apt-get -qq install -y --no-install-recommends openssh-server >/dev/null 2>&1"
        " && systemctl start ssh && install -d -o spark -g spark -m 0700 /home/spark/.ssh"
        f" && echo '{key.with_suffix('.pub').read_text().strip()}' >/home/spark/.ssh/authorized_keys"
        " && chown spark /home/spark/.ssh/authorized_keys"
        " && echo 'spark ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/spark",
        timeout_s=300,
    )
    host = {
        "ansible_host": box.address(),
        "ansible_user": "spark",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
    }
    variables = {"engines_gpu": "none", "host_guards": False, "engines_models": box.models()}
    path = folder / "spark.json"
    path.write_text(json.dumps({"sparks": {"hosts": {"spark": host}, "vars": variables}}), encoding="utf-8")
    yield path
    box.sh("systemctl stop ssh; apt-get -qq purge -y openssh-server; rm -rf /home/spark/.ssh /etc/sudoers.d/spark")


def _make_site(inventory: Path, *arguments: str) -> Run:
    # A make that runs these tests would hand its own variables down.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    done = subprocess.run(
        ["make", "-C", str(ROOT), "site", f"INVENTORY={inventory}", *arguments],
        env={**environment, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return Run(done.returncode, done.stdout)


def test_make_site_provisions_over_ssh_and_the_login_user_owns_the_tree(box: Box, inventory: Path) -> None:
    box.out("rm -r /home/spark/ai/scripts")

    run = _make_site(inventory)

    assert run.code == 0, run.output[-3000:]
    assert run.changed_tasks == ["hearth.spark.layout : Make the tree"]
    assert box.out("stat -c %U /home/spark/ai/scripts/serve") == "spark"
    assert _make_site(inventory, "ARGS=--check").count("changed") == 0


def test_a_spark_that_does_not_answer_is_said(inventory: Path, tmp_path: Path) -> None:
    document = json.loads(inventory.read_text(encoding="utf-8"))
    document["sparks"]["hosts"]["spark"]["ansible_host"] = "127.0.0.9"
    document["sparks"]["hosts"]["spark"]["ansible_port"] = 9
    gone = tmp_path / "gone.json"
    gone.write_text(json.dumps(document), encoding="utf-8")

    run = _make_site(gone)

    assert run.code != 0
    assert "Connection refused" in run.flat
