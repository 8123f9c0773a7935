# SPDX-License-Identifier: Apache-2.0
"""hearth.gateway.keys: what is kept of a key, who is let in, and how the file is changed."""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes import FakeClock

from hearth.errors import KeysError, UnknownKeyError
from hearth.gateway import keys
from hearth.gateway.keys import Key, Keyring

EMPTY = b'{"schema": 1, "keys": []}\n'
AGES_S = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys.json"
    made.write_bytes(EMPTY)
    return made


def key(name: str = "laptop", secret: str = "x", **more: Any) -> Key:  # noqa: S107 - of the tests
    return Key(name=name, sha256=keys.digest(secret), made="2026-11-21T05:00:00Z", **more)


def put(path: Path, *wanted: Key) -> None:
    with keys.change(path) as known:
        known.clear()
        for one in wanted:
            keys.add(known, one)


class TestSecret:
    def test_has_256_random_bits_and_says_whose_it_is(self) -> None:
        assert re.fullmatch(r"hearth_[A-Za-z0-9_-]{43}", keys.new_secret())

    def test_is_another_each_time(self) -> None:
        assert len({keys.new_secret() for _ in range(100)}) == 100

    def test_is_not_in_the_file(self, path: Path) -> None:
        secret = keys.new_secret()
        put(path, key(secret=secret))

        assert secret.removeprefix(keys.PREFIX) not in path.read_text()


class TestChange:
    def test_is_read_again_as_it_was_written(self, path: Path) -> None:
        made = key(scopes=("models", "admin"), concurrency=4, per_minute=60)
        put(path, made)

        assert keys.read(path) == {"laptop": made}

    def test_leaves_the_file_to_root_and_to_its_group(self, path: Path) -> None:
        other = 4321 if os.geteuid() == 0 else os.getegid()
        os.chown(path, -1, other)

        put(path, key())

        seen = path.stat()
        assert (stat.S_IMODE(seen.st_mode), seen.st_gid) == (0o640, other)

    def test_that_changes_nothing_writes_nothing(self, path: Path) -> None:
        before = path.stat().st_ino
        with keys.change(path):
            pass

        assert path.stat().st_ino == before

    def test_that_breaks_off_writes_nothing(self, path: Path) -> None:
        def break_off() -> None:
            with keys.change(path) as known:
                known["laptop"] = key()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            break_off()

        assert path.read_bytes() == EMPTY

    def test_of_two_at_once_loses_neither(self, path: Path) -> None:
        inside, go_on = threading.Event(), threading.Event()

        def first() -> None:
            with keys.change(path) as known:
                inside.set()
                go_on.wait(10)
                keys.add(known, key("first"))

        def second() -> None:
            with keys.change(path) as known:
                keys.add(known, key("second"))

        threads = [threading.Thread(target=first), threading.Thread(target=second)]
        threads[0].start()
        inside.wait(10)
        threads[1].start()
        go_on.set()
        for thread in threads:
            thread.join()

        assert set(keys.read(path)) == {"first", "second"}

    @pytest.mark.parametrize("name", ["", "a b", "-x", "ä", "a\n", "x" * 65, "../x", 'a"b'])
    def test_takes_no_name_that_is_none(self, path: Path, name: str) -> None:
        with pytest.raises(KeysError, match="this is no key"):
            put(path, key(name))

        assert path.read_bytes() == EMPTY

    def test_takes_no_second_key_of_a_name(self, path: Path) -> None:
        put(path, key())

        with pytest.raises(KeysError, match="there is a key 'laptop', made 2026-11-21T05:00:00Z: take another name"):
            keys.add(keys.read(path), key(secret="y"))

    def test_of_a_damaged_file_is_refused_and_leaves_it(self, path: Path) -> None:
        path.write_text("{")

        with pytest.raises(KeysError, match="is not valid"), keys.change(path):
            pass
        assert path.read_text() == "{"

    def test_without_a_file_names_the_play(self, tmp_path: Path) -> None:
        with pytest.raises(KeysError, match=r"is missing: run site\.yml"), keys.change(tmp_path / "keys.json"):
            pass


class TestRevoke:
    def test_takes_one_key_and_leaves_the_others(self, path: Path) -> None:
        put(path, key("a", "x"), key("b", "y"))

        with keys.change(path) as known:
            keys.revoke(known, "a")

        assert set(keys.read(path)) == {"b"}

    def test_of_an_unknown_name_says_the_closest(self) -> None:
        with pytest.raises(UnknownKeyError) as caught:
            keys.revoke({"laptop": key(), "desk": key("desk")}, "laptap")

        assert str(caught.value) == "there is no key 'laptap': did you mean 'laptop'? known: desk, laptop"


class TestKeyring:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def ring(self, path: Path, clock: FakeClock) -> Keyring:
        put(path, key("a", "x"), key("b", "y"), key("c", "z"))
        return Keyring(path, clock=clock.now)

    @pytest.mark.parametrize(("secret", "name"), [(b"x", "a"), (b"y", "b"), (b"z", "c")])
    def test_finds_the_key_of_a_secret(self, ring: Keyring, secret: bytes, name: str) -> None:
        found = ring.find(secret)

        assert found is not None
        assert found.name == name

    @pytest.mark.parametrize("secret", [b"", b"X", b"xx", b"\xff\x00", b"a" * 10_000, keys.digest("x").encode()])
    def test_finds_nothing_for_anything_else(self, ring: Keyring, secret: bytes) -> None:
        assert ring.find(secret) is None

    def test_compares_with_every_key_also_after_the_right_one(
        self, ring: Keyring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[bytes] = []

        def compare(known: bytes, asked: bytes) -> bool:
            compared.append(known)
            return known == asked

        monkeypatch.setattr(keys.hmac, "compare_digest", compare)

        ring.find(b"x")

        assert len(compared) == 3

    def test_a_revoked_key_is_good_for_nothing_within_a_second(
        self, ring: Keyring, path: Path, clock: FakeClock
    ) -> None:
        put(path, key("b", "y"))

        clock.sleep(keys.LOOK_EVERY_S)

        assert keys.LOOK_EVERY_S <= 1
        assert ring.find(b"x") is None
        assert ring.find(b"y") is not None

    def test_a_new_key_is_good_without_a_restart(self, ring: Keyring, path: Path, clock: FakeClock) -> None:
        put(path, key("new", "n"))

        clock.sleep(keys.LOOK_EVERY_S)

        assert ring.find(b"n") is not None

    def test_a_file_that_is_the_same_is_not_read_again(
        self, ring: Keyring, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "read", None)

        clock.sleep(AGES_S)

        assert ring.find(b"x") is not None

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", "is not valid"),
            ('{"schema": 2, "keys": []}', "is not valid"),
            ('{"schema": 1, "keys": [], "more": 1}', "is not valid"),
            ('{"schema": 1, "keys": [{"name": "a", "sha256": "00"}]}', "is not valid"),
            (None, "is missing"),
        ],
        ids=["half a file", "another schema", "an unknown field", "a hash that is none", "no file"],
    )
    def test_lets_nobody_in_while_it_cannot_tell_who_may(
        self, ring: Keyring, path: Path, clock: FakeClock, content: str | None, words: str
    ) -> None:
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        clock.sleep(keys.LOOK_EVERY_S)

        with pytest.raises(KeysError, match=words):
            ring.find(b"x")
        assert words in ring.trouble

    def test_two_keys_of_one_name_let_nobody_in(self, ring: Keyring, path: Path, clock: FakeClock) -> None:
        twice = [key("a", "x"), key("a", "y")]
        path.write_bytes(msgspec.json.encode({"schema": 1, "keys": twice}))
        clock.sleep(keys.LOOK_EVERY_S)

        with pytest.raises(KeysError, match="two keys have the same name"):
            ring.find(b"x")

    def test_lets_them_in_again_once_the_file_is_mended(self, ring: Keyring, path: Path, clock: FakeClock) -> None:
        whole = path.read_bytes()
        path.write_text("{")
        clock.sleep(keys.LOOK_EVERY_S)
        assert ring.trouble

        path.write_bytes(whole)
        clock.sleep(keys.LOOK_EVERY_S)

        assert ring.trouble == ""
        assert ring.find(b"x") is not None

    def test_sees_that_only_the_rights_were_mended(self, ring: Keyring, path: Path, clock: FakeClock) -> None:
        path.write_text("{")
        clock.sleep(keys.LOOK_EVERY_S)
        assert ring.trouble
        seen: list[Path] = []

        def read(asked: Path) -> dict[str, Key]:
            seen.append(asked)
            return {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keys, "read", read)
            path.chmod(0o600)
            clock.sleep(keys.LOOK_EVERY_S)
            ring.find(b"x")

        assert seen == [path]


class TestSecretIn:
    @pytest.mark.parametrize(
        ("headers", "secret"),
        [
            ({b"authorization": b"Bearer hearth_a"}, b"hearth_a"),
            ({b"authorization": b"bearer  hearth_a "}, b"hearth_a"),
            ({b"x-api-key": b"hearth_a"}, b"hearth_a"),
            ({b"api-key": b"hearth_a"}, b"hearth_a"),
            ({b"authorization": b"Bearer a", b"x-api-key": b"b"}, b"a"),
            ({b"authorization": b"Basic YTpi", b"x-api-key": b"b"}, b"b"),
            ({b"authorization": b"Bearer", b"api-key": b"b"}, b"b"),
            ({b"authorization": b"hearth_a"}, b""),
            ({b"authorization": b""}, b""),
            ({}, b""),
        ],
    )
    def test_is_what_a_client_sent_in_its_way(self, headers: dict[bytes, bytes], secret: bytes) -> None:
        assert keys.secret_in(headers.get) == secret
