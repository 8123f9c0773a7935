# SPDX-License-Identifier: Apache-2.0
"""What is asked of the role hardening, checked and turned into lines of files. Pure.

PRIVATE to the collection.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

# sshd(8), AUTHORIZED_KEYS FILE FORMAT, without DSA and certificates.
_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# As adduser(8) wants names of users, and no longer than utmp has room for.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.@:-]{1,15}\*?")
_PROTOCOLS = ("tcp", "udp")
_MOST_PORT = 65535
# Blocks, other files, and another place to listen at, which the firewall and the login as a proof would not know of.
_NOT_HERE = ("match", "include", "port", "listenaddress")


def key_refusal(line: str) -> str:
    """Why this is no public key on one line; empty where it is one. Options before it are refused: Hearth's hold."""
    if "PRIVATE KEY" in line:
        return "is a private key: give the line of the .pub file"
    words = line.split()
    if len(words) < 2 or "\n" in line.strip():
        return "is no line of a .pub file"
    kind, blob = words[:2]
    if kind not in _TYPES:
        return f"begins with {kind[:40]}, and a public key begins with its type ({', '.join(_TYPES)})"
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return "has a middle part that is not base64: a part of it is missing"
    length = int.from_bytes(raw[:4], "big")
    if raw[4 : 4 + length] != kind.encode() or len(raw) <= 4 + length:
        return f"says {kind}, and its middle part is another's or cut short"
    return ""


def key_lines(keys: Sequence[str], port: int) -> list[str]:
    """Lines of an authorized_keys file: each key may forward to the gateway's port, and nothing else."""
    may = f'restrict,port-forwarding,permitopen="127.0.0.1:{port}",permitopen="localhost:{port}"'
    return [f"{may} {' '.join(key.split())}" for key in keys]


def allow_refusal(rule: Any) -> str:
    """Why this is no rule of hardening_firewall_allow; empty where it is one."""
    if not isinstance(rule, Mapping) or not rule or set(rule) - {"port", "from", "proto"}:
        return "must have port, from, or both, and may have proto"
    if "port" not in rule and "from" not in rule:
        return "must say a port, or from where"
    port = str(rule.get("port", 1))
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?", port) or not all(1 <= int(one) <= _MOST_PORT for one in port.split("-")):
        return f"port must be from 1 to {_MOST_PORT}, or two with a dash between, is {port}"
    if rule.get("proto", "tcp") not in _PROTOCOLS:
        return f"proto must be tcp or udp, is {rule['proto']}"
    try:
        ipaddress.ip_network(str(rule.get("from", "::/0")))
    except ValueError as error:
        return f"from must be an address or a network such as 192.168.1.0/24 ({error})"
    return ""


def allow_lines(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rules of nftables for what else may come in."""
    lines = []
    for rule in rules:
        words = []
        if "from" in rule:
            network = ipaddress.ip_network(str(rule["from"]))
            words.append(f"{'ip' if network.version == 4 else 'ip6'} saddr {network}")
        if "port" in rule:
            words.append(f"{rule.get('proto', 'tcp')} dport {rule['port']}")
        lines.append(" ".join([*words, "accept"]))
    return lines


def plan(
    keys: Sequence[str],
    *,
    user: str,
    port: int,
    allow: Sequence[Any],
    inside: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """``refused``: sentences; and, where there are none, the lines for keys and firewall."""
    refused = [
        f"hardening_tunnel_keys: key {n} {why}" for n, key in enumerate(keys, 1) if (why := key_refusal(str(key)))
    ]
    if not _USER.fullmatch(user) or user in ("root", "hearth"):
        refused.append(f"hardening_tunnel_user: {user!r} is no name for a user of its own: choose one such as tunnel")
    refused += [
        f"hardening_firewall_allow: rule {n} {why}" for n, rule in enumerate(allow, 1) if (why := allow_refusal(rule))
    ]
    refused += [
        f"hardening_firewall_inside: {name!r} is no name of an interface"
        for name in inside
        if not _INTERFACE.fullmatch(name)
    ]
    refused += [
        f"hardening_ssh_settings: {word!r} is no keyword of sshd's that can be set here, or its value has a line break"
        for word, value in settings.items()
        if not re.fullmatch(r"[A-Za-z0-9]+", str(word)) or str(word).lower() in _NOT_HERE or "\n" in str(value)
    ]
    if refused:
        return {"refused": refused, "keys": [], "allow": []}
    return {"refused": [], "keys": key_lines(keys, port), "allow": allow_lines(allow)}
