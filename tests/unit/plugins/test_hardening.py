# SPDX-License-Identifier: Apache-2.0
"""What is asked of the role hardening, and what it becomes in files."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.hearth.spark.plugins.module_utils import _hardening


def key(kind: str = "ssh-ed25519", inside: str = "") -> str:
    """A public key of this type, as in a .pub file; ``inside`` is another type for its middle part."""
    name = (inside or kind).encode()
    blob = len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes(32)
    return f"{kind} {base64.b64encode(blob).decode()} guest@laptop"


def plan(*keys: str, **more: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"user": "tunnel", "port": 8009, "allow": [], "inside": ["docker0", "br-*"], "settings": {}}
    return _hardening.plan(keys, **{**asked, **more})


def test_a_key_may_forward_to_the_gateway_and_nothing_else() -> None:
    (line,) = plan(key())["keys"]

    assert line.startswith(
        'restrict,port-forwarding,permitopen="127.0.0.1:8009",permitopen="localhost:8009" ssh-ed25519 '
    )
    assert line.endswith(" guest@laptop")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "is a private key"),
        ("ssh-ed25519", "is no line of a .pub file"),
        (f"{key()}\n{key()}", "is no line of a .pub file"),
        (f'command="sh" {key()}', "begins with command"),
        (key("ssh-dss"), "begins with ssh-dss"),
        ("ssh-ed25519 AAAA*", "is not base64"),
        (key("ssh-rsa", inside="ssh-ed25519"), "is another's or cut short"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "is another's or cut short"),
    ],
)
def test_what_is_no_public_key_is_refused_with_its_place(text: str, words: str) -> None:
    (sentence,) = plan(key(), text)["refused"]

    assert sentence.startswith("hardening_tunnel_keys: key 2 ")
    assert words in sentence


@pytest.mark.parametrize("name", ["root", "hearth", "Tunnel", "a b", "", "x" * 33])
def test_the_user_is_one_of_its_own(name: str) -> None:
    assert "is no name for a user of its own" in plan(user=name)["refused"][0]


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ({"port": 12000}, "tcp dport 12000 accept"),
        ({"port": "5000-5010", "proto": "udp"}, "udp dport 5000-5010 accept"),
        ({"from": "10.20.0.0/16"}, "ip saddr 10.20.0.0/16 accept"),
        ({"from": "fd00::/8", "port": 22}, "ip6 saddr fd00::/8 tcp dport 22 accept"),
    ],
)
def test_what_else_may_come_in(rule: dict[str, Any], line: str) -> None:
    assert plan(allow=[rule])["allow"] == [line]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("22", "must have port, from, or both"),
        ({}, "must have port, from, or both"),
        ({"prot": 1}, "must have port, from, or both"),
        ({"proto": "tcp"}, "must say a port"),
        ({"port": 0}, "port must be from 1"),
        ({"port": 65536}, "port must be from 1"),
        ({"port": "22; accept"}, "port must be from 1"),
        ({"port": 1, "proto": "icmp"}, "proto must be tcp or udp"),
        ({"from": "home"}, "from must be an address"),
        ({"from": "192.168.1.7/24"}, "from must be an address"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule: Any, words: str) -> None:
    (sentence,) = plan(allow=[rule])["refused"]

    assert sentence.startswith("hardening_firewall_allow: rule 1 ")
    assert words in sentence


@pytest.mark.parametrize(
    "settings", [{"Match": "all"}, {"Include": "/x"}, {"a b": 1}, {"Banner": "none\nPort 2"}, {"port": 2222}]
)
def test_a_setting_of_sshd_is_one_word_and_one_line(settings: dict[str, Any]) -> None:
    assert "hardening_ssh_settings: " in plan(settings=settings)["refused"][0]


def test_an_interface_is_a_name() -> None:
    assert plan(inside=['x" accept; #'])["refused"] == [
        "hardening_firewall_inside: 'x\" accept; #' is no name of an interface"
    ]
