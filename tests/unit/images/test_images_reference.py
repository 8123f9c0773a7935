# SPDX-License-Identifier: Apache-2.0
"""hearth.images.reference: what a reference names, as Docker reads it."""

from __future__ import annotations

import pytest

from hearth.images.reference import parse

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("vllm/vllm-openai:v0.28.0", "docker.io", "vllm/vllm-openai", "v0.28.0"),
        ("ollama", "docker.io", "library/ollama", "latest"),
        ("docker.io/ollama/ollama:1", "docker.io", "ollama/ollama", "1"),
        ("index.docker.io/ollama/ollama:1", "docker.io", "ollama/ollama", "1"),
        ("nvcr.io/nvidia/vllm:26.09-py3", "nvcr.io", "nvidia/vllm", "26.09-py3"),
        ("ghcr.io/ggml-org/llama.cpp:server", "ghcr.io", "ggml-org/llama.cpp", "server"),
        ("localhost/hearth/vllm:1", "localhost", "hearth/vllm", "1"),
        ("registry:5000/x/y", "registry:5000", "x/y", "latest"),
        ("127.0.0.1:5000/y:1", "127.0.0.1:5000", "y", "1"),
    ],
)
def test_registry_repository_and_tag(text: str, registry: str, repository: str, tag: str) -> None:
    found = parse(text)

    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, "")


def test_docker_io_answers_elsewhere() -> None:
    assert parse("ollama/ollama").host == "registry-1.docker.io"
    assert parse("nvcr.io/nvidia/vllm").host == "nvcr.io"


def test_a_digest_of_its_own_counts_more_than_one_beside_it() -> None:
    assert parse(f"x/y:1@{DIGEST}", "sha256:other").digest == DIGEST
    assert parse("x/y:1", DIGEST).digest == DIGEST


def test_a_person_calls_it_by_what_was_written() -> None:
    assert parse("ollama:1").words == "ollama:1"
    assert parse("nvcr.io/nvidia/vllm:26.09-py3").words == "nvcr.io/nvidia/vllm:26.09-py3"
    assert parse("nvcr.io/nvidia/vllm:26.09-py3", DIGEST).words == f"nvcr.io/nvidia/vllm@{DIGEST}"
