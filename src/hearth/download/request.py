# SPDX-License-Identifier: Apache-2.0
"""What is asked of a download, and what it gives back."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

HUB = "https://huggingface.co"


class ExtraFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file from a plain URL. ``path`` is below the model's folder; ``sha256`` in hex, empty where nobody knows it."""

    url: str
    path: str
    sha256: str = ""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a hub may keep us waiting, in seconds, and how often a file is tried again without a new byte.

    The library's own limits are 10 s to connect and between two reads (constants.DEFAULT_DOWNLOAD_TIMEOUT) and five
    retries (_http_backoff_base): a read may take longer here, because a hub that is only slow should win.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    tries: int = 5
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    # A hub that wants us away for longer than this gets an error in its words.
    retry_after_max_s: float = 600.0
    # Without a byte for so long, Xet is switched off for the rest of the run.
    xet_stall_s: float = 30.0
    # Ollama itself tries a part again that got nothing for 30 s (its server/download.go): this leaves it three tries.
    ollama_stall_s: float = 120.0
    # For Ollama's server to listen, without a model.
    ollama_start_s: float = 60.0
    # For another process that brings the same model.
    lock_s: float = 7 * 24 * 3600.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One model, and the folder it belongs in.

    From a hub or a mirror (``repo``), from a folder of this machine (``source``), or from plain URLs (``extra_files``
    alone, or beside one of the others). ``token_file`` names a file: the token itself is never in a request. ``uid``
    and ``gid`` own what is brought; -1 leaves the owner as it is. ``reserve_bytes`` stay free on the disk.

    From Ollama's registry: ``ollama`` is its tag, ``folder`` the store that it shares with others, ``image`` the one to
    run Ollama from. With ``refresh``, Ollama is asked whether the tag moved also where it is in the store. ``names``
    are those that engines gave it.
    """

    folder: str
    repo: str = ""
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    extra_files: tuple[ExtraFile, ...] = ()
    source: str = ""
    ollama: str = ""
    image: str = ""
    names: tuple[str, ...] = ()
    refresh: bool = False
    endpoint: str = HUB
    token_file: str = ""
    offline: bool = False
    uid: int = -1
    gid: int = -1
    reserve_bytes: int = 10 * 10**9
    workers: int = 8
    xet: bool = True
    patience: Patience = Patience()

    @property
    def name(self) -> str:
        """As a person calls it: family and name, or Ollama's tag."""
        return self.ollama or "/".join(PurePosixPath(self.folder).parts[-2:])


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or would be.

    ``files`` and ``bytes_total`` are of the whole model, ``bytes_fetched`` came over the network (foretold: would
    come), ``rate`` is bytes a second of what was fetched, ``freed`` bytes. ``fetched`` names the files that were
    missing or wrong, ``kept`` what was left though it was asked to go. ``verified`` is false where a folder had to be
    taken as it is: offline, and without a manifest. ``unnamed`` counts blobs of Ollama's store that no model needs.
    """

    changed: bool
    commit: str = ""
    files: int = 0
    bytes_total: int = 0
    bytes_fetched: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    freed: int = 0
    fetched: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    verified: bool = True
    unnamed: int = 0
