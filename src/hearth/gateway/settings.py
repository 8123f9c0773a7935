# SPDX-License-Identifier: Apache-2.0
"""What the gateway is told: /etc/hearth/gateway.json, written by the role ``gateway``. Read once, at its start."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import msgspec

from hearth import contract
from hearth.errors import SettingsError
from hearth.gateway import keys
from hearth.gateway.scheduler.spec import Policy

PATH = Path("/etc/hearth/gateway.json")
# Where systemd puts what LoadCredential= of the unit names (systemd.exec(5), Credentials).
_CREDENTIALS = "CREDENTIALS_DIRECTORY"

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings. Times are in seconds.

    ``listen`` is an IP address and a port; systemd listens there for us, and only where it does not, we do. ``open``:
    no key is asked for, which only the box's own loopback may be. ``default_model`` is for requests that name none;
    empty: they are refused. ``wait_s``: how long a request that is not streamed waits for its model to load, unless it
    says so itself (``Prefer: wait=N``), before it is told to come again; 0: until the model is there, however long its
    client stays. ``keepalive_s``: how often a streaming client hears of the load. ``stop_s``: how long streams under
    way may go on when the gateway stops.

    ``tls_cert`` and ``tls_key`` (both or neither), ``engines``, ``keys`` and ``admin_socket`` are paths; see ``file``
    for those that are not absolute.
    """

    listen: tuple[str, Port] = ("0.0.0.0", 8009)  # noqa: S104 - the one listener of the box on its network
    open: bool = False
    default_model: str = ""
    # Longer than any context is: a hundred pictures of a megabyte.
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1)] = 100_000_000
    wait_s: Seconds = 0.0
    keepalive_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    stop_s: Seconds = 120.0
    tls_cert: str = ""
    tls_key: str = ""
    engines: str = str(contract.PATH)
    keys: str = str(keys.PATH)
    admin_socket: str = "/run/hearth/gateway.sock"
    scheduling: Policy = Policy()

    def __post_init__(self) -> None:
        """Refuse what the types do not; msgspec makes its own error of a ValueError."""
        host = ipaddress.ip_address(self.listen[0])
        if self.open and not host.is_loopback:
            raise ValueError(f"open: without keys it listens on a loopback address only, not on {host}")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key: one is given and the other is not")
        wrong = [name for name, value in msgspec.structs.asdict(self.scheduling).items() if value < 0]
        if wrong:
            raise ValueError(f"scheduling.{wrong[0]}: must not be less than 0")

    @property
    def is_tls(self) -> bool:
        """Whether it speaks TLS."""
        return bool(self.tls_cert)


def load(path: Path = PATH) -> Settings:
    """Read the settings. Raises SettingsError where they are missing, unreadable, or cannot be had."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing: run site.yml against this box first") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}): it is for root and the group hearth") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} is not valid ({error}): correct the variables of the role gateway and run site.yml"
        ) from None


def file(name: str) -> Path:
    """The file that a setting names: an absolute path, or the name of a credential that systemd gives the gateway.

    Raises SettingsError for a name where systemd gives nothing.
    """
    path = Path(name)
    if path.is_absolute():
        return path
    folder = os.environ.get(_CREDENTIALS, "")
    if not folder:
        raise SettingsError(f"{name} is the name of a credential, and systemd gave none: start hearth-gateway.service")
    return Path(folder, name)
