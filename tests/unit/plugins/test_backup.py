# SPDX-License-Identifier: Apache-2.0
"""_backup and _restore: an archive has what cannot be downloaded again, and nothing of a strange one is believed."""

from __future__ import annotations

import grp
import io
import json
import os
import pwd
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _backup, _restore

HEAD = {"hearth": "0.1.0", "host": "spark", "made": "2026-11-28T09:00:00Z", "boot": ["hearth-engine-a.service"]}
KEYS, SECRET = "/etc/hearth/keys.json", "/etc/hearth/secrets/engine.env"
MEASURED = {"a": {"at": "2026-11-28T08:00:00Z", "gib": 1.0}}
BOOK = {"schema": 1, "images": {"local:1": {"digest": "sha256:1"}}, "models": {"a": {}}, "pins": {"hub/x:1": "local:1"}}


def put(root: Path, path: str, content: str, mode: int = 0o640) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)
    return file


@pytest.fixture
def box(tmp_path: Path) -> Path:
    root = tmp_path / "box"
    put(root, KEYS, "keys")
    put(root, "/etc/hearth/.keys.json.lock", "")
    put(root, SECRET, "LLAMA_API_KEY=x\n", 0o600)
    put(root, "/etc/hearth/engines.json", "{}")
    put(root, _restore.MEASURED, json.dumps(MEASURED))
    put(root, _restore.IMAGES, json.dumps(BOOK))
    return root


@pytest.fixture
def save(box: Path, tmp_path: Path) -> Callable[..., Path]:
    def save(*extra: str) -> Path:
        archive = tmp_path / "archive"
        archive.unlink(missing_ok=True)
        paths, _ = _backup.collect(extra, box)
        _backup.write(archive, paths, HEAD, box)
        return archive

    return save


def restored(archive: Path, root: Path, extra: tuple[str, ...] = ()) -> list[str]:
    places = _restore.plan(_backup.look(archive, extra), archive, root)
    _restore.put(places, archive, root)
    return [place.saved.path for place in places]


def test_keys_secrets_settings_and_what_was_learned_are_saved_and_no_locks(save: Callable[..., Path]) -> None:
    found = _backup.look(save(), ())

    assert [one.path for one in found.files] == [
        "/etc/hearth/engines.json",
        KEYS,
        SECRET,
        _restore.MEASURED,
        _restore.IMAGES,
    ]
    assert (found.format, found.hearth, found.host, found.boot) == (1, "0.1.0", "spark", ["hearth-engine-a.service"])


def test_an_archive_is_its_owners_alone(save: Callable[..., Path]) -> None:
    assert save().stat().st_mode & 0o777 == 0o600


def test_what_is_asked_for_beside_that_is_saved_without_links(box: Path, save: Callable[..., Path]) -> None:
    put(box, "/srv/webui/deep/db", "rows")
    (box / "srv/webui/link").symlink_to("/etc/shadow")

    assert "/srv/webui/deep/db" in [one.path for one in _backup.look(save("/srv/webui"), ["/srv/webui"]).files]
    assert _backup.collect(["/srv/webui"], box)[1] == ["/srv/webui/link is no plain file and is left out"]


@pytest.mark.parametrize("path", ["srv", "/srv/../etc", "/srv/", "/nowhere"])
def test_a_path_that_cannot_be_saved_is_told(box: Path, path: str) -> None:
    with pytest.raises(_backup.BackupError, match=r"must be an absolute path|is not on this box"):
        _backup.collect([path], box)


def test_what_is_lost_comes_back_with_owner_and_mode_and_a_second_time_nothing_does(
    box: Path, save: Callable[..., Path]
) -> None:
    archive = save()
    (box / KEYS.lstrip("/")).unlink()
    put(box, SECRET, "LLAMA_API_KEY=other\n", 0o644)

    assert restored(archive, box) == [KEYS, SECRET]
    assert (box / KEYS.lstrip("/")).read_text() == "keys"
    assert (box / SECRET.lstrip("/")).read_text() == "LLAMA_API_KEY=x\n"
    assert (box / SECRET.lstrip("/")).stat().st_mode & 0o777 == 0o600
    assert restored(archive, box) == []


def test_what_the_inventory_says_is_left_to_site(box: Path, save: Callable[..., Path]) -> None:
    archive = save()
    put(box, "/etc/hearth/engines.json", '{"newer": 1}')

    assert restored(archive, box) == []


def test_of_each_engine_the_later_measurement_counts() -> None:
    early, late = {"at": "2026-11-28T08:00:00Z"}, {"at": "2026-11-28T09:00:00Z"}

    assert _restore.with_measured({"a": late, "b": early}, {"a": early, "b": late, "c": early}) == {
        "a": late,
        "b": late,
        "c": early,
    }


def test_tags_mean_what_they_meant_and_what_is_known_of_images_here_stays() -> None:
    here = {"schema": 1, "images": {"local:2": {"id": "here"}}, "models": {"m": {}}, "pins": {"hub/x:1": "local:2"}}

    found = _restore.with_pins(here, BOOK)

    assert found["pins"] == {"hub/x:1": "local:1"}
    assert found["images"] == {"local:1": {"digest": "sha256:1"}, "local:2": {"id": "here"}}
    assert found["models"] == {"m": {}}


def test_a_disk_that_is_full_leaves_everything_as_it_was(
    box: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = save()
    put(box, KEYS, "since")
    put(box, SECRET, "since")
    real = _restore._stage

    def stage(beside: Path, place: _restore.Place, source: Any) -> None:
        if place.saved.path == SECRET:
            raise OSError(28, "No space left on device", str(beside))
        real(beside, place, source)

    monkeypatch.setattr(_restore, "_stage", stage)
    with pytest.raises(_backup.BackupError, match=r"No space left on device.*nothing was changed"):
        restored(archive, box)

    assert [(box / path.lstrip("/")).read_text() for path in (KEYS, SECRET)] == ["since", "since"]
    assert [path.name for path in (box / "etc/hearth").iterdir() if path.name.startswith(".keys.json.")] == [
        ".keys.json.lock"
    ]


class TestStrangeArchives:
    """Each is refused by one sentence, whatever is wrong with it."""

    @staticmethod
    def made(archive: Path, members: dict[str, bytes | tarfile.TarInfo], **manifest: Any) -> Path:
        """An archive by hand, whose manifest says of every file what is true, but for ``manifest``."""
        me = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name, "mode": "0600"}
        files = []
        with tarfile.open(archive, "w:gz") as tar:
            for name, content in members.items():
                if isinstance(content, tarfile.TarInfo):
                    tar.addfile(content)
                    continue
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                digest = _backup._sum(io.BytesIO(content))
                files.append({"path": name.removeprefix("files"), "size": digest[0], "sha256": digest[1], **me})
            text = json.dumps({"format": 1, "files": files, **HEAD, **manifest}).encode()
            member = tarfile.TarInfo("manifest.json")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
        return archive

    def test_one_that_is_as_it_should_be_is_read(self, tmp_path: Path) -> None:
        assert _backup.look(self.made(tmp_path / "a", {f"files{KEYS}": b"x"}), ()).files[0].path == KEYS

    @pytest.mark.parametrize(
        "name", ["files/../etc/passwd", "files/etc/hearth/../../passwd", "/etc/passwd", "files//etc/x", "other"]
    )
    def test_a_path_that_leads_elsewhere(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(_backup.BackupError, match=r"leads elsewhere|has /etc|damaged"):
            _backup.look(self.made(tmp_path / "a", {name: b"x"}), ())

    @pytest.mark.parametrize("path", ["/etc/shadow", "/etc/hearth-other/x", "/root"])
    def test_a_path_that_hearth_never_saves(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(_backup.BackupError, match="none of what Hearth saves: name it in backup_extra"):
            _backup.look(self.made(tmp_path / "a", {f"files{path}": b"x"}), ["/srv"])

    def test_a_link(self, tmp_path: Path) -> None:
        link = tarfile.TarInfo(f"files{KEYS}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"

        with pytest.raises(_backup.BackupError, match="is no plain file"):
            _backup.look(self.made(tmp_path / "a", {link.name: link}), ())

    def test_a_newer_format_whatever_else_is_in_it(self, tmp_path: Path) -> None:
        archive = self.made(tmp_path / "a", {"strange": b"x"}, format=2, hearth="0.9.0")

        with pytest.raises(_backup.BackupError) as caught:
            _backup.look(archive, ())

        assert str(caught.value).endswith(
            "was made by a newer Hearth (0.9.0, format 2; this one knows 1): update Hearth first"
        )

    def test_a_checksum_that_is_another(self, tmp_path: Path) -> None:
        archive = self.made(tmp_path / "a", {f"files{KEYS}": b"x"}, files=[])

        with pytest.raises(_backup.BackupError, match="is damaged: what is in it is not what its manifest says"):
            _backup.look(archive, ())

    @pytest.mark.parametrize("content", [b"", b"no tar", b"\x1f\x8b\x08\x00"])
    def test_what_is_no_archive(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a").write_bytes(content)

        with pytest.raises(_backup.BackupError, match="is no backup of Hearth's"):
            _backup.look(tmp_path / "a", ())

    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(_backup.BackupError, match=r"a cannot be read \(No such file or directory\)"):
            _backup.look(tmp_path / "a", ())

    def test_one_that_was_cut_off_or_changed_anywhere(self, save: Callable[..., Path]) -> None:
        archive = save()
        whole = archive.read_bytes()
        cut = [whole[:end] for end in range(0, len(whole), 7)]
        changed = [
            whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :] for place in range(12, len(whole), 5)
        ]
        read = []
        for content in cut + changed:
            archive.write_bytes(content)
            with suppress(_backup.BackupError):
                read.append(_backup.look(archive, ()))

        assert read == []
