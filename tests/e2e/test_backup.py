# SPDX-License-Identifier: Apache-2.0
"""What backup.yml saved, restore.yml puts back: also onto a box that was uninstalled and provisioned anew."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import Box

pytestmark = pytest.mark.thorough

BACKUP, RESTORE = "playbooks/backup.yml", "playbooks/restore.yml"
LEARNED = "/var/lib/hearth/measured.json"


def answer(box: Box, key: str) -> str:
    """The HTTP status of a request with this key, which is on no command line of the box."""
    script = f"printf 'header = \"Authorization: Bearer {key}\"' | curl -s -o /dev/null -w '%{{http_code}}' -K - "
    return box.out(script + "http://127.0.0.1:8009/v1/models")


def archive_of(box: Box, folder: Path, *words: str) -> Path:
    box.ok(BACKUP, "-e", f"folder={folder}", *words)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture
def key(box: Box) -> Iterator[str]:
    """A key of the gateway, as its owner got to see it."""
    said = box.ok("playbooks/keys.yml", "-e", "add=of-old").output
    (secret,) = re.findall(r"hearth_[\w-]{43}", said)
    yield secret
    box.ok("playbooks/keys.yml", "-e", "revoke=of-old")


def test_an_old_key_and_what_was_learned_survive_an_uninstallation(box: Box, key: str, tmp_path: Path) -> None:
    box.ok("switch.yml", "-e", "model=tiny-b")
    learned = json.loads(box.out(f"cat {LEARNED}"))
    secret = box.out("cat /etc/hearth/secrets/engine.env")
    archive = archive_of(box, tmp_path / "kept", "-vvv")
    box.ok("playbooks/uninstall.yml", "-e", "confirm=yes")
    box.ok("site.yml")
    assert answer(box, key) == "401"

    foretold = box.ok(RESTORE, "-e", f"archive={archive}", "--check")
    assert "put back /etc/hearth/keys.json" in foretold.flat
    assert answer(box, key) == "401"
    run = box.ok(RESTORE, "-e", f"archive={archive}", "-vvv")

    assert answer(box, key) == "200"
    assert set(json.loads(box.out(f"cat {LEARNED}"))) == set(learned) == {"tiny-a", "tiny-b"}
    assert box.out("cat /etc/hearth/secrets/engine.env") == secret
    assert box.out("stat -c '%a %U:%G' /etc/hearth/keys.json /etc/hearth/secrets/engine.env").split("\n") == [
        "640 root:hearth",
        "600 root:root",
    ]
    assert secret.partition("=")[2].split()[0] not in run.output
    assert box.active() == ["tiny-a"]
    # It is tiny-b that starts at boot again; what runs was not changed.
    assert box.sh("systemctl is-enabled hearth-engine-tiny-a hearth-engine-tiny-b").stdout.split() == [
        "disabled",
        "enabled",
    ]
    assert box.ok(RESTORE, "-e", f"archive={archive}").count("changed") == 0
    box.ok("playbooks/verify.yml")
    box.ok("switch.yml", "-e", "model=tiny-a")


def test_an_archive_is_its_owners_alone_and_nothing_is_left_on_the_box(box: Box, tmp_path: Path) -> None:
    archive = archive_of(box, tmp_path / "kept")

    assert (archive.stat().st_mode & 0o777, archive.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with tarfile.open(archive) as members:
        names = members.getnames()
    assert names[-1] == "manifest.json"
    assert "files/etc/hearth/keys.json" in names
    assert box.out("find / -xdev -name archive -newer /etc/hearth/engines.json -type f | grep ansible || true") == ""


def test_a_damaged_archive_is_refused_and_changes_nothing(box: Box, tmp_path: Path) -> None:
    archive = archive_of(box, tmp_path / "kept")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    before = box.out("sha256sum /etc/hearth/*.json")

    run = box.play(RESTORE, "-e", f"archive={archive}")

    assert run.code != 0
    assert "is no backup of Hearth's, or it is damaged" in run.flat
    assert "Nothing was changed." in run.flat
    assert box.out("sha256sum /etc/hearth/*.json") == before


def test_what_was_named_beside_hearths_own_comes_back_where_it_is_named_again(box: Box, tmp_path: Path) -> None:
    box.out("install -d -o spark -g spark /srv/webui && echo rows >/srv/webui/db && chown spark:spark /srv/webui/db")
    extra = ("-e", '{"backup_extra": ["/srv/webui"]}')
    archive = archive_of(box, tmp_path / "kept", *extra)
    box.out("rm -r /srv/webui")

    refused = box.play(RESTORE, "-e", f"archive={archive}")
    box.ok(RESTORE, "-e", f"archive={archive}", *extra)

    assert "has /srv/webui/db, which is none of what Hearth saves: name it in backup_extra" in refused.flat
    assert box.out("cat /srv/webui/db; stat -c %U /srv/webui/db; rm -r /srv/webui") == "rows\nspark"


def test_backup_and_restore_want_to_know_where(box: Box) -> None:
    assert "Name a folder on this machine for the archive" in box.play(BACKUP).flat
    assert "Name an archive on this machine" in box.play(RESTORE).flat
