# SPDX-License-Identifier: Apache-2.0
"""The hub, by way of huggingface_hub: its list of files, the bytes of a file, and what its refusals mean.

This module and ``xet`` are the only ones that import that library, which takes 0.1 s, and its HfApi twice as much
again: they are imported late, and nothing of it that the one question of a run with nothing to do needs not. Requests,
redirects (httpx2 takes the token off when one leads to another origin), headers, URLs and errors are the library's. The
loop that reads a file is ours: ``hf_hub_download`` (2.4) writes to a file of a random name that it deletes when it
fails, so it never resumes; and ``http_get`` works in steps of 10 MiB that it loses at a cut, costs twice the time, and
sleeps for a Retry-After of any length without a word.
"""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from logging import ERROR
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

# Read when the library is imported. No words about us to anybody, and no look for a token but the one given.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")

import httpx2
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import logging
from huggingface_hub.utils._http import get_session, hf_raise_for_status, parse_ratelimit_headers
from huggingface_hub.utils._validators import validate_repo_id

from hearth import __version__, proxy
from hearth.download.errors import DownloadError, TransientError
from hearth.download.pieces import gathered
from hearth.download.plan import File, safe
from hearth.download.request import Request

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

    from hearth.download.part import Part

# Those the library tries again as well (_DEFAULT_RETRY_ON_STATUS_CODES).
_TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))

logging.set_verbosity(ERROR)


class Hub:
    """One hub or mirror, and one repository of it. Its methods may be called by any thread.

    They raise DownloadError for what stays, TransientError for what may go by.
    """

    def __init__(self, request: Request) -> None:
        self.endpoint = request.endpoint.rstrip("/")
        self.repo = request.repo
        self.revision = request.revision
        self._patience = request.patience
        self._token = read_token(request.token_file)

    def commit(self) -> str:
        """What the revision is now. One request, which is that of HfApi.model_info without importing HfApi."""
        path = f"{self.endpoint}/api/models/{self.repo}/revision/{quote(self.revision, safe='')}"
        headers = {"user-agent": f"hearth/{__version__}"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        try:
            validate_repo_id(self.repo)
            response = get_session().get(path, params={"expand": "sha"}, headers=headers, timeout=self._patience.read_s)
            hf_raise_for_status(response)
            return str(response.json()["sha"])
        except (httpx2.HTTPError, HfHubHTTPError, OfflineModeIsEnabled, HFValidationError) as error:
            raise self.why(error, self.repo) from None
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_hub(error) from None

    def files(self, commit: str = "") -> tuple[str, list[File]]:
        """The revision's commit, and its files; or those of ``commit``. One request."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self._token or False)
        try:
            info = api.model_info(
                self.repo, revision=commit or self.revision, files_metadata=True, timeout=self._patience.read_s
            )
        except (httpx2.HTTPError, HfHubHTTPError, OfflineModeIsEnabled, HFValidationError) as error:
            raise self.why(error, self.repo) from None
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_hub(error) from None
        if not info.sha:
            raise DownloadError(f"{self.endpoint} names no commit of {self.repo}: is it the address of a hub?")
        return info.sha, [self._listed(one) for one in info.siblings or ()]

    def headers(self, url: str) -> dict[str, str]:
        """For a request to ``url``: the token goes to the hub alone."""
        from huggingface_hub.utils._headers import build_hf_headers

        ours = _origin(url) == _origin(self.endpoint)
        return build_hf_headers(
            token=(self._token or False) if ours else False, library_name="hearth", library_version=__version__
        )

    def url(self, commit: str, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, path, revision=commit, endpoint=self.endpoint)

    def read(self, file: File, commit: str, part: Part) -> Iterator[list[bytes]]:
        """The file from where the part ends, in lists of pieces. Tells the part what it learns of the whole."""
        url = file.url or self.url(commit, file.path)
        headers = {**self.headers(url), "Accept-Encoding": "identity"}
        if part.size and not file.digest and not part.version:
            # Nothing says whether what is there is of the same version.
            part.restart()
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if not file.digest:
                headers["If-Range"] = part.version
        try:
            yield from self._read(url, headers, part)
        except (httpx2.HTTPError, HfHubHTTPError, OfflineModeIsEnabled) as error:
            raise self.why(error, f"{file.path} of {self.repo}" if self.repo and not file.url else url) from None

    def _read(self, url: str, headers: dict[str, str], part: Part) -> Iterator[list[bytes]]:
        patience = httpx2.Timeout(self._patience.read_s, connect=self._patience.connect_s)
        with get_session().stream("GET", url, headers=headers, timeout=patience) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.size:
                total = response.headers.get("Content-Range", "").rpartition("/")[2]
                raise TransientError(f"the other side has only {total or part.size} bytes of it")
            hf_raise_for_status(response)
            if part.size and not response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
                # It cannot do parts, or has another version by now.
                part.restart()
                if response.status_code == HTTPStatus.PARTIAL_CONTENT:
                    raise TransientError("the other side sent another part than it was asked for")
            part.learn(_total(response, part.size), response.headers.get("ETag", ""))
            yield from gathered(response.iter_raw())

    def _listed(self, one: RepoSibling) -> File:
        # A small file is in git itself, a large one is named by a pointer with its SHA-256.
        digest = f"sha256:{one.lfs.sha256}" if one.lfs else f"git:{one.blob_id}" if one.blob_id else ""
        size = one.lfs.size if one.lfs else one.size
        if not digest or size is None:
            raise DownloadError(
                f"{self.endpoint} gives no size and hash of {one.rfilename} in {self.repo}: nothing could be verified; "
                "take another mirror"
            )
        return File(path=safe(one.rfilename), size=size, digest=digest)

    def _no_hub(self, error: Exception) -> DownloadError:
        return DownloadError(
            f"{self.endpoint} answered for {self.repo} with something else than a hub would ({type(error).__name__}): "
            "is it the address of a hub?"
        )

    def why(self, error: Exception, what: str) -> DownloadError | TransientError:
        """What an exception of the library means, in one sentence about ``what``."""
        if isinstance(error, HfHubHTTPError):
            return self._why_refused(error, what)
        if isinstance(error, OfflineModeIsEnabled):
            return DownloadError(f"{what} is not asked for: this process has HF_HUB_OFFLINE set; unset it")
        if isinstance(error, HFValidationError):
            return DownloadError(f"{what!r} is no name of a repository (owner/name): correct the model's file")
        if isinstance(error, httpx2.TransportError):
            words = " ".join(str(error).split()) or type(error).__name__
            url = _asked(self.endpoint, error)
            return TransientError(f"{what}: the way to {_host(url)}{proxy.by(url)} broke ({words})")
        return DownloadError(f"{what} could not be fetched ({error}): is {self.endpoint} the address of a hub?")

    def _why_refused(self, error: HfHubHTTPError, what: str) -> DownloadError | TransientError:
        response = error.response
        code, status = response.headers.get("X-Error-Code", ""), response.status_code
        page = f"{self.endpoint}/{self.repo}"
        if status in _TRANSIENT:
            return self._why_busy(response, what)
        if _origin(str(response.url)) != _origin(self.endpoint):
            if response.history:
                # A signed link to a storage ends after a while; the next one is good again.
                return TransientError(f"{what}: {_host(str(response.url))} answered HTTP {status}")
            return DownloadError(f"{what} is refused with HTTP {status}: correct the extra file's URL")
        if status == HTTPStatus.UNAUTHORIZED:
            if self._token:
                return DownloadError(
                    f"{self.endpoint} does not know the token given for {what}: it may have expired; make a new one at "
                    f"{self.endpoint}/settings/tokens and give that"
                )
            gated = isinstance(error, GatedRepoError)
            return DownloadError(
                f"{what} is {'gated' if gated else 'private, or does not exist'}: log in, which means to give a token "
                f"of {self.endpoint}/settings/tokens"
                + (
                    f", of somebody who accepted the licence at {page}"
                    if gated
                    else ", or correct the repository's name"
                )
            )
        if status == HTTPStatus.FORBIDDEN:
            if isinstance(error, GatedRepoError):
                return DownloadError(f"{what} is gated: accept the licence at {page} with the account of the token")
            return DownloadError(
                f"the token may not read {what}: give it the right to read at {self.endpoint}/settings/tokens "
                "(for gated repositories a fine-grained token needs that as well)"
            )
        if code == "RevisionNotFound":
            return DownloadError(
                f"{self.repo} has no revision {self.revision} (any more): ask again if it moved just now, else correct "
                f"the revision; {page}/commits/main has those there are"
            )
        if status == HTTPStatus.NOT_FOUND and code != "EntryNotFound" and what == self.repo:
            return DownloadError(
                f"{self.endpoint} has no repository {self.repo} (any more): it was removed, renamed, or made private; "
                "correct the model's repo"
            )
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return DownloadError(
                f"{what} is not there (any more): if the repository changed just now, ask again; else take another "
                "revision"
            )
        return DownloadError(f"{what} is refused with HTTP {status}: look at {page} with a browser")

    def _why_busy(self, response: httpx2.Response, what: str) -> DownloadError | TransientError:
        status = response.status_code
        wait_s = _asked_wait(response)
        if wait_s > self._patience.retry_after_max_s:
            return DownloadError(
                f"{_host(str(response.url))} takes no more requests for {wait_s:.0f} s (HTTP {status}, {what}): ask "
                "again then, or give a token, which allows more; what came is kept"
            )
        return TransientError(f"{what}: {_host(str(response.url))} answered HTTP {status}", wait_s)


def read_token(path: str) -> str:
    """The token in a file; empty where no file is named. Raises DownloadError; never with a word of the token."""
    if not path:
        return ""
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise DownloadError(f"the token file {path} cannot be read ({reason}): site.yml writes it") from None
    if not token or len(token.split()) != 1:
        raise DownloadError(f"the token file {path} does not hold one token: write it again")
    return token


def _asked_wait(response: httpx2.Response) -> float:
    """Seconds that the answer wants to pass (Retry-After in seconds or as a date, or the hub's RateLimit); 0: none."""
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS and limit is not None and not limit.remaining:
        return float(limit.reset_in_seconds)
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _total(response: httpx2.Response, start: int) -> int:
    """The size of the whole file, as far as the answer says; -1 where it does not."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if total.isdigit():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return int(length) + start if length.isdigit() else -1


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _asked(url: str, error: httpx2.RequestError) -> str:
    """What it was about: a redirect may have led elsewhere."""
    with suppress(RuntimeError):
        return str(error.request.url)
    return url
