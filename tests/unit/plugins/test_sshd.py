# SPDX-License-Identifier: Apache-2.0
"""sshd's configuration, looked at before it is put in place; sshd itself is played by a script."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _sshd

INSTEAD = Path("/run/x/sshd_config.d")


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf", "Include /run/x/sshd_config.d/*.conf"),
        ("include sshd_config.d/*.conf", "include /run/x/sshd_config.d/*.conf"),
        ("Include /etc/ssh/more/*.conf", "Include /etc/ssh/more/*.conf"),
        ("# Include /etc/ssh/sshd_config.d/*.conf", "# Include /etc/ssh/sshd_config.d/*.conf"),
        ('Include "/etc/ssh/sshd_config.d/*.conf"', 'Include "/run/x/sshd_config.d/*.conf"'),
    ],
)
def test_drop_ins_are_read_from_the_copy(line: str, becomes: str) -> None:
    folder = Path("/etc/ssh/sshd_config.d")

    assert _sshd.candidate(f"UsePAM yes\n{line}\nPort 22\n", folder, INSTEAD) == f"UsePAM yes\n{becomes}\nPort 22\n"


def test_sshd_listens_where_it_says_and_where_its_socket_does() -> None:
    said = _sshd.effective("port 22\nport 2222\nlistenaddress [::]:22\nlistenaddress 10.0.0.1:2200\nusepam yes\n")
    socket = "ActiveState=active\nListen=0.0.0.0:2022 (Stream)\nListen=[::]:2022 (Stream)\n"

    assert _sshd.ports(said, socket) == [22, 2022, 2200, 2222]


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for /etc/ssh, and an sshd that prints, of each keyword, the value that is read first."""
    ssh = tmp_path / "ssh"
    (ssh / "sshd_config.d").mkdir(parents=True)
    (ssh / "sshd_config").write_text(f"Include {ssh}/sshd_config.d/*.conf\nPasswordAuthentication yes\n")
    program = tmp_path / "sshd"
    program.write_text(
        "#!/bin/sh\n"
        'cat $(sed -n "s/^Include //p" "$3") "$3" >"$3.all" 2>/dev/null\n'
        'if grep -q Wrong "$3.all"; then echo "$3: bad word" >&2; exit 255; fi\n'
        "grep -v ^Include \"$3.all\" | awk '!seen[$1]++ { print tolower($1), $2 }'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(_sshd, "_PROGRAMS", (str(program),))
    monkeypatch.setattr(_sshd, "_PRIVSEP", tmp_path / "privsep")
    return ssh


WANTED = {"passwordauthentication": "no"}


def test_a_drop_in_that_sshd_follows_passes_and_is_not_put_in_place(sshd: Path) -> None:
    ours = sshd / "sshd_config.d/10-hearth.conf"

    _sshd.check({ours: "PasswordAuthentication no\n"}, WANTED, sshd)

    assert not ours.exists()


def test_a_drop_in_that_is_read_before_ours_is_found_out(sshd: Path) -> None:
    (sshd / "sshd_config.d/05-mine.conf").write_text("PasswordAuthentication yes\n")

    with pytest.raises(_sshd.SshdError, match="would still have passwordauthentication yes") as refused:
        _sshd.check({sshd / "sshd_config.d/10-hearth.conf": "PasswordAuthentication no\n"}, WANTED, sshd)

    assert "comes before Hearth's" in str(refused.value)


def test_a_main_file_that_reads_no_drop_ins_is_found_out(sshd: Path) -> None:
    (sshd / "sshd_config").write_text("PasswordAuthentication yes\n")

    with pytest.raises(_sshd.SshdError, match="begins with 'Include "):
        _sshd.check({sshd / "sshd_config.d/10-hearth.conf": "PasswordAuthentication no\n"}, WANTED, sshd)


def test_what_sshd_does_not_take_is_refused_in_its_words_and_with_the_true_path(sshd: Path) -> None:
    with pytest.raises(_sshd.SshdError, match=rf"refuses this configuration \({sshd}/sshd_config: bad word\)"):
        _sshd.check({sshd / "sshd_config.d/10-hearth.conf": "Wrong yes\n"}, WANTED, sshd)


def test_a_file_that_goes_is_not_counted(sshd: Path) -> None:
    ours = sshd / "sshd_config.d/10-hearth.conf"
    ours.write_text("PasswordAuthentication no\n")

    with pytest.raises(_sshd.SshdError, match="passwordauthentication yes"):
        _sshd.check({ours: None}, WANTED, sshd)


def test_a_box_without_sshd_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sshd, "_PROGRAMS", ())

    with pytest.raises(_sshd.SshdError, match="there is no SSH server on this box"):
        _sshd.run("-T")
