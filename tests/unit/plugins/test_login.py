# SPDX-License-Identifier: Apache-2.0
"""The login that proves that nobody is locked out; ssh is played by a script that says what ssh -v does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hearth.spark.plugins.plugin_utils import _login

MACHINE = "0123456789abcdef0123456789abcdef"


def ssh(folder: Path, said: str, *, answer: str = MACHINE, code: int = 0) -> _login.Login:
    program = folder / "ssh"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'X'\n{said}\nX\necho {answer}\nexit {code}\n")
    program.chmod(0o755)
    return _login.Login(host="box", user="spark", program=str(program))


@pytest.mark.parametrize(
    "said",
    [
        'debug1: Next\nAuthenticated to box ([10.0.0.2]:22) using "publickey".',
        "debug1: Authentication succeeded (publickey).",
    ],
)
def test_a_login_by_key_is_one(tmp_path: Path, said: str) -> None:
    assert _login.why_not(ssh(tmp_path, said), MACHINE) == ""


def test_an_account_without_a_password_lets_in_without_a_key_and_that_proves_nothing(tmp_path: Path) -> None:
    login = ssh(tmp_path, 'Authenticated to box ([10.0.0.2]:22) using "none".')

    assert _login.why_not(login, MACHINE) == "it came in, but not by a key"


def test_another_machine_behind_the_address_proves_nothing(tmp_path: Path) -> None:
    login = ssh(tmp_path, 'Authenticated to box ([10.0.0.2]:22) using "publickey".', answer="f" * 32)

    assert "another machine answered" in _login.why_not(login, MACHINE)


def test_why_ssh_was_refused_is_said_without_its_chatter(tmp_path: Path) -> None:
    login = ssh(tmp_path, "OpenSSH_10.0p2\ndebug1: x\nspark@box: Permission denied (publickey).\ndebug1: y", code=255)

    assert _login.why_not(login, MACHINE) == "spark@box: Permission denied (publickey)"


def test_the_login_is_a_new_connection_and_by_key_only_whatever_the_inventory_says() -> None:
    words = ("-o", "ControlPath=/tmp/cm", "-o", "PasswordAuthentication=yes")
    command = _login.Login(host="box", user="spark", port=2222, key="k", words=words).command()

    # Of an option that is given twice ssh takes the first.
    assert command.index("ControlPath=none") < command.index("ControlPath=/tmp/cm")
    assert command.index("PasswordAuthentication=no") < command.index("PasswordAuthentication=yes")
    assert command[-5:] == ["-l", "spark", "--", "box", "cat /etc/machine-id"]
