# SPDX-License-Identifier: Apache-2.0
"""After site.yml built what of the recipes of the catalog needs no CUDA."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

RECIPES = ("vllm-sm121", "vllm-mxfp4")


@pytest.fixture(params=RECIPES)
def ref(request: pytest.FixtureRequest, rows: dict[str, dict[str, Any]]) -> str:
    """Return the name of the image that a recipe made."""
    (name,) = (name for name in rows if name.startswith(f"localhost/hearth/{request.param}:"))
    return name


def test_it_was_built_by_the_recipe_that_its_name_says(host: Host, ref: str, rows: dict[str, dict[str, Any]]) -> None:
    mark = host.check_output("docker image inspect --format '{{index .Config.Labels \"dev.hearth.recipe\"}}' %s", ref)

    assert rows[ref]["how"] == "built"
    assert mark.startswith(ref.rpartition(":")[2])


def test_the_sources_are_those_that_the_recipe_names(host: Host, ref: str) -> None:
    recipe = host.check_output("ls -d /var/lib/hearth/recipes/%s/*", ref.rpartition("/")[2].partition(":")[0])
    wanted = host.check_output("grep '^vllm ' %s/sources.txt", recipe).split()[2]

    assert host.check_output("docker run --rm --entrypoint git %s -C /src/vllm rev-parse HEAD", ref) == wanted


def test_encodings_and_packages_are_for_everybody(host: Host, ref: str) -> None:
    run = f"docker run --rm --user 4711 --entrypoint sh {ref} -c"

    assert host.check_output(f"{run} 'cat /opt/tiktoken/*'") == "cl100k of the lab\no200k of the lab"
    package = host.check_output(f"{run} 'python3 -c \"import packaging; print(packaging.__file__)\"'")
    assert package.startswith("/opt/venv/")
