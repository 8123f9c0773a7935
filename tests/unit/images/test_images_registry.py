# SPDX-License-Identifier: Apache-2.0
"""hearth.images.registry: who is asked for what, with which credentials, and what a refusal means."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from registries import LOOPBACK, PASSWORD, USER, ScriptedRegistry, basic, digest, error, layer

from hearth.download import Patience
from hearth.download.errors import DownloadError, TransientError
from hearth.download.fetch import fetch
from hearth.download.meter import Meter
from hearth.download.plan import File
from hearth.images import reference
from hearth.images.dockerd import Settings
from hearth.images.registry import Registry
from hearth.images.request import Credential

SETTINGS = Settings(root="/", architecture="arm64", insecure=LOOPBACK)
QUICK = Patience(connect_s=2.0, read_s=2.0, tries=3, backoff_s=0.01, backoff_max_s=0.02)


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as made:
        yield made


@pytest.fixture
def other() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as made:
        yield made


_open: list[Registry] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def client(
    server: ScriptedRegistry,
    name: str = "me/engine:1",
    *,
    password: str = "",
    settings: Settings = SETTINGS,
) -> Registry:
    credential = Credential(host=server.host, user=USER, password=password) if password else None
    return opened(f"{server.host}/{name}", settings, credential)


def opened(
    name: str, settings: Settings, credential: Credential | None, certificates: Path = Path("/nonexistent")
) -> Registry:
    """It is closed when the test is over."""
    _open.append(Registry(reference.parse(name), settings, credential, QUICK, certificates))
    return _open[-1]


def refusal(registry: Registry, wanted: str = "") -> str:
    with pytest.raises((DownloadError, TransientError)) as caught:
        registry.document(wanted)
    return str(caught.value)


class TestManifests:
    def test_a_tag_is_asked_for_its_manifest(self, server: ScriptedRegistry) -> None:
        made = server.add(layer(1))

        assert client(server).document().digest == made.digest

    def test_a_digest_that_is_another_manifest_is_not_taken(self, server: ScriptedRegistry) -> None:
        made, other = server.add(layer(1)), server.add(layer(2), tag="2")
        server.manifests[made.digest] = server.manifests[other.digest]

        said = refusal(client(server), made.digest)

        assert f"with something else ({other.digest}): nothing was fetched" in said

    def test_a_configuration_that_is_another_is_not_taken(self, server: ScriptedRegistry) -> None:
        made = server.add(layer(1))
        server.blobs[made.config] += b" "

        with pytest.raises(DownloadError, match="with something else"):
            client(server).blob(made.config)

    def test_what_is_too_large_for_a_manifest_is_not_read_to_its_end(self, server: ScriptedRegistry) -> None:
        server.tags["1"] = "large"
        server.manifests["large"] = ("", bytes(5 << 20))

        assert "that is no manifest" in refusal(client(server))


class TestRefusals:
    def test_a_repository_that_is_not_there(self, server: ScriptedRegistry) -> None:
        assert f"{server.host} has no image {server.host}/me/gone (any more)" in refusal(client(server, "me/gone:1"))

    def test_a_tag_that_is_not_there(self, server: ScriptedRegistry) -> None:
        server.add(layer(1))

        assert "but not with the tag 2 (any more): take another one" in refusal(client(server, "me/engine:2"))

    def test_a_digest_that_is_not_there(self, server: ScriptedRegistry) -> None:
        gone = digest(b"gone")

        assert f"but not with the digest {gone}" in refusal(client(server, f"me/engine@{gone}"), gone)

    def test_too_many_requests_are_told_with_how_to_have_more(self, server: ScriptedRegistry) -> None:
        server.faults.append(lambda _: (429, {}, error("TOOMANYREQUESTS", "You have reached your pull rate limit")))

        said = refusal(client(server))

        assert "takes no more requests from here for now (You have reached your pull rate limit)" in said
        assert "or log in, which allows more (images_registries)" in said

    def test_who_is_logged_in_is_not_told_to_log_in(self, server: ScriptedRegistry) -> None:
        server.faults.append(lambda _: (429, {"Retry-After": "90"}, b""))

        said = refusal(client(server, password=PASSWORD))

        assert said.endswith("ask again in 90 s")

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_a_registry_in_trouble_may_be_asked_again(self, server: ScriptedRegistry, status: int) -> None:
        server.faults.append(lambda _: (status, {"Retry-After": "7"}, b"<html>"))

        with pytest.raises(TransientError) as caught:
            client(server).document()
        assert caught.value.wait_s == 7

    def test_something_that_is_no_registry(self, server: ScriptedRegistry) -> None:
        server.faults.append(lambda _: (418, {}, b"<html>"))

        assert "is it a registry?" in refusal(client(server))

    def test_nobody_who_listens(self, server: ScriptedRegistry) -> None:
        server.__exit__()

        with pytest.raises(TransientError, match=f"the way to {server.host} broke"):
            client(server).document()


class TestLogins:
    def test_nobody_needs_to_log_in_for_what_is_public(self, server: ScriptedRegistry) -> None:
        server.login = "bearer"
        made = server.add(layer(1))

        assert client(server).document().digest == made.digest
        assert [path for path, headers in server.seen if "Basic" in headers.get("Authorization", "")] == []

    def test_credentials_are_given_to_the_token_server_alone(self, server: ScriptedRegistry) -> None:
        server.login, server.public = "bearer", False
        server.add(layer(1))

        client(server, password=PASSWORD).document()

        told = [path.partition("?")[0] for path, headers in server.seen if headers.get("Authorization") == basic()]
        assert told == ["/token"]

    def test_a_token_is_asked_for_once(self, server: ScriptedRegistry) -> None:
        server.login = "bearer"
        made = server.add(layer(1))
        registry = client(server)

        registry.document()
        registry.blob(made.config)

        assert len(server.asked("/token")) == 1

    def test_a_token_that_is_good_no_more_is_asked_for_again(self, server: ScriptedRegistry) -> None:
        server.login = "bearer"
        made = server.add(layer(1))
        registry = client(server)
        registry.document()
        server.tokens += 1

        assert digest(registry.blob(made.config)) == made.config

    def test_a_registry_may_want_the_password_itself(self, server: ScriptedRegistry) -> None:
        server.login = "basic"
        made = server.add(layer(1))

        assert client(server, password=PASSWORD).document().digest == made.digest

    @pytest.mark.parametrize("login", ["bearer", "basic"])
    def test_a_wrong_password_is_told_and_not_shown(self, server: ScriptedRegistry, login: str) -> None:
        server.login, server.public = login, False
        server.add(layer(1))

        said = refusal(client(server, password="wr0ng"))

        assert f"{server.host} does not take the user me with the password given" in said
        assert "wr0ng" not in said

    @pytest.mark.parametrize("login", ["bearer", "basic"])
    def test_a_private_image_without_a_login_is_told_how_to_log_in(self, server: ScriptedRegistry, login: str) -> None:
        server.login, server.public = login, False

        said = refusal(client(server))

        assert "to nobody who has not logged in, or has no such image" in said
        assert f"give user and password for {server.host} in images_registries" in said

    def test_who_is_known_but_may_not_is_told_apart(self, server: ScriptedRegistry) -> None:
        server.login = "bearer"
        server.add(layer(1))
        denied = (403, {}, error("DENIED", "requested access to the resource is denied"))
        server.faults.append(lambda path: denied if "/manifests/" in path and server.tokens else None)

        said = refusal(client(server, password=PASSWORD))

        assert f"{server.host} knows me, but does not give {server.host}/me/engine to that user" in said
        assert "accept its terms or ask for access there" in said

    def test_ngc_wants_a_user_of_its_own(self) -> None:
        from hearth.images.errors import wrong_login

        assert "$oauthtoken" in str(wrong_login(reference.parse("nvcr.io/nvidia/vllm:1"), "me@example.org"))
        assert "ngc.nvidia.com" not in str(wrong_login(reference.parse("nvcr.io/nvidia/vllm:1"), "$oauthtoken"))


class TestLayers:
    def fetched(self, server: ScriptedRegistry, folder: Path, made_layer: str, **more: str) -> tuple[bytes, int]:
        """What is in the file then, and bytes that came."""
        meter, blob = Meter("fetching"), folder / "blob"
        file = File(path="layer 1", size=len(server.blobs[made_layer]), digest=made_layer)
        fetch(file, blob, client(server, **more), meter, QUICK, threading.Event())
        return blob.read_bytes(), meter.moved

    def test_a_layer_goes_on_where_it_was_cut(self, server: ScriptedRegistry, tmp_path: Path) -> None:
        made = server.add(layer(1, 200_000)).layers[0]
        server.faults.append(lambda path: 90_000 if made in path else None)

        content, moved = self.fetched(server, tmp_path, made)

        assert content == server.blobs[made]
        assert moved == len(content)
        assert [headers.get("Range") for path, headers in server.seen if made in path] == [None, "bytes=90000-"]

    def test_a_registry_that_cannot_do_parts_gives_it_from_the_beginning(
        self, server: ScriptedRegistry, tmp_path: Path
    ) -> None:
        made = server.add(layer(1, 200_000)).layers[0]
        whole = server.blobs[made]
        (tmp_path / "blob.part").write_bytes(whole[:50_000])
        server.faults.append(lambda path: (200, {}, whole) if made in path else None)

        assert self.fetched(server, tmp_path, made)[0] == whole

    def test_a_layer_that_comes_damaged_is_not_kept(self, server: ScriptedRegistry, tmp_path: Path) -> None:
        made = server.add(layer(1)).layers[0]
        server.blobs[made] = bytes(len(server.blobs[made]))

        with pytest.raises(DownloadError, match="came damaged twice"):
            self.fetched(server, tmp_path, made)
        assert not (tmp_path / "blob").exists()

    def test_the_storage_that_a_registry_names_gets_no_token(
        self, server: ScriptedRegistry, other: ScriptedRegistry, tmp_path: Path
    ) -> None:
        server.login = "bearer"
        made = server.add(layer(1)).layers[0]
        other.blobs = server.blobs
        server.redirects = f"http://localhost:{other.host.partition(':')[2]}"

        assert self.fetched(server, tmp_path, made, password=PASSWORD)[0] == server.blobs[made]
        assert [headers.get("Authorization") for _, headers in other.seen] == [None]


class TestMirrors:
    """They stand in for docker.io alone."""

    def registry(self, mirror: ScriptedRegistry, credential: Credential | None = None) -> Registry:
        settings = replace(SETTINGS, mirrors=(f"http://{mirror.host}/",))
        return opened("me/engine:1", settings, credential)

    def test_a_mirror_is_asked_first_and_for_layers_too(self, other: ScriptedRegistry) -> None:
        made = other.add(layer(1))
        registry = self.registry(other)

        assert registry.document().digest == made.digest
        assert digest(registry.blob(made.config)) == made.config

    def test_a_mirror_gets_no_credentials(self, other: ScriptedRegistry) -> None:
        other.login = "bearer"
        other.add(layer(1))

        self.registry(other, Credential(host="docker.io", user=USER, password=PASSWORD)).document()

        assert [headers for _, headers in other.seen if "Basic" in headers.get("Authorization", "")] == []

    def test_other_registries_have_none(self, server: ScriptedRegistry, other: ScriptedRegistry) -> None:
        server.add(layer(1))

        client(server, settings=replace(SETTINGS, mirrors=(f"http://{other.host}",))).document()

        assert other.seen == []


class TestTrust:
    def test_a_certificate_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "registry.example").mkdir()
        (tmp_path / "registry.example" / "ca.crt").write_text("no certificate")
        registry = opened("registry.example/x", SETTINGS, None, tmp_path)

        with pytest.raises(DownloadError, match=f"a certificate in {tmp_path}/registry.example cannot be used"):
            registry.document()
