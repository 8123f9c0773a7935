# SPDX-License-Identifier: Apache-2.0
"""A registry, by the OCI Distribution Specification 1.1: manifests, and blobs that go on where they were cut.

Docker fetches images itself; but its classic store throws away every layer of a pull that did not end well (moby
issues 26146 and 52965), and a Spark that was updated to Docker 29 has that store still. So layers are fetched here,
kept, and handed to Docker when all are there. Its settings count all the same: mirrors, insecure registries, proxies,
``/etc/docker/certs.d``. Tokens are asked for as its own client does ("Token Authentication Specification").
"""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from hearth import __version__, proxy
from hearth.download.errors import DownloadError, TransientError
from hearth.download.pieces import gathered
from hearth.download.plan import File
from hearth.download.request import Patience
from hearth.images import errors, manifest
from hearth.images.dockerd import Settings
from hearth.images.manifest import Document
from hearth.images.reference import HUB, Reference
from hearth.images.request import Credential

if TYPE_CHECKING:
    from hearth.download.part import Part

CERTIFICATES = Path("/etc/docker/certs.d")
_ACCEPT = ", ".join((*manifest.INDEXES, *manifest.IMAGES))
_UNAUTHORIZED = 401
# Go's proxies, so Docker's, are never for these (net/http, ProxyFromEnvironment).
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class _Endpoint(msgspec.Struct, frozen=True):
    """Where a registry, or a mirror of it, answers. Mirrors get no credentials."""

    base: str
    host: str
    mirror: bool = False


class Registry:
    """One repository of a registry. Its methods may be called by any thread.

    They raise DownloadError for what stays, TransientError for what may go by.
    """

    def __init__(
        self,
        reference: Reference,
        settings: Settings,
        credential: Credential | None,
        patience: Patience,
        certificates: Path = CERTIFICATES,
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._credential = credential
        self._patience = patience
        self._certificates = certificates
        self._lock = threading.RLock()
        self._clients: dict[str, httpx2.Client] = {}
        self._tokens: dict[str, str] = {}
        self._endpoints = _endpoints(reference, settings)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def document(self, digest: str = "") -> Document:
        """The manifest of that digest, or of the tag. A mirror that has it not is passed over."""
        wanted = digest or self._reference.tag
        while True:
            try:
                document = self._document(wanted)
            except (DownloadError, TransientError):
                if len(self._endpoints) == 1:
                    raise
                self._endpoints.pop(0)
                continue
            if digest and document.digest != digest:
                raise errors.wrong_digest(self._reference, document.digest)
            return document

    def _document(self, wanted: str) -> Document:
        with self._stream(f"manifests/{wanted}", {"Accept": _ACCEPT}) as response:
            raw = b"".join(_limited(response, manifest.LARGEST))
            return Document(raw=raw, media_type=response.headers.get("Content-Type", "").partition(";")[0].strip())

    def blob(self, digest: str) -> bytes:
        """A small blob, verified."""
        with self._stream(f"blobs/{digest}", {}) as response:
            raw = b"".join(_limited(response, manifest.LARGEST))
        if manifest.digest_of(raw) != digest:
            raise errors.wrong_digest(self._reference, manifest.digest_of(raw))
        return raw

    def read(self, file: File, part: Part) -> Iterator[list[bytes]]:
        """A layer, from where the part ends (hearth.download.fetch.Reader)."""
        headers = {"Accept-Encoding": "identity"}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
        with self._stream(f"blobs/{file.digest}", headers) as response:
            if part.size and not response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
                # It cannot do parts.
                part.restart()
            try:
                yield from gathered(response.iter_raw())
            except httpx2.TransportError as error:
                raise self._broken(error) from None

    def _stream(self, path: str, headers: dict[str, str]) -> _Answer:
        """The answer to a GET, with its body still to come."""
        endpoint = self._endpoints[0]
        url = f"{endpoint.base}/v2/{self._reference.repository}/{path}"
        response = self._send(url, headers, endpoint)
        if response.status_code == _UNAUTHORIZED:
            # Also where the token of an hour ago is good no more.
            challenge = response.headers.get("WWW-Authenticate", "")
            response.close()
            with self._lock:
                self._tokens[endpoint.base] = self._authorization(challenge, endpoint)
            response = self._send(url, headers, endpoint)
        if response.is_success:
            return _Answer(response)
        with _Answer(response):
            raise self._refusal(response)

    def _send(self, url: str, headers: dict[str, str], endpoint: _Endpoint) -> httpx2.Response:
        token = self._tokens.get(endpoint.base, "")
        client = self._client(endpoint)
        try:
            request = client.build_request(
                "GET", url, headers={**headers, **({"Authorization": token} if token else {})}
            )
            # A redirect to a storage of another origin goes without the token.
            return client.send(request, stream=True, follow_redirects=True)
        except (httpx2.TransportError, httpx2.TooManyRedirects) as error:
            raise self._broken(error) from None

    def _authorization(self, challenge: str, endpoint: _Endpoint) -> str:
        """What the header Authorization is to be, by what the registry wants to see (RFC 9110, 11.6.1)."""
        kind, _, rest = challenge.partition(" ")
        said = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        credential = None if endpoint.mirror else self._credential
        basic = _basic(credential) if credential else ""
        if kind.lower() == "basic":
            if not credential:
                raise errors.refused(self._reference, _UNAUTHORIZED, "", "", user="", wait_s=0.0)
            return basic
        if kind.lower() != "bearer" or "realm" not in said:
            raise DownloadError(
                f"{self._reference.registry} wants a login of a kind that nobody here knows: {challenge}"
            )
        parameters = {"scope": said.get("scope") or f"repository:{self._reference.repository}:pull"}
        if "service" in said:
            parameters["service"] = said["service"]
        try:
            response = self._client(endpoint).get(
                said["realm"],
                params=parameters,
                headers={"Authorization": basic} if basic else {},
                follow_redirects=True,
            )
        except (httpx2.TransportError, httpx2.TooManyRedirects) as error:
            raise self._broken(error) from None
        if not response.is_success:
            raise self._refusal(response)
        with suppress(ValueError, AttributeError):
            body = response.json()
            token = body.get("token") or body.get("access_token")
            if token:
                return f"Bearer {token}"
        raise DownloadError(f"{said['realm']} gave no token for {self._reference.name}: is it a registry's?")

    def _client(self, endpoint: _Endpoint) -> httpx2.Client:
        with self._lock:
            if endpoint.base not in self._clients:
                trust = self._trust(endpoint)
                self._clients[endpoint.base] = httpx2.Client(
                    verify=trust,
                    headers={"User-Agent": f"hearth/{__version__}"},
                    timeout=httpx2.Timeout(self._patience.read_s, connect=self._patience.connect_s),
                    mounts=_proxies(self._settings.proxies, trust),
                )
            return self._clients[endpoint.base]

    def _trust(self, endpoint: _Endpoint) -> ssl.SSLContext | bool:
        """Whom to trust, as Docker does: the system's authorities, and those of the registry's own folder."""
        if _is_insecure(endpoint.host, self._settings.insecure):
            return False
        context = ssl.create_default_context()
        folder = self._certificates / endpoint.host
        try:
            for authority in sorted(folder.glob("*.crt")):
                context.load_verify_locations(authority)
            for certificate in sorted(folder.glob("*.cert")):
                context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise DownloadError(f"a certificate in {folder} cannot be used ({error}): put it right") from None
        return context

    def _broken(self, error: Exception) -> DownloadError | TransientError:
        host = self._endpoints[0].host
        words = " ".join(str(error).split()) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return DownloadError(
                f"the certificate of {host} is not trusted ({words}): put its authority into "
                f"{self._certificates}/{host}/ca.crt, as for Docker itself"
            )
        way = proxy.by(self._endpoints[0].base, self._settings.proxies)
        return TransientError(f"{self._reference.name}: the way to {host}{way} broke ({words})")

    def _refusal(self, response: httpx2.Response) -> DownloadError | TransientError:
        code, words = _first_error(response)
        user = self._credential.user if self._credential and not self._endpoints[0].mirror else ""
        if response.status_code == _UNAUTHORIZED and response.request.headers.get("Authorization", "").startswith(
            "Basic "
        ):
            return errors.wrong_login(self._reference, user)
        after = response.headers.get("Retry-After", "")
        wait_s = float(after) if after.isdigit() else 0.0
        return errors.refused(self._reference, response.status_code, code, words, user=user, wait_s=wait_s)


class _Answer:
    """A response that is closed when it was read."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    def __enter__(self) -> httpx2.Response:
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()


def _limited(response: httpx2.Response, most: int) -> Iterator[bytes]:
    size = 0
    try:
        for piece in response.iter_bytes():
            size += len(piece)
            if size > most:
                raise DownloadError(f"{response.url} has more than {most} bytes: that is no manifest")
            yield piece
    except httpx2.TransportError as error:
        raise TransientError(f"{response.url} was cut off ({error})") from None


def _first_error(response: httpx2.Response) -> tuple[str, str]:
    """Code and message of ``{"errors": [{"code", "message"}]}``, or what a token server says of details."""
    try:
        response.read()
        body: Any = response.json()
        first = (body.get("errors") or [{}])[0]
        return str(first.get("code", "")), str(first.get("message") or body.get("details") or "")
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, httpx2.HTTPError):
        return "", ""


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.user}:{credential.password}".encode()).decode()


def _endpoints(reference: Reference, settings: Settings) -> list[_Endpoint]:
    mirrors = settings.mirrors if reference.registry == HUB else ()
    found = [_Endpoint(base.rstrip("/"), base.partition("://")[2].rstrip("/"), mirror=True) for base in mirrors]
    host = reference.host
    if _is_insecure(host, settings.insecure) and _is_plain(host):
        return [*found, _Endpoint(f"http://{host}", host)]
    return [*found, _Endpoint(f"https://{host}", host)]


def _is_plain(host: str) -> bool:
    """Whether a registry whose certificate does not count speaks HTTP: Docker tries HTTPS first, and then that."""
    try:
        httpx2.get(f"https://{host}/v2/", verify=False, timeout=5.0)
    except httpx2.TransportError as error:
        return "SSL" in str(error)
    return False


def _is_insecure(host: str, insecure: tuple[str, ...]) -> bool:
    """Whether Docker was told not to ask that registry for a certificate; those on the loopback are in its networks."""
    if host in insecure:
        return True
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        address = ipaddress.ip_address("127.0.0.1" if name == "localhost" else name.strip("[]"))
    except ValueError:
        return False
    networks = [one for one in insecure if "/" in one]
    return any(address in ipaddress.ip_network(network, strict=False) for network in networks)


def _proxies(proxies: dict[str, str], trust: ssl.SSLContext | bool) -> dict[str, httpx2.HTTPTransport | None]:
    """Docker's own proxies, for when this process has none in its environment."""
    mounts: dict[str, httpx2.HTTPTransport | None] = {
        f"{scheme}://": httpx2.HTTPTransport(proxy=url, verify=trust)
        for scheme, url in proxies.items()
        if scheme != "no"
    }
    apart = [one.strip().lstrip(".") for one in proxies.get("no", "").split(",") if "/" not in one]
    return mounts | {f"all://{host}": None for host in (*_LOOPBACK, *filter(None, apart))}
