# SPDX-License-Identifier: Apache-2.0
"""The names of Ollama's models, as types/model/name.go of Ollama reads them."""

from __future__ import annotations

# Of tags that name no registry.
REGISTRY = "registry.ollama.ai"


def full_name(name: str) -> str:
    """The name as Ollama lists it: without what it takes for granted, and with the tag."""
    short = name.removeprefix(f"{REGISTRY}/").removeprefix("library/")
    return (short if ":" in short.rpartition("/")[2] else f"{short}:latest").casefold()


def registry_of(name: str) -> str:
    """Where a model comes from: host/namespace/model names its host."""
    parts = name.split("/")
    return parts[0] if len(parts) == 3 else REGISTRY
