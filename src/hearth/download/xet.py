# SPDX-License-Identifier: Apache-2.0
"""Large files by Xet, the hub's own storage, by way of huggingface_hub and hf_xet; switched off when it stalls.

``huggingface_hub`` itself has hf_xet write whole files, which takes 1.5 GB of buffers, begins anew after a cut, and
cannot be given up. Its streams go on at any byte. They are asked for in windows: what is in memory is then bounded by
us, and not by the 64 MB that one piece of this storage may have.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import httpx2
from huggingface_hub import get_hf_file_metadata
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import get_session, hf_raise_for_status
from huggingface_hub.utils._xet import XetConnectionInfo, parse_xet_connection_info_from_headers

from hearth.download.errors import TransientError
from hearth.download.plan import File

if TYPE_CHECKING:
    from hearth.download.hub import Hub
    from hearth.download.part import Part

# Smaller files are one request by HTTP, and three by Xet.
WORTH_IT = 16 << 20
_WINDOW = 4 << 20
# Windows under way or waiting to be written, of all files together: each takes about three times its size for a moment.
_WINDOWS = 4
# More files at once than these go by HTTP.
_FILES = 2
# Not even then: the hub serves no larger ones by HTTP (constants.MAX_HTTP_DOWNLOAD_SIZE).
_HTTP_MAX = 50 * 10**9
# A token that ends within so many seconds is renewed, as the library does.
_SAFETY_S = 60


class Xet:
    """The way by Xet for all files of one download. After the first trouble it is ``off``: HTTP then takes over."""

    def __init__(self, stall_s: float) -> None:
        self.off = ""
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._session: Any = None
        self._access: dict[str, XetConnectionInfo] = {}
        self._active = 0

    def claim(self, file: File) -> bool:
        """Whether to ``read`` it this way: only large files are there, and only some at once fit the memory."""
        if self.off or file.url or not file.digest.startswith("sha256:") or file.size < WORTH_IT:
            return False
        with self._lock:
            claimed = self._active < _FILES or file.size > _HTTP_MAX
            self._active += claimed
        return claimed

    def read(self, hub: Hub, file: File, commit: str, part: Part) -> Iterator[list[bytes]]:
        """The claimed file from where the part ends. Ends at once where the hub does not offer it by Xet.

        Raises TransientError, and is off from then on.
        """
        pool = ThreadPoolExecutor(max_workers=_WINDOWS, thread_name_prefix="xet")
        under_way = True
        try:
            opened = self._open(hub, file, commit)
            if opened is not None:
                for content in self._windows(*opened, pool, part.size, file.size):
                    yield [content]
            under_way = False
        except TimeoutError:
            raise self._give_up(f"nothing came by Xet for {self._stall_s:.0f} s") from None
        except (RuntimeError, OSError, ValueError, httpx2.HTTPError, ImportError) as error:
            raise self._give_up(f"Xet failed ({' '.join(str(error).split())[:200]})") from None
        finally:
            with self._lock:
                self._active -= 1
                session = self._session if under_way else None
                if under_way:
                    self._session = None
            if session is not None:
                # To abort a group of streams does not end one that hangs, and its thread would keep the process.
                session.sigint_abort()
            pool.shutdown(wait=False, cancel_futures=True)

    def _give_up(self, reason: str) -> TransientError:
        self.off = reason
        return TransientError(f"{reason}: it goes on by HTTP")

    def _open(self, hub: Hub, file: File, commit: str) -> tuple[Any, Any] | None:
        """Ask the hub for the file's Xet hash and a token for its storage; the hub's own token does not go there."""
        url = hub.url(commit, file.path)
        headers = hub.headers(url)
        try:
            offer = get_hf_file_metadata(
                url, headers=headers, token=False, timeout=self._stall_s, endpoint=hub.endpoint
            )
        except HfHubHTTPError as error:
            # A refusal of the hub has its own words.
            raise hub.why(error, f"{file.path} of {hub.repo}") from None
        if offer.xet_file_data is None:
            self.off = "the hub does not offer it"
            return None
        route = offer.xet_file_data.refresh_route
        # The hub names it, and it may not be the hub.
        headers = hub.headers(route)
        access = self._access_by(route, headers)
        hf_xet = _library()
        with self._lock:
            if self._session is None:
                self._session = hf_xet.XetSession(_modest(hf_xet.XetConfig()))
            session = self._session
        group = session.new_download_stream_group(
            endpoint=access.endpoint,
            token=access.access_token,
            token_expiry_unix_secs=access.expiration_unix_epoch,
            token_refresh_url=route,
            token_refresh_headers=headers,
        )
        return group, hf_xet.XetFileInfo(offer.xet_file_data.file_hash, file.size)

    def _access_by(self, route: str, headers: dict[str, str]) -> XetConnectionInfo:
        """The token for the storage, once for all files. The library's own call for it has no timeout."""
        with self._lock:
            known = self._access.get(route)
            if known is None or known.expiration_unix_epoch < time.time() + _SAFETY_S:
                response = get_session().get(route, headers=headers, timeout=self._stall_s)
                hf_raise_for_status(response)
                known = parse_xet_connection_info_from_headers(response.headers)
                if known is None:
                    raise ValueError("the hub gives no access to its storage")
                self._access[route] = known
            return known

    def _windows(self, group: Any, info: Any, pool: ThreadPoolExecutor, at: int, size: int) -> Iterator[bytes]:
        """The content from ``at`` on, in order, with as many windows ahead as the other files leave."""
        ahead: deque[Future[bytes]] = deque()
        while at < size or ahead:
            while at < size and len(ahead) < max(1, _WINDOWS // self._active):
                end = min(size, (at // _WINDOW + 1) * _WINDOW)
                ahead.append(pool.submit(_window, group, info, at, end))
                at = end
            yield self._patiently(ahead.popleft())

    def _patiently(self, window: Future[bytes]) -> bytes:
        """The window, when it is there. Raises TimeoutError, also when another file found that nothing comes."""
        deadline = time.monotonic() + self._stall_s
        while not wait((window,), timeout=min(1.0, self._stall_s)).done:
            if self.off or time.monotonic() >= deadline:
                raise TimeoutError
        return window.result()


def _window(group: Any, info: Any, start: int, end: int) -> bytes:
    content = b"".join(group.download_stream(info, start=start, end=end))
    if len(content) != end - start:
        raise RuntimeError(f"{len(content)} bytes came where {end - start} were asked for")
    return content


@functools.cache
def _library() -> Any:
    """hf_xet, which keeps logs and empty folders for every storage in the home of whoever runs it: here for a while."""
    if "HF_XET_CACHE" not in os.environ:
        folder = os.environ["HF_XET_CACHE"] = tempfile.mkdtemp(prefix="hearth-xet-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return importlib.import_module("hf_xet")


def _modest(config: Any) -> Any:
    """Buffers for a process of less than 200 MB, an answer within a minute or none, and no reports about us."""
    buffer = _WINDOWS * _WINDOW
    return config.with_config(
        {
            "reconstruction.download_buffer_size": buffer,
            "reconstruction.download_buffer_perfile_size": _WINDOW,
            "reconstruction.download_buffer_limit": buffer,
            "reconstruction.min_prefetch_buffer": _WINDOW,
            "reconstruction.min_reconstruction_fetch_size": _WINDOW,
            "reconstruction.max_reconstruction_fetch_size": buffer,
            "client.read_timeout": "60s",
            "telemetry.enabled": False,
        }
    )
